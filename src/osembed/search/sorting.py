"""Translate --sort into the server's sort clauses, checked against the mapping. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from osembed.errors import InputError
from osembed.search import filters

SCORE = "score"
_ORDERS = ("asc", "desc")


@dataclass(frozen=True)
class Sort:
    """A field to sort by: a metadata field or the id. `kind` is its type in the mapping."""

    field: str
    descending: bool
    kind: str

    def __str__(self) -> str:
        return f"{self.field}:{_ORDERS[self.descending]}"


def parse_sort(text: str, types: Mapping[str, str]) -> Sort | None:
    """Parse FIELD or FIELD:desc. Returns None for the default order, by score.

    Raises InputError for a field that no paper has, and for an order other than asc or desc.
    """
    if text in ("", SCORE, f"{SCORE}:desc"):
        return None
    field, colon, order = text.partition(":")
    field = field.strip().removeprefix("meta.")
    if colon and order not in _ORDERS:
        raise InputError(f"'{text}' is not a sort order.", "", "Write it like year or year:desc.")
    if field == SCORE:
        raise InputError("Scores can only be sorted best first.", "The worst match is of no use.", "Leave out --sort.")
    kind = "keyword" if field == "id" else types.get(field, "object")
    if kind == "object":
        raise filters.unknown_field(field, types, (SCORE, "id"), "sort by")
    return Sort(field, order == "desc", kind)


def sort_clauses(sort: Sort) -> list[dict[str, Any]]:
    """Return the server's sort clauses: papers without a value last, ties by id."""
    order = _ORDERS[sort.descending]
    if sort.field == "id":
        return [{"paper_id": {"order": order, "unmapped_type": "keyword"}}]
    # `unmapped_type`: one of several collections may lack the field; its papers then count as papers without a value.
    return [{f"meta.{sort.field}": {"order": order, "missing": "_last", "unmapped_type": sort.kind}}, _BY_ID]


_BY_ID = {"paper_id": {"order": "asc", "unmapped_type": "keyword"}}
