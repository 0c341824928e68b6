"""Drop a collection with everything that provably belongs to it: tombstone → one request that deletes the indexes → journal entries.

The tombstone in the journal prevents new ingests, and lets the next drop complete one that was killed at any point. The indexes are deleted
in one `_aliases` request, all or none. The request names indexes because the server accepts no UUIDs there. UUIDs are compared just before,
and generation numbers are never reused, so a delayed request cannot hit another index under the same name.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from osembed.errors import AuthError, BusyError, ClusterError, CollectionError, MissingError, RefusedError
from osembed.opensearch import changes, reads
from osembed.opensearch.changes import Action
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.journal import Journal, State
from osembed.opensearch.coordination.lease import Lease, claim_lease
from osembed.opensearch.coordination.migration_state import MigrationState, migration_key
from osembed.opensearch.coordination.registration import DEAD_S, KINDS, collection_key, drop_count, is_dropped, is_pending, watch_entries
from osembed.opensearch.leftovers import PROBE, idle_tokens, lost_entries, stray_aliases
from osembed.opensearch.names import missing_collection
from osembed.opensearch.survey import Survey, SurveyedIndex, entries_of, survey_indexes

_TRIES = 5  # attempts to delete indexes while they change
_EARLY_S = 5.0  # how long a plan watches for a heartbeat
Dead = Mapping[str, int]


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


@dataclass(frozen=True)
class DropResult:
    """The result of a drop. `phase` is "dropped", "cleared" (leftovers) or "nothing to do".

    Attributes:
        collection: its name.
        phase: dropped, cleared (leftovers only) or nothing to do.
        indexes: those that were deleted.
    """

    collection: str
    phase: str
    indexes: tuple[str, ...] = ()


def plan_drop(client: OpenSearch, collection: str) -> DropPlan:
    """Return what a drop would delete. Changes nothing.

    Raises:
        BusyError: a migration, first load or ingest is running.
        CollectionError: there is no such collection, or its aliases point to foreign indexes.
    """
    seen = survey_indexes(client, collection)
    _refuse_foreign(seen)
    _refuse_busy(client, collection, _EARLY_S)
    if not _is_there(seen) and not is_dropped(seen.state):
        raise missing_collection(client, collection)
    moving = seen.moving
    pending = is_pending(seen.state) or bool(seen.state.get("indexes"))
    return DropPlan(
        collection,
        _doomed(client, seen, [*seen.ours, *seen.scratch]),
        f"{' and '.join(dict.fromkeys(moving.models.values()))}, {moving.phase}" if moving else "",
        len(seen.keys) + pending + (seen.migration is not None),
    )


def plan_clearing(client: OpenSearch, collection: str) -> DropPlan:
    """Return which leftovers of a collection would be deleted: nothing that readers use or that a command can continue."""
    seen = survey_indexes(client, collection)
    _refuse_busy(client, collection, _EARLY_S)
    probe = reads.indexes(client, [PROBE], "*.settings.index.uuid")
    extra = [SurveyedIndex(PROBE, info["settings"]["index"]["uuid"], frozenset(), None) for info in probe.values()]
    indexes = _doomed(client, seen, [*stray_aliases(seen), *seen.scratch, *extra])
    return DropPlan(collection, indexes, "", len(lost_entries(seen)), tuple(idle_tokens(seen)), leftovers=True)


def drop(client: OpenSearch, plan: DropPlan) -> DropResult:
    """Delete what was planned and confirmed. Run again, it completes an interrupted drop.

    Raises:
        BusyError: a migration, first load or ingest is running.
        CollectionError: something has changed since the plan was made; nothing is deleted.
    """
    if plan.is_empty:
        return DropResult(plan.collection, "nothing to do")
    # The lease keeps migrations away, the tombstone keeps ingests away.
    lease = claim_lease(client, plan.collection, lambda state: state or _no_migration(plan.collection), dropping=True)
    try:
        dead = _refuse_busy(client, plan.collection, DEAD_S, but=lease.token)
        return _clear(client, lease, plan) if plan.leftovers else _drop(client, lease, plan, dead)
    finally:
        if not lease.state.moves:  # the entry was created only to hold this lease
            _forget_migration(client, lease)
        lease.close()


def _drop(client: OpenSearch, lease: Lease, plan: DropPlan, dead: Dead) -> DropResult:
    seen = survey_indexes(client, plan.collection)
    _refuse_foreign(seen)
    doomed = {found.index: found.uuid for found in (*seen.ours, *seen.scratch)}
    _refuse_changed(plan, doomed)
    journal = Journal(client)
    _prove_rights(journal, plan.collection)
    lease.check()
    tombstone = _bury(client, seen, doomed, dead)
    try:
        lease.check()
        _delete(client, lease, doomed)
    except (AuthError, RefusedError, CollectionError):  # a definite no: nothing was deleted, so the tombstone is withdrawn
        journal.change(collection_key(plan.collection), lambda state: _withdrawn(state, tombstone, seen.state))
        raise
    for key in survey_indexes(client, plan.collection).keys:
        lease.check()
        journal.forget(key)
    _forget_migration(client, lease)
    journal.change(collection_key(plan.collection), lambda state: _completed(state, tombstone))
    return DropResult(plan.collection, "dropped", tuple(sorted(doomed)))


def _clear(client: OpenSearch, lease: Lease, plan: DropPlan) -> DropResult:
    """Delete leftovers. Published indexes and a migration that can be continued are kept."""
    seen = survey_indexes(client, plan.collection)
    now = {found.index for found in (*stray_aliases(seen), *seen.scratch)} | {PROBE}
    doomed = {one.index: one.uuid for one in plan.indexes}
    if not set(doomed) <= now or not set(plan.tokens) <= set(idle_tokens(seen)):
        raise _changed(plan.collection)
    lease.check()
    _delete(client, lease, doomed, plan.tokens)
    journal = Journal(client)
    after = survey_indexes(client, plan.collection)
    for key in lost_entries(after):
        lease.check()
        journal.forget(key)
    return DropResult(plan.collection, "cleared", tuple(sorted(doomed)))


def _forget_migration(client: OpenSearch, lease: Lease) -> None:
    """Delete the migration's journal entry, if this process holds its lease."""
    key = migration_key(lease.state.collection)
    Journal(client).forget(key, lambda state: (state.get("lease") or {}).get("token") == lease.token)


def _bury(client: OpenSearch, seen: Survey, doomed: Mapping[str, str], dead: Dead) -> str:
    """Write the tombstone and return its id. Raises BusyError if a load or an ingest has started, CollectionError if another drop ran."""
    token, before = secrets.token_hex(8), drop_count(seen.state)
    generations = [found.meta.generation for found in seen.ours if found.meta]
    known = [int(seen.state.get("generation", 0)), seen.migration.generation if seen.migration else 0, *generations]
    floor = max(int(seen.state.get("floor", 1)), max(known) + 1)
    uuids = sorted({*doomed.values(), *seen.gone})

    def step(state: State) -> State:
        fresh = [entry for key, entry in entries_of(state).items() if dead.get(key) != entry["beat"]]
        if fresh:
            raise _busy(seen.collection, fresh[0])
        if drop_count(state) != before:
            raise _changed(seen.collection)
        return {"drops": before + 1, "floor": floor, "dropped": {"id": token, "indexes": dict(doomed), "uuids": uuids, "done": False}}

    Journal(client).change(collection_key(seen.collection), step)
    return token


def _prove_rights(journal: Journal, collection: str) -> None:
    """Raise AuthError if this user may not delete from the journal, before anything else is deleted."""
    key = f"drop:{collection}"
    journal.change(key, lambda _: {})
    journal.forget(key)


def _withdrawn(state: State, tombstone: str, before: State) -> State | None:
    """Return a collection's state without the tombstone of a refused drop. Entries of dead processes are not restored."""
    found = state.get("dropped")
    if not found or found["id"] != tombstone:
        return None
    kept = {key: value for key, value in before.items() if key not in (*KINDS, "dropped")}
    return {**kept, "drops": state["drops"], "floor": state["floor"]}


def _completed(state: State, tombstone: str) -> State | None:
    found = state.get("dropped")
    return {**state, "dropped": {**found, "done": True}} if found and found["id"] == tombstone else None


def _delete(client: OpenSearch, lease: Lease, doomed: Mapping[str, str], tokens: Iterable[tuple[str, str]] = ()) -> None:
    """Delete indexes and remove staging aliases from others in one request, all or nothing."""
    for _ in range(_TRIES):
        found = reads.indexes(client, sorted(doomed), "*.settings.index.uuid")
        other = [index for index, info in found.items() if doomed.get(index) != info["settings"]["index"]["uuid"]]
        if other:
            raise _changed(lease.state.collection, f"{other[0]} was deleted and created again")
        actions: list[Action] = [{"remove_index": {"index": index}} for index in sorted(found)]
        actions += [{"remove": {"index": index, "alias": alias, "must_exist": True}} for index, alias in tokens]
        if not actions:
            return
        lease.check()
        try:
            changes.update_aliases(client, actions)
            return
        except MissingError:  # one of them was deleted just now: read again
            time.sleep(0.1)
    raise BusyError(f"The indexes of '{lease.state.collection}' keep changing.", "Another process deletes or creates them.", "Try again.")


def _refuse_busy(client: OpenSearch, collection: str, seconds: float, but: str = "") -> dict[str, int]:
    """Raise BusyError if a process works on the collection. Returns the entries of dead processes with their last beats."""
    journal = Journal(client)

    def entries() -> dict[str, State]:
        lease = (journal.read(migration_key(collection)) or {}).get("lease")
        holder = {str(lease["token"]): lease} if lease and lease["token"] != but else {}
        return {**entries_of(journal.read(collection_key(collection)) or {}), **holder}

    alive, seen = watch_entries(entries, seconds)
    if alive:
        raise _busy(collection, next(iter(alive.values())))
    return {token: int(entry["beat"]) for token, entry in seen.items()}


def _refuse_foreign(seen: Survey) -> None:
    if seen.foreign:
        names = ", ".join(found.index for found in seen.foreign)
        raise CollectionError(
            f"The aliases of '{seen.collection}' are also on {names}, which osembed did not provably create.",
            "Somebody else may need it. Nothing was deleted.",
            f"Look at it (GET {seen.foreign[0].index}/_alias), remove the alias from it, then run the command again.",
        )


def _refuse_changed(plan: DropPlan, doomed: Mapping[str, str]) -> None:
    """Raise CollectionError for an index that was not confirmed. Confirmed indexes that are already gone are fine."""
    confirmed = {one.index: one.uuid for one in plan.indexes}
    new = [index for index, uuid in doomed.items() if confirmed.get(index) != uuid]
    if new:
        raise _changed(plan.collection, f"{', '.join(sorted(new))} did not exist then, or was created again")


def _changed(collection: str, what: str = "") -> CollectionError:
    return CollectionError(
        f"'{collection}' has changed since it was confirmed{': ' + what if what else ''}.",
        "Nothing was deleted.",
        "Run the command again: it lists the current state.",
    )


def _busy(collection: str, entry: Mapping[str, Any]) -> BusyError:
    return BusyError(
        f"'{collection}' is in use: process {entry['pid']} on {entry['host']} is loading or migrating it.",
        "Its writes would be lost.",
        "Wait until it ends, or stop it, then run the command again.",
    )


def _is_there(seen: Survey) -> bool:
    return bool(seen.ours or seen.scratch or seen.keys or seen.migration or seen.state.get("indexes") or is_pending(seen.state))


def _no_migration(collection: str) -> MigrationState:
    """Return a finished migration: the journal entry that holds the lease while a collection without a migration is dropped."""
    return MigrationState(secrets.token_hex(8), collection, {}, {}, 0, phase="aborted")


def _doomed(client: OpenSearch, seen: Survey, found: list[SurveyedIndex]) -> tuple[DroppedIndex, ...]:
    return tuple(
        DroppedIndex(
            index=one.index,
            uuid=one.uuid,
            role=_role(seen, one),
            model=one.meta.model if one.meta else "",
            **_size(client, one.index),
            aliases=tuple(sorted(one.aliases - _own(seen, one))),
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


def _own(seen: Survey, found: SurveyedIndex) -> set[str]:
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
