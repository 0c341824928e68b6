"""The allowed values of each option: one table for the command line, the environment, osembed.toml and Python."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

from osembed.errors import InputError

_MOST = 2**31 - 1  # the largest integer in the server's settings
_ENDLESS = sys.float_info.max
Mode = Literal["hybrid", "lexical", "vector"]
Fusion = Literal["min_max", "l2", "z_score", "rrf"]
MODES: tuple[Mode, ...] = get_args(Mode)
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)
SEARCH_LEVELS = ("both", "papers", "chunks")
FORMATS = ("table", "json", "jsonl", "csv", "bibtex")
PROFILES = ("lucene", "lucene-sq", "faiss")
_TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


_WORDS: dict[Any, str] = {
    bool: "true or false",
    str: "a text",
    int: "a whole number",
    float: "a number",
    list[str]: "a list of texts",
    tuple[str, ...]: "a list of texts",
    tuple[float, float]: "two numbers",
}


class Whole(NamedTuple):
    """A whole number within these limits."""

    low: int = 0
    high: int = _MOST


class Number(NamedTuple):
    """A finite number within these limits."""

    low: float = 0.0
    high: float = _ENDLESS


LIMITS: dict[str, Whole | Number | tuple[str, ...]] = {
    "size": Whole(1, 100),  # the ranking window: pages are slices of it
    "page": Whole(1, 100),
    "passages": Whole(0, 20),
    "mode": MODES,
    "gate_mode": MODES,
    "fusion": FUSIONS,
    "level": SEARCH_LEVELS,
    "hits": ("papers", "chunks"),
    "device": ("cpu", "cuda", "auto"),
    "precision": ("fp32", "bf16", "fp16", "auto"),
    "format_": FORMATS,
    "progress": ("auto", "lines", "json", "off"),
    "preset": ("minilm", "papers"),
    "profile": PROFILES,
    "min_words": Whole(),
    "chunk_words": Whole(1),
    "chunk_overlap": Whole(),
    "max_chunks": Whole(1),
    "shards": Whole(1, 1024),
    "replicas": Whole(),
    "rate": Number(),
    "allow_failed": Whole(),
    "max_delete": Whole(),
    "grace": Number(),
    "settle": Number(),
    "lines": Whole(),
    "retry_seconds": Number(),
    "patience_seconds": Number(),
}


class Misfit(ValueError):
    """A value is not allowed for its option; the text says what is allowed."""


def convert_value(value: Any, kind: Any, *, text: bool = False) -> Any:
    """Return a value converted to the kind of an option.

    Args:
        value: the given value.
        kind: Whole, Number, a tuple of allowed names, or a Python type.
        text: whether the value is text from the command line or a variable, which may be parsed as a number or as true or false.

    Raises:
        Misfit: the value is not allowed.
    """
    import msgspec  # imported late, because `osembed --help` does not need it

    plain = _plain(value)
    if text and kind is bool:
        plain = _TRUTH.get(str(plain).lower(), plain)
    try:
        return msgspec.convert(plain, _annotated(kind), strict=not text)
    except (msgspec.ValidationError, ValueError) as error:
        raise Misfit(f"{_shown(value)} is not {describe(kind)}.{guess_name(value, kind)}") from error


def checked_value(option: str, value: Any, kind: Any = None) -> Any:
    """Return a value converted for the option of this name. Raises InputError with option, value and what is allowed."""
    try:
        return convert_value(value, LIMITS[option] if kind is None else kind)
    except Misfit as error:
        raise InputError(f"{option}: {error}") from error


def check_fields(options: Any) -> None:
    """Check and convert every field of an options object, by the table if its name is in it, else by its type. Raises InputError."""
    hints = get_type_hints(type(options))
    for field in fields(options):
        value = getattr(options, field.name)
        if value is None and field.default is None:
            continue
        value = checked_value(field.name, value, LIMITS.get(field.name, hints[field.name]))
        object.__setattr__(options, field.name, value)


def describe(kind: Any) -> str:
    """Return the allowed values of an option in words."""
    if isinstance(kind, Whole | Number):
        noun = "a whole number" if isinstance(kind, Whole) else "a number"
        endless = kind.high in (_MOST, _ENDLESS)
        return f"{noun} of at least {kind.low:g}" if endless else f"{noun} from {kind.low:g} to {kind.high:g}"
    if isinstance(kind, tuple):
        return f"{', '.join(kind[:-1])} or {kind[-1]}"
    return _WORDS.get(kind) or f"of the type {kind}".replace("collections.abc.", "")


def guess_name(value: Any, names: Any) -> str:
    """Return " Did you mean …?" if one of the names is similar to the value, else ""."""
    if not isinstance(value, str) or not isinstance(names, Iterable) or isinstance(names, Whole | Number):
        return ""
    import difflib

    lower = {str(name).lower(): str(name) for name in names}
    close = difflib.get_close_matches(value[:100].lower(), lower, 1)
    return f" Did you mean {lower[close[0]]}?" if close else ""


def _annotated(kind: Any) -> Any:
    """Return the type annotation for msgspec."""
    from typing import Annotated

    from msgspec import Meta

    if isinstance(kind, Whole | Number):
        return Annotated[int if isinstance(kind, Whole) else float, Meta(ge=kind.low, le=kind.high)]
    return Literal[kind] if isinstance(kind, tuple) else kind


def _plain(value: Any) -> Any:
    """Return paths as strings and numpy numbers as Python numbers, also inside a list."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
