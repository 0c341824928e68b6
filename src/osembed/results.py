"""What a search is asked and what it answers: plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from osembed.errors import InputError
from osembed.limits import Fusion, Mode, check_fields

WINDOW = 100
DEPTHS = (200, 1000)


@dataclass(frozen=True)
class SearchOptions:
    """How to search.

    Attributes:
        level: both (words in papers, meaning in chunks), papers or chunks (native hybrid on one index).
        weights: of the lexical and the vector leg.
        where: filters such as year>=2015; all must hold.
        size, page: pages are slices of one window of 100 papers.
        hits: papers with their best passages, or chunks (several of one paper may be found; the level is then chunks).
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
    hits: str = "papers"
    passages: int = 2
    explain: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.where, str):
            object.__setattr__(self, "where", (self.where,))
        check_fields(self)
        if self.hits == "chunks":
            if self.level == "papers":
                raise InputError("Chunks were asked of the level papers.", "They stand on the other.", "Use --level chunks.")
            object.__setattr__(self, "level", "chunks")
        if not (all(weight >= 0 for weight in self.weights) and 0 < sum(self.weights) < float("inf")):  # NaN is neither
            raise InputError(f"weights: {self.weights} are not two numbers, not negative and not both 0.", "", "Write them like 0.3,0.7.")
        if (self.page - 1) * self.size >= WINDOW:
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
    """One paper found, or one of its chunks (`passages` then holds just that one).

    `explain` holds, where asked for, each leg's raw and normalised score.
    """

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
