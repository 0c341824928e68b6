"""`osembed watch`: ingest a folder and follow it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from osembed.cli import options
from osembed.cli.ingest import reading, show_rates, take_inputs
from osembed.cli.meter import Meter
from osembed.cli.output import print_follow_up, print_json, print_summary

if TYPE_CHECKING:
    from osembed.ingest.summary import Summary


@click.command()
@click.argument("folder", type=click.Path(), metavar="FOLDER")
@reading
@options.option("--settle", default=2.0, show_default=True, metavar="SECONDS", help="Ingest a file after it has not changed for this long.")
@options.as_json
def watch(folder: str, as_json: bool, settle: float, **given: Any) -> None:
    """Ingest a folder, then follow it: new and changed files are ingested once they stop changing.

    It runs until you interrupt it (Ctrl-C). Papers whose files disappear are kept unless you start it with --prune. If the server is
    unavailable, it retries. --json prints one line per ingest.

    \b
    osembed watch papers/
    osembed watch papers/ --prune --json >> papers.log
    """
    kind = given.pop("progress")
    collection, spec, chosen = take_inputs(given)
    first = True
    with ExitStack() as shown:
        meters: list[Meter] = []  # at most one, opened when an ingest reports something, so that no idle bar is shown

        def show(summary: Summary) -> None:
            if not meters:
                meters.append(shown.enter_context(Meter("reading…", kind)))
            show_rates(meters[0], summary)

        for summary in collection.watch(folder, spec, show, settle=settle, **chosen):
            shown.close()
            meters.clear()
            if as_json:
                print_json(summary, in_a_line=True)
            elif first:
                print_summary(summary)
            else:
                print_follow_up(summary)
            first = False
