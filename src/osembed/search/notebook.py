"""Results as an HTML table, for notebooks. Whatever a paper contains is shown as text, never as markup."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from osembed.search.results import Hit, SearchResult

_PASSAGE = 300  # characters of a passage
_FACTS = 4


def result_html(result: SearchResult) -> str:
    """Return a page of hits as a table: rank, score, title with its facts, best passage."""
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
