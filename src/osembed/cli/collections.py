"""`osembed list`, `osembed count`, `osembed show`, `osembed export`: what there is."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, Any

import click

from osembed.cli import options
from osembed.cli.meter import Meter
from osembed.cli.output import complain, notice, print_json, print_table, safe
from osembed.cli.result_output import print_paper
from osembed.cli.search import where as filtered
from osembed.errors import InputError, NoPaperError, OsembedError

if TYPE_CHECKING:
    from osembed.opensearch.export import Exported


@click.command("list")
@options.server
@options.as_json
def list_collections(as_json: bool, **given: Any) -> None:
    """List the collections of a server: papers, chunks, size, models, state.

    \b
    live            searched and written to
    migrating       live; a migration has not swapped yet        migrated   live; after the swap, not finished
    loading         its first load is under way or was interrupted
    half dropped    a drop was interrupted: run it again         left over  indexes that nothing shows
    contradictory   its aliases are not as they should be: osembed doctor says why
    """
    from osembed.listing import collections

    found = collections(report=notice, **given)
    if as_json:
        print_json(found)
        return
    rows = [[one.name, *map(_number, (one.papers, one.chunks, one.megabytes)), _models(one.models), one.state] for one in found]
    if rows:
        print_table(["collection", "papers", "chunks", "MB", "models", "state"], rows, right=["papers", "chunks", "MB"])
    else:
        click.echo("No collections. Fill one: osembed ingest PATH")


@click.command()
@options.connection
@filtered
@options.as_json
def count(as_json: bool, where: tuple[str, ...], **given: Any) -> None:
    """Count the papers of a collection, or those that match all filters: an exact number.

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
    """Show papers as they are stored: text, metadata, chunks, model and versions.

    Exit code 1 where one is missing; the others are shown. With --json one document is printed: a list of papers.
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
        complain(f"{click.style('Error:', fg='red')} {safe(absent)}")
    return 1 if missing else 0


@click.command()
@click.argument("file", default="-", type=click.Path(), metavar="[FILE|-]")
@options.connection
@filtered
@options.progress
@options.as_json
def export(file: str, as_json: bool, where: tuple[str, ...], **given: Any) -> None:
    """Write papers as JSON lines, which `ingest` reads again without loss.

    FILE is named like papers.jsonl or papers.jsonl.gz; it takes its name once it is whole. Without it the lines go to standard output. Papers
    are ordered by id. A migration may swap meanwhile: what was live at the start is read to the end.

    \b
    osembed export backup.jsonl.gz
    osembed export --where 'year>=2015' | jq -r .title
    """
    to_stdout = file == "-"
    if to_stdout and as_json:
        raise InputError("--json prints the summary where the papers go.", "", "Name a file, like papers.jsonl.")
    collection = options.open_collection(given)
    to: str | IO[bytes] = sys.stdout.buffer if to_stdout else file
    try:
        with Meter("reading…", given.pop("progress")) as meter:
            done = collection.export(to, where=where, progress=lambda read, total: meter.show(read / max(total, 1), f"{read:,} papers"))
    except OsembedError:
        if to_stdout:
            notice("What was printed is not the whole.")
        raise
    if as_json:
        print_json(done)
    else:
        _say_exported(done, "standard output" if to_stdout else file)


def _say_exported(done: Exported, file: str) -> None:
    """Say on stderr what an export did: stdout may be the papers'."""
    complain(f"{done.papers:,} papers of {done.collection} written to {safe(file)}")
    if done.unproven:
        notice(f"As far as this user sees: {done.unproven}")
    if done.changed or done.added or done.deleted:
        notice(f"Meanwhile {done.changed:,} were changed and {done.deleted:,} deleted; {done.added:,} that came later are not among them.")
    for what, ids in (("`ingest` will reject", done.unfit), ("left out", done.left_out)):
        shown = ", ".join(f"{key} ({why})" for key, why in list(ids.items())[:5])
        if ids:
            notice(f"{what} {len(ids):,}: {shown}{', …' if len(ids) > 5 else ''}")


def _models(models: dict[Any, str]) -> str:
    return ", ".join(dict.fromkeys(models.values()))


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:,}"
