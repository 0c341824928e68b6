"""Verification catches what it looks for: each fault is planted once. Repair mends it. The gate decides both ways."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from osembed.collection import Collection
from osembed.errors import LastingError
from osembed.evaluate.significance import lower_bound, overlap, randomisation_p, rank_biased_overlap
from osembed.migrate.proof.verdict import GateOptions
from osembed.opensearch import scan
from tests.conftest import EXAMPLES, paper
from tests.oracle import contents
from tests.proxy import Fault

UNJUDGED = GateOptions(skip=True)


pytestmark = pytest.mark.usefixtures("known_models")


@pytest.fixture
def ready(collection, small, write, models):
    """A migration that is ready for its swap."""
    collection.ingest(write([paper(n, 200) for n in range(8)]), small)
    collection.migrate(str(models.mirror), swap=False, gate=UNJUDGED, gentle=False)
    assert collection.verify().passed
    return collection


PLANTED = {
    "ids and origins": lambda client, green: client.delete(index=green, id="p1"),
    "fields": lambda client, green: client.update(index=green, id="p1", body={"doc": {"word_count": 7}}),
    "versions": lambda client, green: client.update(index=green, id="p1", body={"doc": {"word_count": 7}}),
    "text hashes": lambda client, green: client.update(index=green, id="p1", body={"doc": {"title": "Another title"}}),
    "vectors": lambda client, green: client.update(index=green, id="p1", body={"doc": {"embedding": [32**-0.5] * 32}}),
    "norms": lambda client, green: client.update(index=green, id="p1", body={"doc": {"embedding": [0.5] * 32}}),
    "identities": lambda client, green: client.update(index=green, id="p1", body={"doc": {"identity": "another"}}),
    "chunks and papers": lambda client, green: client.delete(index=green, id="p1"),
}


@pytest.mark.parametrize("check", PLANTED)
def test_each_check_catches_its_fault(check, ready, client):
    """A fault planted in the new index is found by the check of its name, and vetoes."""
    PLANTED[check](client, ready.migration().state.moves["papers"].green)
    report = ready.verify(full=True)
    assert check in {done.name for done in report.checks if done.verdict == "failed"}
    assert not report.passed


def test_a_stray_in_the_new_index_is_caught(ready, client):
    """A document that nobody copied is a difference too."""
    client.index(index=ready.migration().state.moves["papers"].green, id="stray", body={"title": "x"}, refresh=True)
    assert "ids and origins" in {check.name for check in ready.verify().checks if check.verdict == "failed"}


def test_a_paper_deleted_while_it_was_copied_is_no_fault(ready, client):
    """Its chunks were copied before, the paper itself was not: the delete is still to be repeated, and nothing vetoes the swap."""
    green = ready.migration().state.moves["papers"].green
    assert ready.delete("p1") == {"p1": True}
    client.delete(index=green, id="p1", refresh=True)
    report = ready.verify()
    assert report.passed, [check for check in report.checks if check.verdict == "failed"]
    assert ready.swap(gate=UNJUDGED, gentle=False).phase == "swapped"
    assert not [key for key in contents(client, ready.name) if "p1" in key]


def test_what_the_old_index_had_is_inherited(collection, small, write, models, client):
    """An orphaned chunk of the old index is copied, reported as inherited, and does not stop the swap."""
    collection.ingest(write([paper(n, 200) for n in range(4)]), small)
    client.delete(index=collection.name, id="p2", refresh=True)
    done = collection.migrate(str(models.mirror), gate=UNJUDGED, gentle=False)
    assert done.phase == "swapped"
    assert "inherited" in {check.verdict for check in done.report.checks}


def test_repair_mends_what_others_left(collection, small, write, client):
    """No vector, a stale one, orphaned chunks without a date: mended once, and the next run looks at nothing old."""
    collection.ingest(write([paper(n, 200) for n in range(4)]), small)
    client.index(index=collection.name, id="own", body={"title": "Own", "body": "By others."})
    client.update(index=collection.name, id="p1", body={"doc": {"title": "A new title"}})
    client.index(index=f"{collection.name}-chunks", id="gone#0", body={"paper_id": "gone", "text": "Left behind."}, refresh=True)
    assert not collection.verify(full=True).passed
    mended = collection.repair()
    assert (mended.embedded >= 2, mended.orphans) == (True, 1)
    assert client.get(index=collection.name, id="own")["_source"]["embedding"]
    checks = {check.name: check.verdict for check in collection.verify(full=True).checks}
    assert (checks["text hashes"], checks["vectors"]) == ("passed", "passed")
    again = collection.repair()
    assert (again.embedded, again.looked_at < mended.looked_at) == (0, True)


def test_a_check_that_looked_at_nothing_has_not_passed(ready, monkeypatch):
    """A sample that comes back empty while the index has documents fails each of its checks."""
    monkeypatch.setattr(scan, "sample", lambda *_: iter(()))
    report = ready.verify()
    assert not report.passed
    failed = {(check.name, check.level) for check in report.checks if check.verdict == "failed"}
    names = ("versions", "fields", "text hashes", "vectors", "norms", "recall@10")
    assert failed == {(name, level) for name in names for level in ("papers", "chunks")}


def test_a_migration_that_has_not_copied_yet_is_not_verified(ready):
    """Without marks no shard is compared: that is no agreement."""
    migration = ready.migration()
    ready.migration()._journal.change(
        f"migration:{ready.name}",
        lambda state: {**state, "moves": {level: {**move, "marks": {}} for level, move in state["moves"].items()}},
    )
    assert "ids and origins" in {check.name for check in migration.verify().checks if check.verdict == "failed"}


def test_a_shard_that_does_not_confirm_its_writes_is_named(collection, small, write, models, proxy, name, monkeypatch):
    """For a moment: waited for. For good: verification and migration end with its name, and do not pass for having been shown nothing."""
    collection.ingest(write([paper(n, 200) for n in range(4)]), small)
    monkeypatch.setenv("OSEMBED_PATIENCE_SECONDS", "3")
    left = [4]

    def unconfirmed(answer: bytes) -> bytes:
        return re.sub(rb'"global_checkpoint":\d+', b'"global_checkpoint":-1', answer)

    def rule(request):
        if "_stats" not in request.path or not left[0]:
            return None
        left[0] -= 1
        return Fault("rewrite", rewrite=unconfirmed)

    proxy.rules.append(rule)
    behind = Collection(name, proxy.url)
    assert behind.verify(full=True).passed
    assert not left[0]
    left[0] = 10**6
    for work in (lambda: behind.verify(full=True), lambda: behind.migrate(str(models.mirror), gate=UNJUDGED, gentle=False)):
        with pytest.raises(LastingError, match=f"Shard 0 of {name}.* does not confirm all of its writes.*_cluster/reroute"):
            work()
    left[0] = 0
    assert behind.migrate(str(models.mirror), gate=UNJUDGED, gentle=False).phase == "swapped"


def test_an_empty_collection_is_said_to_be_empty(collection, small, write):
    """Nothing is wrong, and nothing is said to have passed."""
    collection.ingest(write([paper(1, 200)]), small)
    collection.delete("p1")
    report = collection.verify(full=True)
    assert report.passed
    assert {check.verdict for check in report.checks} == {"empty"}


def test_ids_are_counted_once(collection, small, write, models):
    """The documents of an index with several shards, not that many times the shards."""
    collection.ingest(write([paper(n, 200) for n in range(8)]), replace(small, shards=3))
    done = collection.migrate(str(models.mirror), gate=UNJUDGED, gentle=False)
    assert {check.checked for check in done.report.checks if (check.name, check.level) == ("ids and origins", "papers")} == {8}


def test_the_gate_passes_its_like_and_refuses_the_worse(collection, models):
    """From a model to its mirror: the same neighbours, passed. From the real model to a random one: refused, exit open for an override."""
    collection.ingest(str(EXAMPLES / "corpus.jsonl"))
    gate = GateOptions(mode="vector")
    worse = collection.migrate(str(models.bert), gate=gate, gentle=False)
    assert (worse.refused, worse.gate.verdict) == ("gate (refused)", "refused")
    assert worse.gate.worst
    few = collection.swap(gate=GateOptions(qrels=str(EXAMPLES), max_drop={"ndcg@10": 0.01}), gentle=False)
    assert few.gate.verdict == "inconclusive"
    swapped = collection.swap(gate=GateOptions(override="a test"), gentle=False)
    assert (swapped.phase, swapped.gate.verdict) == ("swapped", "refused")
    assert any("a test" in what for _, what in collection.migration().state.history)
    collection.migration().finish(0)
    assert collection.migrate(str(models.mirror), gentle=False).gate.verdict == "passed"


def test_statistics():
    """Bounds, p and overlaps at the ends of their ranges."""
    assert lower_bound([0.0] * 60) == 0.0
    assert lower_bound([-0.5] * 60) == -0.5
    assert -0.2 < lower_bound([0.5, -0.5] * 50) < 0
    assert randomisation_p([0.0] * 60) == 1.0
    assert randomisation_p([0.3] * 60) < 0.001
    assert (overlap(["a", "b"], ["b", "c"]), overlap([], [])) == (0.5, 1.0)
    same, other = [str(n) for n in range(20)], [f"x{n}" for n in range(20)]
    assert rank_biased_overlap(same, same) == pytest.approx(1.0)
    assert rank_biased_overlap(same, other) == 0.0
    assert rank_biased_overlap(same, same[::-1]) < 0.7


@pytest.mark.parametrize("full", [False, True])
def test_verification_shows_how_far_it_is(collection, small, write, full):
    """Documents checked of those that will be, as copying does: it grows to the end, with a rate and a forecast."""
    collection.ingest(write([paper(n, 200) for n in range(40)]), small)
    seen: list[tuple[int, int, float, float | None]] = []
    report = collection.verify(full=full, progress=lambda at: seen.append((at.done, at.total, at.rate, at.eta_s)))
    assert report.passed
    total = sum(row.documents for row in collection.status())
    assert [done for done, *_ in seen] == sorted(done for done, *_ in seen)
    assert (seen[0][:2], seen[-1][:2]) == ((0, total), (total, total))
    assert all(rate > 0 and left is not None for _, _, rate, left in seen[1:])


def test_a_migration_shows_its_verification(collection, small, write, models):
    """While it verifies, a migration shows that, and how far it is, to whoever watches it and in the journal."""
    collection.ingest(write([paper(n, 200) for n in range(6)]), small)
    seen: list[tuple[str, int, int]] = []
    collection.migrate(str(models.mirror), progress=lambda at: seen.append((at.phase, at.done, at.total)), gate=UNJUDGED, gentle=False)
    verifying = [(done, total) for phase, done, total in seen if phase == "verifying"]
    assert verifying[-1][0] == verifying[-1][1] == sum(row.documents for row in collection.status())
    assert any("verifying" in str(event) for event in collection.migration().state.history)
