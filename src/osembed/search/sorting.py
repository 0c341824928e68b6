"""By which field hits are sorted. Pure: what a person types, checked against the mapping, to the server's sort clauses."""

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
    """One field to sort by: metadata or id. `kind` is its type in the mapping."""

    field: str
    descending: bool
    kind: str

    def __str__(self) -> str:
        return f"{self.field}:{_ORDERS[self.descending]}"


def parse(text: str, types: Mapping[str, str]) -> Sort | None:
    """Return what FIELD or FIELD:desc means; None for the order of the ranking itself, which is that of scores.

    Raises InputError for a field that no paper has, and for another order than asc or desc.
    """
    if text in ("", SCORE, f"{SCORE}:desc"):
        return None
    field, colon, order = text.partition(":")
    field = field.strip().removeprefix("meta.")
    if colon and order not in _ORDERS:
        raise InputError(f"'{text}' is not an order.", "", "Write it like year or year:desc.")
    if field == SCORE:
        raise InputError("Scores are sorted best first only.", "The worst of all matches answers no question.", "Leave --sort out.")
    kind = "keyword" if field == "id" else types.get(field, "object")
    if kind == "object":
        raise filters.unknown_field(field, types, (SCORE, "id"), "sort by")
    return Sort(field, order == "desc", kind)


def clauses(sort: Sort) -> list[dict[str, Any]]:
    """Return the server's sort: papers without a value last, ties by id."""
    order = _ORDERS[sort.descending]
    if sort.field == "id":
        return [{"paper_id": {"order": order, "unmapped_type": "keyword"}}]
    # Of several collections one may lack the field: there it is as if no paper had a value.
    return [{f"meta.{sort.field}": {"order": order, "missing": "_last", "unmapped_type": sort.kind}}, _BY_ID]


_BY_ID = {"paper_id": {"order": "asc", "unmapped_type": "keyword"}}
