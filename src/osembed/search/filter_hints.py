"""Explain an empty result: which filters no paper matches, and the nearest existing value. Called only if nothing was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from osembed.limits import guess_name
from osembed.opensearch import reads
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.target import Target
from osembed.search import filters
from osembed.search.filters import Condition

_VALUES = 1000  # the nearest value is searched among this many frequent ones
_NAMED = 5  # example values listed in a hint


def unmet_filters(client: OpenSearch, target: Target, conditions: Sequence[Condition]) -> tuple[str, ...]:
    """Return one sentence for each filter that no paper matches, with the nearest existing values.

    Args:
        client: the connection.
        target: the index of the papers.
        conditions: the filters of a search that found nothing.
    """
    clauses = filters.filter_clauses(conditions, target.meta_types, "papers")
    unmet = [one for one, clause in zip(conditions, clauses, strict=True) if not reads.count(client, target.index, clause)]
    if unmet:
        return tuple(f"No paper matches {_written(one)}. {_nearest(client, target, one)}".strip() for one in unmet)
    if len(clauses) > 1 and not reads.count(client, target.index, {"bool": {"filter": clauses}}):
        return ("Each filter matches some papers, but no paper matches all of them.",)
    return ()


def _nearest(client: OpenSearch, target: Target, condition: Condition) -> str:
    kind = target.meta_types.get(condition.field)
    if condition.field == "id" or condition.operator == "!=" or condition.value == "*":
        return ""
    if kind == "keyword":
        return " ".join(_near_values(client, target, condition))
    return _span(client, target, condition.field)


def _near_values(client: OpenSearch, target: Target, condition: Condition) -> Iterator[str]:
    """Yield for each alternative the value that differs only in case or quotes, or the nearest one."""
    field, frequent = condition.field, _values(client, target, condition.field, {"match_all": {}})
    for value in condition.values:
        bare = value.strip("\"'“”‘’")
        same = {"term": {f"meta.{field}": {"value": bare, "case_insensitive": True}}}
        equal = [one for one in _values(client, target, field, same) if one.casefold() == bare.casefold()]
        near = f" Did you mean {field}={_short(equal[0])}?" if equal else guess_name(bare, frequent)
        if near:
            yield near.strip() + (" Quotes count as part of the value." if bare != value and equal else "")
        elif frequent:
            yield f"Its values are, for example, {', '.join(map(_short, frequent[:_NAMED]))}."


def _values(client: OpenSearch, target: Target, field: str, query: reads.Body) -> list[str]:
    body = {"size": 0, "query": query, "aggs": {"values": {"terms": {"field": f"meta.{field}", "size": _VALUES}}}}
    return [str(bucket["key"]) for bucket in reads.search(client, target.index, body)["aggregations"]["values"]["buckets"]]


def _span(client: OpenSearch, target: Target, field: str) -> str:
    """Return a sentence with the range of a field's values."""
    ends: dict[str, Any] = {end: {end: {"field": f"meta.{field}"}} for end in ("min", "max")}
    found = reads.search(client, target.index, {"size": 0, "aggs": ends})["aggregations"]
    low, high = (found[end].get("value_as_string", found[end]["value"]) for end in ("min", "max"))
    if low is None:
        return "No paper has that field."
    return f"Its values range from {_number(low)} to {_number(high)}."


def _number(value: object) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _written(condition: Condition) -> str:
    return f"{condition.field}{condition.operator}{_short(condition.value)}"


def _short(value: str) -> str:
    return value if len(value) <= 60 else f"{value[:59]}…"
