"""What a drop would delete, and what stands in its way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from osembed.errors import BusyError, ClusterError, CollectionError
from osembed.opensearch import reads
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.journal import Journal, State
from osembed.opensearch.coordination.migration_state import migration_key
from osembed.opensearch.coordination.registration import collection_key, is_dropped, is_pending, watch_entries
from osembed.opensearch.leftovers import PROBE, idle_tokens, lost_entries, stray_aliases
from osembed.opensearch.names import missing_collection
from osembed.opensearch.survey import Survey, SurveyedIndex, entries_of, survey_indexes

_EARLY_S = 5.0  # how long a plan watches for a heartbeat


@dataclass(frozen=True)
class DroppedIndex:
    """One index to delete.

    Attributes:
        index, uuid: which index it is.
        role: its role in the collection, in words.
        model: that made its vectors.
        documents, megabytes: its size; None where this user may not see it.
        aliases: aliases on it that are not osembed's; they disappear with it.
    """

    index: str
    uuid: str
    role: str
    model: str
    documents: int | None
    megabytes: float | None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class DropPlan:
    """What a drop would delete.

    Attributes:
        collection: its name.
        indexes: the indexes with their UUIDs; no others are deleted.
        migration: models and phase of the migration that is deleted too; "" for none.
        entries: number of journal entries to delete.
        tokens: (index, staging alias) pairs whose alias is removed while the index stays.
        leftovers: whether only leftovers are deleted.
    """

    collection: str
    indexes: tuple[DroppedIndex, ...]
    migration: str = ""
    entries: int = 0
    tokens: tuple[tuple[str, str], ...] = ()
    leftovers: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to delete."""
        return not (self.indexes or self.entries or self.tokens)


def plan_drop(client: OpenSearch, collection: str) -> DropPlan:
    """Return what a drop would delete. Changes nothing.

    Raises:
        BusyError: a migration, first load or ingest is running.
        CollectionError: there is no such collection, or its aliases point to foreign indexes.
    """
    seen = survey_indexes(client, collection)
    refuse_foreign(seen)
    refuse_busy(client, collection, _EARLY_S)
    if not _is_there(seen) and not is_dropped(seen.state):
        raise missing_collection(client, collection)
    moving = seen.moving
    pending = is_pending(seen.state) or bool(seen.state.get("indexes"))
    return DropPlan(
        collection,
        _dropped_indexes(client, seen, [*seen.ours, *seen.scratch]),
        f"{' and '.join(dict.fromkeys(moving.models.values()))}, {moving.phase}" if moving else "",
        len(seen.keys) + pending + (seen.migration is not None),
    )


def plan_clearing(client: OpenSearch, collection: str) -> DropPlan:
    """Return which leftovers of a collection would be deleted: nothing that readers use or that a command can continue."""
    seen = survey_indexes(client, collection)
    refuse_busy(client, collection, _EARLY_S)
    probe = reads.indexes(client, [PROBE], "*.settings.index.uuid")
    extra = [SurveyedIndex(PROBE, info["settings"]["index"]["uuid"], frozenset(), None) for info in probe.values()]
    indexes = _dropped_indexes(client, seen, [*stray_aliases(seen), *seen.scratch, *extra])
    return DropPlan(collection, indexes, "", len(lost_entries(seen)), tuple(idle_tokens(seen)), leftovers=True)


def refuse_busy(client: OpenSearch, collection: str, seconds: float, but: str = "") -> dict[str, int]:
    """Raise BusyError if a process works on the collection. Returns the entries of dead processes with their last beats."""
    journal = Journal(client)

    def entries() -> dict[str, State]:
        lease = (journal.read(migration_key(collection)) or {}).get("lease")
        holder = {str(lease["token"]): lease} if lease and lease["token"] != but else {}
        return {**entries_of(journal.read(collection_key(collection)) or {}), **holder}

    alive, seen = watch_entries(entries, seconds)
    if alive:
        raise busy_error(collection, next(iter(alive.values())))
    return {token: int(entry["beat"]) for token, entry in seen.items()}


def refuse_foreign(seen: Survey) -> None:
    """Raise CollectionError if the collection's aliases are also on indexes that osembed did not provably create."""
    if seen.foreign:
        names = ", ".join(found.index for found in seen.foreign)
        raise CollectionError(
            f"The aliases of '{seen.collection}' are also on {names}, which osembed did not provably create.",
            "Somebody else may need it. Nothing was deleted.",
            f"Look at it (GET {seen.foreign[0].index}/_alias), remove the alias from it, then run the command again.",
        )


def busy_error(collection: str, entry: Mapping[str, Any]) -> BusyError:
    """Return the error that names the process which works on a collection."""
    return BusyError(
        f"'{collection}' is in use: process {entry['pid']} on {entry['host']} is loading or migrating it.",
        "Its writes would be lost.",
        "Wait until it ends, or stop it, then run the command again.",
    )


def _is_there(seen: Survey) -> bool:
    return bool(seen.ours or seen.scratch or seen.keys or seen.migration or seen.state.get("indexes") or is_pending(seen.state))


def _dropped_indexes(client: OpenSearch, seen: Survey, found: list[SurveyedIndex]) -> tuple[DroppedIndex, ...]:
    return tuple(
        DroppedIndex(
            index=one.index,
            uuid=one.uuid,
            role=_role(seen, one),
            model=one.meta.model if one.meta else "",
            **_size(client, one.index),
            aliases=tuple(sorted(one.aliases - _own_aliases(seen, one))),
        )
        for one in found
    )


def _size(client: OpenSearch, index: str) -> dict[str, Any]:
    """Return documents and megabytes of an index; None for a broken index, which may be dropped too."""
    try:
        stats = reads.stats(client, index, "docs,store")
    except ClusterError:
        return {"documents": None, "megabytes": None}
    size = stats["total"]["store"]["size_in_bytes"] / 2**20
    return {"documents": int(stats["primaries"]["docs"]["count"]), "megabytes": round(size, 1)}


def _own_aliases(seen: Survey, found: SurveyedIndex) -> set[str]:
    return {seen.collection, f"{seen.collection}-chunks", f"{found.index}-w", *seen.staging(found)}


def _role(seen: Survey, found: SurveyedIndex) -> str:
    moving = seen.moving
    if found in seen.published:
        return "live"
    if moving and found.index in {move.green for move in moving.moves.values()}:
        return "new model, not published"
    if moving and found.index in {move.blue for move in moving.moves.values()}:
        return "old model, replaced"
    return "first load, not published" if found in seen.loading else "left over"
