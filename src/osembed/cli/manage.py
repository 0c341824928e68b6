"""`osembed delete`, `osembed status`, `osembed verify`, `osembed doctor`."""

from __future__ import annotations

from typing import Any

import click

from osembed.cli import options
from osembed.cli.meter import Meter
from osembed.cli.output import print_checks, print_json, print_notice, print_repair, print_table, safe_text


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@options.connection
@options.as_json
def delete(ids: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Delete papers and their chunks."""
    found = options.open_collection(given).delete(ids)
    if as_json:
        print_json(
            {
                "deleted": [key for key, there in found.items() if there],
                "missing": [k for k, there in found.items() if not there],
            }
        )
        return
    click.echo(f"{sum(found.values()):,} deleted, {len(found) - sum(found.values()):,} not found")


@click.command()
@options.connection
@options.as_json
def status(as_json: bool, **given: Any) -> None:
    """Show the live indexes with their models and sizes."""
    rows = options.open_collection(given).status()
    if as_json:
        print_json(rows)
        return
    columns = ["level", "documents", "model", "identity", "graph MB", "index"]
    table = [
        [
            row.level,
            f"{row.documents:,}",
            f"{row.model} ({row.dimension}-d, {row.built_by})",
            row.identity,
            row.graph_mb,
            row.index,
        ]
        for row in rows
    ]
    print_table(columns, table, right=["documents", "graph MB"])
    if rows[0].limits:
        print_notice(f"As far as this user can see: {rows[0].limits} limits it.")


@click.command()
@options.connection
@options.option("--full", is_flag=True, help="Finding every document instead of a sample.")
@options.option("--repair", is_flag=True, help="First re-embed stale documents, delete orphaned chunks and lift write blocks.")
@options.compute
@options.progress
@options.as_json
def verify(full: bool, repair: bool, as_json: bool, **given: Any) -> int:
    """Verify the collection: every vector matches its text, every chunk belongs to its paper.

    During a migration it compares the new indexes with the old ones. With --repair it first repairs what programs that write to the aliases
    directly left behind. Each repair continues where the last one ended, so it is cheap enough for cron. Exit code 4 if a check fails or a
    document could not be repaired; such documents are listed, and the next repair tries them again.
    """
    from dataclasses import asdict

    from osembed.migrate.proof.report import page_of

    collection = options.open_collection(given)
    mended = collection.repair() if repair else None
    with Meter("verifying…", given.pop("progress")) as meter:
        report = collection.verify(full=full, progress=meter.show_progress)
    kept = {**asdict(report), "passed": report.passed}
    if as_json:
        print_json({**kept, "repair": asdict(mended) if mended else None})
    else:
        if mended:
            print_repair(mended)
        click.echo(safe_text(page_of(kept)))
    return 0 if report.passed and not (mended and mended.refused) else 4


@click.command()
@options.connection
@options.as_json
def doctor(as_json: bool, **given: Any) -> None:
    """Finding the server and the collection: versions, known pitfalls, memory, leftovers. Recreates a missing search pipeline."""
    checks = options.open_collection(given).doctor()
    if as_json:
        print_json(checks)
    else:
        print_checks(checks)
    if any(check.verdict == "problem" for check in checks):
        raise click.exceptions.Exit(1)
