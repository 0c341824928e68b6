"""Values from Python programs: a wrong type is refused by the option's name, before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field
from typing import Any

from osembed.errors import InputError

_WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text", tuple: "a list"}


def check_options(fields: Mapping[str, Field[Any]], given: Mapping[str, Any]) -> None:
    """Compare options with the defaults of a dataclass's fields. Raises InputError for the first of another type.

    Args:
        fields: of the dataclass; one without a plain default takes anything.
        given: option → value.
    """
    for name, value in given.items():
        default = fields[name].default
        if default is not None and default is not MISSING and not _agrees(value, default):
            raise refusal(name, value, _WORDS.get(type(default), "something else"))


def check_text(name: str, value: object) -> str:
    """Return a value that is text. Raises InputError for any other."""
    if not isinstance(value, str):
        raise refusal(name, value, "text")
    return value


def lone(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return texts as a tuple; a lone string is one, not its letters."""
    return (value,) if isinstance(value, str) else tuple(value)


def refusal(name: str, value: object, wanted: str) -> InputError:
    """Return the error that names an option, the type that was given and the one that is wanted."""
    return InputError(f"{name} is {type(value).__name__}.", f"It has to be {wanted}.", f"Given was {repr(value)[:80]}.")


def _agrees(value: object, default: object) -> bool:
    if isinstance(default, tuple):
        return _agree_all(value, 0.0 if default and isinstance(default[0], float) else "")
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, type(default)) if isinstance(default, int | str) else True


def _agree_all(values: object, default: float | str) -> bool:
    if isinstance(values, str):
        return isinstance(default, str)
    return isinstance(values, Sequence) and not isinstance(values, bytes) and all(_agrees(value, default) for value in values)
