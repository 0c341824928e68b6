"""Search results and stored papers, formatted for people."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import orjson

from osembed.cli.output import print_notice, safe_text

if TYPE_CHECKING:
    from rich.text import Text

    from osembed.opensearch.stored_papers import StoredPaper
    from osembed.search.results import Hit, SearchResult

# Most characters of a title, a passage and a fact, so that each hit takes a few lines only. --json prints everything.
_TITLE, _PASSAGE, _FACT = 300, 1200, 80


def marked(highlight: str, base: str = "") -> Text:
    """Turn an HTML-escaped highlight into styled text: <em> becomes bold."""
    from rich.text import Text

    text = Text(style=base)
    for number, piece in enumerate(re.split(r"</?em>", highlight)):
        text.append(
            safe_text(html.unescape(re.sub(r"\s+", " ", piece))),
            style="bold yellow" if number % 2 else "",
        )
    return text


def print_result(result: SearchResult, fields: Sequence[str] = ()) -> None:
    """Print a page of hits with the requested fields, or with their first four metadata fields."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    for text in result.notices:
        print_notice(text)
    if not result.hits:
        console.print("Nothing found.", markup=False)
        _print_facets(console, result)
        return
    first = (result.page - 1) * result.size + 1
    several = len({hit.collection for hit in result.hits}) > 1
    for rank, hit in enumerate(result.hits, first):
        _print_hit(console, rank, hit, _facts(hit, fields, several))
    last = first + len(result.hits) - 1
    more = "100 or more" if result.found >= 100 else str(result.found)
    console.print(f"{first}–{last} of {more} · {result.mode} · {result.took_ms:.0f} ms", style="dim", markup=False)
    _print_facets(console, result)


def _print_facets(console: Any, result: SearchResult) -> None:
    """Print how many papers have each value, and which papers were counted."""
    from rich.text import Text

    of = "papers that match" if result.scope == "matches" else "best-ranked papers"
    for facet in result.facets:
        console.print(Text(safe_text(f"\n{facet.field}, of {facet.papers:,} {of}"), style="bold"))
        for value, count in facet.values.items():
            console.print(Text(safe_text(f"{count:>8,}  {short(value)}")))
        rest = [f"{facet.other:,} other"] * bool(facet.other) + [f"{facet.missing:,} without"] * bool(facet.missing)
        inexact = [f"counts may be too low by up to {facet.error:,}"] * bool(facet.error)
        if rest + inexact:
            console.print(Text("  " + " · ".join(rest + inexact), style="dim"))


def _print_hit(console: Any, rank: int, hit: Hit, facts: Sequence[str]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    head = Text(f"{rank}. ", style="bold")
    head.append_text(marked(hit.highlight or html.escape(hit.title or hit.id), "bold cyan"))
    head.truncate(_TITLE, overflow="ellipsis")
    console.print(head)
    console.print(Padding(Text(safe_text(" · ".join(facts)), style="dim"), (0, 0, 0, 3)))
    for passage in hit.passages:
        if passage.highlight:
            shown = marked(passage.highlight)
            shown.truncate(_PASSAGE, overflow="ellipsis")
            console.print(Padding(shown, (0, 0, 0, 3)))
    if hit.explain:
        console.print(Padding(Text(safe_text(_explanation(hit.explain)), style="dim"), (0, 0, 0, 3)))
    console.print()


def _facts(hit: Hit, fields: Sequence[str], several: bool) -> list[str]:
    """Return the line below a title: score, collection (if there are several), id and fields."""
    from_ = [hit.collection] if several else []
    return [f"{hit.score:.3f}", *from_, hit.id, *(f"{name} {short(value)}" for name, value in _shown(hit, fields).items())]


def _shown(hit: Hit, fields: Sequence[str]) -> dict[str, Any]:
    if not fields:
        return dict(list(hit.meta.items())[:4])
    others = {"source": hit.source, "word_count": hit.word_count, **hit.texts}
    return {**hit.meta, **{name: others[name] for name in fields if name in others}}


def _explanation(explain: dict[str, Any]) -> str:
    if "details" in explain:  # the explanation tree of OpenSearch, not one of osembed's own
        return orjson.dumps(explain, option=orjson.OPT_INDENT_2).decode()
    return "; ".join(
        f"{leg}: raw {'–' if part['raw'] is None else format(part['raw'], '.3f')}, "
        f"normalised {part['normalised']:.3f}, weight {part['weight']:g}"
        for leg, part in explain.items()
    )


def print_paper(paper: StoredPaper) -> None:
    """Print a stored paper: its text, then its metadata and versions, then its chunks."""
    click.echo(click.style(safe_text(paper.title or paper.id), bold=True))
    for text in (paper.abstract, paper.body):
        if text:
            click.echo(f"\n{safe_text(text)}")
    click.echo()
    written = f"{paper.ingested_at or '?'}, version {paper.version}, sequence number {paper.seq_no}, term {paper.primary_term}"
    facts: dict[str, object] = {
        "id": paper.id,
        **{f"meta {name}": ", ".join(map(str, value)) if isinstance(value, list) else value for name, value in sorted(paper.meta.items())},
        "source": paper.source or "?",
        "words": f"{paper.word_count:,}",
        "models": ", ".join(dict.fromkeys(paper.models.values())),
        "identity": paper.identity or "?",
        "index": paper.index,
        "input hash": paper.input_hash or "?",
        "written": written,
    }
    for name, value in facts.items():
        click.echo(safe_text(f"{name:12} {value}"))
    state = "" if paper.is_complete else "; incomplete: see `osembed verify`"
    click.echo(f"{len(paper.chunks):,} of {paper.chunk_count:,} chunks{state}")
    for chunk in paper.chunks:
        stale = "" if chunk.is_current else "  from an earlier text or another model"
        tokens = "?" if chunk.token_count is None else f"{chunk.token_count:,}"
        click.echo(
            f"  #{chunk.number}  characters {chunk.start_char:,}–{chunk.end_char:,}  {chunk.word_count:,} words  {tokens} tokens{stale}"
        )
    click.echo()


def short(value: object) -> str:
    """Return a value as text of at most 80 characters, a list as its first three values."""
    if isinstance(value, list):
        return ", ".join(map(short, value[:3])) + ("…" if len(value) > 3 else "")
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _FACT else f"{text[: _FACT - 1]}…"
