"""`osembed list`, `osembed count`, `osembed show`, `osembed export`: read what is stored."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, Any

import click

from osembed.cli import options
from osembed.cli.meter import Meter
from osembed.cli.output import print_error, print_json, print_notice, print_table, safe_text
from osembed.cli.result_output import print_paper
from osembed.cli.search import where as filtered
from osembed.errors import InputError, NoPaperError, OsembedError

if TYPE_CHECKING:
    from osembed.opensearch.export import Exported


@click.command("list")
@options.server
@options.as_json
def list_collections(as_json: bool, **given: Any) -> None:
    """List the collections on a server with their papers, chunks, size, models and state.

    \b
    live            readers and writers use it
    migrating       live; a migration has not swapped yet        migrated   live; swapped, but not finished
    loading         the first load is running or was interrupted
    half dropped    a drop was interrupted: run it again         left over  indexes that no alias points to
    contradictory   its aliases are inconsistent: osembed doctor explains why
    """
    from osembed.listing import collections

    found = collections(report=print_notice, **given)
    if as_json:
        print_json(found)
        return
    rows = [[one.name, *map(_number, (one.papers, one.chunks, one.megabytes)), _models(one.models), one.state] for one in found]
    if rows:
        print_table(["collection", "papers", "chunks", "MB", "models", "state"], rows, right=["papers", "chunks", "MB"])
    else:
        click.echo("No collections. Create one: osembed ingest PATH")


@click.command()
@options.connection
@filtered
@options.as_json
def count(as_json: bool, where: tuple[str, ...], **given: Any) -> None:
    """Count the papers in a collection, or those that match every filter. The count is exact.

    \b
    osembed count
    osembed count --where 'year>=2015' --where 'topic=ecology|botany'
    """
    collection = options.open_collection(given)
    found = collection.count(where)
    if as_json:
        print_json({"collection": collection.name, "where": where, "papers": found})
    else:
        click.echo(found)


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@options.connection
@options.as_json
def show(ids: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """Show stored papers: text, metadata, chunks, model and versions.

    If a paper is missing, the others are still shown and the exit code is 1. --json prints one document: a list of papers.
    """
    collection, found, missing = options.open_collection(given), [], []
    for paper_id in ids:
        try:
            found.append(collection.get(paper_id))
        except NoPaperError as error:
            missing.append(error)
    if as_json:
        print_json(found)
    else:
        for paper in found:
            print_paper(paper)
    for absent in missing:
        print_error(f"{click.style('Error:', fg='red')} {safe_text(absent)}")
    return 1 if missing else 0


@click.command()
@click.argument("file", default="-", type=click.Path(), metavar="[FILE|-]")
@options.connection
@filtered
@options.progress
@options.as_json
def export(file: str, as_json: bool, where: tuple[str, ...], **given: Any) -> None:
    """Write papers as JSON lines that `ingest` can read back without loss.

    FILE is a name like papers.jsonl or papers.jsonl.gz; it appears under that name only when it is complete. Without FILE the lines go to
    standard output. Papers are sorted by id. A migration may swap during the export: the index that was live at the start is read to the end.

    \b
    osembed export backup.jsonl.gz
    osembed export --where 'year>=2015' | jq -r .title
    """
    to_stdout = file == "-"  # then everything else goes to stderr
    if to_stdout and as_json:
        raise InputError("--json would print the summary into the papers on standard output.", "", "Name a file, like papers.jsonl.")
    collection = options.open_collection(given)
    to: str | IO[bytes] = sys.stdout.buffer if to_stdout else file
    try:
        with Meter("reading…", given.pop("progress")) as meter:
            done = collection.export(to, where=where, progress=lambda read, total: meter.show(read / max(total, 1), f"{read:,} papers"))
    except OsembedError:
        if to_stdout:
            print_notice("The output is incomplete.")
        raise
    if as_json:
        print_json(done)
    else:
        _say_exported(done, "standard output" if to_stdout else file)


def _say_exported(done: Exported, file: str) -> None:
    """Report the export on stderr, because the papers may be on stdout."""
    print_error(f"{done.papers:,} papers of {done.collection} written to {safe_text(file)}")
    if done.unproven:
        print_notice(f"As far as this user can see: {done.unproven}")
    if done.changed or done.added or done.deleted:
        print_notice(
            f"During the export {done.changed:,} papers were changed and {done.deleted:,} deleted; {done.added:,} new papers are not included."
        )
    for what, ids in (("`ingest` will reject", done.unfit), ("left out", done.left_out)):
        shown = ", ".join(f"{key} ({why})" for key, why in list(ids.items())[:5])
        if ids:
            print_notice(f"{what} {len(ids):,}: {shown}{', …' if len(ids) > 5 else ''}")


def _models(models: dict[Any, str]) -> str:
    return ", ".join(dict.fromkeys(models.values()))


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:,}"
