"""Which collections there are, by name, and what is to be said of one that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from osembed.errors import ClusterError, CollectionError
from osembed.opensearch import indexes, permissions, reads
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.journal import Journal, State
from osembed.opensearch.coordination.registration import collection_key, read_drop

_SHOWN = 8


def other_names(client: OpenSearch) -> list[str] | None:
    """Return the names of the collections that can be searched and that this user sees; None where it is shown none, perhaps not all."""
    try:
        found = reads.matching(client, "*", "*.aliases,*.mappings._meta.osembed.collection")
        said = ((info.get("aliases", {}), info.get("mappings", {})) for info in found.values())
        names = sorted({name for aliases, mappings in said if (name := _collection(mappings)) in aliases})
        return names if names or not permissions.is_secured(client) else None
    except ClusterError:  # the message at hand is worth more than that of this request
        return None


def unknown_collection(collection: str, names: Sequence[str] | None) -> CollectionError:
    """Return the error for a collection that is not there. Pure.

    Args:
        collection: its name.
        names: of those that are; None where that is not known.
    """
    found, fill = f"There is no collection '{collection}'.", f"osembed ingest PATH --collection {collection}"
    if not names:
        return CollectionError(found, "" if names is None else "There is no other either.", f"Fill it first: {fill}")
    more = f" and {len(names) - _SHOWN:,} more (`osembed list`)" if len(names) > _SHOWN else ""
    listed = ", ".join(names[:_SHOWN])
    use = f"Use --collection {nearest_name(collection, names)}, or fill '{collection}' first: {fill}"
    return CollectionError(found, f"Collections here: {listed}{more}.", use)


def unpublished_load(client: OpenSearch, collection: str) -> State | None:
    """Return the journal's plan of a first generation whose indexes are there but not published, or None."""
    state = Journal(client).read(collection_key(collection))
    return state if state and indexes.exist(client, state.get("indexes", {}).values()) else None


def missing_collection(client: OpenSearch, collection: str) -> CollectionError:
    """Return what is to be said of a collection that is not published: dropped, still being loaded, or never there; then those there are."""
    found = read_drop(client, collection)
    if found:
        return found
    if unpublished_load(client, collection):
        return CollectionError(
            f"'{collection}' is still being loaded for the first time, or that was interrupted.",
            "It becomes searchable when the load is complete.",
            "Wait for it, or run the same `osembed ingest` again: it goes on where it stopped.",
        )
    return unknown_collection(collection, other_names(client))


def nearest_name(name: str, names: Sequence[str]) -> str:
    """Return the name that is most like another; the first where none is like it."""
    return next(iter(difflib.get_close_matches(name, names, 1)), names[0])


def _collection(mappings: Mapping[str, Any]) -> str:
    return str(mappings.get("_meta", {}).get("osembed", {}).get("collection", ""))
