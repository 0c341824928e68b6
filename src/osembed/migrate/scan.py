"""Read what changed in an index, shard by shard, in windows of sequence numbers.

Each live document has exactly one `_seq_no`. What stands at or below the global checkpoint is on all in-sync copies and survives a
failover; after a refresh it is visible. A document that changes during a scan leaves the window and appears in the next one, and nothing
can enter a window. So `mark < _seq_no ≤ checkpoint` is complete without scroll or point in time, and nothing has to be held open.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from opensearchpy.exceptions import RequestError, TransportError

from osembed.client import OpenSearch
from osembed.errors import AuthError, ClusterError

EXACT = {"preference": "_primary", "allow_partial_search_results": "false"}  # replicas may lag, and a part is no answer
T = TypeVar("T")
_PATIENCE_S = 120
_BUCKETS = 2000
_MGET = 500
_LISTED = 5000


class Unsettled(ClusterError):
    """The answer may be incomplete: a shard failed, timed out or moved. What was read must not be counted on."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"{found}.", "What was read may be incomplete.", "See to the server (`osembed doctor`), then run the command again."
        )


@dataclass(frozen=True)
class Checkpoint:
    """Where a shard's primary stands: all operations up to `safe` are on every in-sync copy, `highest` was given out last."""

    safe: int
    highest: int
    term: int


@dataclass(frozen=True)
class Found:
    """One document as a scan or a realtime read found it."""

    id: str
    seq: int
    term: int
    version: int
    routing: str | None
    fields: dict[str, Any]


def checkpoints(client: OpenSearch, index: str) -> dict[int, Checkpoint]:
    """Return each shard's checkpoint. Raises Unsettled where a primary is missing or has just moved."""
    path = f"/{index}/_stats?level=shards&filter_path=indices.*.shards.*.routing.primary,indices.*.shards.*.seq_no"
    terms = primary_terms(client, index)
    stats = client.transport.perform_request("GET", path).get("indices", {}).get(index, {}).get("shards", {})
    found = {}
    for number, copies in stats.items():
        primary = next((copy for copy in copies if copy["routing"]["primary"]), None)
        if primary:
            at = primary["seq_no"]
            found[int(number)] = Checkpoint(int(at["global_checkpoint"]), int(at["max_seq_no"]), terms[int(number)])
    if set(found) != set(terms) or primary_terms(client, index) != terms:
        raise Unsettled(f"{len(terms) - len(found)} of {len(terms)} primaries of {index} do not answer")
    return found


def primary_terms(client: OpenSearch, index: str) -> dict[int, int]:
    """Return each shard's primary term: it grows with every failover."""
    path = f"/_cluster/state/metadata/{index}?filter_path=metadata.indices.*.primary_terms"
    found = client.transport.perform_request("GET", path)["metadata"]["indices"][index]["primary_terms"]
    return {int(shard): int(term) for shard, term in found.items()}


def refresh(client: OpenSearch, index: str) -> None:
    """Make everything visible on all copies. Raises Unsettled where a copy failed."""
    answer = client.indices.refresh(index=index)
    if answer["_shards"]["failed"]:
        raise Unsettled(f"{answer['_shards']['failed']} shards of {index} did not refresh")


def scan(  # noqa: PLR0913 - where, from where to where, how much
    client: OpenSearch, index: str, shard: int, after: int, at: Checkpoint, *, size: int, excluded: Sequence[str] = ()
) -> Iterator[list[Found]]:
    """Yield pages of a shard's documents with `after` < sequence number ≤ the checkpoint, ascending.

    Raises Unsettled when a page may be incomplete, or the primary moved: a fresh primary's searches may lag behind.
    """
    last = after
    while last < at.safe:
        body = {
            "size": size,
            "query": {"range": {"_seq_no": {"gt": last, "lte": at.safe}}},
            "sort": [{"_seq_no": "asc"}],
            "seq_no_primary_term": True,
            "version": True,
            "track_total_hits": False,
            "_source": {"excludes": list(excluded)},
        }
        page = [_found(hit) for hit in ask(client, index, shard, body)["hits"]["hits"]]
        if primary_terms(client, index)[shard] != at.term:
            raise Unsettled(f"shard {shard} of {index} has a new primary")
        if not page:
            return
        yield page
        last = page[-1].seq


def ask(client: OpenSearch, index: str, shard: int, body: dict[str, Any]) -> dict[str, Any]:
    """Search one shard's primary; partial answers are errors."""
    params = {"preference": f"_shards:{shard}|_primary", "allow_partial_search_results": "false"}
    try:
        answer: dict[str, Any] = client.search(index=index, body=body, params=params)
    except RequestError as error:
        if "No mapping found for [_seq_no]" in str(error.info):  # a shard that never held a document
            return {"hits": {"hits": []}, "aggregations": {"keys": {"buckets": []}, "none": {"doc_count": 0}}}
        raise
    except TransportError as error:
        raise Unsettled(f"shard {shard} of {index} answered {error.status_code}") from error
    if answer["timed_out"] or answer["_shards"]["failed"]:
        raise Unsettled(f"shard {shard} of {index} answered in part")
    return answer


def histogram(client: OpenSearch, index: str, shard: int, key: str, within: dict[str, int], interval: int) -> tuple[dict[int, int], int]:
    """Count a shard's documents by a number.

    Args:
        client, index, shard: where.
        key: `_seq_no` or `origin`.
        within: range of `_seq_no`, such as {"gt": 4}.
        interval: width of a bucket.

    Returns:
        Bucket start → documents, and how many documents have no such number.
    """
    body = {
        "size": 0,
        "query": {"range": {"_seq_no": within}},
        "aggs": {
            "keys": {"histogram": {"field": key, "interval": interval, "min_doc_count": 1}},
            "none": {"missing": {"field": key}},
        },
    }
    found = ask(client, index, shard, body)["aggregations"]
    return {int(bucket["key"]): int(bucket["doc_count"]) for bucket in found["keys"]["buckets"]}, int(found["none"]["doc_count"])


def listing(
    client: OpenSearch, index: str, shard: int, key: str, within: dict[str, int], ranges: Sequence[tuple[int, int]] | None
) -> dict[tuple[str, int], str | None]:
    """List a shard's documents whose number lies in any of some ranges [start, end), or (None) that have none: (id, number) → routing."""
    inside: list[dict[str, Any]] = [{"range": {key: {"gte": start, "lt": end}}} for start, end in ranges or ()]
    lacking = [] if ranges is not None else [{"exists": {"field": key}}]
    found: dict[tuple[str, int], str | None] = {}
    last = -1
    while True:
        reach = {**within, "gt": max(last, within.get("gt", -1))}
        filters = [{"range": {"_seq_no": reach}}, *([{"bool": {"should": inside}}] if ranges is not None else [])]
        body = {
            "size": _LISTED,
            "query": {"bool": {"filter": filters, "must_not": lacking}},
            "sort": [{"_seq_no": "asc"}],
            "seq_no_primary_term": True,
            "_source": False,
            "track_total_hits": False,
            "docvalue_fields": [] if key == "_seq_no" else [key],
        }
        hits = ask(client, index, shard, body)["hits"]["hits"]
        for hit in hits:
            number = hit["_seq_no"] if key == "_seq_no" else int(hit.get("fields", {}).get(key, [-1])[0])
            found[hit["_id"], number] = hit.get("_routing")
        if len(hits) < _LISTED:
            return found
        last = hits[-1]["_seq_no"]


def interval_for(highest: int) -> int:
    """Return the bucket width that cuts 0…highest into a few thousand buckets."""
    return max(1, -(-(highest + 1) // _BUCKETS))


def settled(attempt: Callable[[], T], stopped: Callable[[], None] = lambda: None) -> T:
    """Run an attempt again while its answers are unsettled, for up to two minutes. `stopped` is called in between and may raise."""
    began, pause = time.monotonic(), 0.1
    while True:
        try:
            return attempt()
        except AuthError:
            raise
        except ClusterError as trouble:
            if time.monotonic() - began > _PATIENCE_S:
                raise ClusterError(
                    f"The index does not settle: {trouble.found}",
                    "Going on would miss documents.",
                    "See to the server (`osembed doctor`), then run the same command again: it goes on where it stopped.",
                ) from trouble
        stopped()
        time.sleep(pause)
        pause = min(2.0, pause * 2)


def _found(hit: dict[str, Any]) -> Found:
    return Found(hit["_id"], hit["_seq_no"], hit["_primary_term"], hit.get("_version", 0), hit.get("_routing"), hit.get("_source", {}))


def count(client: OpenSearch, index: str, body: dict[str, Any] | None = None) -> int:
    """Count an index's documents on its primaries; `body` holds a query, None counts all."""
    return int(client.count(index=index, body=body, params={"preference": "_primary"})["count"])


def read_now(
    client: OpenSearch, index: str, keys: Sequence[tuple[str, str | None]], fields: Sequence[str] = ("origin",)
) -> dict[str, Found]:
    """Read documents by (id, routing) in real time; missing ones are left out."""
    found: dict[str, Found] = {}
    for start in range(0, len(keys), _MGET):
        docs = [{"_id": key} if routing is None else {"_id": key, "routing": routing} for key, routing in keys[start : start + _MGET]]
        answer = client.mget(index=index, body={"docs": docs}, params={"_source_includes": ",".join(fields)} if fields else {})
        for doc in answer["docs"]:
            if "error" in doc:
                raise Unsettled(f"{doc['_id']} of {index} cannot be read: {str(doc['error'])[:200]}")
            if doc.get("found"):
                found[doc["_id"]] = _found(doc)
    return found


def read_properties(client: OpenSearch, index: str) -> dict[str, Any]:
    """Return an index's mapped properties."""
    return dict(client.indices.get_mapping(index=index)[index]["mappings"].get("properties", {}))


def count_after(client: OpenSearch, index: str, marks: Mapping[str, int]) -> int:
    """Count the visible documents that changed since the marks; a shard without a mark counts whole."""
    total = 0
    for shard in primary_terms(client, index):
        body = {"query": {"range": {"_seq_no": {"gt": marks.get(str(shard), -1)}}}}
        total += int(client.count(index=index, body=body, params={"preference": f"_shards:{shard}|_primary"})["count"])
    return total


def sample(client: OpenSearch, index: str, count: int, size: int) -> Iterator[list[Found]]:
    """Yield pages of up to `count` documents chosen at random, anew each time."""
    score = {"seed": secrets.randbelow(2**31), "field": "_seq_no"}
    body = {
        "size": count,
        "query": {"function_score": {"query": {"match_all": {}}, "random_score": score}},
        "_source": False,
        "track_total_hits": False,
    }
    hits = client.search(index=index, body=body, params=EXACT)["hits"]["hits"]
    keys = [(hit["_id"], hit.get("_routing")) for hit in hits]
    for start in range(0, len(keys), size):
        yield list(read_now(client, index, keys[start : start + size], fields=()).values())
