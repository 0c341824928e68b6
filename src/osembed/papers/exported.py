"""Turn stored papers into records that `ingest` can read back without loss. Pure functions.

A record has osembed's own field names, `{"id", "title", "abstract", "body", "meta", "osembed_export"}`. The last key holds data of the
collection and not of the paper: the paper's original source, the types of fields whose values suggest another type, and the input hash if
it cannot be derived from the stored paper (because some metadata did not fit and was left out). A record with this key was accepted once,
so it is accepted again under exactly its id, however short it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from osembed.papers.metadata import KINDS, field_type

EXPORTED = "osembed_export"
# Fields of a paper's document that every ingest derives again.
_MADE = ("paper_id", "word_count", "chunk_count", "input_hash", "text_hash", "identity", "origin", "ingested_at", "embedding")
_TEXTS = ("title", "abstract", "body")


@dataclass(frozen=True)
class Mark:
    """The `osembed_export` data of a record.

    Attributes:
        source: the paper's source before it was exported.
        types: field → its type in the original collection.
        content_hash, input_hash: the hash of the exported record, and the input hash that it has in its collection.
    """

    source: str = ""
    types: Mapping[str, str] = field(default_factory=dict)
    content_hash: str = ""
    input_hash: str = ""


def to_record(key: str, stored: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    """Return a stored paper as a record.

    Args:
        key: the document's id.
        stored: its fields.
        types: the collection's metadata fields and their types.
    """
    meta = nested(stored.get("meta"))
    beside = {name: stored[name] for name in sorted(stored.keys() - {*_MADE, *_TEXTS, "id", "meta", "source"})}
    mark: dict[str, Any] = {"source": stored["source"]} if stored.get("source") else {}
    if other := _unlikely_types(meta, types):
        mark["types"] = other
    texts = {name: "" if stored.get(name) is None else stored[name] for name in _TEXTS}
    return {"id": key, **texts, "meta": meta, **beside, EXPORTED: mark}


def read_mark(fields: Mapping[str, Any]) -> Mark | None:
    """Return the `osembed_export` data of a record; None for any other record."""
    said = fields.get(EXPORTED)
    if not isinstance(said, Mapping) or not isinstance(fields.get("id"), str):
        return None
    types = said.get("types")
    known = {str(name): kind for name, kind in types.items() if kind in KINDS} if isinstance(types, Mapping) else {}
    texts = {name: str(said.get(name) or "") for name in ("source", "content_hash", "input_hash")}
    return Mark(types=known, **texts)


def nested(meta: Any) -> dict[str, Any]:
    """Return metadata with sorted names, and flat names as objects: `{"a.b": 1}` as `{"a": {"b": 1}}`. Empty values are left out.

    osembed stores objects under names with dots. Dots in a record's own names become underscores when it is read.
    """
    root: dict[str, Any] = {}
    for name, value in sorted(_all_leaves(meta), key=lambda leaf: leaf[0]):
        *path, last = name.split(".")
        place = root
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):  # both a value and an object, which no mapping by osembed allows
                place, last = root, name
                break
        place[last] = value if last not in place else [*_listed(place[last]), *_listed(value)]
    return root


def _unlikely_types(meta: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, str]:
    """Return the types that a new collection would not choose for these fields if this paper were its first."""
    mapped = {name: "keyword" if types.get(name) == "text" else types.get(name, "") for name, _ in leaves(meta)}
    return {name: mapped[name] for name, value in leaves(meta) if mapped[name] in KINDS and mapped[name] != field_type(value)}


def leaves(meta: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (`a.b`, value) for all values that are not objects and not empty."""
    for name, value in meta.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        elif value is not None and value != "" and value != []:
            yield prefix + name, value


def _all_leaves(meta: Any) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a stored `meta`, which may also be a list of objects if another program wrote it."""
    for part in _listed(meta):
        if isinstance(part, Mapping):
            yield from leaves(part)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
