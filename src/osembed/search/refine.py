"""What is done to a ranking before its page is cut: sorted by a field, counted by facets. Checked before anything is ranked.

By words alone a server knows all that match, so it sorts and counts them all. A ranking that takes meaning in has no such end: every paper is
more or less near. There the ranking window is sorted and counted.
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
    """How a ranking is to be refined.

    Attributes:
        sort: None for the ranking's own order.
        fields: to count papers by.
        shown: what is returned of a paper.
    """

    sort: Sort | None
    fields: tuple[str, ...]
    shown: Projection

    def scope(self, question: Question) -> str:
        """Return what is sorted and counted: matches, window, or "" where nothing is."""
        if not self.sort and not self.fields:
            return ""
        return "matches" if question.mode == "lexical" else "window"

    def notices(self, question: Question, window: Sequence[Ranked]) -> tuple[str, ...]:
        """Say of a sorted window that it is no more than that."""
        if not self.sort or question.mode == "lexical":
            return ()
        return (f"Sorted by {self.sort} among the {len(window)} best hits; --mode lexical sorts all that match.",)


def plan_refinement(options: SearchOptions, targets: Targets) -> Refinement:
    """Check what was asked for against the fields that papers have. Raises InputError with the nearest known name."""
    types = targets["papers"].meta_types
    fields = facets.check_fields(options.facets, types)
    return Refinement(sorting.parse(options.sort, types), fields, choose_fields(options.fields, types))


def request_parts(question: Question, wanted: Refinement, level: Level) -> bodies.Body:
    """Return what a request for other programs has of it. Raises InputError for what takes osembed a second request."""
    if not wanted.scope(question):
        return {}
    if question.mode != "lexical":
        raise InputError(
            "One request cannot sort or count the best-ranked papers.",
            "osembed asks the server a second time for that.",
            "Add --mode lexical, or leave out --sort and --facet.",
        )
    if wanted.fields and level == "chunks":
        raise InputError("On chunks a request would count chunks, not papers.", "", "Leave out --level chunks, or --facet.")
    sort = {"sort": sorting.clauses(wanted.sort), "track_scores": True} if wanted.sort else {}
    return {**sort, **({"aggs": facets.figures(wanted.fields), "track_total_hits": True} if wanted.fields else {})}


def rank(ranker: Ranker, question: Question, targets: Targets, wanted: Refinement) -> list[Ranked]:
    """Return the ranking window, sorted as wanted: papers without a value last, ties by id."""
    if not wanted.sort:
        return ranker.window(question, targets)
    order = sorting.clauses(wanted.sort)
    if question.mode == "lexical":
        return ranker.sorted_matches(question, targets, order)
    window = ranker.window(question, targets)
    papers = list(dict.fromkeys(one.id for one in window))
    places = {key: place for place, key in enumerate(ranker.order(papers, targets, order))} if papers else {}
    return sorted((one for one in window if one.id in places), key=lambda one: places[one.id])


def count(ranker: Ranker, question: Question, window: Sequence[Ranked], targets: Targets, wanted: Refinement) -> tuple[Facet, ...]:
    """Count papers by facets: by words all that match, else those of the window. Every page has the same figures.

    Papers are counted on their own level, also where chunks were ranked.
    """
    if not wanted.fields:
        return ()
    if question.mode == "lexical":
        found = bodies.filtered(bodies.lexical(question.text), ranker.where(question, "papers", targets))
    else:
        found = ranker.those([one.id for one in window], targets)
    return ranker.count(found, wanted.fields, targets["papers"])
