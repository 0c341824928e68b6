"""Papers as they are stored: a paper document that commits, and its chunks. Reading, tallying, deleting.

The paper document is the commit record: chunks are written first, the tail of a longer old version is deleted, the paper comes last. So a
paper whose hash is right and whose chunks all carry that hash is complete; everything else is work that the next run recognises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osembed.errors import ClusterError
from osembed.opensearch import answers, changes, operation, permissions, reads, sight
from osembed.opensearch.bulk import BulkLoop, Outcome
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.fence import Turnstile
from osembed.opensearch.indexes import Target, Targets
from osembed.opensearch.patience import settled
from osembed.opensearch.schema import JOURNAL
from osembed.opensearch.vectors import from_wire

_NOBODY, _NEVER = "osembed-scratch", (9_000_000_000_000_000, 1)  # an id that nobody has, a version that no document reaches
_HASHES = 1000  # input hashes that the chunks of one paper may carry: more than it may have chunks
_STATE_FIELDS = ["input_hash", "text_hash", "identity", "chunk_count", "source"]


@dataclass(frozen=True)
class Stored:
    """What a realtime read of one document found.

    Attributes:
        seen: (sequence number, primary term), for compare-and-set.
        fields: the fields that were asked for.
        routing: where another program gave it one: each write to it must name it, or makes a second document on another shard.
    """

    seen: tuple[int, int]
    fields: dict[str, Any]
    routing: str | None = None

    def vector(self, identity: str, text_hash: str, dimension: int) -> NDArray[np.float32] | None:
        """Return the stored vector if it is surely that of this text under this identity."""
        if self.fields.get("identity") != identity or self.fields.get("text_hash") != text_hash:
            return None
        vector = from_wire(self.fields.get("embedding"))
        if vector is None or len(vector) != dimension:
            return None
        return vector if np.isfinite(vector).all() and vector.any() else None


@dataclass
class Tally:
    """The visible chunks of one paper: how many carry which input hash, and the highest number."""

    by_hash: dict[str, int] = field(default_factory=dict)
    highest: int = -1


def chunk_id(paper_id: str, number: int) -> str:
    """Return a chunk's id."""
    return f"{paper_id}#{number}"


def paper_of(chunk: str) -> str:
    """Return the paper id of a chunk's id."""
    return chunk.rpartition("#")[0]


def chunk_ids(paper_id: str, stored: Stored | None, tally: Tally | None) -> list[str]:
    """Return the ids of all chunks that a paper may have: those it counts, and those that are seen to be there."""
    counted = int(stored.fields.get("chunk_count", 0)) if stored else 0
    return [chunk_id(paper_id, number) for number in range(max(counted, tally.highest + 1 if tally else 0))]


def read_documents(client: OpenSearch, target: Target, ids: Sequence[str], fields: Sequence[str] = _STATE_FIELDS) -> dict[str, Stored]:
    """Read documents by id in real time, wherever they were routed; missing ones are left out. Raises MissingError where the index is gone."""
    return {key: _stored(found) for key, found in reads.anywhere(client, target.index, ids, fields).items()}


def tally_chunks(client: OpenSearch, target: Target, paper_ids: Sequence[str]) -> dict[str, Tally]:
    """Count the visible chunks of papers. What is not refreshed yet is missed: a tally proves nothing but that all is well."""
    tallies: dict[str, Tally] = {}
    each = {"hashes": {"terms": {"field": "input_hash", "size": _HASHES}}, "highest": {"max": {"field": "chunk_index"}}}
    body = {
        "size": 0,
        "track_total_hits": False,
        "query": {"bool": {"filter": {"terms": {"paper_id": list(paper_ids)}}}},
        "aggs": {"papers": {"terms": {"field": "paper_id", "size": len(paper_ids)}, "aggs": each}},
    }
    answer = reads.search(client, target.index, body)
    for bucket in answers.buckets(answer["aggregations"]["papers"], target.index):
        hashes = {entry["key"]: entry["doc_count"] for entry in answers.buckets(bucket["hashes"], target.index)}
        tallies[bucket["key"]] = Tally(hashes, int(bucket["highest"]["value"] or 0))
    return tallies


def require_writes(client: OpenSearch, targets: Targets, loop: BulkLoop) -> None:
    """Raise AuthError unless this user may write and delete documents and journal entries, before a paper is written in part.

    One request, whose conditions hold for no document; what an ingest reads is asked by reading it.
    """
    if not permissions.is_secured(client):
        return
    operations = [operation.never(JOURNAL, _NOBODY)]
    for level, target in targets.items():
        operations.append(operation.put(target.write_alias, f"{_NOBODY}-{level}-put", {}, _NEVER))
        operations.append(operation.delete(target.write_alias, f"{_NOBODY}-{level}-delete", _NEVER))
    loop.send(operations)


def delete_papers(client: OpenSearch, targets: Callable[[], Targets], loop: BulkLoop, ids: Sequence[str]) -> dict[str, bool]:
    """Delete papers, their chunks first; return for each id whether the paper was there.

    Killed half-way, the paper still stands and the next delete (or ingest) completes the work. A paper that changes meanwhile is read again;
    a fence is waited for.

    Args:
        client: the connection.
        targets: asked before each round for the indexes that the collection consists of now.
        loop: sends the deletes.
        ids: of papers.
    """
    settled(lambda: sight.prove(client, [target.place for target in targets().values()]))
    found: dict[str, bool] = {}
    pending, turnstile = list(dict.fromkeys(ids)), None
    while pending:
        now, papers, tallies = settled(lambda pending=pending: _look_up(client, targets(), pending))  # type: ignore[misc]
        for paper_id in pending:
            found[paper_id] = found.get(paper_id, False) or paper_id in papers
        chunks = [key for paper_id in pending for key in _chunks_of(paper_id, papers.get(paper_id, []), tallies.get(paper_id))]
        before = _delete(now["chunks"], loop, settled(lambda now=now, chunks=chunks: _copies(client, now["chunks"], chunks)))  # type: ignore[misc]
        again = set(map(paper_of, (*before.conflicts, *before.blocked)))
        after = _delete(now["papers"], loop, {paper_id: same for paper_id, same in papers.items() if paper_id not in again})
        pending = [*again, *after.conflicts, *after.blocked]
        if before.blocked or after.blocked:
            turnstile = turnstile or Turnstile(client, now["papers"].meta.collection)
            turnstile.wait()
    return found


def _look_up(client: OpenSearch, now: Targets, ids: Sequence[str]) -> tuple[Targets, dict[str, list[Stored]], dict[str, Tally]]:
    """Read what there is of papers: where they are now, every copy of their documents, their chunks."""
    changes.refresh(client, now["papers"].index, now["chunks"].index)
    return now, _copies(client, now["papers"], ids), tally_chunks(client, now["chunks"], ids)


def _chunks_of(paper_id: str, papers: Sequence[Stored], tally: Tally | None) -> list[str]:
    """Return the ids of all chunks that any copy of a paper may have."""
    return list(dict.fromkeys(key for paper in (*papers, None) for key in chunk_ids(paper_id, paper, tally)))


def _delete(target: Target, loop: BulkLoop, found: Mapping[str, Sequence[Stored]]) -> Outcome:
    """Delete every copy of documents. One copy of each at a time: ids must not repeat within a `send`."""
    outcome = Outcome()
    for turn in range(max(map(len, found.values()), default=0)):
        turns = [(key, same[turn]) for key, same in found.items() if len(same) > turn]
        outcome.add(_accepted(loop.send(operation.delete(target.write_alias, key, one.seen, one.routing) for key, one in turns)))
    return outcome


def _copies(client: OpenSearch, target: Target, ids: Sequence[str]) -> dict[str, list[Stored]]:
    found = reads.copies(client, target.index, ids, _STATE_FIELDS) if ids else {}
    return {key: list(map(_stored, same)) for key, same in found.items()}


def _stored(found: Mapping[str, Any]) -> Stored:
    return Stored((found["_seq_no"], found["_primary_term"]), found["_source"], found.get("_routing"))


def _accepted(outcome: Outcome) -> Outcome:
    """Refuse an outcome in which a delete was rejected."""
    if outcome.rejected:
        raise ClusterError(f"The server refused a delete: {next(iter(outcome.rejected.values()))}.")
    return outcome
