"""StoredDocument papers: a paper document, which is the commit record, and its chunk documents. Read them and tally chunks.

Chunks are written first, then the surplus chunks of a longer old version are deleted, and the paper document is written last. So a paper is
complete if its hash is right and all its chunks carry that hash. Everything else is unfinished work, which the next run recognises.
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

_HASHES = 1000  # most distinct input hashes among the chunks of one paper; a paper has fewer chunks than that
STATE_FIELDS = ["input_hash", "text_hash", "identity", "chunk_count", "source"]


@dataclass(frozen=True)
class StoredDocument:
    """One document as a realtime read returned it.

    Attributes:
        seen: (sequence number, primary term), for compare-and-set.
        fields: the requested fields.
        routing: the routing that another program gave it, or None. Every write must repeat it, or it creates a second document on another
            shard.
    """

    seen: tuple[int, int]
    fields: dict[str, Any]
    routing: str | None = None

    def vector(self, identity: str, text_hash: str, dimension: int) -> NDArray[np.float32] | None:
        """Return the stored vector, float32 of shape (dimension,), if it belongs to this text and identity; else None."""
        if self.fields.get("identity") != identity or self.fields.get("text_hash") != text_hash:
            return None
        vector = from_wire(self.fields.get("embedding"))
        if vector is None or len(vector) != dimension:
            return None
        return vector if np.isfinite(vector).all() and vector.any() else None


@dataclass
class Tally:
    """The searchable chunks of one paper: input hash → number of chunks, and the highest chunk number (−1 for none)."""

    by_hash: dict[str, int] = field(default_factory=dict)
    highest: int = -1


def chunk_id(paper_id: str, number: int) -> str:
    """Return the id of a paper's chunk."""
    return f"{paper_id}#{number}"


def paper_of(chunk: str) -> str:
    """Return the paper id in a chunk's id."""
    return chunk.rpartition("#")[0]


def chunk_ids(paper_id: str, stored: StoredDocument | None, tally: Tally | None) -> list[str]:
    """Return the ids of all chunks that a paper may have, from its own chunk count and from the tally."""
    counted = int(stored.fields.get("chunk_count", 0)) if stored else 0
    return [chunk_id(paper_id, number) for number in range(max(counted, tally.highest + 1 if tally else 0))]


def read_documents(
    client: OpenSearch, target: Target, ids: Sequence[str], fields: Sequence[str] = STATE_FIELDS
) -> dict[str, StoredDocument]:
    """Read documents by id in real time, whatever their routing; missing ones are left out. Raises MissingError if the index is gone."""
    return {key: read_hit(found) for key, found in reads.anywhere(client, target.index, ids, fields).items()}


def tally_chunks(client: OpenSearch, target: Target, paper_ids: Sequence[str]) -> dict[str, Tally]:
    """Count the searchable chunks of papers. Unrefreshed chunks are missed, so a tally can prove completeness but not absence."""
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


def read_hit(found: Mapping[str, Any]) -> StoredDocument:
    """Return a document of a server response, with its version."""
    return StoredDocument((found["_seq_no"], found["_primary_term"]), found["_source"], found.get("_routing"))
