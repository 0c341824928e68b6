"""Metadata of papers: flat names, one type per field. On a conflict the field is dropped and not the paper. Pure functions."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

MAX_FIELDS = 200
MAX_OWN = 50  # new fields per window that one paper alone may add
OTHER_TYPE = "its type differs from the collection's"
LIMIT = f"the collection has {MAX_FIELDS} fields already"
OWN = f"more than {MAX_OWN} fields that only one paper has"
TOO_DEEP = "nested too deep"
Dropped = dict[str, Counter[str]]  # reason → field → number of papers
_COUNTED, _OTHERS = 1000, "(others)"  # fields counted by name, and the name for the rest
_TOO_DEEP = object()
KINDS = ("keyword", "double", "date", "boolean")
_DATE = re.compile(r"\d{4}-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01])(T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?)?)?")
_MAX_DEPTH = 4


def flatten_metadata(meta: Mapping[str, Any], deep: list[str] | None = None) -> dict[str, Any]:
    """Return metadata with flat names, `a.b: value`. Lists of objects become one list per field; empty values are left out.

    Args:
        meta: the metadata of the record.
        deep: receives the names of values that are nested too deep to be kept.
    """
    flat: dict[str, Any] = {}
    for name, value in _walk(meta, "", 0):
        if value is _TOO_DEEP:
            if deep is not None:
                deep.append(name)
        elif name in flat:
            before = flat[name] if isinstance(flat[name], list) else [flat[name]]
            flat[name] = before + (value if isinstance(value, list) else [value])
        else:
            flat[name] = value
    return flat


def field_type(value: Any) -> str | None:
    """Return the type for a value: keyword, double, date or boolean; None if it has none."""
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, bool):
        return "boolean"
    if isinstance(first, int | float):
        return "double" if math.isfinite(first) and abs(first) < 1e300 else None
    if isinstance(first, str):
        return "date" if _DATE.fullmatch(first) else "keyword"
    return None


def new_types(metas: Iterable[Mapping[str, Any]], known: Mapping[str, str], stated: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the fields that are not mapped yet, with the type of their first value; at most MAX_FIELDS with the known ones.

    Fields that several papers share come first, and a single paper adds at most MAX_OWN others, so that one paper with thousands of keys
    does not use up the limit.
    """
    fresh: dict[str, str] = {}
    left = MAX_FIELDS - sum(kind != "object" for kind in known.values())
    for name, value in _by_use(metas, known):
        kind = (stated or {}).get(name) or field_type(value)
        if kind and name not in fresh and len(fresh) < left and not _clashes(name, {**known, **fresh}):
            fresh[name] = kind
    return fresh


def fit_metadata(meta: Mapping[str, Any], types: Mapping[str, str], dropped: Dropped) -> dict[str, Any]:
    """Return the fields of one paper that fit the mapping; count the others in `dropped`."""
    kept = {}
    for name, value in meta.items():
        kind = types.get(name)
        if kind and kind != "object" and _agrees(value, kind):
            kept[name] = value
        else:
            note_dropped(dropped, _why(name, value, types), name)
    return kept


def note_dropped(dropped: Dropped, why: str, name: str, count: int = 1) -> None:
    """Count a dropped field. Names beyond a limit are counted together, because hostile papers may have any number of them."""
    names = dropped.setdefault(why, Counter())
    names[name if name in names or len(names) < _COUNTED else _OTHERS] += count


def _by_use(metas: Iterable[Mapping[str, Any]], known: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """Yield unknown fields: first those that several papers have, then a few of those that only one paper has."""
    unknown = [[(name, value) for name, value in meta.items() if name not in known] for meta in metas]
    papers = Counter(name for fields in unknown for name, _ in fields)
    yield from (field for fields in unknown for field in fields if papers[field[0]] > 1)
    for fields in unknown:
        yield from [field for field in fields if papers[field[0]] == 1][:MAX_OWN]


def _why(name: str, value: Any, types: Mapping[str, str]) -> str:
    """Return why a field of a paper is dropped."""
    if name in types or field_type(value) is None:
        return OTHER_TYPE
    if sum(kind != "object" for kind in types.values()) >= MAX_FIELDS:
        return LIMIT
    return OTHER_TYPE if _clashes(name, types) else OWN


def _agrees(value: Any, kind: str) -> bool:
    values = value if isinstance(value, list) else [value]
    if kind == "keyword" or kind == "text":
        return all(isinstance(item, str | int | float) for item in values)
    return all(field_type(item) == kind for item in values)


def _clashes(name: str, types: Mapping[str, str]) -> bool:
    """Return whether a field would have to be both a value and an object."""
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
            elif item:
                yield name, _TOO_DEEP
        elif isinstance(item, list):
            yield from _walk_list(item, name, depth)
        elif item is not None and item != "":
            yield name, item


def _walk_list(items: list[Any], name: str, depth: int) -> Iterator[tuple[str, Any]]:
    plain = [item for item in items if isinstance(item, str | int | float) and item != ""]
    if plain:
        yield name, plain
    for item in items:
        if isinstance(item, Mapping) and depth < _MAX_DEPTH:
            for inner, value in _walk(item, f"{name}.", depth + 1):
                yield inner, value if isinstance(value, list) or value is _TOO_DEEP else [value]
    if any(item and isinstance(item, list if depth < _MAX_DEPTH else (list, Mapping)) for item in items):
        yield name, _TOO_DEEP


def _clean_key(key: str) -> str:
    return re.sub(r"[^\w-]+", "_", str(key)).strip("_.")[:100].rstrip("_")  # cleaning a cleaned key must not change it
