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

from osembed.errors import AuthError, BusyError, CollectionError, MissingError, RefusedError
from osembed.opensearch import changes, reads
from osembed.opensearch.changes import Action
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.journal import Journal, State
from osembed.opensearch.coordination.lease import Lease, claim_lease
from osembed.opensearch.coordination.migration_state import MigrationState, migration_key
from osembed.opensearch.coordination.registration import DEAD_S, KINDS, collection_key, drop_count
from osembed.opensearch.drop_plan import DropPlan, busy_error, refuse_busy, refuse_foreign
from osembed.opensearch.leftovers import PROBE, idle_tokens, lost_entries, stray_aliases
from osembed.opensearch.survey import Survey, entries_of, survey_indexes

_TRIES = 5  # attempts to delete indexes while they change
Dead = Mapping[str, int]


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
        dead = refuse_busy(client, plan.collection, DEAD_S, but=lease.token)
        return _clear(client, lease, plan) if plan.leftovers else _drop(client, lease, plan, dead)
    finally:
        if not lease.state.moves:  # the entry was created only to hold this lease
            _forget_migration(client, lease)
        lease.close()


def _drop(client: OpenSearch, lease: Lease, plan: DropPlan, dead: Dead) -> DropResult:
    seen = survey_indexes(client, plan.collection)
    refuse_foreign(seen)
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
            raise busy_error(seen.collection, fresh[0])
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


def _no_migration(collection: str) -> MigrationState:
    """Return a finished migration: the journal entry that holds the lease while a collection without a migration is dropped."""
    return MigrationState(secrets.token_hex(8), collection, {}, {}, 0, phase="aborted")
