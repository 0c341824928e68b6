"""`osembed node start|stop|status|logs`."""

from __future__ import annotations

import click

from osembed.cli import options
from osembed.cli.output import notice, print_json, safe


@click.group()
def node() -> None:
    """The embedded OpenSearch: a real one, on this machine only, started by itself when no --url is given.

    Its data lies in your user data folder (OSEMBED_HOME changes that) and is kept between runs. OSEMBED_NODE_HEAP sets its memory (1g).
    """


@node.command()
@options.as_json
def start(as_json: bool) -> None:
    """Start it, installing it first if need be."""
    from osembed.opensearch import node as embedded

    state = embedded.start(notice)
    if as_json:
        print_json(state)
    else:
        click.echo(f"OpenSearch {state.version} answers on {state.url} (process {state.pid})")


@node.command()
def stop() -> None:
    """Stop it; its data stays."""
    from osembed.opensearch import node as embedded

    click.echo("stopped" if embedded.stop() else "it was not running")


@node.command()
@options.as_json
def status(as_json: bool) -> None:
    """Show whether it runs, and where."""
    from osembed.opensearch import node as embedded

    state = embedded.status()
    if as_json:
        print_json(state)
    else:
        click.echo(f"running on {state.url} (process {state.pid})" if state.running else "not running")
        click.echo(f"data {state.data}\nlog  {state.log}")


@node.command()
@options.option("--lines", default=50, show_default=True, metavar="N", help="How many of the last lines.")
def logs(lines: int) -> None:
    """Print the end of its log."""
    from osembed.opensearch import node as embedded

    for line in embedded.logs(lines):
        click.echo(safe(line))
