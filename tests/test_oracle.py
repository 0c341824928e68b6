"""Nothing lost, one space, no downtime: migrations under writers and readers that never pause, judged by the oracle.

And the oracle itself is judged: it must be content without a migration, and must catch each of six deliberately broken migrators.
"""

from __future__ import annotations

import time

import pytest

from osembed.collection import Collection
from osembed.ingest.spec import CollectionSpec
from osembed.migrate import direction
from osembed.migrate.copy import pairs
from osembed.migrate.copy.copier import Copier
from osembed.migrate.proof.verdict import GateOptions
from osembed.migrate.readiness import Announcer
from osembed.opensearch import changes, indexes, reads
from osembed.search.searcher import Searcher
from tests.oracle import Log, Oracle, second_process

UNJUDGED = GateOptions(skip=True)


pytestmark = pytest.mark.usefixtures("known_models")


def to(model) -> CollectionSpec:
    return CollectionSpec(paper_model=str(model), chunk_model=str(model))


def test_the_oracle_is_content_without_a_migration(url, name, small):
    oracle = Oracle(url, name)
    oracle.prepare(small)
    log = Log()
    oracle.logs.append(log)
    with second_process(url, name, log), oracle.running():
        ends = time.monotonic() + 60
        while time.monotonic() < ends and not (oracle.acknowledged > 50 and oracle.searches > 10 and oracle.samples > 50):
            time.sleep(0.5)
    assert oracle.acknowledged > 50
    assert oracle.searches > 10
    assert oracle.samples > 50
    oracle.reckon()


def test_migrate_roll_back_and_migrate_again_under_load(url, name, small, models):
    """There, back, and there again: the readers and writers, some in another process, never stop, and nothing is lost."""
    oracle = Oracle(url, name)
    oracle.prepare(small)
    log = Log()
    oracle.logs.append(log)
    mover = Collection(name, url)
    with second_process(url, name, log), oracle.running():
        time.sleep(1)
        there = mover.migrate(spec=to(models.mirror), gate=UNJUDGED, gentle=False)
        assert (there.phase, there.refused) == ("swapped", "")
        assert there.fence_s is not None
        assert there.fence_s < 5
        time.sleep(2)
        assert mover.rollback(gentle=False).phase == "returned"
        time.sleep(2)
        mover.migration().abort()
        assert mover.migrate(spec=to(models.mirror), gate=UNJUDGED, gentle=False).phase == "swapped"
        time.sleep(1.5)
    assert oracle.models == {"tiny-bert", "tiny-mirror"}
    assert oracle.acknowledged > 100
    oracle.reckon()
    assert mover.status()[0].model == "tiny-mirror"


def no_refresh(monkeypatch):
    """Scan what happens to be visible. (Here only writers that never refresh are at work.)"""
    monkeypatch.setattr(changes, "refresh", lambda *_: None)


def mark_before_ack(monkeypatch):
    """Move the mark, then lose the window: as a crash between the two would, if that were the order."""
    genuine, lost = Copier._write, [False]

    def write(self, window):
        if window.docs and not lost[0]:
            lost[0] = True
            window.docs.clear()
        return genuine(self, window)

    monkeypatch.setattr(Copier, "_write", write)
    monkeypatch.setattr(pairs, "compare_shard", lambda *_: pairs.Difference())


def partial_results(monkeypatch):
    """Believe answers of which a shard has dropped a part."""
    genuine, dropped = reads.search_shard, [False]

    def ask(client, index, shard, body):
        answer = genuine(client, index, shard, body)
        if len(answer["hits"]["hits"]) > 4 and not dropped[0]:
            dropped[0] = True
            del answer["hits"]["hits"][1:4]
        return answer

    monkeypatch.setattr(reads, "search_shard", ask)
    monkeypatch.setattr(pairs, "compare_shard", lambda *_: pairs.Difference())


def no_fence(monkeypatch):
    """Swap without stopping the writers. (What is not fenced needs time to show: the last request is a little late.)"""
    from osembed.migrate import swap as module

    genuine = module.actions

    def late(client, state):
        client.indices.put_settings(index=",".join(state.source(level) for level in state.moves), body={"index.blocks.write": None})
        time.sleep(1.0)
        return genuine(client, state)

    monkeypatch.setattr(module, "actions", late)


def no_delete_repair(monkeypatch):
    monkeypatch.setattr(pairs, "compare_shard", lambda *_: pairs.Difference())


def query_through_the_alias(monkeypatch):
    """Search whatever the alias points to with the model that it pointed to when it was looked up."""
    from dataclasses import replace

    genuine = Searcher.resolve

    def resolve(self):
        targets = genuine(self)
        aliased = {level: replace(target, index=name) for (level, target), name in zip(targets.items(), self._names, strict=True)}
        self._resolved = (self._resolved[0], aliased)
        return aliased

    monkeypatch.setattr(Searcher, "_names", property(lambda self: (self._collection, f"{self._collection}-chunks")), raising=False)
    monkeypatch.setattr(Searcher, "resolve", resolve)
    monkeypatch.setattr("osembed.search.searcher._RESOLVE_S", 60.0)  # else what is wrong lasts for a second at most
    monkeypatch.setattr(Announcer, "start", lambda *_: None)


# Each mutant with the complaint of the oracle that it must bring about: any other failure would prove nothing.
MUTANTS = {
    no_refresh: "is lost",
    mark_before_ack: "is lost|searching",
    partial_results: "is lost|searching",
    no_fence: "is lost|holds",
    no_delete_repair: "is back",
    query_through_the_alias: "searching",
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_oracle_catches_broken_migrators(mutant, url, name, small, models, monkeypatch):
    """Each way to be wrong that the design forbids is seen by the oracle (verification is switched off: it would see some first)."""
    oracle = Oracle(url, name, library=mutant not in (no_refresh, query_through_the_alias), refreshing=mutant is not no_refresh)
    oracle.prepare(small)
    oracle._client.indices.put_settings(index=f"{name}*", body={"index.refresh_interval": "30s"})
    monkeypatch.setattr(direction.Direction, "_verified", lambda *_: True)
    mutant(monkeypatch)
    with oracle.running():
        time.sleep(1)
        Collection(name, url).migrate(spec=to(models.mirror), gate=UNJUDGED, gentle=False)
        time.sleep(1.5)
    monkeypatch.undo()
    assert indexes.resolve(oracle._client, name)["papers"].meta.model == "tiny-mirror"
    with pytest.raises(AssertionError, match=MUTANTS[mutant]):
        oracle.reckon()
