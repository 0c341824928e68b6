"""The lease on a migration: one process at a time may work on it.

The lease in the journal asks others to stay away, but cannot stop a process that was paused and wakes up. The staging aliases can (see `fence`):
each holder has its own, and its critical requests fail once another holder has replaced them.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from osembed.errors import BusyError, ClusterError, CollectionError, DroppedError
from osembed.opensearch import reads
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination import fence
from osembed.opensearch.coordination.fence import Sight
from osembed.opensearch.coordination.heartbeat import Heart, is_surely_dead, new_entry
from osembed.opensearch.coordination.journal import Journal
from osembed.opensearch.coordination.migration_state import BEFORE_SWAP, MigrationState, migration_key, read_state, write_state
from osembed.opensearch.coordination.registration import collection_key, drop_count, dropped_error, is_pending
from osembed.opensearch.patience import until_settled
from osembed.opensearch.schema import alias_name
from osembed.papers.levels import Level

_DEAD_S = 15.0  # a holder without a beat for so long, on the observer's clock, is dead
_SELF_S = 9.0  # a holder that could not confirm a beat for so long checks whether it still holds the lease
Step = Callable[[MigrationState], MigrationState]


class Lease:
    """This process's hold on a collection's migration. `state` is the journal's state after this process's last change."""

    def __init__(self, client: OpenSearch, token: str, state: MigrationState, dropped: int = 0) -> None:
        self.client, self.token, self.state, self._drops = client, token, state, dropped
        self._journal, self._key = Journal(client), migration_key(state.collection)
        self._heart = Heart(lambda: self._change(_beat) is not None)

    def update(self, step: Step | None = None, **changes: Any) -> MigrationState:
        """Change the journal's state if this process holds the lease, and return it. Waits for an unavailable server.

        Raises BusyError or DroppedError if this process no longer holds the lease.
        """
        sent = time.monotonic()
        changed = until_settled(lambda: self._change(lambda state: replace(step(state) if step else state, **changes)))
        if changed is None:
            raise self._lost()
        self._heart.confirm(sent)
        self.state = changed
        return changed

    def note(self, event: str, **changes: Any) -> MigrationState:
        """Change the state and add an event with the current time to its history."""
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        return self.update(lambda state: replace(state, history=[*state.history[-199:], (stamp, event)]), **changes)

    def check(self) -> None:
        """Raise BusyError unless this process certainly still holds the lease. Call it before each critical request."""
        if self._heart.lost.is_set():
            raise self._lost()
        if self._heart.silent_s > _SELF_S:  # paused, or cut off from the server; the journal shows whether another process took over
            self.update(_beat)

    def close(self) -> None:
        """Release the lease. Unfinished work stays as it is."""
        self._heart.close()
        with suppress(ClusterError):  # unavailable: the next process sees that this heartbeat has stopped
            self._change(lambda state: replace(state, lease=None))

    def _change(self, step: Step) -> MigrationState | None:
        """Apply a step and return the new state if this process still holds the lease; else return None."""
        mine = False

        def apply(stored: dict[str, Any]) -> dict[str, Any] | None:
            nonlocal mine
            state = read_state(stored)
            mine = bool(state and state.lease and state.lease["token"] == self.token)
            return write_state(step(state)) if state and mine else None

        stored = self._journal.change(self._key, apply)
        return read_state(stored) if mine else None

    def _lost(self) -> BusyError | DroppedError:
        known = self._journal.read(collection_key(self.state.collection)) or {}
        if drop_count(known) > self._drops:
            return dropped_error(self.state.collection, known)
        return BusyError(
            f"Another process has taken over the migration of '{self.state.collection}'.",
            "This process was silent for too long (paused, or cut off from the server) and may not continue.",
            "To see its progress: osembed migrate status.",
        )


def claim_lease(
    client: OpenSearch, collection: str, begin: Callable[[MigrationState | None], MigrationState], *, dropping: bool = False
) -> Lease:
    """Take the lease: immediately if it is free or its holder is certainly dead, after fifteen seconds if the holder has stopped beating.

    Args:
        client, collection: the connection and the collection. begin: gets the stored state (None for none) and returns the state to
        continue with. It may raise to refuse, and may run several times. dropping: whether the lease is for dropping the collection.

    Raises:
        BusyError: the holder is alive; the error names it.
        DroppedError: a drop was interrupted and must be completed first.
    """
    journal, token = Journal(client), secrets.token_hex(8)
    journal.ensure()
    known = journal.read(collection_key(collection)) or {}
    if is_pending(known) and not dropping:
        raise dropped_error(collection, known)
    seen: tuple[Any, Any] | None = None
    since = time.monotonic()
    while True:
        expired = seen if seen and time.monotonic() - since > _DEAD_S else None
        holder: dict[str, Any] = {}
        stored = journal.change(migration_key(collection), partial(_take, begin, token, expired, holder))
        if not holder:
            state = read_state(stored)
            assert state is not None
            return Lease(client, token, state, drop_count(known))
        now = (holder["token"], holder["beat"])
        if seen and seen != now:
            raise _busy(collection, holder)
        if seen is None:
            seen, since = now, time.monotonic()
        time.sleep(0.3)


def _take(
    begin: Callable[[MigrationState | None], MigrationState],
    token: str,
    expired: tuple[Any, Any] | None,
    holder: dict[str, Any],
    stored: dict[str, Any],
) -> dict[str, Any] | None:
    """Return the state with this process as the holder. If another holder may be alive, put it into `holder` and return None."""
    state = read_state(stored)
    holder.clear()
    entry = state.lease if state else None
    if entry and not is_surely_dead(entry) and (entry["token"], entry["beat"]) != expired:
        holder.update(entry)
        return None
    begun = begin(state)
    return write_state(replace(begun, lease={**new_entry(), "token": token}, attempt=begun.attempt + 1))


def settle(lease: Lease) -> Sight:
    """Bring the journal into agreement with the cluster, and return what was read: the aliases show whether a swap has happened.

    Raises CollectionError if a third party moved an alias or replaced an index; nothing is changed then.
    """
    state = lease.state
    sight = until_settled(lambda: fence.look(lease.client, state))
    sides = {_side(state, sight, level) for level in state.moves}
    if len(sides) != 1:
        raise foreign(state, "its two levels are on different sides of the migration")
    side = sides.pop()
    if side == "green" and state.phase in BEFORE_SWAP:
        swapped(lease)
    elif side == "blue" and state.phase == "return":
        lease.note("rolled back (found done)", phase="returned", fence="", paused=False)
    elif side != ("green" if state.phase in ("swapped", "return") else "blue"):
        raise foreign(state, f"its alias is on {side}, but osembed did not move it there")
    return sight


def take_tokens(lease: Lease, to: Mapping[Level, str]) -> Sight:
    """Take over the staging aliases from any earlier holder, and lift a fence that it left. Returns the resulting aliases."""
    for _ in range(10):
        sight, state = settle(lease), lease.state
        lease.check()
        if sight.attempt >= state.attempt:
            state = lease.update(attempt=sight.attempt + 1)
        if until_settled(partial(fence.hand_over, lease.client, state, sight, state.attempt, to)):
            if state.fence:
                until_settled(partial(fence.unblock, lease.client, [state.source(level) for level in state.moves]))
                lease.note("lifted the fence of an interrupted swap", fence="")
            return until_settled(lambda: fence.look(lease.client, lease.state))
    raise BusyError(f"The staging aliases of '{lease.state.collection}' keep moving.", "Another process is working on it.", "Try again.")


def swapped(lease: Lease) -> None:
    """Record that readers and writers now use the new index, and the sequence numbers from which a rollback would start."""

    def step(state: MigrationState) -> MigrationState:
        for level, move in state.moves.items():
            state = state.with_move(level, marks={shard: base[0] for shard, base in move.bases.items()})
        return replace(state, left={**state.left, **state.failed}, failed={})

    lease.update(step)
    lease.note("swapped", phase="swapped", fence="", swapped_at=until_settled(lambda: reads.server_clock(lease.client)), paused=False)


def foreign(state: MigrationState, what: str) -> CollectionError:
    """Return the error for a state that osembed did not create."""
    levels = ", ".join(f"{alias_name(state.collection, level)} on {move.blue}" for level, move in state.moves.items())
    return CollectionError(
        f"The migration of '{state.collection}' cannot continue: {what}.",
        "Another program moved an alias or replaced an index. osembed does not overwrite its changes.",
        f"Restore it ({levels}; see GET _cat/aliases?v), then run the command again.",
    )


def _side(state: MigrationState, sight: Sight, level: Level) -> str:
    move, alias = state.moves[level], alias_name(state.collection, level)
    for index, uuid in ((move.blue, move.blue_uuid), (move.green, move.green_uuid)):
        if uuid and index in sight.uuids and sight.uuids[index] != uuid:
            raise foreign(state, f"{index} was deleted and created again")
    holders = sight.published[level]
    if holders == [move.blue]:
        return "blue"
    if holders == [move.green]:
        return "green"
    raise foreign(state, f"the alias '{alias}' is on {', '.join(holders) or 'no index'}")


def _beat(state: MigrationState) -> MigrationState:
    assert state.lease is not None
    return replace(state, lease={**state.lease, "beat": state.lease["beat"] + 1})


def _busy(collection: str, holder: Mapping[str, Any]) -> BusyError:
    age = holder["beat"] * 2
    return BusyError(
        f"Process {holder['pid']} on {holder['host']} has been running the migration of '{collection}' for about {age} s.",
        "Two processes at once would undo each other's work.",
        "Watch it with `osembed migrate status`, or stop that process first.",
    )
