"""Papers as they are stored: a paper document that commits, and its chunks. Reading, tallying, deleting.

The paper document is the commit record: chunks are written first, the tail of a longer old version is deleted, the paper comes last. So a
paper whose hash is right and whose chunks all carry that hash is complete; everything else is work that the next run recognises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osembed.opensearch import answers, reads
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.target import Target
from osembed.opensearch.vectors import from_wire

_HASHES = 1000  # input hashes that the chunks of one paper may carry: more than it may have chunks
STATE_FIELDS = ["input_hash", "text_hash", "identity", "chunk_count", "source"]


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


def read_documents(client: OpenSearch, target: Target, ids: Sequence[str], fields: Sequence[str] = STATE_FIELDS) -> dict[str, Stored]:
    """Read documents by id in real time, wherever they were routed; missing ones are left out. Raises MissingError where the index is gone."""
    return {key: stored_of(found) for key, found in reads.anywhere(client, target.index, ids, fields).items()}


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


def stored_of(found: Mapping[str, Any]) -> Stored:
    """Return a document as the server returned it, with the version that it has."""
    return Stored((found["_seq_no"], found["_primary_term"]), found["_source"], found.get("_routing"))
