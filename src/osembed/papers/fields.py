"""Which name of a record holds which field of a paper."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

USUAL = {
    "id": ("id", "_id", "paper_id", "doc_id", "docid", "corpus_id", "Key", "doi"),  # Key: Zotero's; in small letters it may be anything
    "title": ("title",),
    "abstract": ("abstract", "summary", "abstract note"),
    "body": ("body", "text", "content", "full_text", "fulltext", "body_text"),
    "meta": ("meta", "metadata"),
}
TEXTS = ("id", "title", "abstract", "body")
_NEW = ("Key", "abstract note")
FORMER_NAMES = frozenset(name for names in USUAL.values() for name in names if name not in _NEW)


def name_of(fields: Mapping[str, Any], field: str, names: Mapping[str, str]) -> str | None:
    """Return the name under which a record holds a field, in any case; the caller's name or else the usual ones. None where it has none."""
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


@lru_cache(64)  # the records of an input have few sets of names
def _lower(names: tuple[str, ...]) -> dict[str, str]:
    return {str(name).lower().strip(): name for name in names}


def former_name(fields: Mapping[str, Any], field: str, names: Mapping[str, str]) -> str | None:
    """Return the name that an earlier osembed took: exact case, and not those of Zotero."""
    wanted = (names[field],) if field in names else USUAL[field]
    return next((name for name in wanted if name not in _NEW and (fields.get(name) or fields.get(name) == 0)), None)
