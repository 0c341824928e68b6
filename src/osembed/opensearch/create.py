"""Create indexes: the first ones of a collection, and their next generations."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from osembed.errors import ClusterError, CollectionError, MissingError, RefusedError
from osembed.opensearch import changes, reads, schema
from osembed.opensearch.client import OpenSearch, Server
from osembed.opensearch.pipelines import default_pipeline
from osembed.opensearch.schema import IndexMeta, staging_alias, write_alias
from osembed.opensearch.target import Target
from osembed.opensearch.vectors import to_wire

# Settings that the server assigns to each index, or that belong to one index's history: never copied to the next generation.
_OF_ONE_INDEX = ("uuid", "creation_date", "provided_name", "version.", "blocks.", "resize.", "plugins.", "opendistro.", "knn.advanced.")
_SET_IN_SERVICE = ("refresh_interval", "auto_expand_replicas")  # would disturb loading, so set when the index goes into service
_FIRST_BASE64 = (3, 9, 0)  # older servers do not read base64 vectors
_PROBE = "osembed-probe"


def create_index(client: OpenSearch, server: Server, meta: IndexMeta, shape: Mapping[str, Any]) -> tuple[str, bool]:
    """Create an index with load settings behind its staging alias, unless it exists. Returns its name and whether it was created.

    Args:
        client: the connection.
        server: the server behind it.
        meta: the metadata of the new index.
        shape: settings chosen by the operator, such as number_of_shards; None removes a setting.
    """
    name = schema.index_name(meta.collection, meta.level, meta.identity, meta.generation)
    meta = _with_form(client, server, meta)
    body = schema.index_body(meta, [staging_alias(meta.collection, meta.level), write_alias(name)])
    settings = {**body["settings"]["index"], **shape}
    body["settings"]["index"] = {key: value for key, value in settings.items() if value is not None}
    return name, _create(client, name, body)


def create_like(client: OpenSearch, server: Server, source: Target, meta: IndexMeta, alias: str) -> dict[str, Any]:
    """Create the next generation of an index with load settings behind a staging alias, unless it exists.

    Mapping and settings are copied from the source as they are now, with everything that operators added. Only the vector field and osembed's
    `_meta` are new.

    Returns:
        The settings to give the new index when it goes into service. Raises CollectionError if the server refuses to create it.
    """
    found = reads.description(client, source.index)
    body = schema.index_body(_with_form(client, server, meta), [alias])
    properties = {**found["mappings"]["properties"], "embedding": body["mappings"]["properties"]["embedding"]}
    if meta.analyzer != source.meta.analyzer:  # otherwise keep an analyzer that an operator may have chosen
        properties |= schema.analysed(properties, meta.analyzer)
    body["mappings"] = {**found["mappings"], "properties": properties, "_meta": body["mappings"]["_meta"]}
    settings = {name.removeprefix("index."): value for name, value in found["settings"].items()}
    kept = {name: value for name, value in settings.items() if not name.startswith(_OF_ONE_INDEX)}
    wanted = schema.wanted_settings(meta.profile, int(kept.pop("number_of_replicas", 0)))
    wanted |= {name: kept.pop(name) for name in _SET_IN_SERVICE if name in kept}
    settings = {**kept, **schema.load_settings(meta.profile), **default_pipeline(client, source)}
    body["settings"]["index"] = {name: value for name, value in settings.items() if value is not None}
    _create(client, schema.index_name(meta.collection, meta.level, meta.identity, meta.generation), body)
    return wanted


def _create(client: OpenSearch, name: str, body: Mapping[str, Any]) -> bool:
    """Create an index; return False if it exists. Raises CollectionError if the server does not accept it."""
    try:
        return changes.create_index(client, name, body)
    except MissingError:
        raise
    except RefusedError as error:
        raise CollectionError(
            f"The index {name} could not be created.", error.found, "Fix that, then run the same command again."
        ) from error


def _with_form(client: OpenSearch, server: Server, meta: IndexMeta) -> IndexMeta:
    """Return the metadata with a note that vectors are written as base64, if a test shows that this server reads them correctly."""
    if server.version < _FIRST_BASE64 or not _takes_base64(client, meta):
        return meta
    return replace(meta, provenance={**meta.provenance, "vectors": "base64"})


def _takes_base64(client: OpenSearch, meta: IndexMeta) -> bool:
    """Return whether the server reads base64 vectors: index one vector in both forms and compare the scores."""
    vector = np.linspace(-1, 2, meta.identity.dimension, dtype=np.float32)
    field = schema.index_body(meta, [])["mappings"]["properties"]["embedding"]
    body = {"settings": {"index": {"knn": True, "hidden": True, "number_of_replicas": 0}}, "mappings": {"properties": {"embedding": field}}}
    query = {"size": 2, "query": {"knn": {"embedding": {"vector": vector, "k": 2}}}}
    try:
        changes.delete_index(client, _PROBE)  # left by a killed process
        changes.create_index(client, _PROBE, body)
        for key, form in (("numbers", vector), ("base64", to_wire(vector))):
            changes.write_document(client, _PROBE, key, {"embedding": form}, None)
        changes.refresh(client, _PROBE)
        scores = [hit["_score"] for hit in reads.search(client, _PROBE, query)["hits"]["hits"]]
        return len(scores) == 2 and abs(scores[0] - scores[1]) <= 1e-4 * abs(scores[0])
    except ClusterError:  # refused, not allowed, or another process is probing
        return False
    finally:
        with suppress(ClusterError):
            changes.delete_index(client, _PROBE)
