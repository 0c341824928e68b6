"""Stored papers: a paper document, which is the commit record, and its chunk documents. Read them and tally chunks.

Chunks are written first, then the surplus chunks of a longer old version are deleted, and the paper document is written last. So a paper is
complete if its hash is right and all its chunks carry that hash. Everything else is unfinished work, which the next run recognises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from osembed.embed.passage_vectors import Vector, is_usable
from osembed.models.identity import Identity
from osembed.opensearch import answers, reads
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.target import Target
from osembed.opensearch.vectors import from_wire
from osembed.passages.passage import PassageText

_HASHES = 1000  # most distinct input hashes among the chunks of one paper; a paper has fewer chunks than that
STATE_FIELDS = ["input_hash", "text_hash", "identity", "chunk_count", "source"]


@dataclass(frozen=True)
class StoredDocument:
    """One document as a scan or a realtime read found it.

    Attributes:
        seq, term: its sequence number and primary term, for compare-and-set.
        version: 0 where it was not asked for.
        routing: the routing that another program gave it, or None. Every write must repeat it, or it creates a second document on another
            shard.
        fields: the fields that were asked for.
    """

    id: str
    seq: int
    term: int
    version: int
    routing: str | None
    fields: dict[str, Any]

    @property
    def seen(self) -> tuple[int, int]:
        """What a conditional write names: (sequence number, primary term)."""
        return self.seq, self.term

    def vector(self, identity: Identity, passage: PassageText | None = None) -> Vector | None:
        """Return the stored vector, float32 of shape (dimension,), or None.

        Args:
            identity: whose vector it must be.
            passage: of which it must be the vector; None for any.
        """
        if self.fields.get("identity") != identity.hash or (passage and self.fields.get("text_hash") != passage.key):
            return None
        vector = from_wire(self.fields.get("embedding"))
        return vector if vector is not None and len(vector) == identity.dimension and is_usable(vector) else None


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


def read_hit(hit: Mapping[str, Any]) -> StoredDocument:
    """Return a document out of an answer: a hit of a search, or a document that was read by its id."""
    return StoredDocument(
        hit["_id"], hit["_seq_no"], hit["_primary_term"], hit.get("_version", 0), hit.get("_routing"), hit.get("_source", {})
    )
