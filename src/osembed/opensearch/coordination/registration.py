"""Loaders and writers of a collection, and drops of it. Both are in one journal entry, so that neither can miss the other.

A drop writes a tombstone into that entry before it deletes anything, and increases the number of drops. A process that registered earlier
compares the number: a collection that was dropped, and perhaps created again, is no longer the one that it works on.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Literal

from osembed.errors import BusyError, CollectionError, DroppedError, MissingError, OsembedError
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.heartbeat import Heart, is_surely_dead, new_entry
from osembed.opensearch.coordination.journal import Journal, State

Kind = Literal["loaders", "writers"]  # loaders fill an unpublished first generation, writers a published collection
KINDS: tuple[Kind, Kind] = ("loaders", "writers")
DEAD_S = 12.0  # an entry without a beat for so long, on the observer's clock, is dead
_SELF_S = 9.0  # a process that could not confirm a beat for so long checks whether its entry still exists


def collection_key(collection: str) -> str:
    """Return the journal key of a collection."""
    return f"collection:{collection}"


class Registration:
    """This process's entry among the loaders or writers of a collection. It beats until it is closed.

    Attributes:
        kind: loaders or writers.
        drops: how often the collection had been dropped when this process entered.
        dropped: whether a later drop of the collection was noticed.
    """

    def __init__(self, client: OpenSearch, collection: str, kind: Kind, token: str, entered: State) -> None:
        self.kind, self.dropped, self.drops = kind, False, drop_count(entered)
        self._client, self._collection, self._token = client, collection, token
        self._journal = Journal(client)
        self._heart = Heart(lambda: bool(self._journal.change(collection_key(collection), self._stamp)))

    def check(self, *, surely: bool = False) -> None:
        """Raise DroppedError if the collection was dropped after this process entered.

        While the entry beats, nobody can drop the collection. So the server is asked only if the heartbeat was silent, or with `surely`.
        """
        if surely or self._heart.lost.is_set() or self._heart.silent_s > _SELF_S:
            sent = time.monotonic()
            state = self._journal.read(collection_key(self._collection)) or {}
            if drop_count(state) > self.drops:
                self.dropped = True
                raise dropped_error(self._collection, state)
            self._heart.confirm(sent)

    def close(self) -> dict[str, State]:
        """Remove this entry and return the others of its kind. Sets `dropped` instead of raising DroppedError."""
        self._heart.close()
        left: dict[str, State] = {}

        def strike(state: State) -> State | None:
            self.dropped = drop_count(state) > self.drops
            entries = state.get(self.kind, {})
            left.clear()
            left.update({token: entry for token, entry in entries.items() if token != self._token})
            return {**state, self.kind: dict(left)} if self._token in entries else None

        self._journal.change(collection_key(self._collection), strike)
        return left

    def _stamp(self, state: State) -> State | None:
        entry = state.get(self.kind, {}).get(self._token)
        if entry is None:
            return None
        return {**state, self.kind: {**state[self.kind], self._token: {**entry, "beat": entry["beat"] + 1}}}


def enter_process(client: OpenSearch, collection: str, kind: Kind, plan: Callable[[State], State] = dict) -> tuple[Registration, State]:
    """Register this process. Returns its registration and the collection's state. Clears the tombstone of a completed drop.

    Args:
        client, collection: the connection and the collection.
        kind: loaders or writers.
        plan: returns the rest of the state; may raise to refuse, and may run several times.

    Raises DroppedError if a drop is running, or was interrupted and must be completed.
    """
    token, journal = secrets.token_hex(8), Journal(client)
    journal.ensure()

    def step(before: State) -> State:
        if is_pending(before):
            raise dropped_error(collection, before)
        after = {key: value for key, value in plan(before).items() if key != "dropped"}
        return {**after, kind: {**living_entries(after, kind), token: new_entry()}}

    state = journal.change(collection_key(collection), step)
    return Registration(client, collection, kind, token, state), state


def living_entries(state: State, kind: Kind) -> dict[str, State]:
    """Return the entries of a kind, without those whose process is certainly dead."""
    return {token: entry for token, entry in state.get(kind, {}).items() if not is_surely_dead(entry)}


def drop_count(state: Mapping[str, Any]) -> int:
    """Return how often a collection has been dropped."""
    return int(state.get("drops", 0))


def is_pending(state: Mapping[str, Any]) -> bool:
    """Return whether a drop was started and is not complete."""
    return bool(state.get("dropped")) and not state["dropped"].get("done")


def is_dropped(state: Mapping[str, Any]) -> bool:
    """Return whether a collection's state has a tombstone: it was dropped and has not been created again."""
    return bool(state.get("dropped"))


def dropped_error(collection: str, state: Mapping[str, Any]) -> DroppedError:
    """Return the error for a command that finds the collection dropped or being dropped."""
    if is_pending(state):
        return DroppedError(
            f"'{collection}' is being dropped, or a drop was interrupted.",
            "It cannot be created again until the drop is complete.",
            f"Complete it: osembed drop --collection {collection}",
        )
    return DroppedError(
        f"'{collection}' was dropped.",
        "This command does not create it again.",
        f"To create it again: osembed ingest PATH --collection {collection}",
    )


def read_drop(client: OpenSearch, collection: str) -> DroppedError | None:
    """Return the error for a collection that was dropped; None if it was not."""
    state = Journal(client).read(collection_key(collection)) or {}
    return dropped_error(collection, state) if is_dropped(state) else None


@contextmanager
def telling(client: Callable[[], OpenSearch], collection: str) -> Iterator[None]:
    """Raise DroppedError instead of an error in this block that is the result of a drop."""
    try:
        yield
    except DroppedError:
        raise
    except (MissingError, CollectionError, BusyError) as error:
        found = None
        with suppress(OsembedError):  # this user may not be allowed to read the journal: keep the original error
            found = read_drop(client(), collection)
        if found is None:
            raise
        raise found from error


def watch_entries(
    read: Callable[[], Mapping[str, State]], seconds: float, first: Mapping[str, State] | None = None
) -> tuple[dict[str, State], dict[str, State]]:
    """Watch entries until one beats or a new one appears, or until all have been silent for `seconds`. Dead ones are not waited for.

    Args:
        read: returns the current entries.
        seconds: how long a silent entry is watched.
        first: the entries as seen before; None to read them now.

    Returns:
        (the entries that are alive, the entries as first seen).
    """
    seen, began = dict(read() if first is None else first), time.monotonic()
    still = {token: entry for token, entry in seen.items() if not is_surely_dead(entry)}
    while still and time.monotonic() - began < seconds:
        time.sleep(0.5)
        now = read()
        alive = {token: entry for token, entry in now.items() if token not in seen or entry["beat"] != seen[token]["beat"]}
        if alive:
            return alive, seen
        still = {token: entry for token, entry in still.items() if token in now and not is_surely_dead(entry)}
    return {}, seen
