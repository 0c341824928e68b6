"""Facets: how many papers have each value of a field. Pure functions: fields to a request, its response to facets.

Papers are counted even if chunks were ranked, so a long paper counts once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from osembed.opensearch import answers
from osembed.search import filters
from osembed.search.results import Facet

LISTED = 10  # values listed per facet
# How many of its most frequent values each shard reports. If no shard has more distinct values, the counts are exact.
_PER_SHARD = 10_000


def check_fields(fields: Sequence[str], types: Mapping[str, str]) -> tuple[str, ...]:
    """Return the metadata fields to count by, without duplicates. Raises InputError for a field that no paper has."""
    names = tuple(dict.fromkeys(field.strip().removeprefix("meta.") for field in fields))
    for name in names:
        if types.get(name, "object") == "object":
            raise filters.unknown_field(name, types, (), "count by")
    return names


def request(fields: Sequence[str], query: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request that counts the papers matching a query."""
    return {"query": dict(query), "size": 0, "track_total_hits": True, "aggs": figures(fields)}


def figures(fields: Sequence[str]) -> dict[str, Any]:
    """Return the aggregations over papers: for each field its most frequent values, and how many papers have no value."""
    asked: dict[str, Any] = {}
    for place, field in enumerate(fields):
        asked[f"values{place}"] = {"terms": {"field": f"meta.{field}", "size": LISTED, "shard_size": _PER_SHARD}}
        asked[f"missing{place}"] = {"missing": {"field": f"meta.{field}"}}
    return asked


def read_facets(fields: Sequence[str], answer: answers.Answer, where: str) -> tuple[Facet, ...]:
    """Return the facets in a response. Raises UnsettledError if the response does not cover all shards."""
    papers, found = answers.total(answer, where), answer["aggregations"]
    facets = []
    for place, field in enumerate(fields):
        buckets, other, error = answers.top_buckets(found.get(f"values{place}"), where)
        values = {_text(bucket): int(bucket["doc_count"]) for bucket in buckets}
        facets.append(Facet(field, papers, values, other, answers.bucket_count(found.get(f"missing{place}"), where), error))
    return tuple(facets)


def _text(bucket: Mapping[str, Any]) -> str:
    """Return a value in the form that filters accept: 2015, true, 2015-03-01."""
    if "key_as_string" in bucket:
        return str(bucket["key_as_string"]).removesuffix("T00:00:00.000Z")
    key = bucket["key"]
    return str(int(key)) if isinstance(key, float) and key.is_integer() else str(key)
