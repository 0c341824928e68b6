"""`osembed config`: the settings in force and their origin."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import click
from click.core import ParameterSource

from osembed.cli import options
from osembed.cli.options import SettingOption
from osembed.cli.output import print_json, print_table
from osembed.config import SECRETS, VARIABLES, config_file

_ORIGINS = {ParameterSource.DEFAULT: "default", ParameterSource.DEFAULT_MAP: "file", ParameterSource.ENVIRONMENT: "environment"}


@click.command()
@options.as_json
@click.pass_context
def config(context: click.Context, as_json: bool) -> None:
    """Show the settings in force and the origin of each: default, file or environment. Secrets are never shown.

    The file is osembed.toml in the working folder, or the one that OSEMBED_CONFIG names. The command line overrides the environment, which
    overrides the file. A setting that differs between commands has one line for each value.
    """
    root = context.find_root()
    rows = [*_joined(row for name, command in _commands(root) for row in _in_force(name, command)), *_variables()]
    if as_json:
        print_json({"file": str(config_file() or "") or None, "settings": rows})
        return
    click.echo(f"file: {config_file() or 'none (no osembed.toml here)'}")
    several = {row["setting"] for row in rows if sum(other["setting"] == row["setting"] for other in rows) > 1}
    columns = ["setting", "value", "from", "commands"]
    print_table(
        columns,
        [
            [row["setting"], _shown(row["value"]), row["from"], ", ".join(row["commands"]) if row["setting"] in several else ""]
            for row in rows
        ],
    )


def _commands(context: click.Context, prefix: str = "") -> Iterator[tuple[str, click.Context]]:
    """Yield the full name and the context of every command and step, with options from the file and the environment only."""
    group = context.command
    for name, command in group.commands.items() if isinstance(group, click.Group) else ():
        own = command.make_context(name, [], parent=context, resilient_parsing=True)
        yield f"{prefix}{name}", own
        yield from _commands(own, f"{prefix}{name} ")


def _in_force(name: str, context: click.Context) -> Iterator[dict[str, Any]]:
    from osembed.address import shown_url

    for option in context.command.params:
        if isinstance(option, SettingOption) and not option.setting.consent and option.name:
            value, source = context.params[option.name], context.get_parameter_source(option.name)
            plain = shown_url(value) if option.name == "url" and value else list(value) if isinstance(value, tuple) else value
            yield {"setting": option.setting.name, "value": plain, "from": _ORIGINS.get(source, "default"), "commands": [name]}  # type: ignore[arg-type]


def _joined(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge the rows of commands that share the same value of a setting."""
    joined: dict[str, dict[str, Any]] = {}
    for row in rows:
        same = joined.setdefault(repr((row["setting"], row["value"], row["from"])), {**row, "commands": []})
        same["commands"] += row["commands"]
    return sorted(joined.values(), key=lambda row: row["setting"])


def _variables() -> Iterator[dict[str, Any]]:
    """Yield the variables that have no option. For a secret, yield only whether it is set."""
    for name in VARIABLES:
        text = os.environ.get(name) or None
        value = "set" if text and name in SECRETS else text
        yield {"setting": name, "value": value, "from": "environment" if text else "default", "commands": []}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(value) if isinstance(value, list) else "" if value is None else str(value)
