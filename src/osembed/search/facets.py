"""How many papers have which value of a field. Pure: fields to a request for figures, its answer to facets.

All figures are those of papers, also where chunks were ranked: a long paper is one paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from osembed.opensearch import answers
from osembed.search import filters
from osembed.search.results import Facet

LISTED = 10  # values of a facet
# What each shard tells of its most frequent values. Below so many different ones the figures of all shards together are exact.
_PER_SHARD = 10_000


def check_fields(fields: Sequence[str], types: Mapping[str, str]) -> tuple[str, ...]:
    """Return metadata fields to count by, each once. Raises InputError for one that no paper has."""
    names = tuple(dict.fromkeys(field.strip().removeprefix("meta.") for field in fields))
    for name in names:
        if types.get(name, "object") == "object":
            raise filters.unknown_field(name, types, (), "count by")
    return names


def request(fields: Sequence[str], query: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request that counts the papers that a query finds."""
    return {"query": dict(query), "size": 0, "track_total_hits": True, "aggs": figures(fields)}


def figures(fields: Sequence[str]) -> dict[str, Any]:
    """Return the aggregations of a request on papers: of each field its most frequent values, and how many papers have none."""
    asked: dict[str, Any] = {}
    for place, field in enumerate(fields):
        asked[f"values{place}"] = {"terms": {"field": f"meta.{field}", "size": LISTED, "shard_size": _PER_SHARD}}
        asked[f"missing{place}"] = {"missing": {"field": f"meta.{field}"}}
    return asked


def read_facets(fields: Sequence[str], answer: answers.Answer, where: str) -> tuple[Facet, ...]:
    """Return the facets that an answer holds. Raises UnsettledError where it does not prove its figures."""
    papers, found = answers.total(answer, where), answer["aggregations"]
    facets = []
    for place, field in enumerate(fields):
        buckets, other, error = answers.top_buckets(found.get(f"values{place}"), where)
        values = {_text(bucket): int(bucket["doc_count"]) for bucket in buckets}
        facets.append(Facet(field, papers, values, other, answers.bucket_count(found.get(f"missing{place}"), where), error))
    return tuple(facets)


def _text(bucket: Mapping[str, Any]) -> str:
    """Return a value as a filter takes it: 2015, true, 2015-03-01."""
    if "key_as_string" in bucket:
        return str(bucket["key_as_string"]).removesuffix("T00:00:00.000Z")
    key = bucket["key"]
    return str(int(key)) if isinstance(key, float) and key.is_integer() else str(key)
