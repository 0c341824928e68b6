"""The bulk loop against a real server behind a proxy that makes real faults (F11–F17, F39, F40)."""

from __future__ import annotations

import json

import pytest

from osembed.errors import AuthError, ClusterError
from osembed.opensearch import bulk, operation
from osembed.opensearch.bulk import BulkLoop
from osembed.opensearch.client import Access, connect
from tests.proxy import Fault

BREAKER = "Indexing knn vector fields is rejected as circuit breaker triggered. Check _opendistro/_knn/stats for detailed state"


@pytest.fixture
def index(client, name):
    """A plain index behind a write alias."""
    client.indices.create(
        index=name,
        body={
            "aliases": {f"{name}-w": {}},
            "settings": {"index": {"knn": True, "number_of_shards": 1, "number_of_replicas": 0}},
            "mappings": {
                "properties": {"n": {"type": "integer"}, "v": {"type": "knn_vector", "dimension": 2, "space_type": "innerproduct"}}
            },
        },
    )
    return name


@pytest.fixture
def loop(proxy):
    running = BulkLoop(connect(Access.from_environment(proxy.url)), patience_s=20)
    yield running
    running.close()


def writes(index, count=50, size=10):
    return [operation.put(f"{index}-w", f"d{n}", {"n": n, "text": "x" * size}) for n in range(count)]


def stored(client, index):
    client.indices.refresh(index=index)
    return client.count(index=index)["count"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("lost"),
        Fault("unanswered"),
        Fault("cut"),
        Fault("answer", 503, b'{"error": {"reason": "not ready"}}'),
        Fault("answer", 429, b'{"error": {"type": "rejected_execution_exception", "reason": "busy"}}'),
        Fault("answer", 200, b"<html>log in</html>", "text/html"),
        Fault("rewrite", rewrite=lambda body: json.dumps({**json.loads(body), "items": json.loads(body)["items"][:-1]}).encode()),
    ],
    ids=["lost", "unanswered", "cut", "503", "429", "html", "fewer-items"],
)
def test_whatever_happens_to_a_request_all_is_written_once(client, index, loop, proxy, fault):
    """Lost before or after the server applied it, cut, refused for now, answered by something else: sent again, counts exact."""
    proxy.once("_bulk", fault, times=2)
    outcome = loop.send(writes(index))
    assert proxy.fired == 2
    assert (outcome.done, outcome.conflicts, outcome.blocked, outcome.rejected) == (50, [], [], {})
    assert stored(client, index) == 50


def test_only_failed_items_are_sent_again(client, index, loop, proxy):
    """Items answered 429 go again alone."""

    def refuse_two(body: bytes) -> bytes:
        answer = json.loads(body)
        for item in answer["items"][:2]:
            item["index"] = {
                "_id": item["index"]["_id"],
                "status": 429,
                "error": {"type": "rejected_execution_exception", "reason": "busy"},
            }
        return json.dumps(answer).encode()

    proxy.once("_bulk", Fault("rewrite", rewrite=refuse_two))
    assert loop.send(writes(index)).done == 50
    _, second = [request for request in proxy.seen if "_bulk" in request.path]
    assert second.body.count(b"\n") == 4


def test_one_bad_document_costs_itself(client, index, loop):
    """A wrong dimension, a text for a number: rejected with the reason; the others are in (F17, F40)."""
    bad = [operation.put(f"{index}-w", "long", {"v": [1.0, 2.0, 3.0]}), operation.put(f"{index}-w", "word", {"n": "many"})]
    outcome = loop.send([*writes(index, 10), *bad])
    assert outcome.done == 10
    assert set(outcome.rejected) == {"long", "word"}
    assert "dimension" in outcome.rejected["long"].lower()


def fail_item(reason: str, cause: str) -> Fault:
    """The server takes the request, and says of its first item that it was refused."""

    def rewrite(body: bytes) -> bytes:
        answer = json.loads(body)
        item = next(iter(answer["items"][0].values()))
        error = {"type": "mapper_parsing_exception", "reason": reason, "caused_by": {"type": "x", "reason": cause}}
        answer["items"][0] = {"index": {"_id": item["_id"], "_index": item["_index"], "status": 400, "error": error}}
        return json.dumps(answer).encode()

    return Fault("rewrite", rewrite=rewrite)


def test_a_breaker_behind_a_long_quotation_is_waited_for(index, loop, proxy):
    """The refused value stands before its cause, however long it is: the cause decides."""
    proxy.once("_bulk", fail_item("failed to parse field [v], value: " + "A" * 5000, BREAKER))
    outcome = loop.send(writes(index, 3))
    assert (outcome.done, outcome.rejected, proxy.fired) == (3, {}, 1)


def test_a_paper_about_breakers_is_no_breaker(index, loop, proxy):
    """What the server quotes of a paper decides nothing."""
    proxy.once("_bulk", fail_item(f"failed to parse field [n], value: {BREAKER}", "For input string"))
    assert set(loop.send(writes(index, 3)).rejected) == {"d0"}


def test_conflicts_are_handed_back(client, index, loop):
    """create on what exists, and a write on a version that is gone: the caller decides."""
    loop.send(writes(index, 2))
    operations = [operation.create(f"{index}-w", "d0", {"n": 1}), operation.put(f"{index}-w", "d1", {"n": 1}, (999, 1))]
    assert loop.send(operations).conflicts == ["d0", "d1"]


def test_a_missing_alias_creates_nothing(client, index, loop):
    """Writes and deletes through an alias that is gone are handed back, and no index appears (F31)."""
    gone = f"{index}-gone"
    outcome = loop.send([operation.put(gone, "a", {"n": 1}), operation.create(gone, "b", {"n": 1})])
    assert outcome.blocked == ["a", "b"]
    loop.send([operation.delete(gone, "c", (0, 1))])
    assert not client.indices.exists(index=gone)


def test_deleting_what_is_gone_is_done(client, index, loop):
    """A delete that was applied before the connection was lost counts as done when it is sent again."""
    loop.send(writes(index, 1))
    found = client.get(index=index, id="d0")
    outcome = loop.send([operation.delete(f"{index}-w", "d0", (found["_seq_no"], found["_primary_term"]))])
    assert outcome.done == 1
    assert stored(client, index) == 0


def test_a_write_block_is_handed_back(client, index, loop):
    """403 by a write block is no question of rights: the caller asks where to write now."""
    client.indices.put_settings(index=index, body={"index.blocks.write": True})
    assert loop.send(writes(index, 3)).blocked == ["d0", "d1", "d2"]


def test_large_requests_are_split(client, index, proxy):
    """413 halves what is sent; requests stay below the limit (F39)."""
    proxy.rules.append(lambda request: Fault("answer", 413, b"") if len(request.body) > 300_000 else None)
    loop = BulkLoop(connect(Access.from_environment(proxy.url)), patience_s=20)
    assert loop.send(writes(index, 60, 20_000)).done == 60
    loop.close()
    assert proxy.fired > 0
    assert stored(client, index) == 60


def test_one_document_too_large_is_rejected(index, proxy, loop, monkeypatch):
    """A single document over the server's limit can never go in; it is named (F39)."""
    monkeypatch.setattr(bulk, "MAX_OPERATION", 10_000)
    outcome = loop.send([*writes(index, 2), operation.put(f"{index}-w", "giant", {"text": "x" * 20_000})])
    assert outcome.done == 2
    assert "too large" in outcome.rejected["giant"]


def test_no_rights_stop_at_once(index, loop, proxy):
    """401 and 403 by security end the run: trying again would lock the account."""
    for status, kind in ((401, "text/plain"), (403, "application/json")):
        proxy.rules = [lambda request, status=status, kind=kind: Fault("answer", status, b'{"error": {"reason": "no permissions"}}', kind)]
        with pytest.raises(AuthError):
            loop.send(writes(index, 1))


def test_patience_ends(index, proxy):
    """A server that takes nothing for too long is given up, with what to do."""
    proxy.rules = [lambda request: Fault("answer", 429, b'{"error": {"type": "cluster_block_exception", "reason": "disk usage exceeded"}}')]
    told: list[str] = []
    loop = BulkLoop(connect(Access.from_environment(proxy.url)), patience_s=2, report=told.append)
    with pytest.raises(ClusterError, match="accepted no writes .* disk usage exceeded"):
        loop.send(writes(index, 1))
    loop.close()
    assert "disk usage exceeded" in told[0]


def test_a_dead_server_is_waited_for(client, index, loop, proxy):
    """A server that comes back within the loop's patience gets everything (F21)."""
    proxy.once("_bulk", Fault("lost"), times=6)
    assert loop.send(writes(index, 5)).done == 5
