"""Who loads or feeds a collection, and whether it was dropped: in one journal document, so that neither can miss the other.

A drop leaves a tombstone in that document before it deletes anything, and counts the drops. A process that was registered before compares
the count: whatever was dropped and perhaps made anew meanwhile is not the collection that it works on.
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

Kind = Literal["loaders", "writers"]  # of a first generation that is not published, and of a published collection
KINDS: tuple[Kind, Kind] = ("loaders", "writers")
DEAD_S = 12.0  # an entry that does not move for so long, on the observer's own clock
_SELF_S = 9.0  # one that could not confirm a beat for so long asks whether it still stands there


def collection_key(collection: str) -> str:
    """Return the journal key of a collection."""
    return f"collection:{collection}"


class Registration:
    """This process's entry among the loaders or writers of a collection; beats until it is closed.

    Attributes:
        kind: which of the two.
        drops: how often the collection had been dropped when this process entered.
        dropped: whether the collection was seen to be dropped since.
    """

    def __init__(self, client: OpenSearch, collection: str, kind: Kind, token: str, entered: State) -> None:
        self.kind, self.dropped, self.drops = kind, False, drop_count(entered)
        self._client, self._collection, self._token = client, collection, token
        self._journal = Journal(client)
        self._heart = Heart(lambda: bool(self._journal.change(collection_key(collection), self._stamp)))

    def check(self, *, surely: bool = False) -> None:
        """Raise DroppedError where the collection was dropped since this process entered.

        While the entry beats nobody can drop the collection, so nothing is asked unless it was silent, or `surely` says so.
        """
        if surely or self._heart.lost.is_set() or self._heart.silent_s > _SELF_S:
            sent = time.monotonic()
            state = self._journal.read(collection_key(self._collection)) or {}
            if drop_count(state) > self.drops:
                self.dropped = True
                raise dropped_error(self._collection, state)
            self._heart.confirm(sent)

    def close(self) -> dict[str, State]:
        """Strike out this entry; return the others of its kind. Sets `dropped`; raises nothing of its own."""
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
    """Enter this process; return its registration and the collection's state. Clears the tombstone of a drop that is complete.

    Args:
        client, collection: where.
        kind: among whom.
        plan: what else is to stand in the state; may raise to refuse, and may be called several times.

    Raises DroppedError where a drop is under way, or was begun and has to be completed.
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
    """Return the entries of a kind but for those whose process is surely dead."""
    return {token: entry for token, entry in state.get(kind, {}).items() if not is_surely_dead(entry)}


def drop_count(state: Mapping[str, Any]) -> int:
    """Return how often a collection was dropped."""
    return int(state.get("drops", 0))


def is_pending(state: Mapping[str, Any]) -> bool:
    """Whether a drop was begun and is not complete."""
    return bool(state.get("dropped")) and not state["dropped"].get("done")


def is_dropped(state: Mapping[str, Any]) -> bool:
    """Whether a tombstone stands in a collection's state: it was dropped, and nobody has made it anew."""
    return bool(state.get("dropped"))


def dropped_error(collection: str, state: Mapping[str, Any]) -> DroppedError:
    """Return what a command says that meets a drop."""
    if is_pending(state):
        return DroppedError(
            f"'{collection}' is being dropped, or that was interrupted.",
            "Nothing of it is made anew until it is gone.",
            f"Complete it: osembed drop --collection {collection}",
        )
    return DroppedError(
        f"'{collection}' was dropped.",
        "This command makes nothing of it anew.",
        f"To fill it again: osembed ingest PATH --collection {collection}",
    )


def read_drop(client: OpenSearch, collection: str) -> DroppedError | None:
    """Return what is to be said of a collection that was dropped; None for one that was not."""
    state = Journal(client).read(collection_key(collection)) or {}
    return dropped_error(collection, state) if is_dropped(state) else None


@contextmanager
def telling(client: Callable[[], OpenSearch], collection: str) -> Iterator[None]:
    """Say that the collection was dropped, where that is why something fails in this block."""
    try:
        yield
    except DroppedError:
        raise
    except (MissingError, CollectionError, BusyError) as error:
        found = None
        with suppress(OsembedError):  # this user may not read the journal, perhaps: then the error stays what it is
            found = read_drop(client(), collection)
        if found is None:
            raise
        raise found from error


def watch_entries(
    read: Callable[[], Mapping[str, State]], seconds: float, first: Mapping[str, State] | None = None
) -> tuple[dict[str, State], dict[str, State]]:
    """Watch entries until one is seen to beat, or to come, or all have been still for so long; those surely dead are not waited for.

    Args:
        read: returns the entries as they are now.
        seconds: how long a silent entry is watched.
        first: what was seen before.

    Returns:
        (those that are alive, those that were seen first).
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
