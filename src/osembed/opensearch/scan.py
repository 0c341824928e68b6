"""Read the changes in an index, shard by shard, in windows of sequence numbers.

Each live document has exactly one `_seq_no`. Everything at or below the global checkpoint is on all in-sync copies and survives a failover;
after a refresh it is searchable. A document that changes during a scan leaves its window and appears in the next one, and nothing can enter
a window. So the window `mark < _seq_no ≤ checkpoint` is complete, and no scroll or point in time has to be kept open.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from osembed.errors import ClusterError, UnsettledError
from osembed.opensearch import answers, changes, reads
from osembed.opensearch.checkpoints import Checkpoint, read_checkpoints
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.documents import StoredDocument, read_hit
from osembed.opensearch.patience import until_settled

_BUCKETS = 2000  # per histogram
_LISTED = 5000  # documents per request


def scan(  # noqa: PLR0913 - where, from where to where, how much
    client: OpenSearch, index: str, shard: int, after: int, at: Checkpoint, *, size: int, excluded: Sequence[str] = ()
) -> Iterator[list[StoredDocument]]:
    """Yield pages of a shard's documents with `after` < sequence number ≤ checkpoint, in ascending order.

    Raises UnsettledError if a page may be incomplete or the primary has moved, because searches on a new primary may lag behind.
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
        page = [read_hit(hit) for hit in reads.search_shard(client, index, shard, body)["hits"]["hits"]]
        # After the search: if the term is still the same, the page came from the primary of the checkpoint.
        if reads.primary_terms(client, index).get(shard) != at.term:
            raise UnsettledError(f"Shard {shard} of {index} has a new primary.")
        if not page:
            return
        yield page
        last = page[-1].seq


def settled_scan(  # noqa: PLR0913 - as `scan`
    client: OpenSearch, index: str, shard: int, after: int, at: Checkpoint, *, size: int, excluded: Sequence[str] = ()
) -> Iterator[list[StoredDocument]]:
    """Yield pages like `scan`, but if the server is unavailable or the primary moves, wait and continue after the last page."""
    last, now = after, [at]

    def following() -> list[StoredDocument]:
        if not now:
            now.append(read_checkpoints(client, index)[shard])
            changes.refresh(client, index)
        try:
            return next(scan(client, index, shard, last, now[0], size=size, excluded=excluded), [])
        except ClusterError:
            now.clear()
            raise

    while page := until_settled(following):
        yield page
        last = page[-1].seq


def histogram(client: OpenSearch, index: str, shard: int, key: str, within: dict[str, int], interval: int) -> tuple[dict[int, int], int]:
    """Count a shard's documents in buckets of a number.

    Args:
        client, index, shard: the connection, the index and the shard.
        key: the number: `_seq_no` or `origin`.
        within: range of `_seq_no`, such as {"gt": 4}.
        interval: width of a bucket.

    Returns:
        Bucket start → number of documents, and the number of documents without this number.
    """
    body = {
        "size": 0,
        "query": {"range": {"_seq_no": within}},
        "aggs": {
            "keys": {"histogram": {"field": key, "interval": interval, "min_doc_count": 1}},
            "none": {"missing": {"field": key}},
        },
    }
    found = reads.search_shard(client, index, shard, body)["aggregations"]
    groups = answers.buckets(found["keys"], index)
    return {int(group["key"]): int(group["doc_count"]) for group in groups}, int(found["none"]["doc_count"])


def listing(
    client: OpenSearch, index: str, shard: int, key: str, within: dict[str, int], ranges: Sequence[tuple[int, int]] | None
) -> dict[tuple[str, int], str | None]:
    """List a shard's documents whose number is in one of the ranges [start, end), or with None those without it: (id, number) → routing."""
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
        hits = reads.search_shard(client, index, shard, body)["hits"]["hits"]
        for hit in hits:
            number = hit["_seq_no"] if key == "_seq_no" else int(hit.get("fields", {}).get(key, [-1])[0])
            found[hit["_id"], number] = hit.get("_routing")
        if len(hits) < _LISTED:
            return found
        last = hits[-1]["_seq_no"]


def interval_for(highest: int) -> int:
    """Return the bucket width that divides 0…highest into a few thousand buckets."""
    return max(1, -(-(highest + 1) // _BUCKETS))


def read_now(
    client: OpenSearch, index: str, keys: Sequence[tuple[str, str | None]], fields: Sequence[str] = ("origin",)
) -> dict[str, StoredDocument]:
    """Read documents by (id, routing) in real time; missing ones are left out."""
    return {doc["_id"]: read_hit(doc) for doc in reads.documents(client, index, keys, fields)}


def read_anywhere(client: OpenSearch, index: str, ids: Sequence[str], fields: Sequence[str] = ("origin",)) -> dict[str, StoredDocument]:
    """Read documents by id in real time, whatever their routing; missing ones are left out. Refresh first (see `reads.copies`)."""
    return {key: read_hit(doc) for key, doc in reads.anywhere(client, index, ids, fields).items()}


def matching(client: OpenSearch, index: str, query: Mapping[str, Any], fields: Sequence[str]) -> Iterator[list[StoredDocument]]:
    """Yield pages of all searchable documents that match a query, shard by shard."""
    for shard in reads.primary_terms(client, index):
        last, more = -1, True
        while more:
            body = {
                "size": _LISTED,
                "query": {"bool": {"filter": [dict(query), {"range": {"_seq_no": {"gt": last}}}]}},
                "sort": [{"_seq_no": "asc"}],
                "seq_no_primary_term": True,
                "track_total_hits": False,
                "_source": list(fields),
            }
            page = [read_hit(hit) for hit in reads.search_shard(client, index, shard, body)["hits"]["hits"]]
            if page:
                yield page
                last = page[-1].seq
            more = len(page) == _LISTED


def count_after(client: OpenSearch, index: str, marks: Mapping[str, int]) -> int:
    """Count the searchable documents that changed since the marks. A shard without a mark counts completely."""
    newer = {shard: {"range": {"_seq_no": {"gt": marks.get(str(shard), -1)}}} for shard in reads.primary_terms(client, index)}
    return sum(reads.count(client, index, query, shard) for shard, query in newer.items())


def sample(client: OpenSearch, index: str, count: int, size: int, only: Mapping[str, Any] | None = None) -> Iterator[list[StoredDocument]]:
    """Yield pages of up to `count` random documents, different ones each time. `only` is a query that they must match."""
    score = {"seed": secrets.randbelow(2**31), "field": "_seq_no"}
    body = {
        "size": count,
        "query": {"function_score": {"query": dict(only or {"match_all": {}}), "random_score": score}},
        "_source": False,
        "track_total_hits": False,
    }
    keys = list(reads.pages(until_settled(lambda: reads.search(client, index, body))["hits"]["hits"]))
    for start in range(0, len(keys), size):
        part = keys[start : start + size]
        yield list(until_settled(partial(read_now, client, index, part, fields=())).values())
