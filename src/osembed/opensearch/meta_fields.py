"""The mapped metadata fields of an index under flat names, like `authors.name`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from osembed.errors import MissingError, RefusedError
from osembed.opensearch import answers, changes, reads
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.target import Target

_FIELD: dict[str, dict[str, Any]] = {
    "keyword": {"type": "keyword", "ignore_above": 1024},
    "double": {"type": "double", "ignore_malformed": True},
    "date": {"type": "date", "ignore_malformed": True},
    "boolean": {"type": "boolean"},
}


def add_meta_fields(client: OpenSearch, target: Target, types: Mapping[str, str]) -> Target:
    """Map new metadata fields. Returns the target with the actual types: another writer may have mapped a field differently first."""
    fields = {name: kind for name, kind in types.items() if name not in target.meta_types and kind in _FIELD}
    if not fields:
        return target
    body = {"properties": {"meta": {"properties": nested(fields)}}}
    try:
        changes.put_mapping(client, target.index, body)
    except MissingError:
        raise
    except RefusedError:
        for name, kind in fields.items():  # one at a time, so that one conflict does not prevent the others
            _try_mapping(client, target.index, {name: kind})
    return replace(target, meta_types=read_meta_types(client, target.index))


def read_meta_types(client: OpenSearch, index: str) -> dict[str, str]:
    """Return the mapped metadata fields of an index: flat name → type. Raises MissingError if the index is gone."""
    return flat_types(answers.named(reads.indexes(client, [index], "*.settings.index.uuid,*.mappings.properties.meta"), index))


def nested(fields: Mapping[str, str]) -> dict[str, Any]:
    """Turn flat names like `a.b` into the nested properties of a mapping."""
    root: dict[str, Any] = {}
    for name, kind in fields.items():
        *path, last = name.split(".")
        place = root
        for part in path:
            place = place.setdefault(part, {"properties": {}})["properties"]
        place[last] = dict(_FIELD[kind])
    return root


def flat_types(info: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata fields in a server's description of an index: flat name → type."""
    types: dict[str, str] = {}

    def walk(properties: Mapping[str, Any], prefix: str) -> None:
        for name, field in properties.items():
            types[prefix + name] = field.get("type", "object")
            walk(field.get("properties", {}), f"{prefix}{name}.")

    walk(info.get("mappings", {}).get("properties", {}).get("meta", {}).get("properties", {}), "")
    return types


def _try_mapping(client: OpenSearch, index: str, fields: Mapping[str, str]) -> None:
    with suppress(RefusedError):  # mapped differently by another writer, or over the server's field limit: the caller reads the result
        changes.put_mapping(client, index, {"properties": {"meta": {"properties": nested(fields)}}})
