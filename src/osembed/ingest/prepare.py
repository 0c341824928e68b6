"""Prepare papers: find the unchanged ones, cut the others into chunks, reuse stored vectors, collect the passages to embed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osembed.embed.passage_vectors import PassageVectors
from osembed.ingest.summary import Counts
from osembed.models.spec import ModelSpec
from osembed.opensearch import documents
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.documents import StoredDocument, Tally
from osembed.opensearch.meta_fields import add_meta_fields
from osembed.opensearch.target import Targets
from osembed.papers.levels import LEVELS, Level
from osembed.papers.metadata import TOO_DEEP, fit_metadata, new_types, note_dropped
from osembed.papers.paper import Paper
from osembed.passages.chunk import Chunk, cut_papers
from osembed.passages.passage import PassageText, chunk_passage, paper_passage
from osembed.passages.tokens import Tokeniser

Vector = NDArray[np.float32]
_WITH_VECTOR = ["input_hash", "text_hash", "identity", "token_count", "embedding"]


@dataclass(frozen=True)
class Reading:
    """The model settings and the tokeniser of one level."""

    spec: ModelSpec
    tokeniser: Tokeniser


@dataclass
class Work:
    """One paper that must be written.

    Attributes:
        seen: version of the stored paper document; None if there is none.
        passage, passages: the exact strings to embed for the paper and for each chunk.
        tail: stored chunks with numbers beyond the new last chunk; they are deleted.
        routings: id of the paper or a chunk → the routing that another program gave it, so that it stays on its shard.
    """

    paper: Paper
    meta: dict[str, Any]
    seen: tuple[int, int] | None
    chunks: list[Chunk]
    passage: PassageText
    passages: list[PassageText]
    tail: dict[str, StoredDocument]
    routings: dict[str, str | None] = field(default_factory=dict)


@dataclass
class Window:
    """A group of papers that passes through the stages.

    Attributes:
        unchanged: ids of papers that are already stored with this content.
        waiting: changed papers that must not be written yet.
        bytes_read: of the input, up to the end of this window.
        vectors: identity → the vectors of the passages that it embeds; stored ones first, the others once they are embedded.
        counts: what the stages that it has passed counted.
    """

    targets: Targets
    works: list[Work] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    waiting: list[Paper] = field(default_factory=list)
    bytes_read: int = 0
    vectors: dict[str, PassageVectors] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)

    def vectors_of(self, level: Level) -> PassageVectors:
        """Return the vectors of a level; both levels share them where they have one model."""
        return self.vectors.setdefault(self.targets[level].meta.identity.hash, PassageVectors())

    def unseen_tokens(self, limit: int) -> int:
        """Count the tokens of chunks beyond a model's window."""
        vectors = self.vectors_of("chunks")
        return sum(max(0, (vectors.token_count(passage) or 0) - limit) for work in self.works for passage in work.passages)


def prepare_window(
    client: OpenSearch, targets: Targets, readings: Mapping[Level, Reading], papers: Sequence[Paper], waits: Callable[[Paper, str], bool]
) -> Window:
    """Compare papers with the stored ones and cut those that differ into chunks. Writes nothing except mappings of new metadata fields.

    Args:
        client, targets, readings: the connection, the indexes, and the model settings of each level.
        papers: the papers to compare.
        waits: returns whether a changed paper must not be written yet, given the source of the stored one.
    """
    ids = [paper.id for paper in papers]
    stored = documents.read_documents(client, targets["papers"], ids)
    tallies = documents.tally_chunks(client, targets["chunks"], ids)
    changed = [paper for paper in papers if not _is_unchanged(paper, stored.get(paper.id), tallies.get(paper.id), targets)]
    waiting = [paper for paper in changed if paper.id in stored and waits(paper, str(stored[paper.id].fields.get("source")))]
    unchanged = {paper.id for paper in papers} - {paper.id for paper in changed}
    late = {paper.id for paper in waiting}
    changed = [paper for paper in changed if paper.id not in late]
    types = _wanted_types(targets, changed)
    # Map before cutting: another writer may have mapped a field differently, and documents must fit the actual mapping.
    targets = {level: add_meta_fields(client, targets[level], types) for level in LEVELS}
    window = Window(targets, unchanged=sorted(unchanged), waiting=waiting)
    started = time.perf_counter()
    cuts = cut_papers(changed, targets["chunks"].meta.chunking, readings["chunks"].spec, readings["chunks"].tokeniser)
    window.counts.seconds["tokenise"] += time.perf_counter() - started
    for paper, (chunks, beyond) in zip(changed, cuts, strict=True):
        window.counts.beyond += beyond
        window.works.append(_work(paper, chunks, readings, stored.get(paper.id), window))
    _keep_vectors(client, window, tallies, stored)
    _tokenise_missing(window, readings)
    window.counts.unseen = window.unseen_tokens(readings["chunks"].spec.max_length)
    return window


def _is_unchanged(paper: Paper, stored: StoredDocument | None, tally: Tally | None, targets: Targets) -> bool:
    """Whether a paper is committed with this very input, by this very model, and all its chunks are there and belong to it."""
    if stored is None or stored.fields.get("input_hash") != paper.input_hash:
        return False
    if stored.fields.get("identity") != targets["papers"].meta.identity.hash:
        return False
    count = int(stored.fields.get("chunk_count", -1))
    return (tally.by_hash if tally else {}) == ({paper.input_hash: count} if count else {})


def _wanted_types(targets: Targets, papers: Sequence[Paper]) -> dict[str, str]:
    """Return the metadata fields that both levels should map: those that either level maps, and the new ones.

    A run may have been killed after it mapped a field on one level only.
    """
    mapped = {**targets["chunks"].meta_types, **targets["papers"].meta_types}
    known = {name: kind for name, kind in mapped.items() if kind != "object"}
    stated = {name: kind for paper in papers for name, kind in paper.mark.types.items()}
    return {**known, **new_types((paper.meta for paper in papers), mapped, stated)}


def _agreed_types(targets: Targets) -> dict[str, str]:
    """Return the metadata fields that both levels map to the same type; another program may have mapped one of them differently."""
    chunks = targets["chunks"].meta_types
    return {name: kind for name, kind in targets["papers"].meta_types.items() if chunks.get(name) == kind}


def _work(paper: Paper, chunks: list[Chunk], readings: Mapping[Level, Reading], stored: StoredDocument | None, window: Window) -> Work:
    for name in paper.deep:
        note_dropped(window.counts.dropped, TOO_DEEP, name)
    whole, parts = readings["papers"].spec, readings["chunks"].spec
    return Work(
        paper=paper,
        meta=fit_metadata(paper.meta, _agreed_types(window.targets), window.counts.dropped),
        seen=stored.seen if stored else None,
        chunks=chunks,
        passage=paper_passage(whole, paper.title, paper.abstract, paper.body),
        passages=[chunk_passage(parts, paper.title, chunk.text) for chunk in chunks],
        tail={},
        routings={paper.id: stored.routing} if stored else {},
    )


def _keep_vectors(client: OpenSearch, window: Window, tallies: Mapping[str, Tally], stored: Mapping[str, StoredDocument]) -> None:
    """Read back the vectors of known papers, keep those of unchanged passages, note the chunks that are to go."""
    papers, chunks = window.targets["papers"], window.targets["chunks"]
    # A paper without a document may still have chunks, left by a run that was killed before the commit.
    known = [work for work in window.works if work.seen or work.paper.id in tallies]
    ids = [key for work in known for key in documents.chunk_ids(work.paper.id, stored.get(work.paper.id), tallies.get(work.paper.id))]
    old_papers = documents.read_documents(client, papers, [work.paper.id for work in known if work.seen], _WITH_VECTOR)
    old_chunks = documents.read_documents(client, chunks, ids, _WITH_VECTOR)
    of_paper: dict[str, dict[str, StoredDocument]] = {}
    for key, old in old_chunks.items():
        of_paper.setdefault(documents.paper_of(key), {})[key] = old
    for work in known:
        mine = of_paper.get(work.paper.id, {})
        if work.paper.id in old_papers:
            _keep(window, "papers", old_papers[work.paper.id], work.passage)
        work.routings.update({key: old.routing for key, old in mine.items()})
        last = len(work.chunks)
        work.tail = {key: old for key, old in mine.items() if int(key.rpartition("#")[2]) >= last}
        # Match by passage and not by number, because inserted text shifts the chunks after it.
        by_hash = {old.fields.get("text_hash"): old for old in mine.values()}
        for passage in work.passages:
            if passage.key in by_hash:
                _keep(window, "chunks", by_hash[passage.key], passage)


def _keep(window: Window, level: Level, old: StoredDocument, passage: PassageText) -> None:
    vector = old.vector(window.targets[level].meta.identity, passage)
    if vector is not None:
        window.vectors_of(level).keep(passage, vector, old.fields.get("token_count"))


def _tokenise_missing(window: Window, readings: Mapping[Level, Reading]) -> None:
    """Tokenise each passage that has no vector yet, once per identity however often it occurs."""
    started = time.perf_counter()
    tokenisers = {window.targets[level].meta.identity.hash: readings[level].tokeniser for level in LEVELS}
    passages: dict[str, list[PassageText]] = {}
    for level in LEVELS:
        wanted = passages.setdefault(window.targets[level].meta.identity.hash, [])
        wanted += [passage for work in window.works for passage in ([work.passage] if level == "papers" else work.passages)]
        window.vectors_of(level)
    for identity, tokeniser in tokenisers.items():
        window.vectors[identity].tokenise(tokeniser, passages[identity])
    window.counts.seconds["tokenise"] += time.perf_counter() - started


def without_papers(window: Window, failed: set[str]) -> Window:
    """Return the window without the works of failed papers."""
    return replace(window, works=[work for work in window.works if work.paper.id not in failed])
