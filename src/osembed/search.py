"""The search flow: resolve → embed with the model of the index that answers → rank → fetch one page.

Ranking and fetching are two requests. The ranking window (100 papers from 200 candidates a leg) does not depend on the page, so pages are
slices of one list.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from opensearchpy.exceptions import NotFoundError, RequestError

from osembed import filters, query, store
from osembed import index as indexes
from osembed.client import OpenSearch, Server, has_hybrid, reason
from osembed.encoders import Encoders
from osembed.errors import CollectionError, InputError, ModelError
from osembed.fusion import FUSIONS, Fused, Fusion, fuse
from osembed.generation import unpublished
from osembed.index import Target, Targets
from osembed.paper import clean
from osembed.schema import Level, alias_name

WINDOW = 100
DEPTHS = (200, 1000)
_RESOLVE_S = 1.0  # how long a resolved alias is believed; within it a swapped-out index still answers with its own model
Mode = Literal["hybrid", "lexical", "vector"]
MODES: tuple[Mode, ...] = ("hybrid", "lexical", "vector")
SEARCH_LEVELS = ("both", "papers", "chunks")


@dataclass(frozen=True)
class SearchOptions:
    """How to search.

    Attributes:
        level: both (words in papers, meaning in chunks), papers or chunks (native hybrid on one index).
        weights: of the lexical and the vector leg.
        where: filters such as year>=2015; all must hold.
        size, page: pages are slices of one window of 100 papers.
        passages: most passages shown per paper.
        strict: fail instead of searching words only where the model is missing.
    """

    mode: Mode = "hybrid"
    fusion: Fusion = "min_max"
    weights: tuple[float, float] = (0.5, 0.5)
    where: tuple[str, ...] = ()
    level: str = "both"
    size: int = 10
    page: int = 1
    passages: int = 2
    explain: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        _one_of("mode", self.mode, MODES)
        _one_of("fusion", self.fusion, FUSIONS)
        _one_of("level", self.level, SEARCH_LEVELS)
        if len(self.weights) != 2 or min(self.weights) < 0 or not 0 < sum(self.weights) < float("inf"):
            raise InputError("Weights are two numbers, not negative and not both 0.", "", "Write them like 0.3,0.7.")
        if self.size < 1 or self.page < 1 or not 0 <= self.passages <= 20:
            raise InputError("Size and page count from 1, passages from 0 to 20.")
        if self.size > WINDOW or (self.page - 1) * self.size >= WINDOW:
            raise InputError(
                f"Page {self.page} of {self.size} lies beyond the first {WINDOW} papers.",
                "All pages are slices of one ranking of that many.",
                "Ask for less, or narrow the search with --where.",
            )


@dataclass(frozen=True)
class Passage:
    """A piece of a paper. `highlight` is HTML-escaped with the found words in <em>; `text` is the chunk as it stands."""

    chunk_index: int
    start_char: int
    end_char: int
    text: str
    highlight: str


@dataclass(frozen=True)
class Hit:
    """One paper found. `explain` holds, where asked for, each leg's raw and normalised score."""

    id: str
    score: float
    title: str
    highlight: str
    meta: dict[str, Any]
    source: str
    word_count: int
    passages: tuple[Passage, ...] = ()
    explain: dict[str, Any] | None = None


@dataclass(frozen=True)
class SearchResult:
    """A page of hits.

    Attributes:
        found: papers in the ranking window, at most 100.
        degraded: whether meaning could not be searched, and `notices` why.
        models: level → model that answered.
    """

    query: str
    mode: str
    fusion: str
    level: str
    page: int
    size: int
    found: int
    hits: tuple[Hit, ...]
    degraded: bool = False
    notices: tuple[str, ...] = ()
    models: dict[str, str] = field(default_factory=dict)
    took_ms: float = 0.0


@dataclass(frozen=True)
class _Ranked:
    """One paper of the ranking window: its score, its best chunk if one is known, the parts of its score."""

    id: str
    score: float
    chunk: str | None = None
    explain: dict[str, Any] | None = None


class Searcher:
    """Searches one collection. Safe to share between threads."""

    def __init__(self, client: OpenSearch, server: Server, collection: str, encoders: Encoders) -> None:
        self._client, self._server, self._collection, self._encoders = client, server, collection, encoders
        self._resolved: tuple[float, Targets] | None = None
        self._native: bool | None = None

    def search(self, text: str, options: SearchOptions) -> SearchResult:
        """Search; see SearchOptions. Raises InputError, CollectionError or, when strict, ModelError."""
        started = time.perf_counter()
        text = clean(text).strip()
        if not text:
            raise InputError("The query is empty.", "", "Write what you are looking for.")
        conditions = filters.parse(options.where)

        def attempt(targets: Targets) -> SearchResult:
            vector, mode, notices = self._embed(text, options, targets)
            ranked = self._window(text, vector, mode, conditions, options, targets)
            page = ranked[(options.page - 1) * options.size : options.page * options.size]
            return SearchResult(
                query=text,
                mode=mode,
                fusion=options.fusion,
                level=options.level,
                page=options.page,
                size=options.size,
                found=len(ranked),
                hits=self._fetch(text, page, targets, options.passages),
                degraded=mode != options.mode,
                notices=notices,
                models={level: target.meta.model for level, target in targets.items()},
                took_ms=round((time.perf_counter() - started) * 1000, 2),
            )

        return self._on_targets(attempt)

    def rank(self, text: str, options: SearchOptions) -> list[str]:
        """Return the ids of the whole ranking window, best first, without fetching anything."""
        targets = self.targets()
        vector, mode, _ = self._embed(text, options, targets)
        ranked = self._window(clean(text), vector, mode, filters.parse(options.where), options, targets)
        return [one.id for one in ranked]

    def count_present(self, ids: Sequence[str]) -> int:
        """Return how many of these papers the collection has."""
        return len(store.read_documents(self._client, self.targets()["papers"], ids, ["input_hash"]))

    def similar(self, paper_id: str, *, size: int = 10, where: Sequence[str] = ()) -> SearchResult:
        """Return the papers nearest to a stored one by their vectors."""
        options = SearchOptions(mode="vector", level="papers", size=size, where=tuple(where))
        conditions = filters.parse(options.where)

        def attempt(targets: Targets) -> SearchResult:
            target = targets["papers"]
            fields = ["text_hash", "identity", "embedding"]
            stored = store.read_documents(self._client, target, [paper_id], fields).get(paper_id)
            if stored is None:
                raise InputError(f"There is no paper '{paper_id}' in '{self._collection}'.", "", "Ids stand in search results.")
            identity = target.meta.identity
            vector = stored.vector(identity.hash, str(stored.fields.get("text_hash")), identity.dimension)
            if vector is None:
                raise CollectionError(f"The paper '{paper_id}' has no vector of this collection's model.", "", "Ingest it again.")
            others = [
                *self._clauses(conditions, "papers", targets),
                {"bool": {"must_not": [{"ids": {"values": [paper_id]}}]}},
            ]
            found = self._legs([(target, query.leg(query.nearest(vector, WINDOW, others), WINDOW))])[0]
            page = [_Ranked(hit["_id"], hit["_score"]) for hit in found[:size]]
            hits = self._fetch("", page, targets, 0)
            models = {"papers": target.meta.model}
            return SearchResult(paper_id, "vector", "none", "papers", 1, size, len(found), hits, models=models)

        return self._on_targets(attempt)

    def request(self, text: str, options: SearchOptions, url: str) -> dict[str, Any]:
        """Return the native request for other programs: alias, body (vector included) and a curl line.

        The body filters by identity: sent after a model change it finds nothing instead of nonsense.
        """
        level: Level = "papers" if options.level == "papers" else "chunks"
        targets = self.targets()
        target = targets[level]
        where = self._clauses(filters.parse(options.where), level, targets)
        where.append({"term": {"identity": target.meta.identity.hash}})
        vector = self._query_vector(text, target)
        pipe = query.pipeline(options.fusion, options.weights)
        body = query.hybrid(clean(text), vector, DEPTHS[0], where, pipe)
        shown = {"_source": ["title", "meta"] if level == "papers" else ["paper_id", "title", "text", "meta"]}
        body.update({"size": options.size, "from": (options.page - 1) * options.size, **shown})
        if level == "chunks":
            body["collapse"] = {"field": "paper_id"}
        alias = alias_name(self._collection, level)
        data = shlex.quote(orjson.dumps(body).decode())
        curl = f"curl -s '{url}/{alias}/_search' -H 'content-type: application/json' -d {data}"
        return {"alias": alias, "body": body, "curl": curl}

    def targets(self) -> Targets:
        """Return the collection's indexes, resolved at most a second ago."""
        now = time.monotonic()
        if self._resolved and now - self._resolved[0] < _RESOLVE_S:
            return self._resolved[1]
        targets = indexes.resolve(self._client, self._collection)
        if targets is None:
            raise self._missing()
        self._resolved = (now, targets)
        return targets

    def _missing(self) -> CollectionError:
        if unpublished(self._client, self._collection):
            return CollectionError(
                f"'{self._collection}' is still being loaded for the first time, or that was interrupted.",
                "It becomes searchable when the load is complete.",
                "Wait for it, or run the same `osembed ingest` again: it goes on where it stopped.",
            )
        return CollectionError(
            f"There is no collection '{self._collection}'.",
            "",
            f"Fill it first: osembed ingest PATH --collection {self._collection}",
        )

    def _on_targets(self, attempt: Any) -> SearchResult:
        """Run an attempt; when an index vanished between resolving and searching, resolve again."""
        for last in (False, False, True):
            try:
                return attempt(self.targets())  # type: ignore[no-any-return]
            except NotFoundError:
                self._resolved = None
                if last:
                    raise
            except RequestError as error:
                raise self._explained(error) from error
        raise AssertionError("unreachable")

    def _explained(self, error: RequestError) -> Exception:
        text = reason(error)
        if "pipeline" in text.lower():
            return CollectionError(
                f"The server refuses every search: {text}.",
                "The indexes' default search pipeline is gone.",
                "Run `osembed doctor`: it creates it again.",
            )
        return InputError(f"The server refuses this search: {text}.")

    def _embed(self, text: str, options: SearchOptions, targets: Targets) -> tuple[NDArray[np.float32] | None, Mode, tuple[str, ...]]:
        if options.mode == "lexical":
            return None, "lexical", ()
        target = targets[query.level_of_leg(options.level, "vector")]
        try:
            return self._query_vector(text, target), options.mode, ()
        except ModelError as error:
            if options.strict:
                raise
            return None, "lexical", (f"Searched by words only. {error}",)

    def _query_vector(self, text: str, target: Target) -> NDArray[np.float32]:
        encoder = self._encoders.of(target.meta)
        vector: NDArray[np.float32] = encoder.encode([encoder.model.spec.query(text)])[0]
        return vector

    def _window(
        self,
        text: str,
        vector: NDArray[np.float32] | None,
        mode: Mode,
        conditions: Sequence[filters.Condition],
        options: SearchOptions,
        targets: Targets,
    ) -> list[_Ranked]:
        """Rank at most WINDOW papers; deeper once where chunks of few papers filled a leg."""
        ranked: list[_Ranked] = []
        for depth in DEPTHS:
            ask = _Ask(text, vector, mode, options, depth)
            if mode == "hybrid" and options.level != "both" and self._is_native():
                ranked, full = self._rank_native(ask, conditions, targets)
            else:
                ranked, full = self._rank_legs(ask, conditions, targets)
            if len(ranked) >= WINDOW or not full:
                break
        return ranked[:WINDOW]

    def _rank_legs(self, ask: _Ask, conditions: Sequence[filters.Condition], targets: Targets) -> tuple[list[_Ranked], bool]:
        """Run each leg on its level and fuse them per paper here."""
        kinds = [kind for kind in ("lexical", "vector") if ask.mode in (kind, "hybrid")]
        requests = []
        for kind in kinds:
            level = query.level_of_leg(ask.options.level, kind)
            where = self._clauses(conditions, level, targets)
            if kind == "lexical" or ask.vector is None:
                body = query.filtered(query.lexical(ask.text), where)
            else:
                body = query.nearest(ask.vector, ask.depth, where)
            requests.append((targets[level], query.leg(body, ask.depth)))
        found = self._legs(requests)
        full = any(len(hits) >= ask.depth for hits in found)
        if ask.options.level == "both":  # two indexes have the paper in common
            legs, chunks = [], dict[str, str]()
            for (target, _), hits in zip(requests, found, strict=True):
                scores, best = _by_paper(hits, target.meta.level)
                legs.append(scores)
                chunks.update(best)
            ranked = [(one, one.id, chunks.get(one.id)) for one in _fuse_legs(legs, ask.options)]
        else:
            legs = [{hit["_id"]: float(hit["_score"]) for hit in hits} for hits in found]
            ranked = _gather(_fuse_legs(legs, ask.options), requests[0][0].meta.level)
        return [_Ranked(paper, one.score, chunk, _parts(one, kinds, legs, ask.options)) for one, paper, chunk in ranked[:WINDOW]], full

    def _rank_native(self, ask: _Ask, conditions: Sequence[filters.Condition], targets: Targets) -> tuple[list[_Ranked], bool]:
        """Let the server rank one level; chunks are gathered by paper here, since its collapse may lose groups."""
        assert ask.vector is not None
        options = ask.options
        level: Level = "papers" if options.level == "papers" else "chunks"
        pipe = query.pipeline(options.fusion, options.weights, explain=options.explain)
        where = self._clauses(conditions, level, targets)
        body = query.hybrid(ask.text, ask.vector, ask.depth, where, pipe, explain=options.explain)
        answer = self._client.search(index=targets[level].index, body=body, params={"allow_partial_search_results": "false"})
        hits = answer["hits"]["hits"]
        scores, chunks = _by_paper(hits, level)
        trees = {hit["_id"]: hit.get("_explanation") for hit in hits}
        ranked = [_Ranked(key, score, chunks.get(key), trees.get(chunks.get(key, key))) for key, score in scores.items()]
        return sorted(ranked, key=lambda one: (-one.score, one.id)), len(hits) >= ask.depth

    def _legs(self, requests: Sequence[tuple[Target, query.Body]]) -> list[list[dict[str, Any]]]:
        """Send several requests in one `_msearch`; return their hits. Raises what the first failing one would raise alone."""
        lines: list[Any] = []
        for target, body in requests:
            lines += [{"index": target.index, "allow_partial_search_results": False}, body]
        ndjson = b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines)
        answers = self._client.msearch(body=ndjson)["responses"]
        for answer in answers:
            if "error" in answer:
                kind = NotFoundError if answer["status"] == 404 else RequestError
                raise kind(answer["status"], answer["error"].get("type", "error"), answer)
        return [answer["hits"]["hits"] for answer in answers]

    def _clauses(self, conditions: Sequence[filters.Condition], level: Level, targets: Targets) -> list[query.Body]:
        return filters.clauses(conditions, targets[level].meta_types, level)

    def _is_native(self) -> bool:
        if self._native is None:
            self._native = has_hybrid(self._client, self._server)
        return self._native

    def _fetch(self, text: str, page: Sequence[_Ranked], targets: Targets, passages: int) -> tuple[Hit, ...]:
        if not page:
            return ()
        ids = [ranked.id for ranked in page]
        requests = [(targets["papers"], query.papers_page(text, ids))]
        if passages:
            best = [ranked.chunk for ranked in page if ranked.chunk]
            requests.append((targets["chunks"], query.passages_page(text, ids, best, passages)))
        papers, *groups = self._legs(requests)
        stored = {hit["_id"]: hit for hit in papers}
        pieces = _passages(groups[0]) if groups else {}
        return tuple(_hit(ranked, stored[ranked.id], pieces) for ranked in page if ranked.id in stored)


@dataclass(frozen=True)
class _Ask:
    """What is asked of the ranking at one depth."""

    text: str
    vector: NDArray[np.float32] | None
    mode: Mode
    options: SearchOptions
    depth: int


def _fuse_legs(legs: Sequence[Mapping[str, float]], options: SearchOptions) -> list[Fused]:
    if len(legs) > 1:
        return fuse(legs, options.fusion, options.weights)
    alone = [Fused(key, score, (score,)) for key, score in legs[0].items()]
    return sorted(alone, key=lambda one: (-one.score, one.id))


def _gather(fused: Sequence[Fused], level: Level) -> list[tuple[Fused, str, str | None]]:
    """Gather a ranking of one level by paper: (its best entry, paper id, chunk id)."""
    if level == "papers":
        return [(one, one.id, None) for one in fused]
    first: dict[str, Fused] = {}
    for one in fused:
        first.setdefault(store.paper_of(one.id), one)
    return [(one, paper, one.id) for paper, one in first.items()]


def _parts(one: Fused, kinds: Sequence[str], legs: Sequence[Mapping[str, float]], options: SearchOptions) -> dict[str, Any] | None:
    """Return where a score comes from, per leg, if that was asked for."""
    if not options.explain:
        return None
    weights = options.weights if len(legs) > 1 else (1.0,)
    return {
        kind: {"raw": leg.get(one.id), "normalised": part, "weight": weight}
        for kind, leg, part, weight in zip(kinds, legs, one.parts, weights, strict=True)
    }


def _by_paper(hits: Sequence[Mapping[str, Any]], level: Level) -> tuple[dict[str, float], dict[str, str]]:
    """Gather hits by paper: its best score and, of chunks, which one that was."""
    if level == "papers":
        return {hit["_id"]: float(hit["_score"]) for hit in hits}, {}
    scores: dict[str, float] = {}
    chunks: dict[str, str] = {}
    for hit in hits:  # best first
        paper = store.paper_of(hit["_id"])
        if paper not in scores:
            scores[paper], chunks[paper] = float(hit["_score"]), hit["_id"]
    return scores, chunks


def _passages(groups: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Passage, ...]]:
    pieces = {}
    for group in groups:
        inner = group["inner_hits"]["passages"]["hits"]["hits"]
        pieces[inner[0]["_source"]["paper_id"]] = tuple(
            Passage(
                chunk_index=hit["_source"]["chunk_index"],
                start_char=hit["_source"]["start_char"],
                end_char=hit["_source"]["end_char"],
                text=hit["_source"]["text"],
                highlight=" … ".join(hit.get("highlight", {}).get("text", [])),
            )
            for place, hit in enumerate(inner)
            if place == 0 or hit["_score"] > 0  # a paper found by its title alone shows its beginning, not any passage
        )
    return pieces


def _hit(ranked: _Ranked, stored: Mapping[str, Any], pieces: Mapping[str, tuple[Passage, ...]]) -> Hit:
    source = stored["_source"]
    return Hit(
        id=ranked.id,
        score=ranked.score,
        title=source.get("title", ""),
        highlight=" … ".join(stored.get("highlight", {}).get("title", [])),
        meta=source.get("meta", {}),
        source=source.get("source", ""),
        word_count=int(source.get("word_count", 0)),
        passages=pieces.get(ranked.id, ()),
        explain=ranked.explain,
    )


def _one_of(what: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InputError(f"There is no {what} '{value}'.", "", f"Use {', '.join(allowed)}.")
