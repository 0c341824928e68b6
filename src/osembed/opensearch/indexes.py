"""Operations on the indexes and aliases of one collection: resolve, publish, put into service, restore metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from osembed.errors import AuthError, CollectionError, MissingError, RefusedError
from osembed.opensearch import changes, reads, schema
from osembed.opensearch.client import OpenSearch, Server
from osembed.opensearch.coordination.journal import Journal
from osembed.opensearch.meta_fields import flat_types
from osembed.opensearch.schema import alias_name, staging_alias
from osembed.opensearch.target import Target, Targets
from osembed.papers.levels import LEVELS, Level

_RESOLVE = (
    "*.aliases,*.mappings._meta,*.mappings.properties.meta,*.settings.index.uuid,"
    "*.settings.index.refresh_interval,*.settings.index.search.default_pipeline,*.settings.index.provided_name,"
    "*.settings.index.number_of_shards"
)


def resolve(client: OpenSearch, collection: str) -> Targets | None:
    """Return the indexes that a collection's aliases point to now; None if it has no aliases.

    Raises CollectionError for every state in which a search or a write could reach the wrong index.
    """
    names: dict[Level, str] = {level: alias_name(collection, level) for level in LEVELS}
    found = _read_indexes(client, list(names.values()))
    for name in names.values():  # the result is keyed by index, so an alias never appears as a key
        if name in found:
            raise CollectionError(
                f"'{name}' is an index, not an alias.",
                "osembed uses this name for an alias, and would have to delete the index to do so.",
                "Use another name: --collection NAME.",
            )
    holders = {level: [index for index, info in found.items() if name in info["aliases"]] for level, name in names.items()}
    if not any(holders.values()):
        return None
    for level, name in names.items():
        _check_single(name, holders[level])
    return {level: _target(client, holders[level][0], found[holders[level][0]]) for level in LEVELS}


def resolve_indexes(client: OpenSearch, names: Mapping[Level, str]) -> Targets:
    """Return targets for concrete indexes. Raises MissingError if one is missing."""
    found = _read_indexes(client, list(names.values()))
    for name in names.values():
        if name not in found:
            raise MissingError(f"The index {name} is gone.", "", "See `osembed doctor`.", status=404, kind="index_not_found_exception")
    return {level: _target(client, name, found[name]) for level, name in names.items()}


def put_in_service(client: OpenSearch, target: Target, wanted: Mapping[str, Any]) -> None:
    """Apply an index's production settings and make all its documents searchable."""
    changes.put_settings(client, [target.index], wanted)
    changes.refresh(client, target.index)
    if target.meta.profile == "faiss":  # graphs were not built during the load: the threshold is 0 again, and merging builds them
        changes.force_merge(client, target.index)


def publish(client: OpenSearch, targets: Targets) -> None:
    """Move the collection's aliases to indexes that have been behind staging aliases, both levels in one request."""
    collection = targets["papers"].meta.collection
    actions: list[dict[str, Any]] = []
    for level in LEVELS:
        index = targets[level].index
        actions.append({"remove": {"index": index, "alias": staging_alias(collection, level), "must_exist": True}})
        actions.append({"add": {"index": index, "alias": alias_name(collection, level), "is_write_index": True}})
    try:
        changes.update_aliases(client, actions)
    except MissingError:  # two loaders finished together, and the other one was faster
        if resolve(client, collection) is None:
            raise
    except RefusedError as error:
        raise CollectionError(
            f"The aliases of '{collection}' could not be set. {error.found}",
            "Something else uses these names. The loaded papers are kept behind the staging alias.",
            f"Look at `GET _alias/{collection}*`, free the names, then run ingest again.",
        ) from error


def exist(client: OpenSearch, names: Iterable[str]) -> bool:
    """Return whether any of these indexes exists."""
    wanted = list(names)
    return bool(wanted) and bool(_read_indexes(client, wanted))


def doc_count(client: OpenSearch, index: str) -> int:
    """Return the number of searchable documents."""
    return reads.count(client, index)


def default_replicas(client: OpenSearch, server: Server) -> int:
    """Return 1 if there is a second data node to hold a replica, else 0."""
    if server.embedded:
        return 0
    return 1 if reads.data_nodes(client) > 1 else 0


def _read_indexes(client: OpenSearch, names: Sequence[str]) -> dict[str, Any]:
    return {name: {"aliases": {}, **info} for name, info in reads.indexes(client, names, _RESOLVE).items()}


def _check_single(name: str, holders: list[str]) -> None:
    if len(holders) > 1:
        remove = ", ".join(f'{{"remove": {{"index": "{index}", "alias": "{name}"}}}}' for index in holders[1:])
        raise CollectionError(
            f"The alias '{name}' is on {len(holders)} indexes: {', '.join(sorted(holders))}.",
            "A search would mix two vector spaces.",
            f'Keep one: POST _aliases {{"actions": [{remove}]}}',
        )
    if not holders:
        raise CollectionError(
            f"The alias '{name}' is missing, but the alias of the other level exists.",
            "A collection is a pair of indexes: papers and their chunks.",
            "Put the alias back on its index (use `GET _cat/aliases?v` and `osembed doctor` to find it).",
        )


def _target(client: OpenSearch, index: str, info: Mapping[str, Any]) -> Target:
    stored = info.get("mappings", {}).get("_meta", {}).get("osembed")
    settings = info["settings"]["index"]
    healed = stored is None
    if stored is None:
        stored = _restore_meta(client, index, settings["uuid"])
    return Target(
        index=index,
        uuid=settings["uuid"],
        meta=schema.read_meta(stored),
        meta_types=flat_types(info),
        refresh_interval=settings.get("refresh_interval", ""),
        default_pipeline=settings.get("search", {}).get("default_pipeline", ""),
        healed=healed,
        shards=int(settings.get("number_of_shards", 0)),
    )


def _restore_meta(client: OpenSearch, index: str, uuid: str) -> dict[str, Any]:
    """Restore an index's `_meta` from the journal and return it. Any client can wipe `_meta` with one mapping update."""
    kept = Journal(client).recall_index(uuid)
    if kept is None:
        raise CollectionError(
            f"The index {index} was not created by osembed.",
            "The model of its vectors is unknown.",
            "Use another collection (--collection NAME), or move the alias back.",
        )
    meta = dict(kept["meta"])
    with suppress(AuthError):  # a reader may not repair the index, but can still use the metadata
        changes.put_mapping(client, index, {"_meta": {"osembed": meta}})
    return meta
