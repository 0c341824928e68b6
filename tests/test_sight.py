"""A user who sees a part takes it for the whole nowhere: real secured server, real document- and field-level security (B1, B2, B3)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from osembed.collection import Collection
from osembed.errors import AuthError, ClusterError, OsembedError
from osembed.migrate import direction
from osembed.migrate.proof.verdict import GateOptions
from osembed.opensearch import reads
from osembed.opensearch.client import connect
from tests.conftest import paper
from tests.killing import before_first
from tests.secured import SecuredNode, role_spec

pytestmark = pytest.mark.usefixtures("known_models")
GATE = {"gate": GateOptions(skip=True), "gentle": False}


class World:
    """One collection of eight papers on the secured server, and a migrator whose role can be changed."""

    def __init__(self, node: SecuredNode, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.node, self.name, self._monkeypatch = node, name, monkeypatch
        self.user = node.grant("migrator", name)

    def as_user(self, user: str) -> Collection:
        """The collection as a process of this user sees it."""
        for key, value in self.node.as_user(user).items():
            self._monkeypatch.setenv(key, value)
        return Collection(self.name)

    @property
    def admin(self) -> Collection:
        return self.as_user("admin")

    @property
    def migrator(self) -> Collection:
        return self.as_user(self.user)

    def restrict(self, **rule: Any) -> None:
        """Add `dls`, `fls` or `masked_fields` to the migrator's role, on the collection's indexes; nothing takes them away."""
        spec = role_spec("migrator", self.name)
        spec["index_permissions"][0] |= rule
        self.node.set_role(self.user, spec)

    def allow_blocks(self, *actions: str) -> None:
        """Leave the migrator just these actions on write blocks."""
        spec = role_spec("migrator", self.name)
        allowed = spec["index_permissions"][0]["allowed_actions"]
        allowed[:] = [action for action in allowed if not action.startswith("indices:admin/block")] + list(actions)
        self.node.set_role(self.user, spec)

    def contents(self) -> dict[str, tuple[int, Any]]:
        """Every document of every index of the collection as an administrator sees it: index/id → (sequence number, source)."""
        client = connect(self.node.access("admin"))
        found = {}
        for index in reads.matching(client, f"{self.name}*", "*.settings.index.uuid"):
            client.indices.refresh(index=index)
            body = {"size": 1000, "seq_no_primary_term": True}
            for hit in client.search(index=index, body=body)["hits"]["hits"]:
                found[f"{index}/{hit['_id']}"] = (hit["_seq_no"], hit["_source"])
        return found


@pytest.fixture
def world(secured: SecuredNode, small, write, monkeypatch) -> Iterator[World]:
    world = World(secured, f"t{uuid.uuid4().hex[:10]}", monkeypatch)
    world.admin.ingest(write([paper(n, venue=f"Journal {n}", year=2000 + n) for n in range(8)]), small)
    yield world
    client = connect(secured.access("admin"))
    for index in reads.matching(client, f"{world.name}*", "*.settings.index.uuid"):
        client.indices.delete(index=index)


RULES: dict[str, dict[str, Any]] = {
    "documents": {"dls": '{"bool": {"must_not": {"terms": {"paper_id": ["p1", "p2", "p3"]}}}}'},
    "fields": {"fls": ["~meta.venue"]},
    "masked": {"masked_fields": ["meta.venue"]},
    "title": {"masked_fields": ["title"]},
}


def test_a_user_who_sees_everything_is_let_through(world, write, models):
    """The whole journey under the smallest role: so the refusals below are those of the rules."""
    collection = world.migrator
    assert collection.ingest(write([paper(9, venue="New")])).indexed == 1
    assert collection.delete(["p1", "nobody"]) == {"p1": True, "nobody": False}
    assert collection.migrate(str(models.mirror), **GATE).phase == "swapped"
    assert collection.verify().passed
    assert collection.rollback(gentle=False).phase == "returned"
    assert collection.migration().abort().phase == "aborted"


@pytest.mark.parametrize("rule", list(RULES))
def test_nothing_is_concluded_from_a_part(rule, world, write, models):
    """Ingest, delete, repair, verify and migrate refuse, name the setting, and change nothing; without the rule they go on."""
    before = world.contents()
    world.restrict(**RULES[rule])
    acts: list[Callable[[Collection], Any]] = [
        lambda c: c.ingest(write([paper(n, venue=f"Journal {n}", year=2000 + n) for n in range(8)])),
        lambda c: c.delete(["p5"]),
        lambda c: c.repair(),
        lambda c: c.verify(),
        lambda c: c.migrate(str(models.mirror), **GATE),
    ]
    for act in acts:
        with pytest.raises(AuthError, match="dls" if rule == "documents" else "fls"):
            act(world.migrator)
    assert world.contents() == before
    world.restrict()
    assert world.migrator.ingest(write([paper(n, venue=f"Journal {n}", year=2000 + n) for n in range(8)])).unchanged == 8
    assert world.migrator.migrate(str(models.mirror), **GATE).phase == "swapped"


def test_the_way_back_and_the_deletion_refuse_too(world, models):
    """After a swap: a rule that hides papers stops rollback and finish; both indexes keep every document."""
    world.migrator.migrate(str(models.mirror), **GATE)
    before = world.contents()
    world.restrict(**RULES["documents"])
    for act in (lambda c: c.rollback(gentle=False), lambda c: c.migration().finish(0)):
        with pytest.raises(AuthError, match="dls"):
            act(world.migrator)
    assert world.contents() == before
    world.restrict()
    assert world.migrator.rollback(gentle=False).phase == "returned"


LATER = {"dls": '{"bool": {"must_not": {"term": {"paper_id": "p77"}}}}'}  # hides nothing until that paper is added


def test_a_rule_that_hides_nothing_yet(world, write, models):
    """A rule that will hide a paper once there is one is refused from the start."""
    world.restrict(**LATER)
    for act in (lambda c: c.ingest(write([paper(77)])), lambda c: c.migrate(str(models.mirror), **GATE)):
        with pytest.raises(AuthError, match="dls"):
            act(world.migrator)
    world.restrict()
    assert world.migrator.ingest(write([paper(77)])).indexed == 1


@pytest.mark.parametrize("moment", ["verify", "swap"])
def test_a_rule_that_comes_in_the_middle(moment, world, write, models, monkeypatch):
    """While a migration runs, a rule is set and a paper that it hides is added: no swap, before the fence or under it."""

    def limit() -> None:
        world.restrict(**LATER)
        world.node.request("PUT", f"/{world.name}/_doc/p77", {"paper_id": "p77", "title": "Study 77", "body": "of species 77"})

    before_first(monkeypatch, direction, moment, limit)
    with pytest.raises(OsembedError, match="dls"):
        world.migrator.migrate(str(models.mirror), **GATE)
    assert world.admin.migration().state.phase != "swapped"
    world.restrict()
    assert world.migrator.migrate(str(models.mirror), **GATE).phase == "swapped"
    assert world.admin.status()[0].documents == 9


def test_b2_a_block_that_the_server_did_not_complete_is_no_fence(world, models, monkeypatch):
    """Without `block/add[s]` the server answers 200 and leaves half a block: no swap; with the right the same command completes."""
    collection = world.migrator
    before_first(monkeypatch, direction, "swap", lambda: world.allow_blocks("indices:admin/block/add"))
    with pytest.raises(ClusterError, match=r"block"):
        collection.migrate(str(models.mirror), **GATE)
    assert world.admin.migration().state.phase != "swapped"
    world.allow_blocks("indices:admin/block/add*")
    assert world.migrator.migrate(str(models.mirror), **GATE).phase == "swapped"
    assert world.migrator.rollback(gentle=False).phase == "returned"
    client = connect(world.node.access("admin"))
    assert reads.write_blocks(client, [world.name, f"{world.name}-chunks"]) == {}


@pytest.mark.parametrize("filtered", [False, True])
def test_b3_an_item_that_may_not_be_read_is_not_absent(filtered, world, write):
    """Without `mget[shard]` delete and ingest stop and name the permission, also where the server leaves out what it forbids."""
    before = world.contents()
    world.node.set_forbidden_filter(filtered)
    try:
        user = world.node.grant("writer", world.name, without="indices:data/read/mget[shard]")
        for act in (lambda c: c.delete(["p1"]), lambda c: c.ingest(write([paper(1, year=1999)]))):
            with pytest.raises(AuthError, match=r"indices:data/read/mget\[shard\]"):
                act(world.as_user(user))
    finally:
        world.node.set_forbidden_filter(False)
    assert world.contents() == before


def test_forbidden_is_not_there_is_none(world, write, small):
    """A stranger to the collection, on a server that leaves out what it forbids: nothing is created beside what it cannot see."""
    user = world.node.grant("writer", f"{world.name}x")
    before = world.contents()
    world.node.set_forbidden_filter(True)
    try:
        for act in (lambda c: c.ingest(write([paper(1)]), small), lambda c: c.search("study"), lambda c: c.status()):
            with pytest.raises(AuthError, match="indices:"):
                act(world.as_user(user))
    finally:
        world.node.set_forbidden_filter(False)
    assert world.contents() == before


@pytest.mark.parametrize(("rule", "said"), [("documents", "dls"), ("text", "fls")])
def test_a_reader_searches_a_part(rule, said, world, tmp_path):
    """Searching under document- or field-level security is allowed: that is what it is for. Figures are as far as the user sees, and say so."""
    user = world.node.grant("reader", world.name)
    spec = role_spec("reader", world.name)
    spec["index_permissions"][0] |= RULES["documents"] if rule == "documents" else {"fls": ["~title"]}
    world.node.set_role(user, spec)
    found = world.as_user(user).search("study species", size=20)
    assert {hit.id for hit in found.hits} == ({"p0", "p4", "p5", "p6", "p7"} if rule == "documents" else {f"p{n}" for n in range(8)})
    told: list[str] = []
    counting = Collection(world.name, report=told.append)
    assert counting.count() == len(found.hits)
    assert any("as far as this user can see" in text for text in told)
    exported = counting.export(tmp_path / "part.jsonl")
    assert exported.papers == len(found.hits)
    assert exported.unproven
    assert world.admin.export(tmp_path / "whole.jsonl").unproven == ""
    (tmp_path / "qrels").mkdir()
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "study of species 5"}')
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\tp5\t1\n")
    assert any(said in text for text in world.as_user(user).evaluate(tmp_path).notices)
    assert said in world.as_user(user).status()[0].limits
    assert world.admin.evaluate(tmp_path).notices == ()
    assert world.admin.status()[0].limits == ""
