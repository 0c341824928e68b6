"""No answer is taken for less or more than it says: every reader meets every fault that its kind of answer can have.

The faults are made of real answers of the real server, changed on their way by a proxy. What only this room may do, call the client, is read
off the syntax tree.
"""

from __future__ import annotations

import ast
import inspect
import json
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from osembed.errors import AuthError, ClusterError, UnavailableError, UnsettledError
from osembed.opensearch import answers, changes, reads
from osembed.opensearch.client import Access, OpenSearch, connect
from osembed.opensearch.refusals import explain_error
from tests.proxy import Fault, FaultProxy, Request
from tests.test_layers import SOURCE

ROOM = {"opensearch/reads.py", "opensearch/changes.py", "opensearch/client.py", "opensearch/bulk.py"}
AWAY = {"type": "node_disconnected_exception", "reason": "[n1][127.0.0.1:9300] disconnected"}
FORBIDDEN = {"type": "security_exception", "reason": "no permissions for [indices:data/read/x] and User [name=bob, backend_roles=[]]"}


def test_only_this_room_calls_the_client():
    """Whatever is sent is sent by a function that judges the answer."""
    for path in SOURCE.rglob("*.py"):
        if path.relative_to(SOURCE).as_posix() in ROOM:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                holder = node.value
                name = holder.id if isinstance(holder, ast.Name) else holder.attr if isinstance(holder, ast.Attribute) else ""
                assert name.lstrip("_") != "client", f"{path.name}:{node.lineno} calls the client itself: .{node.attr}"


def fail_shard(answer: dict, reason: dict = AWAY) -> None:
    """One shard failed, and the answer says so only in `_shards`."""
    for part in answer.get("responses", [answer]):
        shards = part["_shards"]
        shards["failed"] += 1
        shards["successful"] -= 1
        shards["failures"] = [{"shard": 0, "index": "x", "node": "n", "reason": reason}]


def refuse_shard(answer: dict) -> None:
    fail_shard(answer, FORBIDDEN)


def drop_shards(answer: dict) -> None:
    for part in answer.get("responses", [answer]):
        del part["_shards"]


def hide_shards(answer: dict) -> None:
    """What a security plugin answers that leaves out what it forbids: a search of no shard at all."""
    for part in answer.get("responses", [answer]):
        part["_shards"] = {"total": 0, "successful": 0, "skipped": 0, "failed": 0}


def time_out(answer: dict) -> None:
    for part in answer.get("responses", [answer]):
        part["timed_out"] = True


def drop_hits(answer: dict) -> None:
    for part in answer.get("responses", [answer]):
        del part["hits"]


def refuse_item(answer: dict) -> None:
    _break_item(answer, FORBIDDEN, 403)


def lose_item(answer: dict) -> None:
    _break_item(answer, {"type": "no_shard_available_action_exception", "reason": "No shard available for [x]"}, 503)


def _break_item(answer: dict, error: dict, status: int) -> None:
    if "docs" in answer:
        item = answer["docs"][-1]
        answer["docs"][-1] = {"_index": item["_index"], "_id": item["_id"], "error": {"root_cause": [error], **error}}
    else:
        answer["responses"][-1] = {"error": {"root_cause": [error], **error}, "status": status}


def drop_item(answer: dict) -> None:
    answer["docs" if "docs" in answer else "responses"].pop()


def drop_found(answer: dict) -> None:
    for item in answer.get("docs", [answer]):
        item.pop("found")


def fail_node(answer: dict) -> None:
    answer["_nodes"]["failed"] = 1


def deny(answer: dict) -> None:
    answer["acknowledged"] = False


def drop_acknowledged(answer: dict) -> None:
    del answer["acknowledged"]


def half_block(answer: dict) -> None:
    answer["indices"][0]["blocked"] = False


def drop_figures(answer: dict) -> None:
    for part in answer["responses"]:
        del part["aggregations"]


def drop_buckets(answer: dict) -> None:
    answer["metadata"]["indices"].clear()


SEARCH = (fail_shard, refuse_shard, drop_shards, hide_shards, time_out, drop_hits)
CHANGE = (deny, drop_acknowledged)
Case = tuple[str, tuple[Callable[[dict], None], ...], Callable[[OpenSearch, str], Any]]
# Reader → (what its request's path contains, the faults that its answer can have, a call).
CASES: dict[str, Case] = {
    "search": ("_search", SEARCH, lambda c, i: reads.search(c, i, {})["hits"]["total"]["value"]),
    "search_shard": ("_search", SEARCH, lambda c, i: len(reads.search_shard(c, i, 0, {})["hits"]["hits"])),
    "count": ("_search", SEARCH, lambda c, i: reads.count(c, i)),
    "count_shards": ("_msearch", (*SEARCH, lose_item, refuse_item, drop_item), lambda c, i: reads.count_shards(c, [(i, 0), (i, 1)])),
    "aggregate": (
        "_msearch",
        (*SEARCH, lose_item, refuse_item, drop_item, drop_figures),
        lambda c, i: reads.aggregate(c, i, {"aggs": {"n": {"max": {"field": "n"}}}})["aggregations"]["n"]["value"],
    ),
    "documents": (
        "_mget",
        (refuse_item, lose_item, drop_item, drop_found),
        lambda c, i: len(reads.documents(c, i, [("0", None), ("none", None)])),
    ),
    "several_documents": (
        "_mget",
        (refuse_item, lose_item, drop_item, drop_found),
        lambda c, i: len(reads.several_documents(c, [(i, "0", None), (i, "1", None)])),
    ),
    "copies": ("_mget", (refuse_item, lose_item, drop_item, drop_found), lambda c, i: sorted(reads.copies(c, i, ["0", "none"]))),
    "anywhere": ("_search", SEARCH, lambda c, i: sorted(reads.anywhere(c, i, ["0", "none"]))),
    "document": ("_doc", (drop_found,), lambda c, i: (reads.document(c, i, "0") or {}).get("_id")),
    "stats": ("_stats", (fail_shard, drop_shards, hide_shards), lambda c, i: reads.stats(c, i, "docs")["primaries"]["docs"]["count"]),
    "stats_of": ("_stats", (fail_shard, drop_shards, hide_shards), lambda c, i: list(reads.stats_of(c, [i], "docs"))),
    "cluster_nodes": ("_nodes", (fail_node,), lambda c, i: len(reads.cluster_nodes(c, "fs"))),
    "plugins": ("_nodes", (fail_node,), lambda c, i: "opensearch-knn" in reads.plugins(c)),
    "refresh": ("_refresh", (fail_shard, refuse_shard, drop_shards, hide_shards), lambda c, i: changes.refresh(c, i)),
    "force_merge": ("_forcemerge", (), lambda c, i: changes.force_merge(c, i)),
    "put_settings": ("_settings", CHANGE, lambda c, i: changes.put_settings(c, [i], {"refresh_interval": "7s"})),
    "put_mapping": ("_mapping", CHANGE, lambda c, i: changes.put_mapping(c, i, {"properties": {"new": {"type": "keyword"}}})),
    "update_aliases": ("_aliases", CHANGE, lambda c, i: changes.update_aliases(c, [{"add": {"index": i, "alias": f"{i}-alias"}}])),
    "create_index": ("-new", CHANGE, lambda c, i: (changes.create_index(c, f"{i}-new", {}), None)[1]),
    "delete_index": ("-new", CHANGE, lambda c, i: changes.delete_index(c, f"{i}-new")),
}
# What has no parts that could fail alone: a name is in the answer or it is not, and both are read by a test of their own.
WHOLE = {
    "search_several", "search_across", "indexes", "matching", "description", "properties", "primary_terms", "state_mappings",
    "write_blocks", "data_nodes",
    "server_clock", "pipeline", "plugin_answer", "pages", "block_writes", "lift_block", "put_pipeline", "write_document",
    "delete_document", "ask",
}  # fmt: skip
MAY_HEAL = {"put_settings", "put_mapping", "update_aliases", "create_index", "delete_index"}  # read back: it has happened


@pytest.fixture
def index(client, name):
    """Two shards, five documents."""
    client.indices.create(index=name, body={"settings": {"number_of_shards": 2, "number_of_replicas": 0}})
    for number in range(5):
        client.index(index=name, id=str(number), body={"n": number})
    client.indices.refresh(index=name)
    return name


@pytest.fixture(autouse=True)
def _hurried(monkeypatch):
    monkeypatch.setenv("OSEMBED_RETRY_SECONDS", "0.6")


def broken(path: str, break_it: Callable[[dict], None], times: int) -> Callable[[Request], Fault | None]:
    """Change the next answers to requests of this path; those that carry no such part pass."""
    left = [times]

    def rewrite(body: bytes) -> bytes:
        answer = json.loads(body)
        break_it(answer)
        left[0] -= 1
        return json.dumps(answer).encode()

    def rule(request: Request) -> Fault | None:
        changing = path.startswith("_alias") or request.method in ("PUT", "DELETE") or path not in ("-new", "_settings", "_mapping")
        return Fault("rewrite", rewrite=rewrite) if left[0] > 0 and path in request.path and changing else None

    return rule


def public(module: ModuleType) -> set[str]:
    return {
        name for name, thing in vars(module).items() if inspect.isfunction(thing) and thing.__module__ == module.__name__ and name[0] != "_"
    }


def test_every_request_is_in_the_table():
    """A new reader or change comes with its faults."""
    assert public(reads) | public(changes) == CASES.keys() | WHOLE
    assert not CASES.keys() & WHOLE


@pytest.mark.parametrize(("case", "fault"), [(case, fault) for case, (_, faults, _) in CASES.items() for fault in faults])
def test_each_reader_meets_each_fault(case, fault, index, url):
    """Once: the answer of an undisturbed request. For good: an error that names the index, never a smaller answer."""
    path, _, call = CASES[case]
    with FaultProxy(url) as proxy:
        client = connect(Access.from_environment(proxy.url))
        if case == "delete_index":
            changes.create_index(client, f"{index}-new", {})
        expected = call(client, index) if case != "create_index" else None
        proxy.rules[:] = [broken(path, fault, 1)]
        assert call(client, index) == expected
        assert proxy.fired
        proxy.rules[:] = [broken(path, fault, 10**6)]
        if case in MAY_HEAL:
            assert call(client, index) is None
            return
        began = time.monotonic()
        with pytest.raises(AuthError if fault in (refuse_shard, refuse_item) else (UnsettledError, UnavailableError)) as caught:
            call(client, index)
        assert index in str(caught.value) or case in ("cluster_nodes", "plugins")
        assert time.monotonic() - began < 20


@pytest.mark.parametrize("change", sorted(MAY_HEAL - {"delete_index"}))
def test_a_change_that_did_not_happen_is_not_believed(change, index, url):
    """`acknowledged: false` and nothing behind it: an error, and then the same request completes."""
    path, _, call = CASES[change]
    answer = Fault("answer", 200, b'{"acknowledged": false}')
    with FaultProxy(url) as proxy:
        client = connect(Access.from_environment(proxy.url))
        proxy.rules.append(lambda request: answer if path in request.path and request.method in ("PUT", "POST") else None)
        with pytest.raises(UnsettledError, match="has not happened so far"):
            call(client, index)
        proxy.rules.clear()
        call(client, index)


@pytest.mark.parametrize("fault", [deny, drop_acknowledged, half_block])
def test_a_block_counts_only_when_every_shard_has_it(fault, index, url):
    """A write block that is not acknowledged for each index raises at once; lifting it works all the same."""
    with FaultProxy(url) as proxy:
        client = connect(Access.from_environment(proxy.url))
        proxy.rules.append(broken("_block", fault, 1))
        with pytest.raises(ClusterError, match=index):
            changes.block_writes(client, [index], 5)
        changes.lift_block(client, [index])
        assert reads.write_blocks(client, [index]) == {}
        client.index(index=index, id="after", body={"n": 9})


def test_a_block_of_another_index_is_not_taken_for_its_own(index, client):
    """The server lists the blocks of all indexes, whichever are asked for; a name that stands for none has none."""
    other = f"{index}-other"
    client.indices.create(index=other, body={"aliases": {f"{other}-alias": {}}})
    client.indices.put_settings(index=other, body={"index.blocks.write": True})
    try:
        assert reads.write_blocks(client, [index]) == {}
        assert reads.write_blocks(client, [f"{index}-nowhere"]) == {}
        assert reads.write_blocks(client, [f"{other}-alias"]).keys() == {other}
    finally:
        client.indices.delete(index=other)


def test_a_name_that_is_missing_is_missing(client, index):
    """What is keyed by index says so when the index is not there, in each reader."""
    for call in (reads.description, reads.properties, reads.primary_terms, lambda c, i: reads.stats(c, i, "docs")):
        with pytest.raises(ClusterError, match="does not include|no such index|not have it"):
            call(client, f"{index}-nowhere")
    assert reads.document(client, f"{index}-nowhere", "x") is None
    assert reads.document(client, index, "nobody") is None
    assert reads.indexes(client, [f"{index}-nowhere"]) == {}


def test_buckets_that_were_dropped_are_missed(client, index):
    """An aggregation that leaves groups out, or may have miscounted them, is no list of all groups."""
    body = {"size": 0, "aggs": {"all": {"terms": {"field": "n", "size": 10}}, "few": {"terms": {"field": "n", "size": 2}}}}
    found = reads.search(client, index, body)["aggregations"]
    assert len(answers.buckets(found["all"], index)) == 5
    with pytest.raises(UnsettledError, match="leave out 3 documents"):
        answers.buckets(found["few"], index)
    with pytest.raises(UnsettledError, match="without buckets"):
        answers.buckets({}, index)


def test_a_number_that_is_a_lower_bound_is_no_count(client, index):
    """Hits are counted up to a limit unless all are asked for."""
    answer = reads.search(client, index, {"size": 0, "track_total_hits": 3})
    with pytest.raises(UnsettledError, match="exactly how many"):
        answers.total(answer, index)
    assert answers.total(reads.search(client, index, {"size": 0, "track_total_hits": True}), index) == 5


@pytest.mark.parametrize(
    ("status", "kind", "detail", "said"),
    [
        (403, "security_exception", {"error": FORBIDDEN}, ["user 'bob'", "indices:data/read/x on papers"]),
        (403, "", {"_shards": {"failures": [{"index": "papers-1", "reason": FORBIDDEN}]}}, ["indices:data/read/x on papers-1"]),
        (503, "cluster_manager_not_discovered_exception", {"error": {"type": "x", "reason": None}}, ["no elected manager"]),
        (429, "circuit_breaking_exception", {"error": {"reason": "[parent] Data too large"}}, ["memory", "circuit breaker"]),
        (429, "cluster_block_exception", {"error": {"reason": "disk usage exceeded flood-stage watermark"}}, ["disk", "flood-stage"]),
        (404, "index_not_found_exception", {"error": {"reason": "no such index [papers]"}}, ["no such index [papers]"]),
        (500, "", "<html>", ["500", "papers"]),
    ],
)
def test_error_answers_are_put_in_words(status, kind, detail, said):
    """What is missing and where, never raw JSON."""
    text = str(explain_error(status, kind, detail, "/papers/_refresh"))
    assert all(part in text for part in said), text
    assert "{" not in text


def test_a_404_of_somebody_in_between_is_not_an_absence(index, url):
    """A proxy's own 404 page proves nothing about a document."""
    with FaultProxy(url) as proxy:
        client = connect(Access.from_environment(proxy.url))
        client.info()
        proxy.rules.append(lambda request: Fault("answer", 404, b"<html>not here</html>", "text/html") if "_doc" in request.path else None)
        with pytest.raises(ClusterError):
            reads.document(client, index, "0")
