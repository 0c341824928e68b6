"""`osembed drop`: show what would be deleted, ask, delete."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from osembed.cli import options
from osembed.cli.output import print_json, print_table, safe_text
from osembed.errors import InputError

if TYPE_CHECKING:
    from osembed.opensearch.drop_plan import DropPlan


@click.command()
@options.connection
@options.option(
    "--leftovers", is_flag=True, help="Delete only what interrupted work left behind (`osembed doctor` lists it); keep the collection."
)
@options.option("--yes", is_flag=True, consent=True, help="Do not ask. Accepted on the command line only.")
@options.as_json
def drop(leftovers: bool, yes: bool, as_json: bool, **given: Any) -> None:
    """Delete a collection permanently, with everything that provably belongs to osembed.

    Lists the indexes to delete, including those of a migration that no process is running, and asks you to type the collection's name. The
    journal index and the search pipeline are shared by all collections and are kept. Exit code 3 while an ingest or a migration is running.
    """
    collection = options.open_collection(given)
    plan = collection.plan_drop(leftovers=leftovers)
    if not plan.is_empty and not yes:
        print_plan(plan)
        _confirm(plan)
    result = collection.drop(plan)
    if as_json:
        print_json(result)
    elif result.phase == "nothing to do":
        click.echo("Nothing to do.")
    else:
        what = "Deleted the leftovers of" if leftovers else "Dropped"
        click.echo(f"{what} {collection.name}: {len(result.indexes)} indexes deleted.")


def print_plan(plan: DropPlan) -> None:
    """Print what would be deleted, on stderr: stdout is for the result."""
    columns = ["index", "what it is", "model", "documents", "MB"]
    rows = [[one.index, _role(one.role, one.aliases), one.model, _number(one.documents), _number(one.megabytes)] for one in plan.indexes]
    if rows:
        print_table(columns, rows, right=columns[3:], err=True)
    for index, alias in plan.tokens:
        click.echo(safe_text(f"staging alias {alias} of {index}"), err=True)
    if plan.migration:
        click.echo(
            safe_text(f"This includes the migration to {plan.migration}: the indexes of the old model and of the new one."), err=True
        )
    if plan.entries:
        click.echo(f"{plan.entries:,} journal entries", err=True)


def _confirm(plan: DropPlan) -> None:
    name = plan.collection
    if not sys.stdin.isatty():
        more = " --leftovers" if plan.leftovers else ""
        raise InputError(
            f"Deleting '{name}' needs a confirmation, and there is no terminal to ask on.",
            "Nothing was deleted.",
            f"Type: osembed drop{more} --collection {name} --yes",
        )
    typed = click.prompt(f"This cannot be undone. Type {name} to delete it", default="", show_default=False, err=True)
    if typed.strip() != name:
        raise InputError("That is not the collection's name.", "Nothing was deleted.", "")


def _role(role: str, aliases: tuple[str, ...]) -> str:
    return f"{role}; also {', '.join(aliases)}" if aliases else role


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:,}"
