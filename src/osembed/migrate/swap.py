"""The swap: block writes to the source, copy the last writes, prove both sides equal, move all aliases in one conditional request.

The source is blocked for at most five seconds. If something takes longer or fails, the block is lifted and the caller tries again later.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from osembed.errors import AuthError, ClusterError, CollectionError, MissingError, OsembedError
from osembed.migrate.copy import pairs
from osembed.migrate.copy.copier import Copier
from osembed.migrate.copy.level_copy import LevelCopy, Outdated
from osembed.opensearch import changes, sight
from osembed.opensearch.bulk import BulkLoop
from osembed.opensearch.changes import Action
from osembed.opensearch.checkpoints import read_checkpoints, whole_checkpoints
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination import fence
from osembed.opensearch.coordination.lease import Lease, foreign, settle, swapped
from osembed.opensearch.coordination.migration_state import MigrationState
from osembed.opensearch.patience import until_settled
from osembed.opensearch.schema import alias_name, staging_alias, staging_stem, write_alias
from osembed.papers.levels import Level

FENCE_S = 5.0  # most seconds for which writers wait


class GivenUp(Exception):
    """The swap was given up and its fence lifted; the message says why.

    `late` means that the server may still set the write block, because the request was not acknowledged in time.
    """

    def __init__(self, why: str, *, late: bool = False) -> None:
        super().__init__(why)
        self.late = late


@dataclass(frozen=True)
class Swapped:
    """A completed swap: seconds for which writes had to wait, and documents copied or deleted in that time."""

    fence_s: float
    last: int


@dataclass(frozen=True)
class SwapContext:
    """What a swap needs: connection, lease, levels, copier, bulk loop, and the number of documents that may be left behind."""

    client: OpenSearch
    lease: Lease
    level_copies: Sequence[LevelCopy]
    copier: Copier
    loop: BulkLoop
    allow_failed: int = 0


def swap(at: SwapContext) -> Swapped:
    """Try to swap once.

    Raises GivenUp if it was not possible in time, AuthError if it is not allowed. In both cases nothing has changed for readers and
    writers.
    """
    lease, client = at.lease, at.client
    lease.check()
    # In the journal before the block: if this process dies, any client can tell that the block is a fence.
    state = lease.note("fencing", phase=_fencing(lease.state), fence=secrets.token_hex(8))
    began, blocked = time.monotonic(), False
    sources = [state.source(level) for level in state.moves]
    try:
        changes.block_writes(client, sources, FENCE_S)
        blocked = True
        last = _catch_up_and_prove(at, began)
        lease.check()
        _in_time(began)
        changes.update_aliases(client, actions(client, lease.state), wait_s=0, server_s=FENCE_S)
    except BaseException as error:
        took = time.monotonic() - began
        if _withdraw(lease):
            if isinstance(error, AuthError):  # another try would be refused as well
                raise
            if isinstance(error, GivenUp | OsembedError | Outdated):
                why = error.found if isinstance(error, OsembedError) else error
                raise GivenUp(f"{why} (writers waited {took:.1f} s)", late=not blocked) from error
            raise
        last = 0  # the response was lost, but the swap has happened
    took = time.monotonic() - began
    _record(lease)
    return Swapped(took, last)


def actions(client: OpenSearch, state: MigrationState) -> list[Action]:
    """Return the actions that move readers and writers in one request: all aliases of the source, if the staging aliases are still held."""
    seen = fence.look(client, state)
    found: list[Action] = []
    for level in state.moves:
        source, target, alias = state.source(level), state.target(level), alias_name(state.collection, level)
        found.append({"remove": {"index": source, "alias": alias, "must_exist": True}})
        found.append({"add": {"index": target, "alias": alias, "is_write_index": True}})
        found.append({"remove": {"index": target, "alias": staging_alias(state.collection, level, state.attempt), "must_exist": True}})
        found.append(fence.add_token(state.collection, level, source, state.attempt + 1))
        # osembed's writers use the private alias: once it is removed, no delayed write can reach the old index.
        if write_alias(source) in seen.aliases[source]:
            found.append({"remove": {"index": source, "alias": write_alias(source)}})
        found.append({"add": {"index": target, "alias": write_alias(target), "is_hidden": True, "is_write_index": True}})
        for name, settings in seen.aliases[source].items():
            if not _is_ours(state, level, name):
                found += [{"remove": {"index": source, "alias": name}}, {"add": {"index": target, "alias": name, **_alias(settings)}}]
    return found


def _catch_up_and_prove(at: SwapContext, began: float) -> int:
    """Under the fence: copy the last writes, repeat deletes, prove both sides equal, and record where a rollback would start."""
    client, lease = at.client, at.lease
    for level_copy in at.level_copies:
        while any(point.safe != point.highest for point in read_checkpoints(client, level_copy.source.index).values()):
            _in_time(began)
            time.sleep(0.02)
    # Without writes the counts are exact, so even a single hidden document is noticed.
    sight.prove(client, [level_copy.source.place for level_copy in at.level_copies], quiet=True)
    last = at.copier.catch_up(lambda: {level: move.marks for level, move in lease.state.moves.items()}).written
    _in_time(began)
    for level_copy in at.level_copies:
        whole_checkpoints(client, level_copy.target.index)  # everything that the target shows must be safely stored
        changes.refresh(client, level_copy.target.index)
        last += _prove(at, level_copy, began)
    if len(lease.state.failed) > at.allow_failed:
        raise GivenUp(f"{len(lease.state.failed)} documents could not be copied")
    if lease.state.back:
        return last
    for level_copy in at.level_copies:
        here, there = read_checkpoints(client, level_copy.target.index), read_checkpoints(client, level_copy.source.index)
        bases = {str(shard): (here[shard].highest, there[shard].highest) for shard in here}
        lease.update(partial(_with_bases, level_copy.level, bases))
    return last


def _prove(at: SwapContext, level_copy: LevelCopy, began: float) -> int:
    """Make the target's live documents equal to the source's; return how many were changed. Raises GivenUp if they still differ."""
    changed = 0
    for _ in range(3):
        move = at.lease.state.moves[level_copy.level]
        differences = [
            pairs.compare_shard(at.client, level_copy, int(shard), mark, base_of(at.lease.state, level_copy.level, shard))
            for shard, mark in move.marks.items()
        ]
        for found in differences:
            leave_known(at.lease.state, level_copy.level, found)
        if not any(differences):
            return changed
        for found in differences:
            _in_time(began)
            changed += pairs.mend_difference(at.client, level_copy, found, at.copier, at.loop)
        changes.refresh(at.client, level_copy.target.index)
    raise GivenUp(f"{level_copy.source.index} and {level_copy.target.index} still differ")


def base_of(state: MigrationState, level: Level, shard: str) -> tuple[int, int]:
    """Return a shard's bases in the current direction. Forward there are none: nothing was ever proven equal."""
    return state.moves[level].bases.get(shard, (-1, -1)) if state.back else (-1, -1)


def leave_known(state: MigrationState, level: Level, found: pairs.Difference) -> None:
    """Remove from a difference the documents that are known to exist on one side only, because they could not be copied.

    During a rollback, documents that the new index never had were not deleted by anybody, so they are kept.
    """
    for key in [key for key in found.missing if f"{level}/{key[0]}" in state.failed]:
        del found.missing[key]
    for key in [key for key in found.extra if state.back and f"{level}/{key[0]}" in state.left]:
        del found.extra[key]


def _withdraw(lease: Lease) -> bool:
    """Lift the fence unless the swap has happened. Returns True if it has not happened and no longer can."""
    for _ in range(20):
        state = lease.state
        seen = until_settled(partial(fence.look, lease.client, state))
        if all(seen.published[level] == [state.target(level)] for level in state.moves):
            return False
        if any(seen.published[level] != [state.source(level)] for level in state.moves):
            sources = {state.source(level) for level in state.moves}
            blocked = [index for index in seen.blocked if index in sources]
            until_settled(partial(fence.unblock, lease.client, blocked))
            lease.update(fence="")
            raise foreign(state, "an alias was moved during the swap")
        held = {level: seen.holds(level) for level in state.moves}
        mine = {level: (state.target(level), staging_alias(state.collection, level, state.attempt)) for level in state.moves}
        if held != mine:  # a client is lifting the fence, perhaps incompletely, or another holder has taken over
            lease.update()  # raises BusyError in the latter case
        try:
            if fence.lift(lease.client, state, seen):
                lease.update(phase="return" if state.back else "ready", attempt=max(lease.state.attempt, seen.attempt + 1))
                return True
        except AuthError as error:
            raise _stuck(state, error) from error
        except ClusterError:
            pass
        time.sleep(0.1)
    raise CollectionError(
        "The write block could not be lifted.", "The server does not answer.", "Any osembed client lifts it after ten seconds."
    )


def _stuck(state: MigrationState, error: AuthError) -> AuthError:
    """Return the error for a user who could start a write block but can neither complete nor lift it."""
    source = state.source(next(iter(state.moves)))
    return AuthError(
        f"{error.found} So the write block of {source} could not be completed or lifted.",
        "Writes are refused until it is lifted.",
        "Grant the permission and run the same command again, or as an administrator: "
        f'PUT {source}/_block/write, then PUT {source}/_settings {{"index.blocks.write": null}}',
    )


def _with_bases(level: Level, bases: dict[str, tuple[int, int]], state: MigrationState) -> MigrationState:
    return state.with_move(level, bases=bases)


def _record(lease: Lease) -> None:
    """Record the swap in the journal. The aliases have already moved."""
    if lease.state.back:
        lease.note("rolled back", phase="returned", fence="", paused=False)
    else:
        swapped(lease)
    settle(lease)


def _fencing(state: MigrationState) -> Any:
    return "return" if state.back else "swap"


def _in_time(began: float) -> None:
    if time.monotonic() - began > FENCE_S:
        raise GivenUp(f"the last writes took longer than {FENCE_S:.0f} s")


def _is_ours(state: MigrationState, level: Level, name: str) -> bool:
    move, stem = state.moves[level], staging_stem(state.collection, level)
    own = (alias_name(state.collection, level), write_alias(move.blue), write_alias(move.green))
    return name in own or name.startswith(stem)


def _alias(settings: dict[str, Any]) -> dict[str, Any]:
    """Return an alias's settings in the form of an `add` action."""
    names = {"index_routing": "index_routing", "search_routing": "search_routing", "filter": "filter", "is_write_index": "is_write_index"}
    return {names[key]: value for key, value in settings.items() if key in names}


def lost_writes(client: OpenSearch, level_copy: LevelCopy, bases: dict[str, tuple[int, int]]) -> int:
    """Return the number of writes that reached the old index after it was proven equal: 0 unless somebody lifted the block by hand."""
    with suppress(MissingError):
        now = until_settled(lambda: read_checkpoints(client, level_copy.source.index))
        return sum(max(0, now[int(shard)].highest - base[1]) for shard, base in bases.items() if int(shard) in now)
    return 0
