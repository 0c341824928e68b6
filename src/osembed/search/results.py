"""Search results as plain values."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, overload


@dataclass(frozen=True)
class Passage:
    """A chunk of a paper.

    Attributes:
        chunk_index: its number in the paper, from 0.
        start_char, end_char: its position in the paper's text, in characters.
        text: the text of the chunk.
        highlight: fragments of the text, HTML-escaped, with matching words in <em>.
    """

    chunk_index: int
    start_char: int
    end_char: int
    text: str
    highlight: str


@dataclass(frozen=True)
class Hit:
    """One paper that was found, or one of its chunks (`passages` then holds only that chunk).

    Attributes:
        score: comparable within one ranking only.
        highlight: the title, HTML-escaped, with matching words in <em>.
        meta: the paper's metadata by field, or the requested fields of it.
        source: the file that the paper came from.
        explain: with explain=True, the raw score, normalised score and weight of each leg, or the server's own explanation.
        texts: the abstract and body, if they were requested as fields.
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
    """How many papers have each value of a metadata field.

    Attributes:
        papers: number of papers counted.
        values: value (as a filter accepts it) → papers, most frequent first. A paper with several values counts for each.
        other: the total count of all other values.
        missing: number of papers without a value.
        error: by how much a count may be too low at most; 0 if counts are exact.
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
        mode: the mode that was used; it differs from the requested one if `degraded`.
        found: papers in the ranking window, at most 100.
        degraded: whether the model was missing, so that only words were searched; `notices` says why.
        notices: sentences for the user.
        models: level → model that answered.
        took_ms: duration in milliseconds.
        sort: the field and its order; "" for best first.
        scope: what was sorted and counted: "matches" (all of them), "window" (the ranked papers) or "" (nothing).
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
        """Return the number of hits on the page."""
        return len(self.hits)

    @overload
    def __getitem__(self, place: int) -> Hit: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, place: int | slice) -> Hit | tuple[Hit, ...]:
        """Return a hit by its place on the page, or several for a slice."""
        return self.hits[place]

    def _repr_html_(self) -> str:
        """Return the page as an HTML table for notebooks."""
        return result_html(self)


_PASSAGE = 300  # most characters of a passage in the table
_FACTS = 4  # most metadata fields per row


def result_html(result: SearchResult) -> str:
    """Return a page of hits as an HTML table: rank, score, title with metadata, best passage. All text is escaped."""
    first = (result.page - 1) * result.size + 1
    rows = "".join(_row(rank, hit) for rank, hit in enumerate(result.hits, first))
    notices = "".join(f"<p>{_text(notice)}</p>" for notice in result.notices)
    head = "<tr><th>#</th><th>score</th><th>paper</th><th>passage</th></tr>"
    caption = f"<caption>{_text(result.query[:_PASSAGE])} · {_text(result.mode)} · {len(result.hits)} of {result.found}</caption>"
    return f"{notices}<table>{caption}<thead>{head}</thead><tbody>{rows}</tbody></table>"


def _row(rank: int, hit: Hit) -> str:
    facts = [hit.id, *(f"{name} {value}" for name, value in list(hit.meta.items())[:_FACTS])]
    paper = f"<b>{_text(hit.title or hit.id)}</b><br><small>{_text(' · '.join(facts))}</small>"
    passage = _text(hit.passages[0].text[:_PASSAGE]) if hit.passages else ""
    return f"<tr><td>{rank}</td><td>{hit.score:.3f}</td><td>{paper}</td><td>{passage}</td></tr>"


def _text(text: object) -> str:
    return html.escape(str(text))
