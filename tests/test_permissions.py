"""Permissions on the real secured node: what each role needs is enough and no more, is known beforehand, and stops cleanly when it goes."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator

import pytest

from osembed.errors import AuthError
from osembed.listing import collections
from osembed.migrate import direction
from osembed.opensearch import permissions
from osembed.opensearch.client import connect
from osembed.opensearch.coordination.journal import Journal
from osembed.opensearch.permissions import NEEDS, ROLES, find_lack, find_lacks, left_behind
from osembed.opensearch.reads import write_blocks
from osembed.opensearch.refusals import forbidden_error
from osembed.opensearch.schema import JOURNAL, PIPELINE
from tests.conftest import dump
from tests.journeys import JOURNEYS, LEAVES, Stage, Step, environment
from tests.secured import SecuredNode, role_spec

GRANTS = [(role, scope, action) for role in ROLES for scope, actions in NEEDS[role].items() for action in actions]
FIRST_ONLY = {("cluster", "cluster:admin/search/pipeline/put"), ("journal", "indices:admin/create")}
ARTIFICIAL = {("scratch", "indices:admin/delete"), ("cluster", "cluster:monitor/main")}
LISTING = {"index_patterns": ["*"], "allowed_actions": ["indices:admin/get"]}
pytestmark = pytest.mark.usefixtures("known_models")


@pytest.fixture
def stage(secured: SecuredNode, models, tmp_path) -> Iterator[Stage]:
    """A collection's name on the secured node; what stands under it is deleted afterwards."""
    stage = Stage(secured, f"t{uuid.uuid4().hex[:10]}", models, tmp_path)
    yield stage
    for index in indexes(stage):
        secured.request("DELETE", f"/{index}")


def indexes(stage: Stage) -> set[str]:
    rows = stage.node.request("GET", f"/_cat/indices/{stage.name}*?format=json&expand_wildcards=all&h=index")[1]
    return {row["index"] for row in rows}


def filled(stage: Stage) -> dict[str, dict]:
    """Fill the collection as administrator; return its documents."""
    admin = stage.collection("admin")
    JOURNEYS["writer"][0].act(stage, admin)
    return dump(admin.client, stage.name)


def ids(stage: Stage) -> set[str]:
    """The ids of all documents as an administrator sees them."""
    return {key.rpartition("/")[2] for key in dump(stage.collection("admin").client, stage.name)}


def refusal_of(step: Step, stage: Stage, user: str) -> AuthError | None:
    """Do a step as a user; return the refusal that ends it."""
    try:
        step.act(stage, stage.collection(user))
    except AuthError as error:
        return error
    return None


def names(error: AuthError, stage: Stage, scope: str, action: str) -> bool:
    """Whether an error names an action, and the index or pattern that it is for."""
    text = str(error)
    return action in text and (scope == "cluster" or (JOURNAL if scope == "journal" else stage.name) in text)


def test_actions_with_brackets_are_read_whole():
    """`bulk[s]` is not cut at its own bracket, and several actions come apart."""
    error = forbidden_error("no permissions for [indices:data/write/bulk[s], indices:data/write/index] and User [name=ann, …]", "papers-1")
    assert error.actions == ("indices:data/write/bulk[s]", "indices:data/write/index")
    assert "'ann'" in error.found
    assert error.found.endswith("on papers-1.")


def test_without_a_security_plugin_one_request_says_so(client, server, name):
    """A server without users is asked once, and every role is complete."""
    assert not permissions.is_secured(client)
    assert not any(find_lacks(client, name, list(ROLES)).values())


@pytest.mark.parametrize("role", ROLES)
def test_a_missing_permission_is_known_before_anything_is_created(role, stage):
    """Without one permission exactly that one is missed, whichever; nothing is left behind. Each day other ones are tried."""
    if role == "reader":
        stage.node.request("PUT", f"/{stage.name}", {})  # shard actions are asked where a reader finds a shard
    Journal(connect(stage.node.access("admin"))).ensure()  # what may be done to its documents can only be asked where it is there
    before, today = indexes(stage), datetime.date.today().toordinal()
    user = stage.node.grant(role, stage.name)
    client = connect(stage.node.access(user))
    complete = find_lack(client, stage.name, role)
    assert (complete.missing, complete.unknown) == ((), ())
    tried = [grant[1:] for grant in GRANTS if grant[0] == role and grant[1:] not in FIRST_ONLY]
    for grant in tried[today % 4 :: 4]:
        stage.node.grant(role, stage.name, without=grant)
        assert find_lack(client, stage.name, role).missing == (grant,)
    assert indexes(stage) == before


def test_a_first_ingest_is_refused_before_anything_is_created(stage):
    """Without an action on shards nothing is created; the error is ready to be pasted; once it is given the same command completes."""
    grant = ("data", "indices:data/write/bulk[s]")
    first = JOURNEYS["writer"][0]
    user = stage.node.grant("writer", stage.name, without=grant)
    with pytest.raises(AuthError) as refused:
        first.act(stage, stage.collection(user))
    assert names(refused.value, stage, *grant)
    assert f'["{stage.name}", "{stage.name}-*", "staging-{stage.name}-*"]' in refused.value.hint
    assert indexes(stage) == set()
    assert stage.node.request("GET", f"/{JOURNAL}/_doc/collection:{stage.name}")[0] == 404
    stage.node.grant("writer", stage.name)
    assert first.act(stage, stage.collection(user)).indexed == 4


@pytest.mark.parametrize(
    "grant", [("data", "indices:data/write/delete"), ("journal", "indices:data/write/bulk[s]")], ids=lambda grant: grant[0]
)
def test_an_ingest_into_a_collection_is_refused_before_a_paper_is_written_in_part(grant, stage):
    """Deletes come after the new chunks, notes after both: both are asked before. Once they are given the same command completes."""
    before, changed = filled(stage), JOURNEYS["writer"][2]
    user = stage.node.grant("writer", stage.name, without=grant)
    with pytest.raises(AuthError) as refused:
        changed.act(stage, stage.collection(user))
    assert names(refused.value, stage, *grant)
    assert dump(stage.collection("admin").client, stage.name) == before
    stage.node.grant("writer", stage.name)
    assert changed.act(stage, stage.collection(user)).indexed == 4


@pytest.mark.parametrize("action", ["indices:admin/block/add", "indices:admin/block/add[s]", "indices:admin/aliases"])
def test_a_permission_that_is_missed_at_the_swap_ends_it_at_once(action, stage, monkeypatch):
    """One try, the fence lifted, the refusal itself; the same command swaps once the permission is given."""
    before = filled(stage)
    user = stage.node.grant("migrator", stage.name)
    migrate, swap = JOURNEYS["migrator"][1], JOURNEYS["migrator"][3]
    migrate.act(stage, stage.collection(user))
    tries: list[int] = []
    plain_swap = direction.swap

    def late(at):
        """Take the permission away when all was asked for."""
        tries.append(1)
        stage.node.grant("migrator", stage.name, without=("data", action))
        return plain_swap(at)

    monkeypatch.setattr(direction, "swap", late)
    with pytest.raises(AuthError) as refused:
        swap.act(stage, stage.collection(user))
    assert (len(tries), names(refused.value, stage, "data", action)) == (1, True)
    monkeypatch.setattr(direction, "swap", plain_swap)
    stage.node.grant("migrator", stage.name)
    assert dump(stage.collection("admin").client, stage.name) == before
    assert swap.act(stage, stage.collection(user)).phase == "swapped"
    assert write_blocks(stage.collection("admin").client, [stage.name, f"{stage.name}-chunks"]) == {}


def test_a_migration_is_refused_before_anything_is_created(stage):
    """plan lists what is missing, migrate refuses; nothing is created."""
    filled(stage)
    before = indexes(stage)
    user = stage.node.grant("migrator", stage.name, without="indices:admin/block/add[s]")
    plan, migrate = JOURNEYS["migrator"][:2]
    assert "indices:admin/block/add[s]" in plan.act(stage, stage.collection(user)).problems[0]
    with pytest.raises(AuthError, match="block/add"):
        migrate.act(stage, stage.collection(user))
    assert indexes(stage) == before
    assert stage.node.request("GET", f"/{JOURNAL}/_doc/migration:{stage.name}")[0] == 404


def test_doctor_says_what_a_user_may_do(stage):
    """A reader may read; what a writer and a migrator need besides is there to be pasted; what is not seen is not taken for missing."""
    filled(stage)
    checks = {check.name: check for check in stage.collection(stage.node.grant("reader", stage.name)).doctor()}
    assert (checks["reader"].verdict, checks["writer"].verdict) == ("ok", "warning")
    assert f'index_patterns: ["{stage.name}", ' in checks["writer"].advice
    assert '- "indices:data/write/index"' in checks["writer"].advice
    for name in ("search pipeline", "disk and heap", "k-NN memory"):
        assert checks[name].verdict == "warning"
        assert "not visible" in checks[name].found


def test_a_scratch_index_left_by_a_killed_process_is_known(stage, monkeypatch):
    """doctor deletes it once it is old; an index that only has such a name stays."""
    name, foreign = f"{stage.name}-scratch-0123456789ab", f"{stage.name}-scratch-ba9876543210"
    stage.node.request("PUT", f"/{name}", {"mappings": {"_meta": {"osembed_scratch": True}}})
    stage.node.request("PUT", f"/{foreign}", {})
    admin = stage.collection("admin")
    assert set(left_behind(admin.client, stage.name)) == {name}
    assert name in {row for row in indexes(stage) if admin.doctor()}
    monkeypatch.setattr("osembed.opensearch.doctor._AT_WORK_S", -1)
    assert any(name in check.found for check in admin.doctor() if check.verdict == "mended")
    assert indexes(stage) == {foreign}


@pytest.mark.parametrize("role", ROLES)
def test_each_role_is_enough(role, stage):
    """A user with exactly a role does all that the role is for."""
    if role != "writer":
        filled(stage)
    user = stage.node.grant(role, stage.name)
    for step in JOURNEYS[role]:
        step.act(stage, stage.collection(user))


def test_forbidden_collections_are_not_there_is_none(stage):
    """Who may not list indexes is told so, not that there are none. Who may, but not search them, sees that they are there, and no figures."""
    filled(stage)
    other = Stage(stage.node, f"x{stage.name}", stage.models, stage.folder)
    filled(other)
    user = stage.node.grant("reader", stage.name)
    with environment(stage.node.as_user(user)), pytest.raises(AuthError, match="cannot be listed"):
        collections()
    spec = role_spec("reader", stage.name)
    stage.node.set_role(user, {**spec, "index_permissions": [*spec["index_permissions"], LISTING]})
    said: list[str] = []
    with environment(stage.node.as_user(user)):
        found = {one.name: one for one in collections(report=said.append)}
    assert (found[stage.name].papers, found[other.name].papers) == (4, None)
    assert {one.state for one in found.values()} == {"live"}
    assert any("As far as this user can see" in text for text in said)
    other.collection("admin").drop()


@pytest.mark.slow
@pytest.mark.parametrize(("role", "scope", "action"), [grant for grant in GRANTS if grant[1:] not in ARTIFICIAL])
def test_each_permission_is_needed(role, scope, action, stage, monkeypatch):
    """Without asking before: one missing permission ends a command and is named; given back, the same command and the rest complete."""
    before = filled(stage) if role != "writer" else {}
    if (scope, action) == ("journal", "indices:admin/create"):
        stage.node.request("DELETE", f"/{JOURNAL}")
    if (scope, action) == ("cluster", "cluster:admin/search/pipeline/put"):
        stage.node.request("DELETE", f"/_search/pipeline/{PIPELINE}")
    monkeypatch.setattr(permissions, "is_secured", lambda _: False)
    user, failed = stage.node.grant(role, stage.name, without=(scope, action)), 0
    for step in JOURNEYS[role]:
        error = refusal_of(step, stage, user)
        if error:
            failed += 1
            assert names(error, stage, scope, action), error
            if role != "writer":
                there = {key.rpartition("/")[2] for key in before}
                assert {key for key in there if not key.startswith(LEAVES)} <= ids(stage) <= there
            stage.node.grant(role, stage.name)
            assert refusal_of(step, stage, user) is None
    assert failed == 1


def test_the_table_in_the_documentation_is_the_one_in_the_code():
    """docs/security.md shows each role as YAML, as the code has it."""
    from tests.conftest import ROOT

    text = (ROOT / "docs" / "security.md").read_text()
    for role in ROLES:
        assert permissions.as_yaml(f"papers-{role}", permissions.role_spec(role, "papers")) in text
