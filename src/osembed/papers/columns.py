"""Hints for --field if an input has unknown field names. Pure functions."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Mapping, Sequence

from osembed.papers.fields import USUAL, name_of

_SHOWN = 12
_NEAR = 0.6


def explain_names(columns: Sequence[str], names: Mapping[str, str]) -> str:
    """Return the field names of an input and a hint which --field would help; "" if its text is found.

    Args:
        columns: the names in the input.
        names: osembed's field → the name that the caller gave.
    """
    there = dict.fromkeys(columns, "x")
    lacking = [field for field in ("title", "abstract", "body") if name_of(there, field, names) is None]
    if not columns or not {"abstract", "body"} <= set(lacking):
        return ""
    found = _found(columns)
    wanted = [(field, (names[field],) if field in names else USUAL[field]) for field in lacking]
    near = {field: column for field, usual in wanted if (column := nearest_column(usual, columns))}
    typed = " ".join(f"--field {field}={shlex.quote(column)}" for field, column in near.items())
    return f"{found} {f'Try {typed}.' if typed else 'Specify which fields to use, like --field title=NAME --field body=NAME.'}"


def explain_unmet(columns: Sequence[str], names: Mapping[str, str]) -> str:
    """Return a notice about names in --field that no record has; "" if all are found."""
    there = dict.fromkeys(columns, "x")
    unmet = {field: name for field, name in names.items() if name_of(there, field, names) is None}
    if not unmet:
        return ""
    near = {field: column for field, name in unmet.items() if (column := nearest_column([name], columns))}
    typed = " ".join(f"--field {field}={shlex.quote(column)}" for field, column in near.items())
    asked = ", ".join(f"{shlex.quote(name)} (--field {field}={shlex.quote(name)})" for field, name in unmet.items())
    return f"The first records have no field {asked}. {_found(columns)}" + (f" Try {typed}." if typed else "")


def _found(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
    return f"Their fields are {', '.join(columns[:_SHOWN])}{more}."


def nearest_column(wanted: Iterable[str], known: Sequence[str]) -> str:
    """Return the known name most similar to one of the wanted names, ignoring case; "" if none is similar."""
    lower = {name.lower(): name for name in known}
    for name in wanted:
        if close := difflib.get_close_matches(name.lower(), list(lower), 1, _NEAR):
            return lower[close[0]]
    return ""
