"""`osembed node start|stop|status|logs`: the embedded OpenSearch."""

from __future__ import annotations

import click

from osembed.cli import options
from osembed.cli.output import print_json, print_notice, safe_text


@click.group()
def node() -> None:
    """Manage the embedded OpenSearch: a real server that only this machine can reach, started automatically if no --url is given.

    Its data is kept in your user data folder (set OSEMBED_HOME to change that). OSEMBED_NODE_HEAP sets its heap size (1g).
    """


@node.command()
@options.as_json
def start(as_json: bool) -> None:
    """Start it; install it first if needed."""
    from osembed.opensearch import node as embedded

    state = embedded.start(print_notice)
    if as_json:
        print_json(state)
    else:
        click.echo(f"OpenSearch {state.version} is running on {state.url} (process {state.pid})")


@node.command()
def stop() -> None:
    """Stop it; its data is kept."""
    from osembed.opensearch import node as embedded

    click.echo("stopped" if embedded.stop() else "was not running")


@node.command()
@options.as_json
def status(as_json: bool) -> None:
    """Show whether it is running, and where."""
    from osembed.opensearch import node as embedded

    state = embedded.status()
    if as_json:
        print_json(state)
    else:
        click.echo(f"running on {state.url} (process {state.pid})" if state.running else "not running")
        click.echo(f"data {state.data}\nlog  {state.log}")


@node.command()
@options.option("--lines", default=50, show_default=True, metavar="N", help="How many lines to print.")
def logs(lines: int) -> None:
    """Print the end of its log."""
    from osembed.opensearch import node as embedded

    for line in embedded.logs(lines):
        click.echo(safe_text(line))
