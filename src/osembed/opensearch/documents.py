"""Papers as they are stored: a paper document that commits, and its chunks. Reading, tallying, deleting.

The paper document is the commit record: chunks are written first, the tail of a longer old version is deleted, the paper comes last. So a
paper whose hash is right and whose chunks all carry that hash is complete; everything else is work that the next run recognises.
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

_HASHES = 1000  # input hashes that the chunks of one paper may carry: more than it may have chunks
STATE_FIELDS = ["input_hash", "text_hash", "identity", "chunk_count", "source"]


@dataclass(frozen=True)
class StoredDocument:
    """One document as a scan or a realtime read found it.

    Attributes:
        seq, term: its sequence number and primary term, for compare-and-set.
        version: 0 where it was not asked for.
        routing: where another program gave it one: each write to it must name it, or makes a second document on another shard.
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
        """Return the stored vector if it is surely that of this passage (None: of whatever the document says) under this identity."""
        if self.fields.get("identity") != identity.hash or (passage and self.fields.get("text_hash") != passage.key):
            return None
        vector = from_wire(self.fields.get("embedding"))
        return vector if vector is not None and len(vector) == identity.dimension and is_usable(vector) else None


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


def chunk_ids(paper_id: str, stored: StoredDocument | None, tally: Tally | None) -> list[str]:
    """Return the ids of all chunks that a paper may have: those it counts, and those that are seen to be there."""
    counted = int(stored.fields.get("chunk_count", 0)) if stored else 0
    return [chunk_id(paper_id, number) for number in range(max(counted, tally.highest + 1 if tally else 0))]


def read_documents(
    client: OpenSearch, target: Target, ids: Sequence[str], fields: Sequence[str] = STATE_FIELDS
) -> dict[str, StoredDocument]:
    """Read documents by id in real time, wherever they were routed; missing ones are left out. Raises MissingError where the index is gone."""
    return {key: read_hit(found) for key, found in reads.anywhere(client, target.index, ids, fields).items()}


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


def read_hit(hit: Mapping[str, Any]) -> StoredDocument:
    """Return a document out of an answer: a hit of a search, or a document that was read by its id."""
    return StoredDocument(
        hit["_id"], hit["_seq_no"], hit["_primary_term"], hit.get("_version", 0), hit.get("_routing"), hit.get("_source", {})
    )
