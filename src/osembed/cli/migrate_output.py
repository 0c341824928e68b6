"""Options of `osembed migrate` that steps share, and its plans, states and verdicts for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from osembed.cli import options
from osembed.cli.output import print_table, safe_text

if TYPE_CHECKING:
    from osembed.migrate.proof.verdict import Gate
    from osembed.migrate.route import Plan
    from osembed.opensearch.coordination.migration_state import MigrationState

where_text = options.stacked(
    options.models,
    options.option("--profile", metavar="lucene|lucene-sq|faiss", help="Another mapping profile; vectors of the same model are copied."),
    options.option("--language", metavar="NAME", help="Another language, like german or de; vectors are copied."),
)
pace_text = options.stacked(
    options.progress,
    options.option("--rate", default=0.0, metavar="N", help="At most N documents per second."),
    options.option(
        "--gentle/--full-speed", default=None, help="Leave CPU time for searches. Default: gentle if the server is on this machine."
    ),
)
behind = options.option("--allow-failed", default=0, consent=True, metavar="N", help="Swap even if up to N documents could not be copied.")
proof_text = options.stacked(
    options.option("--full", is_flag=True, help="Verify every document instead of a sample."),
    behind,
    options.option("--gate-qrels", metavar="DIR", help="Use these judgments (BEIR layout) instead of known items."),
    options.option("--max-drop", multiple=True, metavar="METRIC=X", help="How much worse the new model may be, like ndcg@10=0.01."),
    options.option("--gate-mode", metavar="MODE", help="hybrid (default with judgments) or vector (default without)."),
    options.option("--gate-queries", metavar="FILE", help="A file of queries, one per line, to compare the results of both models."),
    options.option("--override", default="", consent=True, metavar="REASON", help="Swap even if the gate refuses; the reason is recorded."),
    options.option("--no-gate", is_flag=True, consent=True, help="Skip the gate; this is recorded."),
)


def print_plan(found: Plan) -> None:
    """Print the estimate of a migration."""
    columns = ["level", "from", "to", "documents", "tokens", "time", "graphs MB", "disk MB", "unseen"]
    rows = [
        [
            level.level,
            f"{level.model_now} ({level.dimension_now}-d)",
            f"{level.model_then} ({level.dimension_then}-d)",
            f"{level.documents:,}",
            "carried over" if level.carried else f"{level.tokens:,}",
            _duration(level.seconds),
            f"{level.graph_mb[0]} + {level.graph_mb[1]}",
            f"{level.disk_mb[0]} + {level.disk_mb[1]}",
            f"{level.unseen_now:.0%} → {level.unseen_then:.0%}",
        ]
        for level in found.levels
    ]
    print_table(columns, rows, right=["documents", "tokens", "time"])
    click.echo(f"About {_duration(found.seconds)} at {found.tokens_per_s:,.0f} tokens/s, measured now on a sample.")
    for text in found.warnings:
        click.echo(f"{click.style('warning', fg='yellow')} {safe_text(text)}")
    click.echo("Requests it would send:")
    for text in found.calls:
        click.echo(f"  {safe_text(text)}")
    for text in found.problems:
        click.echo(f"{click.style('problem', fg='red')} {safe_text(text)}")


def print_state(state: MigrationState) -> None:
    """Print the state of a migration."""
    models = ", ".join(f"{level} → {model}" for level, model in state.models.items())
    holder = f"process {state.lease['pid']} on {state.lease['host']}" if state.lease else "no process is running it"
    click.echo(f"{state.phase}{' (paused)' if state.paused else ''}: {models}; {holder}")
    if state.progress:
        progress = state.progress
        eta = f", about {_duration(progress['eta_s'])} left" if progress.get("eta_s") else ""
        pace = f"{progress['rate']:,.0f}/s{eta}, {progress['lag']:,} behind"
        click.echo(f"{progress['done']:,} of {progress['total']:,} documents in this pass, {pace}")
        if not progress["converging"]:
            click.echo(
                f"{click.style('not converging', fg='red')}: writes arrive as fast as they are embedded; no swap until they slow down"
            )
    if state.failed:
        click.echo(f"{len(state.failed):,} documents could not be copied, for example {safe_text(next(iter(state.failed.items())))}")
    for when, what in state.history[-8:]:
        click.echo(f"  {when} {safe_text(what)}")


def print_gate(gate: Gate) -> None:
    """Print the verdict of the gate with its metrics."""
    overridden = f" (overridden: {safe_text(gate.override)})" if gate.override else ""
    click.echo(f"  gate by {gate.kind}, {gate.mode}, {gate.queries:,} queries: {gate.verdict}{overridden}")
    if gate.reason:
        click.echo(f"  reason: {safe_text(gate.reason)}")
    if gate.alone:
        click.echo(f"  the new model alone: {', '.join(f'{name} {value:.4f}' for name, value in gate.alone.items())}")
        return
    rows = [
        [
            metric.name,
            f"{metric.blue:.4f}",
            f"{metric.green:.4f}",
            f"{metric.difference:+.4f}",
            f"{metric.lower:+.4f}",
            f"-{metric.margin:g}" if metric.margin is not None else "",
            f"{metric.p:.3f}",
        ]
        for metric in gate.metrics
    ]
    if rows:
        print_table(["metric", "old", "new", "difference", "lower 95 %", "allowed", "p"], rows)
    click.echo(f"  overlap of the first ten results {gate.overlap:.0%}, rank-biased overlap {gate.rbo:.2f}")
    for worst in gate.worst:
        click.echo(f"  {worst.blue:.2f} → {worst.green:.2f}  {safe_text(worst.query)[:100]}")
        click.echo(safe_text(f"      old: {', '.join(worst.blue_top)}\n      new: {', '.join(worst.green_top)}"))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
