"""Verify chunks against papers: every chunk has its paper, and every paper has as many chunks as it states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from osembed.migrate.proof.sides import Side
from osembed.migrate.proof.verification import Check
from osembed.opensearch import answers, changes, reads, scan
from osembed.opensearch.checkpoints import whole_checkpoints
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.target import Target
from osembed.papers.levels import Level

_PAGE = 1000
ORPHANED = "chunks without a paper"
_SHARED = "share this id on different shards because of their routing: searches find any of them"


def check_integrity(client: OpenSearch, sides: Sequence[Side], still: Sequence[Target] = ()) -> list[Check]:
    """Return the check of chunks against papers. Faults that the old indexes have too are inherited; changing papers are skipped."""
    now = {target.meta.level: target.index for target in (*still, *(side.target for side in sides))}
    level_copies = {side.level: side.pair.level_copy for side in sides if side.pair}
    if len(now) < 2:  # chunks and papers can only be compared if both levels are known
        return []
    found = dict(find_faults(client, now["papers"], now["chunks"]))
    inherited: dict[str, str] = {}
    if level_copies:
        old: dict[Level, str] = {
            level: level_copies[level].source.index if level in level_copies else index for level, index in now.items()
        }
        for index in old.values():
            changes.refresh(client, index)
        before = dict(find_faults(client, old["papers"], old["chunks"]))
        inherited = {key: why for key, why in found.items() if key in before}
        marks = {side.level: side.pair.marks for side in sides if side.pair}
        found = {
            key: why
            for key, why in found.items()
            if key not in before
            and _exists(client, old, key)  # otherwise its deletes are not repeated yet, which the check of ids covers
            and not any(_moves(client, level_copies[level].source.index, level, key, marks[level]) for level in level_copies)
        }
    count = reads.count(client, now["papers"])
    verdict: Any = "failed" if found else "inherited" if inherited else "passed" if count else "empty"
    shown = found or inherited
    words = f"{len(shown):,} papers and their chunks do not agree" if shown else f"{count:,} papers"
    return [
        Check("chunks and papers", "both", verdict, count, len(found), words, [f"{key}: {why}" for key, why in list(shown.items())[:5]])
    ]


def find_faults(client: OpenSearch, papers: str, chunks: str) -> Iterator[tuple[str, str]]:
    """Yield (paper id, fault): chunks without a paper, papers with a wrong number of chunks, papers that exist twice.

    Unrefreshed documents are missed, so read again before acting on a fault.
    """
    matched = 0
    for counted in _counted(client, chunks):
        there = scan.read_anywhere(client, papers, list(counted), fields=("chunk_count",))
        for key, number in counted.items():
            if key not in there:
                yield key, f"{number} {ORPHANED}"
                continue
            stated = there[key].fields.get("chunk_count")
            matched += bool(stated)
            if stated != number:
                yield key, f"{number} chunks, but the paper states {stated}"
    yield from _shared(client, papers)
    # A full scan for papers without chunks is needed only if the counts do not add up.
    query = {"range": {"chunk_count": {"gte": 1}}}
    if reads.count(client, papers, query) > matched:
        yield from _without_chunks(client, papers, chunks)


def _shared(client: OpenSearch, papers: str) -> Iterator[tuple[str, str]]:
    """Yield papers with a second document on another shard, caused by another program's routing."""
    seen: set[str] = set()
    for page in scan.matching(client, papers, {"exists": {"field": "_routing"}}, ("chunk_count",)):
        fresh = [doc.id for doc in page if doc.id not in seen]
        seen.update(fresh)
        for key, same in reads.copies(client, papers, fresh, ("chunk_count",)).items():
            if len(same) > 1:
                yield key, f"{len(same)} documents {_SHARED}"


def _counted(client: OpenSearch, chunks: str) -> Iterator[dict[str, int]]:
    after: dict[str, Any] = {}
    while True:
        source = [{"paper": {"terms": {"field": "paper_id"}}}]
        body = {"size": 0, "aggs": {"papers": {"composite": {"size": _PAGE, "sources": source, **after}}}}
        found = reads.search(client, chunks, body)["aggregations"]["papers"]
        groups = answers.buckets(found, chunks)
        if not groups:
            return
        yield {bucket["key"]["paper"]: int(bucket["doc_count"]) for bucket in groups}
        after = {"after": found["after_key"]}


def _without_chunks(client: OpenSearch, papers: str, chunks: str) -> Iterator[tuple[str, str]]:
    """Yield papers that state a number of chunks and have none."""
    for shard, point in whole_checkpoints(client, papers).items():
        for page in scan.settled_scan(client, papers, shard, -1, point, size=_PAGE, excluded=("embedding", "body", "abstract")):
            ids = [doc.id for doc in page if doc.fields.get("chunk_count")]
            body = {
                "size": 0,
                "query": {"terms": {"paper_id": ids}},
                "aggs": {"papers": {"terms": {"field": "paper_id", "size": max(1, len(ids))}}},
            }
            found = answers.buckets(reads.search(client, chunks, body)["aggregations"]["papers"], chunks) if ids else []
            present = {bucket["key"] for bucket in found}
            for key in ids:
                if key not in present:
                    yield key, "its chunks are missing"


def _exists(client: OpenSearch, indexes: Mapping[Level, str], paper_id: str) -> bool:
    """Return whether a paper or any of its chunks exists."""
    query = {"term": {"paper_id": paper_id}}
    paper = scan.read_anywhere(client, indexes["papers"], [paper_id], fields=("chunk_count",))
    return bool(paper) or reads.count(client, indexes["chunks"], query) > 0


def _moves(client: OpenSearch, index: str, level: str, paper_id: str, marks: Any) -> bool:
    """Return whether a paper or its chunks changed in the source after the marks."""
    which = {"ids": {"values": [paper_id]}} if level == "papers" else {"term": {"paper_id": paper_id}}
    body = {"size": 1, "query": which, "sort": [{"_seq_no": "desc"}], "seq_no_primary_term": True, "_source": False}
    for shard in reads.primary_terms(client, index):
        hits = reads.search_shard(client, index, shard, body)["hits"]["hits"]
        if hits and hits[0]["_seq_no"] > marks.get(str(shard), -1):
            return True
    return False
