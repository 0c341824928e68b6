"""The swap: fence the source, copy the last few writes, prove both sides equal, move all aliases in one conditional request.

The source is blocked for five seconds at most. Whatever takes longer, or fails, lifts the fence, and the caller tries again later.
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
from osembed.opensearch.schema import alias_name, staging_alias, write_alias
from osembed.papers.levels import Level

FENCE_S = 5.0


class GivenUp(Exception):
    """The fence was lifted again; the message says why.

    `late` says that the server may still set its write block: it was asked for, and not acknowledged in time.
    """

    def __init__(self, why: str, *, late: bool = False) -> None:
        super().__init__(why)
        self.late = late


@dataclass(frozen=True)
class Swapped:
    """A swap that happened: for how many seconds writes had to wait, and documents copied or deleted meanwhile."""

    fence_s: float
    last: int


@dataclass(frozen=True)
class SwapContext:
    """What a swap works with."""

    client: OpenSearch
    lease: Lease
    level_copies: Sequence[LevelCopy]
    copier: Copier
    loop: BulkLoop
    allow_failed: int = 0


def swap(at: SwapContext) -> Swapped:
    """Swap once. Raises GivenUp when it was not possible in time, AuthError when it is not allowed; nothing has changed for readers and
    writers then."""
    lease, client = at.lease, at.client
    lease.check()
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
            if isinstance(error, AuthError):  # another try would be refused, too
                raise
            if isinstance(error, GivenUp | OsembedError | Outdated):
                why = error.found if isinstance(error, OsembedError) else error
                raise GivenUp(f"{why} (writers waited {took:.1f} s)", late=not blocked) from error
            raise
        last = 0  # in doubt, and it has happened
    took = time.monotonic() - began
    _record(lease)
    return Swapped(took, last)


def actions(client: OpenSearch, state: MigrationState) -> list[Action]:
    """Return the one request that moves readers and writers: every alias of the source, conditional on the holder's staging aliases."""
    seen = fence.look(client, state)
    found: list[Action] = []
    for level in state.moves:
        source, target, alias = state.source(level), state.target(level), alias_name(state.collection, level)
        found.append({"remove": {"index": source, "alias": alias, "must_exist": True}})
        found.append({"add": {"index": target, "alias": alias, "is_write_index": True}})
        found.append({"remove": {"index": target, "alias": staging_alias(state.collection, level, state.attempt), "must_exist": True}})
        found.append(fence.add_token(state.collection, level, source, state.attempt + 1))
        # Library writers go through the private alias: without it no write that is on its way can reach the old index any more.
        if write_alias(source) in seen.aliases[source]:
            found.append({"remove": {"index": source, "alias": write_alias(source)}})
        found.append({"add": {"index": target, "alias": write_alias(target), "is_hidden": True, "is_write_index": True}})
        for name, settings in seen.aliases[source].items():
            if not _is_ours(state, level, name):
                found += [{"remove": {"index": source, "alias": name}}, {"add": {"index": target, "alias": name, **_alias(settings)}}]
    return found


def _catch_up_and_prove(at: SwapContext, began: float) -> int:
    """Under the fence: copy what is left, repair deletes, prove the live sets equal, note where a way back would begin."""
    client, lease = at.client, at.lease
    for level_copy in at.level_copies:
        while any(point.safe != point.highest for point in read_checkpoints(client, level_copy.source.index).values()):
            _in_time(began)
            time.sleep(0.02)
    sight.prove(client, [level_copy.source.place for level_copy in at.level_copies], quiet=True)
    last = at.copier.catch_up(lambda: {level: move.marks for level, move in lease.state.moves.items()}).written
    _in_time(began)
    for level_copy in at.level_copies:
        whole_checkpoints(client, level_copy.target.index)  # what it shows has to be what it keeps
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
    """Make the target's live set equal to the source's; return how many documents that changed. Raises GivenUp where it is not."""
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
    """Return a shard's bases in the current direction: on the way to green nothing was ever proven equal."""
    return state.moves[level].bases.get(shard, (-1, -1)) if state.back else (-1, -1)


def leave_known(state: MigrationState, level: Level, found: pairs.Difference) -> None:
    """Take out of a difference what is known to stand on one side only: documents that could not be copied, in either direction.

    On the way back nobody has deleted what the new index never had: it stays.
    """
    for key in [key for key in found.missing if f"{level}/{key[0]}" in state.failed]:
        del found.missing[key]
    for key in [key for key in found.extra if state.back and f"{level}/{key[0]}" in state.left]:
        del found.extra[key]


def _withdraw(lease: Lease) -> bool:
    """Lift the fence unless the swap has happened; True where it has not and now never can."""
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
            raise foreign(state, "an alias was moved while the fence stood")
        held = {level: seen.holds(level) for level in state.moves}
        mine = {level: (state.target(level), staging_alias(state.collection, level, state.attempt)) for level in state.moves}
        if held != mine:  # a client is lifting it for us and may not get to the end, or another holder took over: theirs is the word then
            lease.update()
        try:
            if fence.lift(lease.client, state, seen):
                lease.update(phase="return" if state.back else "ready", attempt=max(lease.state.attempt, seen.attempt + 1))
                return True
        except AuthError as error:
            raise _stuck(state, error) from error
        except ClusterError:
            pass
        time.sleep(0.1)
    raise CollectionError("The fence could not be lifted.", "The server does not answer.", "Any osembed client lifts it in ten seconds.")


def _stuck(state: MigrationState, error: AuthError) -> AuthError:
    """Return the refusal of a user who could begin a write block and can neither complete nor lift it."""
    source = state.source(next(iter(state.moves)))
    return AuthError(
        f"{error.found} So the write block of {source} could be neither completed nor lifted.",
        "Writers are refused until it is.",
        "Give the permission and run the same command again, or as an administrator: "
        f'PUT {source}/_block/write, then PUT {source}/_settings {{"index.blocks.write": null}}',
    )


def _with_bases(level: Level, bases: dict[str, tuple[int, int]], state: MigrationState) -> MigrationState:
    return state.with_move(level, bases=bases)


def _record(lease: Lease) -> None:
    """Write into the journal what the aliases say."""
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
    move, stem = state.moves[level], staging_alias(state.collection, level, 0)[:-1]
    own = (alias_name(state.collection, level), write_alias(move.blue), write_alias(move.green))
    return name in own or name.startswith(stem)


def _alias(settings: dict[str, Any]) -> dict[str, Any]:
    """Return an alias's settings as the request to add it spells them."""
    names = {"index_routing": "index_routing", "search_routing": "search_routing", "filter": "filter", "is_write_index": "is_write_index"}
    return {names[key]: value for key, value in settings.items() if key in names}


def lost_writes(client: OpenSearch, level_copy: LevelCopy, bases: dict[str, tuple[int, int]]) -> int:
    """Return how many operations reached the old index after it was proven equal: 0 unless somebody lifted the block by hand."""
    with suppress(MissingError):
        now = until_settled(lambda: read_checkpoints(client, level_copy.source.index))
        return sum(max(0, now[int(shard)].highest - base[1]) for shard, base in bases.items() if int(shard) in now)
    return 0
