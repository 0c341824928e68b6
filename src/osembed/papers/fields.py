"""Find the fields of a paper in a record by their usual names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

USUAL = {
    "id": ("id", "_id", "paper_id", "doc_id", "docid", "corpus_id", "Key", "doi"),  # "Key" is Zotero's; "key" could be anything
    "title": ("title",),
    "abstract": ("abstract", "summary", "abstract note"),
    "body": ("body", "text", "content", "full_text", "fulltext", "body_text"),
    "meta": ("meta", "metadata"),
}
TEXTS = ("id", "title", "abstract", "body")
_NEW = ("Key", "abstract note")
FORMER_NAMES = frozenset(name for names in USUAL.values() for name in names if name not in _NEW)


def name_of(fields: Mapping[str, Any], field: str, names: Mapping[str, str]) -> str | None:
    """Return the name of a field in a record: the caller's name or one of the usual names, ignoring case. None if the record has none."""
    wanted = (names[field],) if field in names else USUAL[field]
    for name in wanted:
        value = fields.get(name)
        if value or value == 0:
            return name
    lower = _lower(tuple(fields))
    for name in wanted if wanted is USUAL[field] else (names[field].lower(),):
        if name in lower:
            value = fields[lower[name]]
            if value or value == 0:
                return lower[name]
    return None


@lru_cache(64)  # the records of an input share few sets of names
def _lower(names: tuple[str, ...]) -> dict[str, str]:
    return {str(name).lower().strip(): name for name in names}


def former_name(fields: Mapping[str, Any], field: str, names: Mapping[str, str]) -> str | None:
    """Return the name that an earlier version of osembed used: exact case, without Zotero's names."""
    wanted = (names[field],) if field in names else USUAL[field]
    return next((name for name in wanted if name not in _NEW and (fields.get(name) or fields.get(name) == 0)), None)
