"""A state machine: writes, deletes, bypassing writes, migrations, crashes, takeovers and theft of the alias in random order, on the real node.

A process dies here by losing the server for good at one request, in the middle of the test's own process: to the server that is kill -9, and
it takes a second instead of ten. `test_migrate_kill.py` kills real processes.
"""

from __future__ import annotations

import itertools
import threading
import uuid
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from osembed.arguments import choose_models
from osembed.collection import Collection
from osembed.errors import ClusterError, InputError, LastingError, OsembedError
from osembed.ingest.spec import CollectionSpec
from osembed.migrate.proof.verdict import GateOptions
from osembed.opensearch import indexes
from osembed.opensearch.coordination import lease as leases
from osembed.opensearch.schema import alias_name
from tests.conftest import paper
from tests.oracle import blocked, everything

OPTIONS = {"gate": GateOptions(skip=True), "gentle": False}
KEYS = st.sampled_from(["p0", "p1", "p2", "p3"])
COMMANDS = ("migrate", "prepare", "swap", "rollback", "abort", "finish")
reached: Counter[str] = Counter()


class Mortal(Collection):
    """A collection whose process dies, or sleeps, at one of its requests."""

    def __init__(self, name: str, url: str, at: int, fault: str) -> None:
        super().__init__(name, url)
        self.fired, self.woken = threading.Event(), threading.Event()
        genuine, count = self.client.transport.perform_request, itertools.count(1)

        def perform_request(*given, **named):
            number = next(count)
            if number == at or (number > at and fault != "sleep"):
                self.fired.set()
                if fault == "sleep":
                    self.woken.wait(60)
                    return genuine(*given, **named)
                if fault == "applied" and number == at:
                    with suppress(Exception):
                        genuine(*given, **named)
                raise LastingError("The process is dead.", "", "")  # the dead wait for nothing
            return genuine(*given, **named)

        self.client.transport.perform_request = perform_request


class Migrations(RuleBasedStateMachine):
    """What the collection must hold, whatever was done to it and whoever died."""

    url: str
    models: dict[str, str]
    monkeypatch: pytest.MonkeyPatch
    write: object

    def __init__(self) -> None:
        super().__init__()
        self.name = f"s{uuid.uuid4().hex[:10]}"
        self.texts: dict[str, str] = {}
        self.notes: dict[str, int] = {}
        self.number, self.owner, self.dead = itertools.count(), "", set()
        # each command of this one process enters the lease as a process of its own, so that it can die alone
        self.new_entry, self.is_dead = leases.new_entry, leases.is_surely_dead
        leases.new_entry = lambda: {**self.new_entry(), "owner": self.owner}
        leases.is_surely_dead = lambda entry: entry.get("owner") in self.dead or self.is_dead(entry)

    def teardown(self) -> None:
        leases.new_entry, leases.is_surely_dead = self.new_entry, self.is_dead
        with suppress(AttributeError):
            client = self.writers[0].client
            for index in client.indices.get(index=f"{self.name}*", params={"expand_wildcards": "all"}):
                client.indices.delete(index=index)

    @initialize()
    def begin(self) -> None:
        """Two writers, who also read, and who are never restarted."""
        self.writers = [Collection(self.name, self.url) for _ in range(2)]
        self.client = self.writers[0].client
        bert = self.models["tiny-bert"]
        self._ingest(0, ["p0", "p1", "p2"], CollectionSpec(paper_model=bert, chunk_model=bert))

    def _ingest(self, writer: int, keys: list[str], spec: CollectionSpec | None = None) -> None:
        records = []
        for key in keys:
            text = paper(f"{key}v{next(self.number)}", 150)["text"]
            records.append({"id": key, "title": key, "text": text})
            self.texts[key] = text
            self.notes.pop(key, None)
        summary = self.writers[writer].ingest(self.write(records), spec)
        assert summary.indexed == len(keys)

    @rule(writer=st.integers(0, 1), keys=st.lists(KEYS, min_size=1, max_size=3, unique=True))
    def ingest(self, writer: int, keys: list[str]) -> None:
        self._ingest(writer, keys)

    @rule(writer=st.integers(0, 1), key=KEYS)
    def delete(self, writer: int, key: str) -> None:
        assert self.writers[writer].delete(key) == {key: key in self.texts}
        self.texts.pop(key, None)
        self.notes.pop(key, None)

    @rule(key=KEYS)
    def update_past_us(self, key: str) -> None:
        """Another program changes a field of its own through the alias."""
        if key in self.texts and not blocked(self.client, self.name):
            self.notes[key] = next(self.number)
            self.client.update(index=self.name, id=key, body={"doc": {"meta": {"note": self.notes[key]}}})

    @rule(key=KEYS)
    def delete_past_us(self, key: str) -> None:
        """Another program deletes a paper with its chunks through the aliases."""
        if key in self.texts and not blocked(self.client, self.name):
            chunks = f"{self.name}-chunks"
            self.client.delete(index=self.name, id=key)
            self.client.indices.refresh(index=chunks)
            self.client.delete_by_query(index=chunks, body={"query": {"term": {"paper_id": key}}}, params={"refresh": "true"})
            del self.texts[key]
            self.notes.pop(key, None)

    @rule(command=st.sampled_from(COMMANDS))
    def command(self, command: str) -> None:
        """A command that runs to its end, or is refused because it is not its time."""
        self._run(self.writers[0], command)

    @rule(command=st.sampled_from(COMMANDS), at=st.integers(5, 150), fault=st.sampled_from(["before", "applied"]))
    def die(self, command: str, at: int, fault: str) -> None:
        """A command dies at one request; whatever comes next has to cope."""
        mortal = Mortal(self.name, self.url, at, fault)
        with suppress(ClusterError):
            self._run(mortal, command)
        if mortal.fired.is_set():
            self.dead.add(self.owner)
            reached[f"{command} died"] += 1

    @rule(command=st.sampled_from(COMMANDS), at=st.integers(5, 150), other=st.sampled_from(COMMANDS))
    def sleep(self, command: str, at: int, other: str) -> None:
        """A command is stopped with a request on its way; another takes over; awake again the first may neither write nor move an alias."""
        mortal, ended = Mortal(self.name, self.url, at, "sleep"), []
        sleeper = self._name_owner()

        def work() -> None:
            with suppress(OsembedError):
                self._do(mortal, command)
            ended.append(True)

        thread = threading.Thread(target=work)
        thread.start()
        while not mortal.fired.wait(0.05) and thread.is_alive():
            pass
        if not ended:
            held, aliases = self._holder(), self._picture()["aliases"]
            self.dead.add(sleeper)
            self._run(self.writers[1], other)
            before = self._picture()
            robbed = held == sleeper and before["aliases"] != aliases  # else the other was refused, and the first may go on
            mortal.woken.set()
            thread.join(60)
            assert not thread.is_alive()
            if robbed:
                assert self._picture() == before, f"{command}, asleep at {at}, changed something after {other}"
                reached["taken over"] += 1
        thread.join()

    def _holder(self) -> str:
        """Return which command of this test holds the lease, if any."""
        state = self.writers[0].migration().state
        return ((state and state.lease) or {}).get("owner", "")

    @rule(command=st.sampled_from(["migrate", "swap", "rollback", "finish", "abort"]), level=st.sampled_from(["papers", "chunks"]))
    def steal(self, command: str, level: str) -> None:
        """A third party moves an alias to an index of its own: no command overwrites that; put back, everything goes on."""
        alias, thief = alias_name(self.name, level), f"{self.name}-thief"
        [was] = self.client.indices.get_alias(name=alias)
        self.client.indices.create(index=thief)
        self._move(alias, was, thief)
        with suppress(OsembedError):
            self._do(self.writers[1], command)
        assert list(self.client.indices.get_alias(name=alias)) == [thief]
        self._move(alias, thief, was)
        self.client.indices.delete(index=thief)
        reached["alias stolen"] += 1

    def _move(self, alias: str, old: str, new: str) -> None:
        actions = [{"remove": {"index": old, "alias": alias}}, {"add": {"index": new, "alias": alias, "is_write_index": True}}]
        self.client.indices.update_aliases(body={"actions": actions})

    def _name_owner(self) -> str:
        self.owner = f"owner {next(self.number)}"
        return self.owner

    def _run(self, collection: Collection, command: str) -> None:
        """Run a command as a process of its own."""
        self._name_owner()
        try:
            self._do(collection, command)
            reached[command] += 1
        except InputError:
            reached[f"{command} refused"] += 1

    def _do(self, collection: Collection, command: str) -> None:
        migration = collection.migration()
        other = {"tiny-bert": "tiny-mirror", "tiny-mirror": "tiny-bert"}[self._serving()]
        state = migration.state
        target = state.models["papers"] if state and state.phase not in ("finished", "aborted") else other
        match command:
            case "migrate" | "prepare":
                migration.run(choose_models(self.models[target]), _options(swap=command == "migrate"))
            case "swap":
                migration.swap(_options())
            case "rollback":
                migration.rollback(_options())
            case "abort":
                migration.abort()
            case "finish":
                migration.finish(0)

    def _serving(self) -> str:
        targets = indexes.resolve(self.client, self.name)
        [model] = {target.meta.model for target in targets.values()}
        return model

    def _picture(self) -> dict:
        """All aliases, and every document of every index of the collection."""
        aliases = self.client.indices.get_alias(index=f"{self.name}*", params={"expand_wildcards": "all"})
        for index in aliases:
            self.client.indices.refresh(index=index)
        return {"aliases": aliases, **{index: dict(everything(self.client, index)) for index in aliases}}

    @invariant()
    def nothing_is_lost_and_one_model_serves(self) -> None:
        """I1, I2, I4: both aliases on one model, every document as it was last written, embedded by that very model."""
        targets = indexes.resolve(self.client, self.name)
        assert {target.meta.model for target in targets.values()} == {self._serving()}
        for target in targets.values():
            self.client.indices.refresh(index=target.index)
        papers = dict(everything(self.client, targets["papers"].index))
        assert {key: doc["body"] for key, doc in papers.items()} == self.texts
        assert {key: doc["meta"]["note"] for key, doc in papers.items() if "note" in doc.get("meta", {})} == self.notes
        chunks = [doc for _, doc in everything(self.client, targets["chunks"].index)]
        assert Counter(doc["paper_id"] for doc in chunks) == {key: doc["chunk_count"] for key, doc in papers.items()}
        for level, docs in (("papers", papers.values()), ("chunks", chunks)):
            assert {doc["identity"] for doc in docs} <= {targets[level].meta.identity.hash}

    @invariant()
    def readers_stay_in_one_space(self) -> None:
        """I5: a reader that was started before all this asks with the model of what it reads: a paper's own text finds it with cosine 1."""
        for reader in self.writers:
            for key in list(self.texts)[:1]:
                [hit] = reader.search(f"{key} {self.texts[key]}", mode="vector", level="papers", size=1).hits
                assert hit.score > 1.9  # OpenSearch: 1 + inner product; the mirror model's would be near 0


def _options(**changes):
    from osembed.migrate.options import MigrateOptions

    return MigrateOptions(**{**OPTIONS, **changes})


@pytest.mark.usefixtures("known_models")
@pytest.mark.parametrize(
    ("examples", "steps"),
    [(2, 12), pytest.param(60, 25, marks=pytest.mark.slow)],
)
def test_any_order_of_events(examples, steps, url, models, write):
    """Random orders of all of the above; what is reached is counted, so that the test cannot pass by doing nothing."""
    Migrations.url, Migrations.write = url, staticmethod(write)
    Migrations.models = {folder.name: str(folder) for folder in (models.bert, models.mirror)}
    reached.clear()
    health = list(HealthCheck)
    wanted = settings(max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=health, database=None)
    run_state_machine_as_test(Migrations, settings=settings(wanted, print_blob=True))
    print(dict(reached))
    assert sum(reached.values()) > 3 * examples
