"""All collections of a server: recognised by what their indexes say of themselves, their state read off aliases and journal."""

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
PARTIAL = "As far as this user sees: what the server forbids it may be left out."


@dataclass(frozen=True)
class CollectionInfo:
    """One collection as it stands in the cluster.

    Attributes:
        name: of the collection.
        state: live; migrating or migrated (live, its migration is before or after the swap and not finished); loading (its first load is
            under way or was interrupted); half dropped; left over (indexes that nothing shows); contradictory (`osembed doctor` says why).
        papers, chunks: how many documents this user finds; None where it may not search them, or they are not live.
        megabytes: of all its indexes with their replicas; None where that cannot be read.
        models: level → the model of the live index, else of the one that is loading.
    """

    name: str
    state: CollectionState
    papers: int | None
    chunks: int | None
    megabytes: float | None
    models: dict[Level, str]


def find_collections(client: OpenSearch) -> list[CollectionInfo]:
    """Return the collections that this user sees, by name. Raises AuthError where it may not ask which indexes there are."""
    journal = Journal(client)
    try:
        indexes = reads.matching(client, "*", SEE)
    except AuthError as error:
        raise _not_shown(error) from error
    found = [as_found(index, info, _recalled(journal, index, info)) for index, info in indexes.items()]
    names = {one.meta.collection for one in found if one.meta and is_ours(one, one.meta.collection)}
    seen = [_survey(journal, name, found) for name in sorted(names | _interrupted_drops(journal))]
    return [_describe(client, one) for one in seen if one.ours or is_pending(one.state)]  # a search of the journal lags behind


def is_partial(client: OpenSearch) -> bool:
    """Whether there may be collections that this user is not shown."""
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
    """Return the journal's entry of an index whose description was wiped; only where it is called as osembed calls its indexes."""
    if info.get("mappings", {}).get("_meta", {}).get("osembed") or not _NAMED_AS_OURS.fullmatch(index):
        return {}
    with suppress(AuthError):
        return journal.read_several([f"index:{info['settings']['index']['uuid']}"])
    return {}


def _interrupted_drops(journal: Journal) -> set[str]:
    """Return the collections whose drop was begun and not completed: of one, no index may be left."""
    with suppress(AuthError):
        return {key.partition(":")[2] for key, state in journal.entries("collection").items() if is_pending(state)}
    return set()


def _survey(journal: Journal, name: str, found: list[SurveyedIndex]) -> Survey:
    """Return what was read, as a survey of one collection; without the journal's other entries."""
    ours = tuple(one for one in found if is_ours(one, name))
    foreign = tuple(one for one in found if one not in ours and is_behind(one, name))
    state, migration = None, None
    with suppress(AuthError):  # then its aliases alone say how it stands
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
        f"This user may not ask which indexes there are ({', '.join(refused.actions) or 'indices:admin/get'} on *).",
        "Which collections there are is unknown; that is not to say that there are none.",
        "Ask for one by its name (osembed status --collection NAME), or allow that action on * in a role of this user.",
    )
    error.actions, error.where = refused.actions, "*"
    return error


def _count(client: OpenSearch, index: str) -> int | None:
    with suppress(ClusterError):  # forbidden, away, or gone this moment: what is not known is not said
        return reads.count(client, index)
    return None


def _megabytes(client: OpenSearch, names: list[str]) -> float | None:
    with suppress(ClusterError):
        stats = reads.stats_of(client, names, "store") if names else {}
        return round(sum(int(one["total"]["store"]["size_in_bytes"]) for one in stats.values()) / 2**20, 1)
    return None
