"""All collections on a server. They are recognised by the `_meta` of their indexes; aliases and journal give their state."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from osembed.errors import AuthError, ClusterError
from osembed.opensearch import permissions, reads
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.journal import Journal, State
from osembed.opensearch.coordination.migration_state import BEFORE_SWAP, migration_key, read_state
from osembed.opensearch.coordination.registration import collection_key, is_pending
from osembed.opensearch.schema import alias_name
from osembed.opensearch.survey import SEE, Survey, SurveyedIndex, as_found, is_behind, is_ours
from osembed.papers.levels import LEVELS, Level

CollectionState = Literal["live", "migrating", "migrated", "loading", "half dropped", "left over", "contradictory"]
_NAMED_AS_OURS = re.compile(r".+-[0-9a-f]{8}-g\d+")
PARTIAL = "As far as this user can see: collections that the server hides from this user are left out."


@dataclass(frozen=True)
class CollectionInfo:
    """One collection in the cluster.

    Attributes:
        name: the collection's name.
        state: live; migrating or migrated (live, with a migration before or after its swap that is not finished); loading (the first load is
            running or was interrupted); half dropped; left over (indexes that no alias points to); contradictory (`osembed doctor` says why).
        papers, chunks: number of documents that this user can see; None if it may not search them, or if they are not live.
        megabytes: size of all its indexes with replicas; None if it cannot be read.
        models: level → the model of the live index, or of the one that is loading.
    """

    name: str
    state: CollectionState
    papers: int | None
    chunks: int | None
    megabytes: float | None
    models: dict[Level, str]


def find_collections(client: OpenSearch) -> list[CollectionInfo]:
    """Return the collections that this user can see, sorted by name. Raises AuthError if it may not list indexes."""
    journal = Journal(client)
    try:
        indexes = reads.matching(client, "*", SEE)
    except AuthError as error:
        raise _not_shown(error) from error
    found = [as_found(index, info, _recalled(journal, index, info)) for index, info in indexes.items()]
    names = {one.meta.collection for one in found if one.meta and is_ours(one, one.meta.collection)}
    seen = [_survey(journal, name, found) for name in sorted(names | _interrupted_drops(journal))]
    # Checked again by a realtime read, because the search that found interrupted drops may lag behind.
    return [_describe(client, one) for one in seen if one.ours or is_pending(one.state)]


def is_partial(client: OpenSearch) -> bool:
    """Return whether some collections may be hidden from this user."""
    return permissions.is_secured(client)


def state_of(seen: Survey) -> CollectionState:
    """Return a collection's state. Pure."""
    if is_pending(seen.state):
        return "half dropped"
    readers = {level: [one for one in (*seen.ours, *seen.foreign) if alias_name(seen.collection, level) in one.aliases] for level in LEVELS}
    if any(readers.values()):
        if any(len(holders) != 1 or holders[0] not in seen.ours for holders in readers.values()):
            return "contradictory"
        moving = seen.moving
        return "live" if moving is None else "migrating" if moving.phase in BEFORE_SWAP else "migrated"
    return "loading" if seen.loading else "left over"


def _recalled(journal: Journal, index: str, info: Mapping[str, Any]) -> dict[str, State]:
    """Return the journal's entry of an index whose `_meta` was wiped, if its name has osembed's form."""
    if info.get("mappings", {}).get("_meta", {}).get("osembed") or not _NAMED_AS_OURS.fullmatch(index):
        return {}
    with suppress(AuthError):
        return journal.read_several([f"index:{info['settings']['index']['uuid']}"])
    return {}


def _interrupted_drops(journal: Journal) -> set[str]:
    """Return the collections with an incomplete drop, even if none of their indexes is left."""
    with suppress(AuthError):
        return {key.partition(":")[2] for key, state in journal.entries("collection").items() if is_pending(state)}
    return set()


def _survey(journal: Journal, name: str, found: list[SurveyedIndex]) -> Survey:
    """Return the survey of one collection from what was read, without the journal's other entries."""
    ours = tuple(one for one in found if is_ours(one, name))
    foreign = tuple(one for one in found if one not in ours and is_behind(one, name))
    state, migration = None, None
    with suppress(AuthError):  # without the journal, the aliases alone give the state
        state, migration = journal.read(collection_key(name)), journal.read(migration_key(name))
    return Survey(name, ours, foreign, (), state or {}, read_state(migration), (), frozenset())


def _describe(client: OpenSearch, seen: Survey) -> CollectionInfo:
    live = {level: one for one in seen.published for level in LEVELS if alias_name(seen.collection, level) in one.aliases}
    shown = live or {one.meta.level: one for one in seen.ours if one.meta}
    counts = {level: _count(client, one.index) for level, one in live.items()}
    return CollectionInfo(
        name=seen.collection,
        state=state_of(seen),
        papers=counts.get("papers"),
        chunks=counts.get("chunks"),
        megabytes=_megabytes(client, [one.index for one in seen.ours]),
        models={level: shown[level].meta.model for level in LEVELS if level in shown},  # type: ignore[union-attr] # ours have one
    )


def _not_shown(refused: AuthError) -> AuthError:
    error = AuthError(
        f"This user may not list indexes ({', '.join(refused.actions) or 'indices:admin/get'} on *).",
        "There may be collections, but they cannot be listed.",
        "Ask for one by name (osembed status --collection NAME), or allow that action on * in a role of this user.",
    )
    error.actions, error.where = refused.actions, "*"
    return error


def _count(client: OpenSearch, index: str) -> int | None:
    with suppress(ClusterError):  # forbidden, unavailable or just deleted: the count is unknown
        return reads.count(client, index)
    return None


def _megabytes(client: OpenSearch, names: list[str]) -> float | None:
    with suppress(ClusterError):
        stats = reads.stats_of(client, names, "store") if names else {}
        return round(sum(int(one["total"]["store"]["size_in_bytes"]) for one in stats.values()) / 2**20, 1)
    return None
