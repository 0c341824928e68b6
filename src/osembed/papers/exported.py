"""Stored papers as lines that `ingest` reads again without loss, and back. Pure.

A line is a record under osembed's own names, `{"id", "title", "abstract", "body", "meta", "osembed_export"}`. What stands under the last key
is not the paper's but the collection's: where the paper once came from, the types of fields whose values would suggest another one, and the
input hash where the stored paper alone does not make it (some of its metadata did not fit, and is gone). A record that carries the key was
accepted once: it is taken under its id as that stands, however short it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from osembed.papers.metadata import KINDS, field_type

EXPORTED = "osembed_export"
# Fields of a paper's document that every ingest makes anew.
_MADE = ("paper_id", "word_count", "chunk_count", "input_hash", "text_hash", "identity", "origin", "ingested_at", "embedding")
_TEXTS = ("title", "abstract", "body")


@dataclass(frozen=True)
class Mark:
    """What an exported record says of itself.

    Attributes:
        source: where the paper came from before it was exported.
        types: field → its type in the collection that it comes from.
        content_hash, input_hash: the hash of the record as it was exported, and the one that stands for it in its collection.
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
    """Return what an exported record says of itself; None for any other record."""
    said = fields.get(EXPORTED)
    if not isinstance(said, Mapping) or not isinstance(fields.get("id"), str):
        return None
    types = said.get("types")
    known = {str(name): kind for name, kind in types.items() if kind in KINDS} if isinstance(types, Mapping) else {}
    texts = {name: str(said.get(name) or "") for name in ("source", "content_hash", "input_hash")}
    return Mark(types=known, **texts)


def nested(meta: Any) -> dict[str, Any]:
    """Return metadata with its names in order and dotted ones as objects, `{"a.b": 1}` as `{"a": {"b": 1}}`; empty values left out.

    Names with dots are how osembed stores objects; a record's own dots are made underscores when it is read.
    """
    root: dict[str, Any] = {}
    for name, value in sorted(_all_leaves(meta), key=lambda leaf: leaf[0]):
        *path, last = name.split(".")
        place = root
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):  # a value and an object at once: no mapping of ours holds that
                place, last = root, name
                break
        place[last] = value if last not in place else [*_listed(place[last]), *_listed(value)]
    return root


def _unlikely_types(meta: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, str]:
    """Return the types that a new collection would not give these fields, were this paper the first that it sees."""
    mapped = {name: "keyword" if types.get(name) == "text" else types.get(name, "") for name, _ in leaves(meta)}
    return {name: mapped[name] for name, value in leaves(meta) if mapped[name] in KINDS and mapped[name] != field_type(value)}


def leaves(meta: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (`a.b`, value) of all values that are not objects."""
    for name, value in meta.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        elif value is not None and value != "" and value != []:
            yield prefix + name, value


def _all_leaves(meta: Any) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of what stands under `meta`; other programs may have put a list of objects there."""
    for part in _listed(meta):
        if isinstance(part, Mapping):
            yield from leaves(part)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
