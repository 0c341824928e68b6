"""Output for people. Text from papers and servers is data: control characters are removed, markup is never interpreted."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
import orjson

if TYPE_CHECKING:
    from osembed.evaluate.evaluation import Evaluation
    from osembed.ingest.summary import Summary
    from osembed.migrate.proof.repair import Repair
    from osembed.opensearch.doctor import Finding

# C0 and C1 controls, and the bidirectional controls that reorder text on screen.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f]")


def safe_text(text: object) -> str:
    """Return text without the characters that control a terminal."""
    return _UNSAFE.sub("", str(text))


def print_notice(text: str) -> None:
    """Print a notice for people on stderr."""
    print_error(click.style(safe_text(text), dim=True))


def print_error(text: str) -> None:
    """Write a line to stderr. If that fails (closed, disk full), ignore it and carry on."""
    with suppress(OSError):
        click.echo(text, err=True)


def print_json(data: Any, *, in_a_line: bool = False) -> None:
    """Print one JSON document on stdout."""
    indent = 0 if in_a_line else orjson.OPT_INDENT_2
    click.echo(orjson.dumps(data, option=indent | orjson.OPT_NON_STR_KEYS).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = (), err: bool = False) -> None:
    """Print a table, on stderr with `err`. If the output is not a terminal, the table is 200 columns wide so that nothing is cut."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(safe_text(cell)) for cell in row))
    stream = sys.stderr if err else sys.stdout
    # A fixed width for pipes: rich would otherwise cut or wrap columns at 80.
    Console(width=None if stream.isatty() else 200, highlight=False, stderr=err).print(table)


def print_summary(summary: Summary) -> None:
    """Print what an ingest did."""
    wall = max(summary.seconds["wall"], 1e-9)
    click.echo(
        f"{summary.read:,} read = {summary.indexed:,} indexed + {summary.unchanged:,} unchanged + {summary.rejected:,} rejected"
        f"  ({wall:.1f} s, {summary.read / wall:.1f} papers/s)"
    )
    if summary.embedded:
        model = ", ".join(dict.fromkeys(f"{summary.models[level]} ({summary.backends[level]})" for level in summary.models))
        click.echo(
            f"{summary.chunks:,} chunks; {summary.embedded:,} passages embedded with {model}, "
            f"{summary.tokens:,} tokens, {summary.tokens / wall:,.0f} tokens/s"
        )
        click.echo(_audit(summary))
    _print_losses(summary)


def print_follow_up(summary: Summary) -> None:
    """Print one line about the changed files of a watched folder, then what was rejected or left out."""
    counts = {name: getattr(summary, name) for name in ("indexed", "unchanged", "rejected", "pruned")}
    said = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count or name == "indexed")
    click.echo(f"{time.strftime('%H:%M:%S')}  {said}")
    _print_losses(summary)


def _print_losses(summary: Summary) -> None:
    for reason, count in summary.reasons.most_common():
        click.echo(f"  rejected {count:,}: {safe_text(reason)}")
    if summary.superseded:
        click.echo(f"  ids used by several records (the last record wins): {safe_text(_some(summary.superseded))}")
    if summary.doubled:
        click.echo(f"  {summary.doubled_count:,} papers are stored twice: also under the id that an earlier version of osembed gave them.")
        click.echo(f"  To delete the old copies: osembed delete {safe_text(shlex.join(summary.doubled))}")
    for why, counts in summary.dropped.items():
        names = ", ".join(f"{safe_text(name[:80])} ({count:,})" for name, count in counts.most_common(5))
        click.echo(f"  metadata left out, {why}: {names}")
    if summary.pruned:
        click.echo(f"  pruned {summary.pruned:,}: {safe_text(_some(summary.pruned_ids, summary.pruned))}")
    for why, count in summary.spared.items():
        click.echo(f"  no longer in the input, but kept {count:,}: {safe_text(why)} ({safe_text(_some(summary.spared_ids[why], count))})")
    if summary.spared:
        click.echo("  To remove such papers anyway: osembed delete ID…")
    for why, count in summary.skipped.items():
        click.echo(f"  skipped {count:,} {safe_text(why)}: {safe_text(_some(summary.skipped_names[why]))}")
    if summary.dead_letters:
        click.echo(f"  rejected records: {summary.dead_letters} (fix them, then ingest that file)")


def _some(names: Sequence[str], count: int = 0) -> str:
    """Return the first five names of a list, with "…" if `count` says that there are more."""
    return ", ".join(name[:80] for name in names[:5]) + (", …" if count > 5 else "")


def _audit(summary: Summary) -> str:
    """Return a sentence about how much of the text no model sees."""
    if not summary.unseen and not summary.beyond:
        return "The model sees all of the text."
    parts = [f"{summary.unseen:,} tokens of chunks longer than its window"] if summary.unseen else []
    parts += [f"{summary.beyond:,} words after the last allowed chunk"] if summary.beyond else []
    return f"The model does not see {' and '.join(parts)}."


def print_evaluation(evaluation: Evaluation) -> None:
    """Print a table with the metrics of every mode, fusion and level."""
    for text in evaluation.notices:
        print_notice(text)
    names = list(evaluation.rows[0].metrics)
    rows = [[row.level, row.mode, row.fusion, *(f"{row.metrics[name]:.4f}" for name in names)] for row in evaluation.rows]
    print_table(["level", "mode", "fusion", *names], rows, right=names)
    note = f"{evaluation.queries:,} queries, {evaluation.judged_papers:,} judged papers"
    missing = f", {evaluation.missing_papers:,} of them not in the collection" if evaluation.missing_papers else ""
    click.echo(note + missing)
    for why in dict.fromkeys(evaluation.left_out.values()):
        ways = [way for way, said in evaluation.left_out.items() if said == why]
        click.echo(f"{click.style('not measured', fg='red')} {', '.join(ways)}: {safe_text(why)}")


def print_repair(done: Repair) -> None:
    """Print what a repair fixed, and what it could not fix."""
    young = f", {done.young:,} chunks too young to judge" if done.young else ""
    lifted = f", write block of {', '.join(done.unblocked)} lifted" if done.unblocked else ""
    click.echo(f"{done.looked_at:,} documents checked, {done.embedded:,} repaired, {done.orphans:,} orphaned chunks deleted{young}{lifted}")
    if done.refused:
        click.echo(f"{click.style('not repaired', fg='red')} {len(done.refused):,} documents, which the next repair tries again:")
    for key, why in list(done.refused.items())[:10]:
        click.echo(f"  {safe_text(key)}: {safe_text(why)}")


def print_findings(findings: Sequence[Finding]) -> None:
    """Print doctor's findings."""
    colours = {"ok": "green", "mended": "cyan", "warning": "yellow", "problem": "red"}
    for finding in findings:
        click.echo(f"{click.style(f'{finding.verdict:8}', fg=colours[finding.verdict])} {finding.name}: {safe_text(finding.found)}")
        if finding.advice:
            click.echo(f"         {safe_text(finding.advice)}")
