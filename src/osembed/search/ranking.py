"""Rank papers: run the legs, fuse them, group chunks by paper. This reads ids and scores only; texts are fetched by another request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osembed.errors import RefusedError
from osembed.limits import Mode
from osembed.opensearch import documents, reads
from osembed.opensearch.client import OpenSearch, Server
from osembed.opensearch.refusals import BROKEN_QUERY
from osembed.opensearch.target import Target, Targets
from osembed.papers.levels import Level
from osembed.search import bodies, facets, filters
from osembed.search.fusion import SERVER_FUSIONS, Fused, fuse_rankings
from osembed.search.options import DEPTHS, WINDOW, SearchOptions
from osembed.search.results import Facet


@dataclass(frozen=True)
class Ranked:
    """One paper in the ranking window: its score, its best chunk if known, and the parts of its score."""

    id: str
    score: float
    chunk: str | None = None
    explain: dict[str, Any] | None = None


@dataclass(frozen=True)
class Question:
    """A query that is ready to be ranked.

    Attributes:
        text: the query.
        vector: the embedded query, float32 of shape (dimension,); None for lexical search.
        mode: the mode to run; lexical if the model is missing, whatever was requested.
        options: the options as requested.
        where: the parsed filters.
    """

    text: str
    vector: NDArray[np.float32] | None
    mode: Mode
    options: SearchOptions
    where: Sequence[filters.Condition]


_CANNOT_LIMIT = "This server has no hybrid queries for users with document-level security"


class Ranker:
    """Ranks the papers of one collection. Thread-safe."""

    def __init__(self, client: OpenSearch, server: Server) -> None:
        self._client, self._server = client, server
        self.native: bool | None = None
        self._limited = False

    @property
    def lack(self) -> str:
        """Why hybrid queries on one level are fused on the client; "" if the server fuses them."""
        return "" if self._is_native() else _CANNOT_LIMIT if self._limited else lack_of_hybrid(self._server)

    def lack_for(self, fusion: str) -> str:
        """Say the same of one fusion, which the server may not know."""
        return self.lack if fusion in SERVER_FUSIONS else f"OpenSearch has no fusion called {fusion}"

    def give_up_native(self) -> None:
        """Fuse on the client from now on: neural-search 3.6 fails on the filter that document-level security adds to a query."""
        self.native, self._limited = False, True

    def window(self, question: Question, targets: Targets) -> list[Ranked]:
        """Return at most WINDOW ranked papers. Searches deeper once if chunks of a few papers filled a leg."""
        ranked: list[Ranked] = []
        for depth in DEPTHS:
            rank = (
                self._rank_native
                if question.mode == "hybrid"
                and question.options.level != "both"
                and not _is_joint(targets)
                and not self.lack_for(question.options.fusion)
                else self._rank_legs
            )
            try:
                ranked, full = rank(question, depth, targets)
            except RefusedError as error:
                if error.kind != BROKEN_QUERY or rank != self._rank_native:
                    raise
                self.give_up_native()
                ranked, full = self._rank_legs(question, depth, targets)
            if len(ranked) >= WINDOW or not full:  # no leg was full, so a deeper search would find nothing new
                break
        return ranked[:WINDOW]

    def sorted_matches(self, question: Question, targets: Targets, sort: Sequence[bodies.Body]) -> list[Ranked]:
        """Return the first papers among all lexical matches, in an order other than by score."""
        options = question.options
        level = bodies.level_of_leg(options.level, "lexical")
        found = bodies.filtered(bodies.lexical(question.text), self.where(question, level, targets))
        body = bodies.sorted_leg(found, sort, WINDOW, collapse=level == "chunks" and options.hits != "chunks")
        [hits] = self._ids([(targets[level], body)])
        leg = {hit["_id"]: float(hit["_score"]) for hit in hits}
        ranked = []
        for key, score in leg.items():
            paper, chunk = (documents.paper_of(key), key) if level == "chunks" else (key, None)
            ranked.append(Ranked(paper, score, chunk, _parts(Fused(key, score, (score,)), ["lexical"], [leg], options)))
        return ranked

    def order(self, papers: Sequence[str], targets: Targets, sort: Sequence[bodies.Body]) -> list[str]:
        """Return the ids of papers in the server's sort order, without papers that no longer exist."""
        body = {**bodies.leg(self.those(papers, targets), len(papers)), "sort": list(sort)}
        [hits] = self._ids([(targets["papers"], body)])
        return [hit["_id"] for hit in hits]

    def those(self, papers: Sequence[str], targets: Targets) -> bodies.Body:
        """Return the query that matches the papers of a ranking."""
        held: dict[str, list[str]] = {}
        for owner, paper in map(targets["papers"].owner, papers):
            held.setdefault(owner.index, []).append(paper)
        return bodies.any_in(held)

    def count(self, found: bodies.Body, fields: Sequence[str], target: Target) -> tuple[Facet, ...]:
        """Return the facets of the papers that match a query."""
        answer = reads.aggregate(self._client, target.index, facets.request(fields, found), target.shards)
        return facets.read_facets(fields, answer, target.index)

    def legs(self, requests: Sequence[tuple[Target, bodies.Body]]) -> list[list[dict[str, Any]]]:
        """Send several requests in one `_msearch` and return the hits of each. Raises the error of the first failed request."""
        if any(len(target.members) > 1 for target, _ in requests):
            return reads.search_across(self._client, [(target.index, target.shards, body) for target, body in requests])
        return reads.search_several(self._client, [(target.index, body) for target, body in requests])

    def _ids(self, requests: Sequence[tuple[Target, bodies.Body]]) -> list[list[dict[str, Any]]]:
        """Send ranking requests and return hits with `_id` and `_score`.

        Ids are read from doc values, because stored ids share compressed blocks with the text: unpacking 200 papers for their ids takes
        longer than finding them. If a document has no `paper_id` because another program wrote it, that request is sent again without this.
        """
        found = self.legs([(target, bodies.lean(body)) for target, body in requests])
        for place, (target, body) in enumerate(requests):
            if not all(_restore_id(hit, target.meta.level) for hit in found[place]):
                found[place] = self.legs([(target, body)])[0]
            for hit in found[place]:
                hit["_id"] = target.key(hit["_index"], hit["_id"])
        return found

    def _rank_legs(self, question: Question, depth: int, targets: Targets) -> tuple[list[Ranked], bool]:
        """Run each leg on its level and fuse them per paper on the client. Returns the ranking and whether a leg was full."""
        kinds = [kind for kind in ("lexical", "vector") if question.mode in (kind, "hybrid")]
        requests = []
        for kind in kinds:
            level = bodies.level_of_leg(question.options.level, kind)
            where = self.where(question, level, targets)
            if kind == "lexical" or question.vector is None:
                body = bodies.filtered(bodies.lexical(question.text), where)
            else:
                body = bodies.nearest(question.vector, depth, where)
            requests.append((targets[level], bodies.leg(body, depth)))
        found = self._ids(requests)
        full = any(len(hits) >= depth for hits in found)  # a full leg may hide further papers
        if question.options.level == "both":  # the paper is the only key that both indexes share
            legs, chunks = [], dict[str, str]()
            for (target, _), hits in zip(requests, found, strict=True):
                scores, best = _by_paper(hits, target.meta.level)
                legs.append(scores)
                chunks.update(best)
            ranked = [(one, one.id, chunks.get(one.id)) for one in _fuse_legs(legs, question.options)]
        else:
            legs = [{hit["_id"]: float(hit["_score"]) for hit in hits} for hits in found]
            ranked = _gather(_fuse_legs(legs, question.options), question.options)
        return [Ranked(paper, one.score, chunk, _parts(one, kinds, legs, question.options)) for one, paper, chunk in ranked[:WINDOW]], full

    def _rank_native(self, question: Question, depth: int, targets: Targets) -> tuple[list[Ranked], bool]:
        """Let the server rank one level. Chunks are grouped by paper on the client, because the server's `collapse` can lose groups."""
        assert question.vector is not None
        options = question.options
        level = bodies.level_of_leg(options.level, "vector")
        pipe = bodies.pipeline(options.fusion, options.weights, explain=options.explain)
        where = self.where(question, level, targets)
        body = bodies.hybrid(question.text, question.vector, depth, where, pipe, explain=options.explain)
        [hits] = self._ids([(targets[level], body)])
        fused = sorted((Fused(hit["_id"], float(hit["_score"]), ()) for hit in hits), key=lambda one: (-one.score, one.id))
        trees = {hit["_id"]: hit.get("_explanation") for hit in hits}
        ranked = [Ranked(paper, one.score, chunk, trees[one.id]) for one, paper, chunk in _gather(fused, options)]
        return ranked, len(hits) >= depth

    def where(self, question: Question, level: Level, targets: Targets) -> list[bodies.Body]:
        """Return the filter clauses of a question on one level."""
        return filters.filter_clauses(question.where, targets[level].meta_types, level)

    def _is_native(self) -> bool:
        if self.native is None:
            self.native = has_hybrid(self._client, self._server)
        return self.native


def _is_joint(targets: Targets) -> bool:
    """Whether several collections are searched. Their fusion always runs on the client."""
    return len(targets["papers"].members) > 1


def has_hybrid(client: OpenSearch, server: Server) -> bool:
    """Return whether the server fuses hybrid queries correctly: version 3.5 or later, with the neural-search plugin."""
    return server.version >= reads.OLDEST_HYBRID and reads.NEURAL_SEARCH in reads.plugins(client)


def lack_of_hybrid(server: Server) -> str:
    """Return why a server's own hybrid queries are not used."""
    if server.version < reads.OLDEST_HYBRID:
        return f"OpenSearch {server.version_text} has no hybrid queries, or has ones that drop top documents (fixed in 3.5)"
    return "This server has no hybrid queries (the neural-search plugin is missing)"


def _restore_id(hit: dict[str, Any], level: Level) -> bool:
    """Set a hit's `_id` from its doc values. Returns False if they are missing."""
    fields = hit.get("fields", {})
    if "paper_id" not in fields or (level == "chunks" and "chunk_index" not in fields):
        return False
    paper = fields["paper_id"][0]
    hit["_id"] = paper if level == "papers" else documents.chunk_id(paper, fields["chunk_index"][0])
    return True


def _fuse_legs(legs: Sequence[Mapping[str, float]], options: SearchOptions) -> list[Fused]:
    if len(legs) > 1:
        return fuse_rankings(legs, options.fusion, options.weights)
    alone = [Fused(key, score, (score,)) for key, score in legs[0].items()]
    return sorted(alone, key=lambda one: (-one.score, one.id))


def _gather(fused: Sequence[Fused], options: SearchOptions) -> list[tuple[Fused, str, str | None]]:
    """Group a ranking of one level by paper, unless chunks are requested. Returns (best entry, paper id, chunk id) per paper or chunk."""
    if options.level == "papers":
        return [(one, one.id, None) for one in fused]
    entries = [(one, documents.paper_of(one.id), one.id) for one in fused]
    if options.hits == "chunks":
        return list(entries)
    first: dict[str, tuple[Fused, str, str | None]] = {}
    for entry in entries:
        first.setdefault(entry[1], entry)
    return list(first.values())


def _parts(one: Fused, kinds: Sequence[str], legs: Sequence[Mapping[str, float]], options: SearchOptions) -> dict[str, Any] | None:
    """Return the parts of a score per leg, or None without `explain`."""
    if not options.explain:
        return None
    weights = options.weights if len(legs) > 1 else (1.0,)
    return {
        kind: {"raw": leg.get(one.id), "normalised": part, "weight": weight}
        for kind, leg, part, weight in zip(kinds, legs, one.parts, weights, strict=True)
    }


def _by_paper(hits: Sequence[Mapping[str, Any]], level: Level) -> tuple[dict[str, float], dict[str, str]]:
    """Return each paper's best score and, for chunks, the id of its best chunk."""
    if level == "papers":
        return {hit["_id"]: float(hit["_score"]) for hit in hits}, {}
    scores: dict[str, float] = {}
    chunks: dict[str, str] = {}
    for hit in hits:  # best first
        paper = documents.paper_of(hit["_id"])
        if paper not in scores:
            scores[paper], chunks[paper] = float(hit["_score"]), hit["_id"]
    return scores, chunks
