"""What is routed by other programs is found wherever it lies; a repair deletes no paper's chunks, passes nothing that was refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from osembed.collection import Collection
from osembed.errors import MissingError, UnsettledError
from osembed.migrate.proof import integrity
from osembed.migrate.proof import repair as repairs
from osembed.opensearch import patience, scan
from osembed.opensearch.bulk import BulkLoop
from osembed.opensearch.coordination.journal import Journal
from tests.conftest import paper, run
from tests.oracle import everything

pytestmark = pytest.mark.usefixtures("known_models")


@pytest.fixture
def spread(collection, small, write) -> Collection:
    """Eight papers over three shards."""
    collection.ingest(write([paper(n, 200) for n in range(8)]), replace(small, shards=3))
    return collection


def reroute(client, index, key) -> str:
    """Write a document again as a program would that routes: on another shard than its id says. Return the routing."""
    found = client.get(index=index, id=key)["_source"]
    client.delete(index=index, id=key, refresh=True)
    for routing in map(str, range(50)):
        client.index(index=index, id=key, routing=routing, body=found, refresh=True)
        try:
            client.get(index=index, id=key)
        except MissingError:
            return routing
        client.delete(index=index, id=key, routing=routing, refresh=True)
    raise AssertionError("every routing leads to the shard of the id")


def faults(collection) -> dict[str, str]:
    targets = collection._searcher.resolve()
    return dict(integrity.find_faults(collection.client, targets["papers"].index, targets["chunks"].index))


def count(client, index, **query) -> int:
    client.indices.refresh(index=index)
    return client.count(index=index, body={"query": query or {"match_all": {}}})["count"]


def age(client, index) -> None:
    """Make all chunks an hour older than a repair would spare."""
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    script = {"source": "ctx._source.ingested_at = params.past", "params": {"past": past}}
    client.update_by_query(index=index, body={"script": script}, refresh=True)


def test_a_routed_papers_chunks_are_no_orphans(spread, client):
    """A paper on another shard than its id says is found: nothing is deleted, nothing is wrong."""
    chunks = f"{spread.name}-chunks"
    for key in ("p1", "p2", "p3"):
        reroute(client, spread.name, key)
    reroute(client, chunks, "p4#0")
    age(client, chunks)
    before = count(client, chunks)
    done = spread.repair()
    assert (done.orphans, count(client, chunks)) == (0, before)
    assert done.refused == {}
    report = spread.verify(full=True)
    assert report.passed, [check for check in report.checks if check.verdict == "failed"]


def test_a_paper_without_its_id_as_a_field_is_found(spread, client):
    """Other programs may leave `paper_id` out of the papers; what counts is the document's id."""
    client.update(index=spread.name, id="p1", body={"script": {"source": "ctx._source.remove('paper_id')"}})
    reroute(client, spread.name, "p1")
    assert faults(spread) == {}


def test_a_routed_paper_is_ingested_in_its_place(spread, client, write):
    """A changed record updates the routed document and its routed chunk; no second one appears on the shard of the id."""
    chunks, before = f"{spread.name}-chunks", count(client, spread.name)
    routing, chunk = reroute(client, spread.name, "p1"), reroute(client, f"{spread.name}-chunks", "p1#0")
    held = count(client, chunks)
    assert spread.ingest(write([paper(1, 200)])).unchanged == 1
    assert spread.ingest(write([paper(1, 200, year=1999)])).indexed == 1
    assert (count(client, spread.name), count(client, chunks)) == (before, held)
    assert client.get(index=spread.name, id="p1", routing=routing)["_source"]["meta"]["year"] == 1999
    assert client.get(index=chunks, id="p1#0", routing=chunk)["_source"]["meta"]["year"] == 1999
    assert spread.ingest(write([{"id": "p1", "title": "Short", "text": "few words " * 60}])).indexed == 1
    assert spread.verify(full=True).passed


def test_a_routed_paper_is_deleted_and_shown_as_any_other(spread, client):
    """Its delete says that it was there, and takes its chunks along, routed ones too; `similar` finds it."""
    reroute(client, spread.name, "p1")
    reroute(client, f"{spread.name}-chunks", "p1#0")
    assert spread.similar("p1").hits
    assert spread.delete(["p1", "nobody"]) == {"p1": True, "nobody": False}
    assert count(client, spread.name, ids={"values": ["p1"]}) == 0
    assert count(client, f"{spread.name}-chunks", term={"paper_id": "p1"}) == 0


def test_a_paper_that_stands_twice_is_named_and_deleted_twice(spread, client):
    """One id on two shards, by a program that routes: verification says so, a delete removes both."""
    found = client.get(index=spread.name, id="p1")["_source"]
    reroute(client, spread.name, "p1")
    client.index(index=spread.name, id="p1", body=found, refresh=True)
    assert faults(spread)["p1"].startswith("2 documents share this id")
    assert spread.delete("p1") == {"p1": True}
    assert count(client, spread.name, ids={"values": ["p1"]}) == 0


def test_a_paper_without_chunks_is_found_beside_one_with_too_many(spread, client):
    """One paper counts none and has some, another counts some and has none: both are named."""
    client.update(index=spread.name, id="p1", body={"doc": {"chunk_count": 0}}, refresh=True)
    client.delete_by_query(index=f"{spread.name}-chunks", body={"query": {"term": {"paper_id": "p2"}}}, refresh=True)
    assert set(faults(spread)) == {"p1", "p2"}


def test_all_orphans_are_deleted_however_many(spread, client):
    """More chunks than one search returns; those that were written with a routing go, too; young ones stay and are counted."""
    chunks, now = f"{spread.name}-chunks", datetime.now(UTC).isoformat()
    lines: list[dict] = []
    for number in range(10_040):
        routed = {"routing": str(number)} if number % 2 else {}
        lines += [{"index": {"_id": f"gone#{number}", **routed}}, {"paper_id": "gone", "text": "Left."}]
    client.bulk(index=chunks, body=b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines))
    client.index(index=chunks, id="gone#young", body={"paper_id": "gone", "text": "Just written.", "ingested_at": now}, refresh=True)
    resolved = spread._searcher.resolve()
    loop, done = BulkLoop(client), repairs.Repair()
    repairs._orphans(client, resolved, loop, done)
    loop.close()
    assert (done.orphans, done.young) == (10_040, 1)
    assert count(client, chunks, term={"paper_id": "gone"}) == 1


def test_a_paper_that_was_written_meanwhile_keeps_its_chunks(spread, client, monkeypatch):
    """Between counting and deleting an ingest commits the paper: its chunks, old as they look, stay."""
    chunks, genuine = f"{spread.name}-chunks", integrity.find_faults
    client.index(index=chunks, id="late#0", body={"paper_id": "late", "text": "Written first."}, refresh=True)

    def counted(*given):
        found = list(genuine(*given))
        client.index(index=spread.name, id="late", body={"title": "Late", "body": "Written last.", "chunk_count": 1})
        return found

    monkeypatch.setattr(integrity, "find_faults", counted)
    assert spread.repair().orphans == 0
    assert count(client, chunks, ids={"values": ["late#0"]}) == 1


def refuse(client, index, name) -> None:
    """Let the server refuse every write to an index in which `source` is no number."""
    step = {"convert": {"field": "source", "type": "integer", "target_field": "word_count", "ignore_missing": True}}
    client.ingest.put_pipeline(id=name, body={"processors": [step]})
    client.indices.put_settings(index=index, body={"index.default_pipeline": name})


def test_what_the_server_refuses_is_named_and_tried_again(spread, client, url):
    """A refused document is neither counted as mended nor forgotten: named, exit code 4, and mended once the cause is gone."""
    client.index(index=spread.name, id="odd", body={"title": "Odd", "body": "By others.", "source": "no number"}, refresh=True)
    client.index(index=spread.name, id="own", body={"title": "Own", "body": "By others.", "source": "7"}, refresh=True)
    refuse(client, spread.name, spread.name)
    try:
        done = spread.repair()
        assert (done.embedded, list(done.refused)) == (1, ["papers/odd"])
        again = run("verify", "--repair", "--collection", spread.name, "--url", url)
        assert (again.returncode, "not repaired 1 documents" in again.stdout, "papers/odd" in again.stdout) == (4, True, True), again.stderr
        assert "embedding" not in client.get(index=spread.name, id="odd")["_source"]
        client.indices.put_settings(index=spread.name, body={"index.default_pipeline": "_none"})
        after = spread.repair()
        assert (after.embedded, after.refused) == (1, {})
        assert client.get(index=spread.name, id="odd")["_source"]["embedding"]
        assert Journal(client).read(f"repair:{spread._searcher.resolve()['papers'].uuid}")["refused"] == {}
    finally:
        client.indices.put_settings(index=spread.name, body={"index.default_pipeline": "_none"})
        client.ingest.delete_pipeline(id=spread.name)


def test_a_document_that_changes_under_the_repair_is_read_again(spread, client, monkeypatch):
    """The newer version is mended, not the one that was read, and nothing of it is overwritten."""
    client.index(index=spread.name, id="own", body={"title": "Own", "body": "First."}, refresh=True)
    genuine, changed = repairs._Level._mended, [False]

    def mended(self, stale):
        found = list(genuine(self, stale))
        if not changed[0] and any(key == "own" for key, _ in found):
            changed[0] = True
            client.index(index=spread.name, id="own", body={"title": "Own", "body": "Second."})
        return found

    monkeypatch.setattr(repairs._Level, "_mended", mended)
    done = spread.repair()
    found = client.get(index=spread.name, id="own")["_source"]
    assert (found["body"], bool(found["embedding"]), done.refused) == ("Second.", True, {})


def test_a_vector_that_is_not_finite_is_refused(spread, client, monkeypatch):
    """It is named instead of sent; a search would rank it anywhere."""
    client.index(index=spread.name, id="own", body={"title": "Own", "body": "By others."}, refresh=True)
    encoder = spread._encoders.of(spread._searcher.resolve()["papers"].meta.stored_model)
    genuine = encoder.embed
    monkeypatch.setattr(encoder, "embed", lambda tokens, *rest: genuine(tokens, *rest) * float("nan"))
    assert spread.repair().refused == {"papers/own": "its vector is zero or not finite"}
    monkeypatch.setattr(encoder, "embed", genuine)
    assert spread.repair().refused == {}


def test_a_mended_chunk_counts_its_tokens(spread, client):
    """What osembed derives of a chunk is derived anew, the number of tokens too."""
    chunks = f"{spread.name}-chunks"
    stated = {key: doc["token_count"] for key, doc in everything(client, chunks)}
    client.update_by_query(index=chunks, body={"script": {"source": "ctx._source.remove('embedding')"}}, refresh=True)
    assert spread.repair().embedded == len(stated)
    assert {key: doc["token_count"] for key, doc in everything(client, chunks)} == stated


def test_a_scan_that_is_interrupted_goes_on(spread, client, monkeypatch):
    """A primary that moves in the middle of a repair: the page is read again, not a traceback."""
    client.index(index=spread.name, id="own", body={"title": "Own", "body": "By others."}, refresh=True)
    genuine, left = scan.scan, [2]

    def moved(*given, **more):
        yield from genuine(*given, **more)
        if left[0]:
            left[0] -= 1
            raise UnsettledError("Shard 0 has a new primary.")

    monkeypatch.setattr(scan, "scan", moved)
    assert (spread.repair().embedded, left[0]) == (1, 0)


def test_patience_counts_from_the_trouble(monkeypatch):
    """Long work that meets trouble late is not given up at once; trouble that does not end is."""
    clock = [0.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(patience.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("OSEMBED_PATIENCE_SECONDS", "10")
    tries = [0]

    def attempt():
        clock[0] += 100
        tries[0] += 1
        if tries[0] < 4:
            raise UnsettledError("away")
        return "done"

    assert patience.until_settled(attempt, progress=lambda: tries[0]) == "done"
    with pytest.raises(UnsettledError, match="did not recover"):
        patience.until_settled(lambda: (clock.__setitem__(0, clock[0] + 6), tries.__setitem__(0, 0), attempt()))
