"""Settings in osembed.toml and the environment. All names and values are checked before any of them is used."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from osembed.address import parse_address
from osembed.errors import InputError
from osembed.limits import LIMITS, Misfit, convert_value, guess_name

PREFIX = "OSEMBED_"
SECRETS = ("OSEMBED_USER", "OSEMBED_PASSWORD")
# Variables without an option; docs/settings.md documents them.
VARIABLES = (
    *SECRETS,
    "OSEMBED_PASSWORD_FILE",
    "OSEMBED_CONFIG",
    "OSEMBED_DEBUG",
    "OSEMBED_HOME",
    "OSEMBED_CACHE",
    "OSEMBED_MODELS",
    "OSEMBED_MODELS_TOML",
    "OSEMBED_NODE_HEAP",
    "OSEMBED_JAVA",
    "OSEMBED_RETRY_SECONDS",
    "OSEMBED_PATIENCE_SECONDS",
)
_OF_TESTS = ("OSEMBED_DATA", "OSEMBED_SLOW")
_SECRET = re.compile(r"(user|user-?name|.*pass(word|wd|phrase)?|.*(secret|token|credentials?|api-?key)s?)")
_HEAP = re.compile(r"[1-9]\d{0,9}[kmg]", re.ASCII | re.IGNORECASE)
_CONSENT = "A file or a variable must not consent for a person."


@dataclass(frozen=True)
class Setting:
    """One option that a file or the environment may set.

    Attributes:
        name: its key in osembed.toml, which is also its long name on the command line.
        field: its name in Python.
        kind: the allowed values; see `limits.convert`.
        consent: whether it is accepted on the command line only.
    """

    name: str
    field: str
    kind: Any
    consent: bool = False

    @property
    def variable(self) -> str:
        """The name of its environment variable."""
        return PREFIX + self.name.replace("-", "_").upper()


@dataclass(frozen=True)
class Schema:
    """The allowed content of a command's table: its settings by name, and the tables of its steps."""

    settings: Mapping[str, Setting]
    steps: Mapping[str, Schema] = field(default_factory=dict)

    def all_settings(self) -> dict[str, Setting]:
        """Return the settings of a command and of its steps, by name."""
        found = dict(self.settings)
        for step in self.steps.values():
            found = {**step.all_settings(), **found}
        return found


def config_file() -> Path | None:
    """Return the configuration file, or None. Raises InputError if OSEMBED_CONFIG names a missing one."""
    named = os.environ.get("OSEMBED_CONFIG")
    file = Path(named or "osembed.toml")
    try:
        there = file.exists()
    except (OSError, ValueError) as error:
        raise InputError(f"OSEMBED_CONFIG: {file} cannot be accessed: {error}.") from error
    if named and not there:
        raise InputError(
            f"OSEMBED_CONFIG names {file}, which does not exist.", "Its settings would be missing.", "Check the path, or unset it."
        )
    return file if there else None


def read_defaults(file: Path, schema: Schema) -> dict[str, Any]:
    """Read a configuration file. Returns a tree of defaults: a command's own defaults, and those of its steps under their names.

    Top-level keys apply to every command with such an option, tables to one command and its steps. Raises InputError with file and key if
    anything in the file is unknown, a secret, consent, or of the wrong type.
    """
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
        _refuse_secrets(file, settings)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{file} is not valid TOML: {error}.") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.", "Its settings would be missing.", "Check OSEMBED_CONFIG.") from error
    return _defaults(file, settings, schema)


def check_environment(schema: Schema, variables: Mapping[str, str]) -> Iterator[str]:
    """Check every OSEMBED_ variable; yield a notice for each unknown one, which may belong to another program.

    Raises InputError with the variable's name if it gives consent or has an invalid value.
    """
    options = {setting.variable: setting for setting in schema.all_settings().values()}
    for name, text in sorted(variables.items()):
        if not name.startswith(PREFIX) or not text:
            continue
        if name in options:
            _check_variable(options[name], text)
        elif name.removeprefix(PREFIX).lower() in LIMITS and name in VARIABLES:
            _fitting(name, text, LIMITS[name.removeprefix(PREFIX).lower()], text=True)
        elif name == "OSEMBED_NODE_HEAP" and not _HEAP.fullmatch(text):
            raise InputError(f"OSEMBED_NODE_HEAP: '{text[:60]}' is not a size of memory.", "", "Write it like 768m or 2g.")
        elif name not in (*VARIABLES, *_OF_TESTS):
            yield f"{name} is not a setting of osembed; it changes nothing.{guess_name(name, [*options, *VARIABLES])}"


def _check_variable(setting: Setting, text: str) -> None:
    if setting.consent:
        raise InputError(f"{setting.variable} is set.", _CONSENT, f"Unset it, and type --{setting.name}.")
    if setting.kind != list[str]:  # any text is a valid list of texts
        _fitting(setting.variable, text, setting.kind, text=True)


def _defaults(
    file: Path, table: Mapping[str, Any], schema: Schema, inherited: Mapping[str, Any] | None = None, place: Sequence[str] = ()
) -> dict[str, Any]:
    known, given = schema.all_settings(), dict(inherited or {})
    for key, value in table.items():
        name = key.replace("_", "-")
        if name in schema.steps and isinstance(value, dict):
            continue
        where = _at(file, key, place)
        if name in schema.steps:
            raise InputError(f"{where} is a table, not a setting.", "", f"Write [{'.'.join([*place, name])}] above its settings.")
        given[name] = _value(where, name, value, known, [*known, *schema.steps])
    defaults = {schema.settings[name].field: value for name, value in given.items() if name in schema.settings}
    for name, step in schema.steps.items():  # steps inherit the settings of their command
        defaults[name] = _defaults(file, table.get(name, {}), step, given, [*place, name])
    return defaults


def _value(where: str, name: str, value: Any, known: Mapping[str, Setting], names: Sequence[str]) -> Any:
    """Return the value of a key, converted for its option. Raises InputError."""
    setting = known.get(name)
    if setting is None:
        what = "table" if isinstance(value, dict) else "setting"
        raise InputError(f"{where}: there is no such {what}.{guess_name(name, names)}", "", "docs/settings.md lists them all.")
    if setting.consent:
        raise InputError(f"{where}: '{name}' is in a configuration file.", _CONSENT, f"Remove it, and type --{name}.")
    return _fitting(where, value, setting.kind)


def _fitting(where: str, value: Any, kind: Any, *, text: bool = False) -> Any:
    try:
        return convert_value(value, kind, text=text)
    except Misfit as error:
        raise InputError(f"{where}: {error}") from error


def _refuse_secrets(file: Path, table: Mapping[str, Any], place: Sequence[str] = ()) -> None:
    """Raise InputError for credentials in any table, also inside a URL. The message does not show them."""
    for key, value in table.items():
        if isinstance(value, dict):
            _refuse_secrets(file, value, [*place, key])
        elif _SECRET.fullmatch(key.lower().replace("_", "-")) or (key == "url" and _has_user(value, _at(file, key, place))):
            raise InputError(
                f"{_at(file, key, place)}: the file holds credentials.",
                "Such files are easily shared.",
                "Set OSEMBED_USER and OSEMBED_PASSWORD_FILE.",
            )


def _has_user(url: Any, where: str) -> bool:
    """Return whether a URL contains credentials. Raises InputError if it is not a server URL."""
    if not isinstance(url, str):
        return False
    try:
        address = parse_address(url)
    except InputError as error:
        raise InputError(f"{where}: {error.found}", error.why, error.hint) from error
    return bool(address.user or address.password)


def _at(file: Path, key: str, place: Sequence[str]) -> str:
    return f"{file}, {key[:60]!r}" + (f" in [{'.'.join(place)[:60]}]" if place else "")
