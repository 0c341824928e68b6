"""Sort a ranking by a field and count it by facets, before a page is cut. Both are checked before anything is ranked.

A lexical search has a definite set of matches, so all of them are sorted and counted. A vector search has not, because every paper is near to
some degree. There only the ranking window is sorted and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from osembed.errors import InputError
from osembed.opensearch.target import Targets
from osembed.papers.levels import Level
from osembed.search import bodies, facets, sorting
from osembed.search.options import SearchOptions
from osembed.search.projection import Projection, choose_fields
from osembed.search.ranking import Question, Ranked, Ranker
from osembed.search.results import Facet
from osembed.search.sorting import Sort


@dataclass(frozen=True)
class Refinement:
    """How to sort, count and show a ranking.

    Attributes:
        sort: the field to sort by; None for best first.
        fields: the fields to count papers by.
        shown: the fields to return.
    """

    sort: Sort | None
    fields: tuple[str, ...]
    shown: Projection

    def scope(self, question: Question) -> str:
        """Return what is sorted and counted: "matches", "window", or "" for nothing."""
        if not self.sort and not self.fields:
            return ""
        return "matches" if question.mode == "lexical" else "window"

    def notices(self, question: Question, window: Sequence[Ranked]) -> tuple[str, ...]:
        """Return a notice if only the ranking window was sorted."""
        if not self.sort or question.mode == "lexical":
            return ()
        return (f"Sorted by {self.sort} among the {len(window)} best hits; --mode lexical sorts all matches.",)


def plan_refinement(options: SearchOptions, targets: Targets) -> Refinement:
    """Check the requested fields against those that papers have. Raises InputError with the nearest known name."""
    types = targets["papers"].meta_types
    fields = facets.check_fields(options.facets, types)
    return Refinement(sorting.parse_sort(options.sort, types), fields, choose_fields(options.fields, types))


def request_parts(question: Question, wanted: Refinement, level: Level) -> bodies.Body:
    """Return the sort and facet parts of a request for other programs. Raises InputError if osembed itself needs a second request."""
    if not wanted.scope(question):
        return {}
    if question.mode != "lexical":
        raise InputError(
            "One request cannot sort or count the best-ranked papers.",
            "osembed sends a second request for that.",
            "Add --mode lexical, or leave out --sort and --facet.",
        )
    if wanted.fields and level == "chunks":
        raise InputError("With --level chunks a request would count chunks, not papers.", "", "Leave out --level chunks or --facet.")
    sort = {"sort": sorting.sort_clauses(wanted.sort), "track_scores": True} if wanted.sort else {}
    return {**sort, **({"aggs": facets.figures(wanted.fields), "track_total_hits": True} if wanted.fields else {})}


def rank(ranker: Ranker, question: Question, targets: Targets, wanted: Refinement) -> list[Ranked]:
    """Return the ranking window in the requested order: papers without a value last, ties by id."""
    if not wanted.sort:
        return ranker.window(question, targets)
    order = sorting.sort_clauses(wanted.sort)
    if question.mode == "lexical":
        return ranker.sorted_matches(question, targets, order)
    window = ranker.window(question, targets)
    papers = list(dict.fromkeys(one.id for one in window))
    places = {key: place for place, key in enumerate(ranker.order(papers, targets, order))} if papers else {}
    return sorted((one for one in window if one.id in places), key=lambda one: places[one.id])


def count(ranker: Ranker, question: Question, window: Sequence[Ranked], targets: Targets, wanted: Refinement) -> tuple[Facet, ...]:
    """Return the facets: of all matches in lexical mode, else of the ranking window. Every page has the same counts.

    Papers are counted, even if chunks were ranked.
    """
    if not wanted.fields:
        return ()
    if question.mode == "lexical":
        found = bodies.filtered(bodies.lexical(question.text), ranker.where(question, "papers", targets))
    else:
        found = ranker.those([one.id for one in window], targets)
    return ranker.count(found, wanted.fields, targets["papers"])
