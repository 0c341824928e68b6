"""The fence around a swap, from both sides: who may pass, and how any client lifts one whose owner died.

While a migration is under way each passive index (the one that readers do not see) carries a staging alias whose number is that of the
attempt that holds it. Its holder writes through it, and every request of consequence (swap, lift, delete) contains its removal with
`must_exist`, which OpenSearch applies as a whole or not at all. So replacing it by the next number is a compare-and-set that takes the
power to write, swap and delete from whoever held it before: a process that was stopped and wakes up finds its alias gone.

A write block has no expiry. A client that meets the same fence unchanged for ten seconds of its own clock takes the staging alias over and
lifts the block; where the alias is gone, the swap has happened and the client goes to the new index.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from osembed.errors import BusyError, MissingError, OsembedError, RefusedError
from osembed.opensearch import changes, reads
from osembed.opensearch.changes import Action
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.journal import Journal
from osembed.opensearch.coordination.migration_state import MigrationState, migration_key, read_state, write_state
from osembed.opensearch.patience import patience_seconds, until_settled
from osembed.opensearch.schema import alias_name, staging_alias, staging_stem
from osembed.papers.levels import Level

_DEAD_S = 10.0  # a fence that stands unchanged for so long has lost its owner: owners give up after five seconds
_WAITS = 100
_FOREIGN_S = 20.0  # how long a block is waited for that no migrator cares for
_SEE = "*.aliases,*.settings.index.uuid,*.settings.index.blocks"


@dataclass(frozen=True)
class Sight:
    """The aliases, UUIDs and blocks of a migration's indexes, from one cluster state.

    Attributes:
        published: level → the indexes that hold its reader alias.
        tokens: level → (index, alias name, attempt) of its staging aliases, ascending.
        uuids: index → UUID, of those that exist.
        blocked: indexes with a write block.
        aliases: index → its aliases as the server states them.
    """

    published: dict[Level, list[str]]
    tokens: dict[Level, list[tuple[str, str, int]]]
    uuids: dict[str, str]
    blocked: set[str]
    aliases: dict[str, dict[str, Any]]

    @property
    def attempt(self) -> int:
        """The highest attempt of any staging alias; 0 for none."""
        return max((found[2] for tokens in self.tokens.values() for found in tokens), default=0)

    def holds(self, level: Level) -> tuple[str, str] | None:
        """The index and name of a level's current staging alias; older ones are marks that forbid a late creation."""
        found = self.tokens[level]
        return (found[-1][0], found[-1][1]) if found else None


def look(client: OpenSearch, state: MigrationState) -> Sight:
    """Read where a migration's aliases and blocks are now."""
    names = [name for move in state.moves.values() for name in (move.blue, move.green)]
    names += [alias_name(state.collection, level) for level in state.moves]
    info = reads.indexes(client, names, _SEE)
    aliases = {index: dict(entry.get("aliases", {})) for index, entry in info.items()}
    return Sight(
        published={
            level: sorted(index for index in aliases if alias_name(state.collection, level) in aliases[index]) for level in state.moves
        },
        tokens={level: sorted(_tokens(aliases, state.collection, level), key=lambda found: found[2]) for level in state.moves},
        uuids={index: entry["settings"]["index"]["uuid"] for index, entry in info.items()},
        blocked={index for index, entry in info.items() if _is_blocked(entry["settings"])},
        aliases=aliases,
    )


def has_any(sight: Sight, state: MigrationState) -> bool:
    """Whether any index of a migration is still there."""
    return any(sight.uuids.get(index) == move.uuid_of(index) for move in state.moves.values() for index in (move.blue, move.green))


def hand_over(client: OpenSearch, state: MigrationState, sight: Sight, attempt: int, to: Mapping[Level, str]) -> bool:
    """Give an attempt the staging aliases, on the given indexes, in place of those that were seen; False where they had moved meanwhile.

    Where an index is not created yet, the numbers of earlier attempts are put on blue as marks: an alias has one write index, so a creation
    that is still on its way under such a number is refused by the server.
    """
    actions: list[Action] = []
    for level, index in to.items():
        held = sight.holds(level)
        if index in sight.uuids:
            if held:
                actions.append({"remove": {"index": held[0], "alias": held[1], "must_exist": True}})
            actions.append(add_token(state.collection, level, index, attempt))
        elif not state.moves[level].uuid_of(index):  # else it was created, and an interrupted abort or finish has deleted it
            marked = {number for _, _, number in sight.tokens[level]}
            earlier = set(range(state.begun + 1, attempt)) - marked
            actions += [add_token(state.collection, level, state.moves[level].blue, number) for number in sorted(earlier)]
    if not actions:
        return True
    try:
        changes.update_aliases(client, actions)
    except MissingError:
        return False
    except RefusedError as error:
        if "more than one write index" in str(error.detail):  # what was seen is no longer so: a creation got through
            return False
        raise
    return True


def add_token(collection: str, level: Level, index: str, attempt: int) -> Action:
    """Return the action that gives an attempt its staging alias."""
    name = staging_alias(collection, level, attempt)
    return {"add": {"index": index, "alias": name, "is_hidden": True, "is_write_index": True}}


def change_state(client: OpenSearch, collection: str, step: Callable[[MigrationState], MigrationState | None]) -> MigrationState | None:
    """Change a migration's journal entry by compare-and-set; None where there is no migration."""

    def apply(stored: dict[str, Any]) -> dict[str, Any] | None:
        state = read_state(stored)
        changed = step(state) if state else None
        return write_state(changed) if changed else None

    return read_state(Journal(client).change(migration_key(collection), apply))


def lift(client: OpenSearch, state: MigrationState, sight: Sight) -> bool:
    """Take the staging aliases over and lift the block on the source; False where they had moved: then look again.

    The order is what makes this safe to be killed in: until the journal forgets the fence, whoever comes next does the same again.
    """
    attempt = max(state.attempt, sight.attempt) + 1
    if not hand_over(client, state, sight, attempt, {level: state.target(level) for level in state.moves}):
        return False
    unblock(client, [state.source(level) for level in state.moves])
    nonce = state.fence
    change_state(
        client,
        state.collection,
        lambda now: replace(now, fence="" if now.fence == nonce else now.fence, attempt=max(now.attempt, attempt)),
    )
    return True


def unblock(client: OpenSearch, indexes: list[str]) -> None:
    """Lift the write block of indexes."""
    changes.lift_block(client, indexes)


class FenceWait:
    """Where a writer whose writes were refused waits before each new try."""

    def __init__(self, client: OpenSearch, collection: str, report: Callable[[str], None] = lambda _: None) -> None:
        self._client, self._collection, self._report, self._waits = client, collection, report, 0

    def wait(self) -> None:
        """Return when it may be tried again. Raises BusyError where that has helped too often, or nobody lifts a block."""
        self._waits += 1
        if self._waits > _WAITS:
            raise BusyError(
                f"'{self._collection}' has been refusing writes all the time, though nothing blocks it.",
                "The private alias of its index is missing, perhaps. What was acknowledged is kept.",
                "Look at `GET _cat/aliases?v` and `osembed doctor`, then run the same command again.",
            )
        wait_writable(self._client, self._collection, self._report)
        time.sleep(random.uniform(0, 0.1))


def wait_writable(client: OpenSearch, collection: str, report: Callable[[str], None] = lambda _: None) -> None:
    """Return when a collection that refused a write may take it: the fence was lifted, or its aliases moved to new indexes.

    Lifts a fence whose owner is gone. Raises BusyError for a block that no swap needs and nobody lifts.
    """
    journal, seen, stood, waited = Journal(client), "", 0.0, 0.0  # only time in which the server answers is counted: else nobody can act
    while True:
        state = read_state(until_settled(lambda: journal.read(migration_key(collection)), report=report))
        if not until_settled(lambda: _blocked(client, collection), report=report):
            return
        if _owner(state) != seen:
            seen, stood = _owner(state), 0.0
        if state and state.fence and stood > _DEAD_S:
            report(f"Whoever was swapping '{collection}' is gone; lifting its fence.")
            with suppress(OsembedError):  # another client may be doing the same
                rescue(client, state)
            stood = 0.0
        elif not (state and state.fence) and (stood > _FOREIGN_S or waited > patience_seconds()):
            raise BusyError(
                f"'{collection}' refuses writes: a write block stands on its index, and no swap is under way.",
                "Somebody made it read-only. What was acknowledged is kept.",
                "Lift the block or wait for whoever set it, then run the same command again.",
            )
        pause = random.uniform(0.02, 0.15)
        time.sleep(pause)
        stood, waited = stood + pause, waited + pause


def _owner(state: MigrationState | None) -> str:
    """Return what stays the same while nobody cares for a block: the fence, or else the last beat of a migrator.

    A swap that was put off may leave a block that the server set too late; while its migrator is alive it is the migrator that lifts it.
    """
    if state is None:
        return ""
    return state.fence or (f"{state.lease['token']}/{state.lease['beat']}" if state.lease else "")


def rescue(client: OpenSearch, state: MigrationState) -> None:
    """Lift the fence of an owner that is gone, unless its swap has happened."""
    sight = look(client, state)
    if any(state.source(level) not in sight.published[level] for level in state.moves):
        return
    lift(client, state, sight)


def _blocked(client: OpenSearch, collection: str) -> bool:
    """Whether an index of a collection refuses writes, be the block in its settings or only half made."""
    return bool(reads.write_blocks(client, [alias_name(collection, "papers"), alias_name(collection, "chunks")]))


def _is_blocked(settings: Mapping[str, Any]) -> bool:
    blocks = settings["index"].get("blocks", {})
    return any(str(blocks.get(kind, "")).lower() == "true" for kind in ("write", "read_only"))


def _tokens(aliases: Mapping[str, Mapping[str, Any]], collection: str, level: Level) -> Iterator[tuple[str, str, int]]:
    stem = staging_stem(collection, level)
    for index, names in aliases.items():
        for name in names:
            if name.startswith(stem) and name[len(stem) :].isdigit():
                yield index, name, int(name[len(stem) :])
