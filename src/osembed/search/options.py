"""Options of a search, checked when they are created. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from osembed.errors import InputError
from osembed.limits import Fusion, Mode, check_fields

WINDOW = 100  # papers in a ranking; all pages are slices of it
DEPTHS = (200, 1000)  # candidates per leg: the second depth is tried if the first yields too few papers


@dataclass(frozen=True)
class SearchOptions:
    """How to search.

    Attributes:
        mode: hybrid, lexical (words) or vector (meaning).
        fusion: how a hybrid search combines both rankings: min_max, l2, z_score or rrf.
        level: both (words in papers, meaning in chunks), papers or chunks (native hybrid query on one index).
        weights: of the lexical and the vector leg.
        where: one or more filters such as year>=2015; all must match.
        sort: a field, such as year or year:desc; "" for best first. Lexical mode sorts all matches, the other modes the ranking window.
        facets: metadata fields to count papers by. Lexical mode counts all matches, the other modes the ranking window.
        fields: the fields to return: title, abstract, body, source, word_count or metadata; () for everything but abstract and body.
        size, page: papers per page, and the page number from 1. All pages are slices of one ranking of 100 papers.
        hits: "papers" with their best passages, or "chunks". Several chunks may come from one paper; the level is then chunks.
        passages: most passages per paper.
        explain: whether hits carry the parts of their score.
        strict: raise ModelError if the model is missing, instead of searching by words only.
    """

    mode: Mode = "hybrid"
    fusion: Fusion = "min_max"
    weights: tuple[float, float] = (0.5, 0.5)
    where: tuple[str, ...] = ()
    level: str = "both"
    size: int = 10
    page: int = 1
    hits: str = "papers"
    passages: int = 2
    explain: bool = False
    strict: bool = False
    sort: str = ""
    facets: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _settle(self, "where", "facets", "fields")
        if self.hits == "chunks":
            if self.level == "papers":
                raise InputError("The level papers has no chunks.", "Chunks are on the level chunks.", "Use --level chunks.")
            object.__setattr__(self, "level", "chunks")
        if not (all(weight >= 0 for weight in self.weights) and 0 < sum(self.weights) < float("inf")):  # NaN is neither
            raise InputError(
                f"weights: {self.weights} are not two numbers of at least 0 with a positive sum.", "", "Write them like 0.3,0.7."
            )
        if (self.page - 1) * self.size >= WINDOW:
            raise InputError(
                f"Page {self.page} of size {self.size} is beyond the first {WINDOW} papers.",
                "A search ranks only that many.",
                "Ask for an earlier page, or narrow the search with --where.",
            )


@dataclass(frozen=True)
class SimilarOptions:
    """How to find similar papers. The attributes mean the same as in SearchOptions."""

    size: int = 10
    where: tuple[str, ...] = ()
    passages: int = 2
    fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _settle(self, "where", "fields")


def _settle(options: Any, *several: str) -> None:
    """Turn options that accept one text or several into tuples, then check all options."""
    for name in several:
        if isinstance(getattr(options, name), str):
            object.__setattr__(options, name, (getattr(options, name),))
    check_fields(options)
