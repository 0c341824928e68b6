"""Translate filters like `year>=2015` into typed query clauses. Pure functions; user text never becomes query syntax."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from osembed.errors import InputError
from osembed.limits import Misfit, Number, checked_value, convert_value, guess_name
from osembed.papers.levels import Level
from osembed.papers.paper import clean_text

MAX_FILTERS = 20
_FORM = re.compile(r"\s*(?P<field>[\w.-]+)\s*(?P<operator>>=|<=|!=|=|>|<)\s*(?P<value>.*?)\s*", re.DOTALL)
_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2}(T[\d:.]+(Z|[+-]\d{2}:?\d{2})?)?)?)?", re.ASCII)
_RANGES = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_TRUTH = {"true": True, "yes": True, "false": False, "no": False}


@dataclass(frozen=True)
class Condition:
    """One parsed filter. `field` is `id` or a metadata field without `meta.`. A value like `a|b` means either of them."""

    field: str
    operator: str
    value: str

    @property
    def values(self) -> list[str]:
        """The alternatives in the value."""
        return [part.strip() for part in self.value.split("|")]


def parse_filters(texts: Sequence[str]) -> list[Condition]:
    """Parse filters, all of which must match. Raises InputError if one is not of the form FIELD OPERATOR VALUE."""
    if len(texts) > MAX_FILTERS:
        raise InputError(f"{len(texts)} filters were given.", "", f"At most {MAX_FILTERS} are allowed.")
    conditions = []
    for text in texts:
        match = _FORM.fullmatch(clean_text(checked_value("where", text, str)))
        if not match or not match["value"]:
            raise InputError(f"'{text[:100]}' is not a filter.", "", "Write it like year>=2015, topic=ecology or topic=ecology|botany.")
        conditions.append(Condition(match["field"].removeprefix("meta."), match["operator"], match["value"]))
    return conditions


def filter_clauses(conditions: Sequence[Condition], types: Mapping[str, str], level: Level) -> list[dict[str, Any]]:
    """Return the filter clauses for one level, with values typed by the mapping.

    Raises InputError for an unknown field or a value of the wrong type.
    """
    return [_clause(condition, types, level) for condition in conditions]


def _clause(condition: Condition, types: Mapping[str, str], level: Level) -> dict[str, Any]:
    if condition.field == "id":
        positive = _id_clause(condition, level)
    else:
        kind = types.get(condition.field)
        if kind is None or kind == "object":
            raise unknown_field(condition.field, types, ("id",), "filter by")
        positive = _field_clause(condition, f"meta.{condition.field}", kind)
    return {"bool": {"must_not": [positive]}} if condition.operator == "!=" else positive


def _id_clause(condition: Condition, level: Level) -> dict[str, Any]:
    if condition.operator not in ("=", "!="):
        raise InputError("The id can only be compared with = and !=.")
    return {"ids": {"values": condition.values}} if level == "papers" else {"terms": {"paper_id": condition.values}}


def _field_clause(condition: Condition, field: str, kind: str) -> dict[str, Any]:
    if condition.operator in _RANGES:
        return {"range": {field: {_RANGES[condition.operator]: _typed(condition.value, kind, condition.field)}}}
    if condition.value == "*":
        return {"exists": {"field": field}}
    values = [_typed(value, kind, condition.field) for value in condition.values]
    if kind == "date":
        return {"bool": {"should": [_within(field, value) for value in values], "minimum_should_match": 1}}
    return {"terms": {field: values}}


def _within(field: str, date: str) -> dict[str, Any]:
    """Return the range that a date stands for: 2015-03 is the whole month."""
    unit = {4: "y", 7: "M"}.get(len(date), "d" if len(date) == 10 else "s")
    return {"range": {field: {"gte": f"{date}||/{unit}", "lte": f"{date}||/{unit}"}}}


def _typed(value: str, kind: str, field: str) -> Any:
    if kind in ("double", "float", "long", "integer"):
        try:
            return convert_value(value, Number(-sys.float_info.max), text=True)
        except Misfit:
            raise InputError(f"'{field}' holds numbers; '{value[:60]}' is not one.", "", f"Write it like {field}>=2015.") from None
    if kind == "boolean":
        if value.lower() not in _TRUTH:
            raise InputError(f"'{field}' is true or false; '{value[:60]}' is neither.")
        return _TRUTH[value.lower()]
    if kind == "date" and not _DATE.fullmatch(value):
        raise InputError(f"'{field}' holds dates; '{value[:60]}' is not one.", "", f"Write it like {field}>=2015-03-01.")
    return value


def unknown_field(field: str, types: Mapping[str, str], others: Sequence[str], use: str, *, parents: bool = False) -> InputError:
    """Return the error for a field that no paper has, with the nearest known name.

    Args:
        field: the name as given.
        types: the mapped metadata fields.
        others: allowed names that are not metadata.
        use: the purpose of the field, such as "filter by".
        parents: whether `authors` also selects `authors.name`.
    """
    known = [*others, *sorted(name for name, kind in types.items() if parents or kind != "object")]
    return InputError(
        f"No paper has a field '{field}'.",
        f"There is nothing to {use}.{guess_name(field, known)}",
        f"Fields to {use}: {', '.join(known[:30])}.",
    )
