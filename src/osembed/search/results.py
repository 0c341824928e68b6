"""What a search is asked and what it answers: plain values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, overload

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
        where: filters such as year>=2015, one or several; all must hold.
        sort: a field, such as year or year:desc; "" for the best first. In lexical mode all matches are sorted, else the ranking window.
        facets: metadata fields to count papers by; in lexical mode all that match, else the ranking window.
        fields: what is returned of a paper: title, abstract, body, source, word_count, metadata; () for all but the long texts.
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
    sort: str = ""
    facets: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _settle(self, "where", "facets", "fields")
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
class SimilarOptions:
    """How to look for similar papers; the attributes are those of SearchOptions."""

    size: int = 10
    where: tuple[str, ...] = ()
    passages: int = 2
    fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _settle(self, "where", "fields")


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

    `explain` holds, where asked for, each leg's raw and normalised score; `texts` the abstract and body where they are among the fields.
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
    collection: str = ""
    texts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Facet:
    """How many papers have which value of a metadata field.

    Attributes:
        papers: how many papers were counted.
        values: value, as a filter takes it → papers, most first. A paper with several values counts for each.
        other: the count of all further values.
        missing: papers without a value.
        error: by how much a figure may be too small at most; 0 for exact ones.
    """

    field: str
    papers: int
    values: dict[str, int]
    other: int
    missing: int
    error: int = 0


@dataclass(frozen=True)
class SearchResult:
    """A page of hits.

    Attributes:
        found: papers in the ranking window, at most 100.
        degraded: whether meaning could not be searched, and `notices` why.
        models: level → model that answered.
        sort: the field and its order; "" for the best first.
        scope: what was sorted and counted by facets: "matches", all of them, or "window", the ranked papers; "" for neither.
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
    sort: str = ""
    scope: str = ""
    facets: tuple[Facet, ...] = ()

    def __iter__(self) -> Iterator[Hit]:
        """Iterate over the hits, best first."""
        return iter(self.hits)

    def __len__(self) -> int:
        """Return how many hits the page has."""
        return len(self.hits)

    @overload
    def __getitem__(self, place: int) -> Hit: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, place: int | slice) -> Hit | tuple[Hit, ...]:
        """Return a hit by its place on the page, or several."""
        return self.hits[place]

    def _repr_html_(self) -> str:
        """Return the page as a table for notebooks."""
        from osembed.search.notebook import result_html

        return result_html(self)


def _settle(options: Any, *several: str) -> None:
    """Make a tuple of each option that takes one text or several, and check all."""
    for name in several:
        if isinstance(getattr(options, name), str):
            object.__setattr__(options, name, (getattr(options, name),))
    check_fields(options)
