"""Search results as plain values."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, overload


@dataclass(frozen=True)
class Passage:
    """A piece of a paper.

    Attributes:
        chunk_index: its chunk's place in the paper, from 0.
        start_char, end_char: where it stands in abstract and body together.
        text: the chunk as it stands.
        highlight: the same, HTML-escaped, with the found words in `<em>`.
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
        id: of the paper.
        score: after fusion; only comparable within one page.
        title: of the paper.
        highlight: the title, HTML-escaped, with the found words in `<em>`; "" for none.
        meta: its metadata, as filters name it.
        source: file and line that it came from.
        word_count: words of abstract and body.
        passages: its best chunks, or the one chunk that was ranked.
        explain: each leg's raw and normalised score, where asked for.
        collection: that it is from.
        texts: abstract and body where they are among the fields.
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
        field: the metadata field.
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
    """A page of hits: a sequence of them, and in notebooks a table.

    Attributes:
        query: as it was searched.
        mode, fusion, level: how it was answered.
        page, size: which page, of how many hits.
        found: papers in the ranking window, at most 100.
        hits: best first, or in the order that was asked for.
        degraded: whether meaning could not be searched, and `notices` why.
        notices: what a person should know about the answer.
        models: level → model that answered.
        took_ms: milliseconds.
        sort: the field and its order; "" for the best first.
        scope: what was sorted and counted by facets: "matches", all of them, or "window", the ranked papers; "" for neither.
        facets: how many papers have which value, for each field that was asked for.
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
