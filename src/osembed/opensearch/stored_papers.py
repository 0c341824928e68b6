"""Read one stored paper: its document, its chunks, and their versions."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from osembed.errors import NoPaperError
from osembed.opensearch import reads
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.documents import chunk_id
from osembed.opensearch.target import Targets
from osembed.papers.levels import Level

_PAPER = ("title", "abstract", "body", "meta", "source", "word_count", "chunk_count", "input_hash", "identity", "ingested_at")
_CHUNK = ("text", "start_char", "end_char", "word_count", "token_count", "input_hash", "identity")
_LOOKED_AT = 100  # ids with the same prefix that are compared


@dataclass(frozen=True)
class StoredChunk:
    """One chunk of a stored paper.

    Attributes:
        number: its place in the paper, from 0.
        text: the chunk as it stands.
        start_char, end_char: its position in abstract and body together, in characters.
        word_count: its words.
        token_count: tokens of its passage; None if unknown.
        is_current: whether it was cut from the paper's current text and embedded with the collection's model.
    """

    number: int
    text: str
    start_char: int
    end_char: int
    word_count: int
    token_count: int | None
    is_current: bool


@dataclass(frozen=True)
class StoredPaper:
    """One paper of a collection.

    Attributes:
        id: of the paper.
        title, abstract, body: its texts.
        meta: metadata by flat names, as in filters, like `authors.name`.
        source: the file and line that it came from.
        word_count: words of abstract and body.
        chunk_count: how many chunks it should have.
        chunks: the existing chunks, out of `chunk_count`.
        is_complete: whether all chunks exist and are current; if not, `osembed verify` explains more.
        ingested_at: when it was written last, in UTC.
        models: level → the model of its index.
        identity: hash of its vector's space; "" if its writer did not set it.
        index, generation: the concrete index that it was read from.
        input_hash: hash of the whole input record; an ingest of the same record leaves the paper unchanged.
        version, seq_no, primary_term: the document's version, for conditional writes.
        routing: the routing that another program gave it, or None.
    """

    id: str
    title: str
    abstract: str
    body: str
    meta: dict[str, Any]
    source: str
    word_count: int
    chunk_count: int
    chunks: tuple[StoredChunk, ...]
    is_complete: bool
    ingested_at: str
    models: dict[Level, str]
    identity: str
    index: str
    generation: int
    input_hash: str
    version: int
    seq_no: int
    primary_term: int
    routing: str | None


def read_paper(client: OpenSearch, targets: Targets, paper_id: str) -> StoredPaper:
    """Read a paper and its chunks in real time. Raises NoPaperError, which names similar ids."""
    target = targets["papers"]
    found = reads.anywhere(client, target.index, [paper_id], _PAPER).get(paper_id)
    if found is None:
        raise no_paper(paper_id, target.meta.collection, _alike(client, target.index, paper_id))
    source = found["_source"]
    chunks = _read_chunks(client, targets, paper_id, source)
    count = int(source.get("chunk_count") or 0)
    return StoredPaper(
        id=paper_id,
        title=source.get("title") or "",
        abstract=source.get("abstract") or "",
        body=source.get("body") or "",
        meta=source.get("meta") or {},
        source=source.get("source") or "",
        word_count=int(source.get("word_count") or 0),
        chunk_count=count,
        chunks=chunks,
        is_complete=len(chunks) == count
        and all(chunk.is_current for chunk in chunks)
        and source.get("identity") == target.meta.identity.hash,
        ingested_at=source.get("ingested_at") or "",
        models={level: one.meta.model for level, one in targets.items()},
        identity=source.get("identity") or "",
        index=target.index,
        generation=target.meta.generation,
        input_hash=source.get("input_hash") or "",
        version=found["_version"],
        seq_no=found["_seq_no"],
        primary_term=found["_primary_term"],
        routing=found.get("_routing"),
    )


def no_paper(paper_id: str, collection: str, alike: list[str]) -> NoPaperError:
    """Return the error for a paper that does not exist. Pure."""
    lower = {key.lower(): key for key in alike}
    near = ", ".join(lower[key] for key in difflib.get_close_matches(paper_id.lower(), lower, 3))
    return NoPaperError(
        f"There is no paper '{paper_id}' in '{collection}'.",
        "",
        f"Similar ids: {near}." if near else "Search results show the ids.",
    )


def _read_chunks(client: OpenSearch, targets: Targets, paper_id: str, paper: Mapping[str, Any]) -> tuple[StoredChunk, ...]:
    target = targets["chunks"]
    keys = [chunk_id(paper_id, number) for number in range(int(paper.get("chunk_count") or 0))]
    found = reads.anywhere(client, target.index, keys, _CHUNK)
    state = (paper.get("input_hash"), target.meta.identity.hash)
    return tuple(_chunk(number, found[key]["_source"], state) for number, key in enumerate(keys) if key in found)


def _chunk(number: int, source: Mapping[str, Any], state: tuple[Any, str]) -> StoredChunk:
    return StoredChunk(
        number=number,
        text=source.get("text") or "",
        start_char=int(source.get("start_char") or 0),
        end_char=int(source.get("end_char") or 0),
        word_count=int(source.get("word_count") or 0),
        token_count=source.get("token_count"),
        is_current=(source.get("input_hash"), source.get("identity")) == state,
    )


def _alike(client: OpenSearch, index: str, paper_id: str) -> list[str]:
    """Return some ids with the same prefix, ignoring case."""
    # Two thirds of the id, so that a typo near its end still finds candidates.
    start = {"value": paper_id[: max(1, len(paper_id) * 2 // 3)], "case_insensitive": True}
    body = {"size": _LOOKED_AT, "track_total_hits": False, "_source": False, "query": {"prefix": {"paper_id": start}}}
    return [hit["_id"] for hit in reads.search(client, index, body)["hits"]["hits"]]
