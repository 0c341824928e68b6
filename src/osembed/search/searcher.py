"""The search flow: resolve → embed with the model of the index that answers → rank → fetch one page.

Ranking and fetching are two requests. The ranking window (100 papers from 200 candidates a leg) does not depend on the page, so pages are
slices of one list.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from osembed.embed.encoders import Encoders
from osembed.errors import (
    ClusterError,
    CollectionError,
    InputError,
    ModelError,
    OsembedError,
    RefusedError,
    UnavailableError,
    UnsettledError,
)
from osembed.limits import checked
from osembed.opensearch import documents, indexes, reads, sight
from osembed.opensearch.client import Access, OpenSearch, Server
from osembed.opensearch.names import missing
from osembed.opensearch.patience import retry_seconds
from osembed.opensearch.refusals import reason_of
from osembed.opensearch.stored_papers import StoredPaper, read_paper
from osembed.opensearch.target import Target, Targets
from osembed.papers.paper import clean
from osembed.search import bodies, filter_hints, filters, refine
from osembed.search.fetch import fetch_page
from osembed.search.options import WINDOW, SearchOptions, SimilarOptions
from osembed.search.printed import Request, make_request
from osembed.search.projection import choose_fields
from osembed.search.ranking import Question, Ranked, Ranker
from osembed.search.refine import plan_refinement
from osembed.search.results import SearchResult
from osembed.search.similar import Seed, stored_seed, text_seed

T = TypeVar("T")
_REMEMBERED = 1000  # query vectors
_PAUSES_S = (0.0, 0.1, 0.4, 1.0, 2.0)  # before an attempt on indexes that were away is repeated
MAX_CHARS = 100_000  # of a query: a whole paper; no model sees more
_RESOLVE_S = 1.0  # how long a resolved alias is believed; within it a swapped-out index still answers with its own model


class Searcher:
    """Searches one collection. Safe to share between threads."""

    def __init__(self, client: OpenSearch, server: Server, collection: str, encoders: Encoders) -> None:
        self._client, self._server, self._collection, self._encoders = client, server, collection, encoders
        self._resolved: tuple[float, Targets] | None = None
        self._vectors: dict[tuple[str, str], NDArray[np.float32]] = {}
        self.ranker = Ranker(client, server)
        self._said_fusion = False

    def search(self, text: str, options: SearchOptions) -> SearchResult:
        """Search; see SearchOptions. Raises InputError, CollectionError or, when strict, ModelError."""
        started = time.perf_counter()
        text = check_query(text)

        def attempt(targets: Targets) -> SearchResult:
            wanted = plan_refinement(options, targets)
            question, notices = self._ask(text, options, targets)
            ranked = refine.rank(self.ranker, question, targets, wanted)
            page = ranked[(options.page - 1) * options.size : options.page * options.size]
            return SearchResult(
                query=text,
                mode=question.mode,
                fusion=options.fusion,
                level=options.level,
                page=options.page,
                size=options.size,
                found=len(ranked),
                hits=fetch_page(self.ranker, text, page, targets, options, wanted.shown),
                degraded=question.mode != options.mode,
                notices=(
                    *notices,
                    *self._fusion_notice(question),
                    *wanted.notices(question, ranked),
                    *self._remarks(question, ranked, targets),
                ),
                models={level: _models(target) for level, target in targets.items()},
                took_ms=_since(started),
                sort=str(wanted.sort or ""),
                scope=wanted.scope(question),
                facets=refine.count(self.ranker, question, ranked, targets, wanted),
            )

        return self._on_targets(attempt)

    def rank(self, text: str, options: SearchOptions) -> list[str]:
        """Return the ids of the whole ranking window, best first, without fetching anything."""

        text = clean(text).strip()
        if not text:
            raise InputError("The query is empty.", "It would find nothing, whatever the model.", "Take it out of the queries.")

        def attempt(targets: Targets) -> list[str]:
            question, _ = self._ask(text, options, targets)
            return [one.id for one in self.ranker.window(question, targets)]

        return self._on_targets(attempt)

    def present(self, ids: Sequence[str]) -> set[str]:
        """Return which of these papers the collection has."""
        return set(documents.read_documents(self._client, self.targets()["papers"], ids, ["input_hash"]))

    def count(self, where: Sequence[str]) -> int:
        """Return how many papers match all filters, exactly, as far as this user sees."""
        conditions = filters.parse(where)

        def attempt(targets: Targets) -> int:
            only = filters.clauses(conditions, targets["papers"].meta_types, "papers")
            return reads.count(self._client, targets["papers"].index, {"bool": {"filter": only}} if only else None)

        return self._on_targets(attempt)

    def get(self, paper_id: str) -> StoredPaper:
        """Return a stored paper. Raises NoPaperError."""
        return self._on_targets(lambda targets: read_paper(self._client, targets, paper_id))

    def similar(self, seed: Callable[[Targets], Seed], options: SimilarOptions) -> SearchResult:
        """Return the papers nearest to a stored one, or to a text, by their vectors, each with its nearest passages."""
        started = time.perf_counter()
        conditions = filters.parse(options.where)

        def attempt(targets: Targets) -> SearchResult:
            target = targets["papers"]
            shown = choose_fields(options.fields, target.meta_types)
            where = filters.clauses(conditions, target.meta_types, "papers")
            like = seed(targets)
            others = [*where, *({"bool": {"must_not": [bodies.any_of(like.leave_out)]}} for _ in like.leave_out[:1])]
            [found] = self.ranker.legs([(target, bodies.leg(bodies.nearest(like.paper, WINDOW, others), WINDOW))])
            page = self._with_chunks(like, found[: options.size], targets) if options.passages else _ranked(found[: options.size])
            return SearchResult(
                query=like.name,
                mode="vector",
                fusion="none",
                level="papers",
                page=1,
                size=options.size,
                found=len(found),
                hits=fetch_page(self.ranker, like.words, page, targets, options, shown),
                notices=like.notices if found else (*like.notices, *filter_hints.unmet_filters(self._client, target, conditions)),
                models={"papers": target.meta.model},
                took_ms=_since(started),
            )

        return self._on_targets(attempt)

    def stored_seed(self, paper_id: str) -> Callable[[Targets], Seed]:
        """Return what `similar` compares a stored paper by."""
        return lambda targets: stored_seed(self._client, targets, paper_id)

    def text_seed(self, title: str, text: str) -> Callable[[Targets], Seed]:
        """Return what `similar` compares a text by: embedded with the model of the index that answers."""
        return lambda targets: text_seed(self._encoders, targets, title, text)

    def _with_chunks(self, like: Seed, found: Sequence[Mapping[str, Any]], targets: Targets) -> list[Ranked]:
        """Name each paper's nearest chunk, where chunks can be compared."""
        if like.chunk is None or not found:
            return _ranked(found)
        inside = [bodies.nearest(like.chunk, 1, [{"term": {"paper_id": hit["_id"]}}]) for hit in found]
        nearest = self.ranker.legs([(targets["chunks"], bodies.leg(one, 1)) for one in inside])
        return [Ranked(hit["_id"], hit["_score"], chunks[0]["_id"] if chunks else None) for hit, chunks in zip(found, nearest, strict=True)]

    def request(self, text: str, options: SearchOptions, access: Access) -> Request:
        """Return the search as a request for other programs, such as this server understands. Nothing is searched."""
        text = check_query(text)
        targets = self.targets()
        question, notices = self._ask(text, options, targets)
        if question.mode == "hybrid" and not self.ranker.lack and self._sees_a_part():
            self.ranker.give_up_native()
        lack = self.ranker.lack_for(options.fusion) if question.mode == "hybrid" else ""
        return make_request(question, targets, access, lack, notices)

    def sight_notice(self) -> str:
        """Return what is to be said of figures that a user measures who sees a part; "" for one who sees all."""
        found = sight.limits(self._client, {level: target.index for level, target in self.targets().items()})
        return f"All figures are as far as this user sees: {found} limits it." if found else ""

    def fusion_notice(self) -> str:
        """Say that this server leaves the fusion of one level to the client; "" where it does it itself."""
        if not self.ranker.lack:
            return ""
        return f"{self.ranker.lack}: words and meaning were joined on the client, by the same formula."

    def _sees_a_part(self) -> bool:
        return sight.is_limited(self._client, [target.index for target in self.targets().values()])

    def targets(self) -> Targets:
        """Return the collection's indexes, resolved at most a second ago."""
        now = time.monotonic()
        if self._resolved and now - self._resolved[0] < _RESOLVE_S:
            return self._resolved[1]
        return self.resolve()

    def resolve(self) -> Targets:
        """Return the collection's indexes as they are now."""
        now, targets = time.monotonic(), indexes.resolve(self._client, self._collection)
        if targets is None:
            raise missing(self._client, self._collection)
        self._resolved = (now, targets)
        return targets

    def _on_targets(self, attempt: Callable[[Targets], T]) -> T:
        """Run an attempt; when an index vanished between resolving and searching, or its shards were just then away, resolve again."""
        began = time.monotonic()
        for pause in (*_PAUSES_S, None):
            try:
                return attempt(self.targets())
            except (UnsettledError, UnavailableError) as error:
                if isinstance(error, UnavailableError) and time.monotonic() - began >= retry_seconds():
                    raise  # the whole request was tried again already
                trouble: ClusterError = error
            except RefusedError as error:
                if error.status == 400:
                    raise self._explained(error) from error
                if error.status not in (404, 500):
                    raise
                trouble = error
            self._resolved = None
            if pause is None:
                raise ClusterError(
                    f"The server cannot search now: {trouble.found}", "", "See `osembed doctor`, then try again."
                ) from trouble
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _explained(self, error: RefusedError) -> OsembedError:
        text = reason_of(error.detail)
        if "pipeline" in text.lower():
            return CollectionError(
                f"The server refuses every search: {text}.",
                "The indexes' default search pipeline is gone.",
                "Run `osembed doctor`: it creates it again.",
            )
        if "clause" in text.lower():  # a server that takes fewer than MAX_WORDS, or cuts words in a way of its own
            return InputError("The query has more words than this server takes.", "", "Shorten it.")
        return InputError(f"The server refuses this search: {text[:300]}.")

    def _ask(self, text: str, options: SearchOptions, targets: Targets) -> tuple[Question, tuple[str, ...]]:
        """Embed the query with the model of the index that answers; without that model, ask by words only and say so."""
        conditions = filters.parse(options.where)
        if options.mode == "lexical":
            return Question(text, None, "lexical", options, conditions), ()
        target = targets[bodies.level_of_leg(options.level, "vector")]
        try:
            vector = self._query_vector(text, target)
        except ModelError as error:
            if options.strict:
                raise
            return Question(text, None, "lexical", options, conditions), (f"Searched by words only. {error}",)
        return Question(text, vector, options.mode, options, conditions), ()

    def _remarks(self, question: Question, ranked: Sequence[Ranked], targets: Targets) -> tuple[str, ...]:
        """Say what was left out of a long query, and why nothing was found; a search that found something asks the server nothing more."""
        cut = question.mode != "vector" and bodies.first_words(question.text)[1]
        said = (f"The query is long: only its first {bodies.MAX_WORDS} different words were looked for.",) if cut else ()
        return (*said, *(() if ranked else filter_hints.unmet_filters(self._client, targets["papers"], question.where)))

    def _fusion_notice(self, question: Question) -> tuple[str, ...]:
        """Say once, to whoever asked for the server's own fusion of one level, that it is done here."""
        if self._said_fusion or question.mode != "hybrid" or question.options.level == "both":
            return ()
        said = self.fusion_notice()
        self._said_fusion = True
        return (said,) if said else ()

    def _query_vector(self, text: str, target: Target) -> NDArray[np.float32]:
        """Embed a query with an index's model; the pages of one search, and evaluations, ask the same again and again."""
        key = (target.meta.identity.hash, text)
        vector = self._vectors.get(key)
        if vector is None:
            vector = self._encoders.of(target.meta.stored_model).encode_query(text)
            if not (np.isfinite(vector).all() and vector.any()):
                raise ModelError(f"{target.meta.model} makes a vector of this query that is zero or not finite.", "It finds nothing right.")
            if len(self._vectors) >= _REMEMBERED:
                self._vectors.clear()
            self._vectors[key] = vector
        return vector


def _models(target: Target) -> str:
    return ", ".join(dict.fromkeys(member.meta.model for member in target.members))


def _ranked(found: Sequence[Mapping[str, Any]]) -> list[Ranked]:
    return [Ranked(hit["_id"], hit["_score"]) for hit in found]


def check_query(text: str) -> str:
    """Return a query as it is searched for. Raises InputError where it is none."""
    text = clean(checked("query", text, str)).strip()
    if not text:
        raise InputError("The query is empty.", "", "Write what you are looking for.")
    if len(text) > MAX_CHARS:
        raise InputError(f"The query has {len(text):,} characters.", f"At most {MAX_CHARS:,} are taken.", "Use its most telling sentences.")
    return text


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 2)
