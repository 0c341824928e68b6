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
        mode: what to search by: words and meaning, words only, or meaning only.
        fusion: the formula that joins both rankings.
        weights: of the lexical and the vector leg.
        where: filters such as year>=2015, one or several; all must hold.
        level: both (words in papers, meaning in chunks), papers or chunks (native hybrid on one index).
        size, page: pages are slices of one window of 100 papers.
        hits: papers with their best passages, or chunks (several of one paper may be found; the level is then chunks).
        passages: most passages shown per paper.
        explain: whether hits say how their score came about.
        strict: fail instead of searching words only where the model is missing.
        sort: a field, such as year or year:desc; "" for the best first. In lexical mode all matches are sorted, else the ranking window.
        facets: metadata fields to count papers by; in lexical mode all that match, else the ranking window.
        fields: what is returned of a paper: title, abstract, body, source, word_count, metadata; () for all but the long texts.
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
    """How to look for similar papers.

    Attributes:
        size: how many papers.
        where: filters such as year>=2015, one or several; all must hold.
        passages: most passages shown per paper.
        fields: what is returned of a paper, as in SearchOptions.
    """

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
