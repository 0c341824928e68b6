"""What to type where an input's fields bear unknown names. Pure."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Mapping, Sequence

from osembed.papers.fields import USUAL, name_of

_SHOWN = 12
_NEAR = 0.6


def explain_names(columns: Sequence[str], names: Mapping[str, str]) -> str:
    """Return what the fields of an input are called and which --field would help; '' where its text is found.

    Args:
        columns: the names that were found.
        names: osembed's field → the name that the caller gave.
    """
    there = dict.fromkeys(columns, "x")
    lacking = [field for field in ("title", "abstract", "body") if name_of(there, field, names) is None]
    if not columns or not {"abstract", "body"} <= set(lacking):
        return ""
    more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
    found = f"Their fields are {', '.join(columns[:_SHOWN])}{more}."
    wanted = [(field, (names[field],) if field in names else USUAL[field]) for field in lacking]
    near = {field: column for field, usual in wanted if (column := nearest(usual, columns))}
    typed = " ".join(f"--field {field}={shlex.quote(column)}" for field, column in near.items())
    return f"{found} {f'Perhaps {typed}.' if typed else 'Say which holds what, like --field title=NAME --field body=NAME.'}"


def nearest(wanted: Iterable[str], known: Sequence[str]) -> str:
    """Return the known name that is most like one of those wanted, in any case; '' where none is."""
    lower = {name.lower(): name for name in known}
    for name in wanted:
        if close := difflib.get_close_matches(name.lower(), list(lower), 1, _NEAR):
            return lower[close[0]]
    return ""
