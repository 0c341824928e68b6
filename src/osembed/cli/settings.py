"""The settings of all commands, derived from their options, and the check of osembed.toml and the environment against them."""

from __future__ import annotations

import os
from typing import Any

import click

from osembed.cli.options import SettingOption
from osembed.cli.output import print_notice
from osembed.config import Schema, check_environment, config_file, read_defaults


def schema_of(command: click.Command) -> Schema:
    """Return the settings that osembed.toml may hold for a command and its steps."""
    steps = command.commands if isinstance(command, click.Group) else {}
    settings = [option.setting for option in command.params if isinstance(option, SettingOption)]
    return Schema({setting.name: setting for setting in settings}, {name: schema_of(step) for name, step in steps.items()})


def check_settings(command: click.Command) -> dict[str, Any]:
    """Check osembed.toml and the environment; return the defaults from the file.

    Raises InputError if either holds an unknown setting, an invalid value or a secret.
    """
    schema = schema_of(command)
    for said in check_environment(schema, os.environ):
        print_notice(said)
    file = config_file()
    return read_defaults(file, schema) if file else {}
