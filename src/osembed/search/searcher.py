"""The search flow: resolve the alias → embed with the model of that index → rank → fetch one page.

Ranking and fetching are two requests. The ranking window (100 papers from 200 candidates per leg) does not depend on the page, so pages are
slices of one list.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from osembed.embed.encoders import Encoders
from osembed.embed.passage_vectors import is_usable
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
from osembed.limits import checked_value
from osembed.opensearch import documents, reads, sight
from osembed.opensearch.client import Access, OpenSearch, Server
from osembed.opensearch.coordination.journal import Journal
from osembed.opensearch.names import find_published
from osembed.opensearch.patience import retry_seconds
from osembed.opensearch.refusals import reason_of
from osembed.opensearch.stored_papers import StoredPaper, read_paper
from osembed.opensearch.target import Target, Targets
from osembed.papers.levels import Level
from osembed.papers.paper import clean_text
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
_REMEMBERED = 1000  # cached query vectors
_PAUSES_S = (0.0, 0.1, 0.4, 1.0, 2.0)  # pauses before retries after an index or shard was unavailable
MAX_CHARS = 100_000  # of a query: a whole paper, and more than any model sees
_RESOLVE_S = 1.0  # how long a resolved alias is cached; after a swap the old index is still searched with its own model for so long


class Searcher:
    """Searches one collection. Thread-safe."""

    def __init__(
        self, client: OpenSearch, server: Server, collection: str, encoders: Encoders, resolve: Callable[[], Targets] | None = None
    ) -> None:
        """Search a collection where its aliases point, or the indexes that `resolve` returns, published or not."""
        self._find = resolve or partial(find_published, client, collection)
        self._client, self._server, self._collection, self._encoders = client, server, collection, encoders
        self._resolved: tuple[float, Targets] | None = None
        self._vectors: dict[tuple[str, str], NDArray[np.float32]] = {}
        self.ranker = Ranker(client, server)
        self._said_fusion = False

    def search(self, text: str, options: SearchOptions) -> SearchResult:
        """Return a page of hits; see SearchOptions. Raises InputError, CollectionError or, with strict=True, ModelError."""
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
        """Return the ids of the whole ranking window, best first, without fetching texts."""

        text = clean_text(text).strip()
        if not text:
            raise InputError("The query is empty.", "It finds nothing with any model.", "Remove it from the queries.")

        def attempt(targets: Targets) -> list[str]:
            question, _ = self._ask(text, options, targets)
            return [one.id for one in self.ranker.window(question, targets)]

        return self._on_targets(attempt)

    def present(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that are papers in the collection."""
        return set(documents.read_documents(self._client, self.targets()["papers"], ids, ["input_hash"]))

    def count(self, where: Sequence[str]) -> int:
        """Return the exact number of papers that match all filters, as far as this user can see."""
        conditions = filters.parse_filters(where)

        def attempt(targets: Targets) -> int:
            only = filters.filter_clauses(conditions, targets["papers"].meta_types, "papers")
            return reads.count(self._client, targets["papers"].index, {"bool": {"filter": only}} if only else None)

        return self._on_targets(attempt)

    def get(self, paper_id: str) -> StoredPaper:
        """Return a stored paper. Raises NoPaperError if the collection does not have it."""
        return self._on_targets(lambda targets: read_paper(self._client, targets, paper_id))

    def similar(self, seed: Callable[[Targets], Seed], options: SimilarOptions) -> SearchResult:
        """Return the papers whose vectors are nearest to a seed (a stored paper or a text), each with its nearest passages."""
        started = time.perf_counter()
        conditions = filters.parse_filters(options.where)

        def attempt(targets: Targets) -> SearchResult:
            target = targets["papers"]
            shown = choose_fields(options.fields, target.meta_types)
            where = filters.filter_clauses(conditions, target.meta_types, "papers")
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
        """Return the seed of a stored paper for `similar`."""
        return lambda targets: stored_seed(self._client, targets, paper_id)

    def text_seed(self, title: str, text: str) -> Callable[[Targets], Seed]:
        """Return the seed of a text for `similar`, embedded with the model of the index that is searched."""
        return lambda targets: text_seed(self._encoders, targets, title, text)

    def _with_chunks(self, like: Seed, found: Sequence[Mapping[str, Any]], targets: Targets) -> list[Ranked]:
        """Return the ranking with each paper's nearest chunk, if the seed has a vector in the chunks' space."""
        if like.chunk is None or not found:
            return _ranked(found)
        inside = [bodies.nearest(like.chunk, 1, [{"term": {"paper_id": hit["_id"]}}]) for hit in found]
        nearest = self.ranker.legs([(targets["chunks"], bodies.leg(one, 1)) for one in inside])
        return [Ranked(hit["_id"], hit["_score"], chunks[0]["_id"] if chunks else None) for hit, chunks in zip(found, nearest, strict=True)]

    def request(self, text: str, options: SearchOptions, access: Access) -> Request:
        """Return the search as a request that other programs can send to this server. Nothing is searched."""
        text = check_query(text)
        targets = self.targets()
        question, notices = self._ask(text, options, targets)
        if question.mode == "hybrid" and not self.ranker.lack and self._sees_a_part():
            self.ranker.give_up_native()
        lack = self.ranker.lack_for(options.fusion) if question.mode == "hybrid" else ""
        return make_request(question, targets, access, lack, notices)

    def sight_notice(self) -> str:
        """Return a notice that security settings limit what this user can see; "" if they do not."""
        found = sight.limits(self._client, {level: target.index for level, target in self.targets().items()})
        return f"All figures are as far as this user can see: {found} limits it." if found else ""

    def fusion_notice(self) -> str:
        """Return a notice that rankings of one level are fused on the client; "" if the server fuses them."""
        if not self.ranker.lack:
            return ""
        return f"{self.ranker.lack}: words and meaning were combined on the client, with the same formula."

    def _sees_a_part(self) -> bool:
        return sight.is_limited(self._client, [target.index for target in self.targets().values()])

    def targets(self) -> Targets:
        """Return the collection's indexes, resolved at most a second ago."""
        now = time.monotonic()
        if self._resolved and now - self._resolved[0] < _RESOLVE_S:
            return self._resolved[1]
        return self.resolve()

    def resolve(self) -> Targets:
        """Return the collection's current indexes. Raises CollectionError if there are none."""
        now = time.monotonic()
        self._resolved = (now, self._find())
        return self._resolved[1]

    def admit(self, level: Level) -> None:
        """Load the model of a level and test it against the witness vectors. Raises ModelError if this machine lacks the model."""
        self._encoders.of(self.targets()[level].meta.stored_model, Journal(self._client).recall_witness)

    def _on_targets(self, attempt: Callable[[Targets], T]) -> T:
        """Run an attempt on the resolved indexes. If an index or its shards became unavailable, resolve the alias again and retry."""
        began = time.monotonic()
        for pause in (*_PAUSES_S, None):
            try:
                return attempt(self.targets())
            except (UnsettledError, UnavailableError) as error:
                if isinstance(error, UnavailableError) and time.monotonic() - began >= retry_seconds():
                    raise  # the client has already retried the request for as long as it may
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
                "The indexes' default search pipeline is missing.",
                "Run `osembed doctor`: it recreates the pipeline.",
            )
        if "clause" in text.lower():  # this server's clause limit is lower, or its analyzer splits words further
            return InputError("The query has more words than this server accepts.", "", "Shorten it.")
        return InputError(f"The server refuses this search: {text[:300]}.")

    def _ask(self, text: str, options: SearchOptions, targets: Targets) -> tuple[Question, tuple[str, ...]]:
        """Return the question, embedded with the model of the index to search. Without that model it is lexical, with a notice."""
        conditions = filters.parse_filters(options.where)
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
        """Return notices about a shortened query and about filters that match nothing. Costs requests only if nothing was found."""
        cut = question.mode != "vector" and bodies.first_words(question.text)[1]
        said = (f"The query is long: only its first {bodies.MAX_WORDS} distinct words were searched.",) if cut else ()
        return (*said, *(() if ranked else filter_hints.unmet_filters(self._client, targets["papers"], question.where)))

    def _fusion_notice(self, question: Question) -> tuple[str, ...]:
        """Return a notice, once per searcher, if a search on one level had to be fused on the client."""
        if self._said_fusion or question.mode != "hybrid" or question.options.level == "both":
            return ()
        said = self.fusion_notice()
        self._said_fusion = True
        return (said,) if said else ()

    def _query_vector(self, text: str, target: Target) -> NDArray[np.float32]:
        """Return the query's vector in an index's space. It is cached, because pages and evaluations repeat the same queries."""
        key = (target.meta.identity.hash, text)
        vector = self._vectors.get(key)
        if vector is None:
            vector = self._encoders.of(target.meta.stored_model).encode_query(text)
            if not is_usable(vector):
                raise ModelError(
                    f"{target.meta.model} gives this query a vector that is zero or not finite.", "It cannot be compared with others."
                )
            if len(self._vectors) >= _REMEMBERED:
                self._vectors.clear()
            self._vectors[key] = vector
        return vector


def _models(target: Target) -> str:
    return ", ".join(dict.fromkeys(member.meta.model for member in target.members))


def _ranked(found: Sequence[Mapping[str, Any]]) -> list[Ranked]:
    return [Ranked(hit["_id"], hit["_score"]) for hit in found]


def check_query(text: str) -> str:
    """Return the cleaned query. Raises InputError if it is empty or too long."""
    text = clean_text(checked_value("query", text, str)).strip()
    if not text:
        raise InputError("The query is empty.", "", "Type what you are looking for.")
    if len(text) > MAX_CHARS:
        raise InputError(f"The query has {len(text):,} characters.", f"At most {MAX_CHARS:,} are allowed.", "Use its key sentences.")
    return text


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 2)
