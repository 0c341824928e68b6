"""Metadata of papers: flattened, typed once per field, conflicts dropped instead of the paper. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

MAX_FIELDS = 200
KINDS = ("keyword", "double", "date", "boolean")
_DATE = re.compile(r"\d{4}-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01])(T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?)?)?")
_MAX_DEPTH = 4


def flatten(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata as `a.b: value`, lists of objects turned into lists per field, empty values left out."""
    flat: dict[str, Any] = {}
    for name, value in _walk(meta, "", 0):
        if name in flat:
            before = flat[name] if isinstance(flat[name], list) else [flat[name]]
            flat[name] = before + (value if isinstance(value, list) else [value])
        else:
            flat[name] = value
    return flat


def field_type(value: Any) -> str | None:
    """Return the type that a value would be mapped to: keyword, double, date, boolean; None where it has none."""
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, bool):
        return "boolean"
    if isinstance(first, int | float):
        return "double" if math.isfinite(first) and abs(first) < 1e300 else None
    if isinstance(first, str):
        return "date" if _DATE.fullmatch(first) else "keyword"
    return None


def new_types(metas: Iterator[Mapping[str, Any]], known: Mapping[str, str], stated: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the fields that are not mapped yet, with the type of their first value; never more than MAX_FIELDS in all.

    `stated` types, of fields that come from another collection, count more than a value's.
    """
    fresh: dict[str, str] = {}
    stated = stated or {}
    taken = {name for name, kind in known.items() if kind != "object"}
    for meta in metas:
        for name, value in meta.items():
            kind = stated.get(name) or field_type(value)
            full = len(taken) + len(fresh) >= MAX_FIELDS
            if kind and name not in known and name not in fresh and not full and not _clashes(name, {**known, **fresh}):
                fresh[name] = kind
    return fresh


def fit(meta: Mapping[str, Any], types: Mapping[str, str], dropped: Counter[str]) -> dict[str, Any]:
    """Return the fields of one paper that agree with the mapping; count the others by name."""
    kept = {}
    for name, value in meta.items():
        kind = types.get(name)
        if kind and kind != "object" and _agrees(value, kind):
            kept[name] = value
        else:
            dropped[name] += 1
    return kept


def _agrees(value: Any, kind: str) -> bool:
    values = value if isinstance(value, list) else [value]
    if kind == "keyword" or kind == "text":
        return all(isinstance(item, str | int | float) for item in values)
    return all(field_type(item) == kind for item in values)


def _clashes(name: str, types: Mapping[str, str]) -> bool:
    """Whether a field would have to be a value and an object at once."""
    parts = name.split(".")
    above = (".".join(parts[:length]) for length in range(1, len(parts)))
    return any(types.get(parent, "object") != "object" for parent in above) or any(other.startswith(f"{name}.") for other in types)


def _walk(value: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        name = f"{prefix}{_clean_key(key)}"
        if not _clean_key(key):
            continue
        if isinstance(item, Mapping):
            if depth < _MAX_DEPTH:
                yield from _walk(item, f"{name}.", depth + 1)
        elif isinstance(item, list):
            yield from _walk_list(item, name, depth)
        elif item is not None and item != "":
            yield name, item


def _walk_list(items: list[Any], name: str, depth: int) -> Iterator[tuple[str, Any]]:
    plain = [item for item in items if isinstance(item, str | int | float) and item != ""]
    if plain:
        yield name, plain
    if depth < _MAX_DEPTH:
        for item in items:
            if isinstance(item, Mapping):
                for inner, value in _walk(item, f"{name}.", depth + 1):
                    yield inner, value if isinstance(value, list) else [value]


def _clean_key(key: str) -> str:
    return re.sub(r"[^\w-]+", "_", str(key)).strip("_.")[:100].rstrip("_")  # so that a cleaned key stays as it is
