"""Names of collections, and the error for a collection that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from osembed.errors import ClusterError, CollectionError
from osembed.opensearch import indexes, permissions, reads
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.journal import Journal, State
from osembed.opensearch.coordination.registration import collection_key, read_drop
from osembed.opensearch.target import Targets

_SHOWN = 8


def other_names(client: OpenSearch) -> list[str] | None:
    """Return the names of the searchable collections that this user can see; None if there may be others that it cannot see."""
    try:
        found = reads.matching(client, "*", "*.aliases,*.mappings._meta.osembed.collection")
        said = ((info.get("aliases", {}), info.get("mappings", {})) for info in found.values())
        names = sorted({name for aliases, mappings in said if (name := _collection(mappings)) in aliases})
        return names if names or not permissions.is_secured(client) else None
    except ClusterError:  # the names only improve another error message, which must not be replaced by this error
        return None


def unknown_collection(collection: str, names: Sequence[str] | None) -> CollectionError:
    """Return the error for a collection that does not exist. Pure.

    Args:
        collection: the requested name.
        names: the names of existing collections; None if they are unknown.
    """
    found, fill = f"There is no collection '{collection}'.", f"osembed ingest PATH --collection {collection}"
    if not names:
        return CollectionError(found, "" if names is None else "There are no others either.", f"Create it: {fill}")
    more = f" and {len(names) - _SHOWN:,} more (`osembed list`)" if len(names) > _SHOWN else ""
    listed = ", ".join(names[:_SHOWN])
    use = f"Use --collection {nearest_name(collection, names)}, or create '{collection}': {fill}"
    return CollectionError(found, f"Existing collections: {listed}{more}.", use)


def unpublished_load(client: OpenSearch, collection: str) -> State | None:
    """Return the journal's plan of a first generation whose indexes exist but are not published; else None."""
    state = Journal(client).read(collection_key(collection))
    return state if state and indexes.exist(client, state.get("indexes", {}).values()) else None


def find_published(client: OpenSearch, collection: str) -> Targets:
    """Return the indexes that a collection's aliases point to. Raises CollectionError if it is not published."""
    targets = indexes.resolve(client, collection)
    if targets is None:
        raise missing_collection(client, collection)
    return targets


def missing_collection(client: OpenSearch, collection: str) -> CollectionError:
    """Return the error for a collection without aliases: it was dropped, is being loaded, or does not exist."""
    found = read_drop(client, collection)
    if found:
        return found
    if unpublished_load(client, collection):
        return CollectionError(
            f"The first load of '{collection}' is still running or was interrupted.",
            "It becomes searchable when the load is complete.",
            "Wait for it, or run the same `osembed ingest` again: it continues where it stopped.",
        )
    return unknown_collection(collection, other_names(client))


def nearest_name(name: str, names: Sequence[str]) -> str:
    """Return the most similar name; the first one if none is similar."""
    return next(iter(difflib.get_close_matches(name, names, 1)), names[0])


def _collection(mappings: Mapping[str, Any]) -> str:
    return str(mappings.get("_meta", {}).get("osembed", {}).get("collection", ""))
