"""`osembed list`, `osembed count`, `osembed show`, `osembed export`: what there is."""

from __future__ import annotations

from typing import Any

import click

from osembed.cli import options
from osembed.cli.output import print_json, print_table


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
    from osembed.cli.output import notice
    from osembed.collection import collections

    found = collections(report=notice, **given)
    if as_json:
        print_json(found)
        return
    rows = [[one.name, *map(_number, (one.papers, one.chunks, one.megabytes)), _models(one.models), one.state] for one in found]
    if rows:
        print_table(["collection", "papers", "chunks", "MB", "models", "state"], rows, right=["papers", "chunks", "MB"])
    else:
        click.echo("No collections. Fill one: osembed ingest PATH")


def _models(models: dict[Any, str]) -> str:
    return ", ".join(dict.fromkeys(models.values()))


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:,}"
