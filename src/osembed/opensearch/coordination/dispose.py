"""Delete the indexes that a migration no longer needs: only if they are provably osembed's, and only as the current holder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

from osembed.errors import AuthError, BusyError, CollectionError, MissingError
from osembed.opensearch import changes, indexes
from osembed.opensearch import sight as sight_of
from osembed.opensearch.changes import Action
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination import fence
from osembed.opensearch.coordination.journal import OF_INDEX, Journal
from osembed.opensearch.coordination.lease import Lease, settle
from osembed.opensearch.schema import index_name, staging_alias
from osembed.opensearch.sight import Place
from osembed.papers.levels import Level


def dispose_indexes(lease: Lease, doomed: Mapping[Level, tuple[str, str]]) -> None:
    """Delete one index per level, if it exists.

    The holder's staging aliases first move to the surviving index, and the delete request also removes them. So a process that was paused
    before the request and wakes up later deletes nothing.

    Args:
        lease: this process's hold.
        doomed: level → (the index to delete, the index that stays).

    Raises:
        CollectionError: an index does not provably belong to this migration; nothing is deleted.
        BusyError: another process has taken over the staging aliases.
    """
    client = lease.client
    sight = settle(lease)
    state = lease.state
    gone = {level: pair for level, pair in doomed.items() if pair[0] in sight.uuids}
    for level, (index, survivor) in gone.items():
        _prove_ours(lease, level, index)
        sight_of.prove(client, [Place(survivor, sight.uuids[survivor])])
    attempt = max(state.attempt, sight.attempt + 1)
    state = lease.update(attempt=attempt)
    lease.check()
    if not fence.hand_over(client, state, sight, attempt, {level: pair[1] for level, pair in gone.items()}):
        raise BusyError(
            f"The staging aliases of '{state.collection}' moved.", "Another process is working on it.", "Run the command again."
        )
    if len(gone) < len(doomed):  # never created: forbid creations that may still be under way
        fence.hand_over(client, state, sight, attempt, {level: pair[0] for level, pair in doomed.items() if level not in gone})
    if not gone:
        return
    sight = fence.look(client, state)
    actions: list[Action] = []
    for level, (index, survivor) in gone.items():
        actions.append({"remove": {"index": survivor, "alias": staging_alias(state.collection, level, attempt), "must_exist": True}})
        old = [name for holder, name, number in sight.tokens[level] if holder == survivor and number < attempt]
        actions += [{"remove": {"index": survivor, "alias": name}} for name in old]
        actions.append({"remove_index": {"index": index}})
    lease.check()
    try:
        changes.update_aliases(client, actions)
    except MissingError as error:
        raise BusyError(
            f"The staging aliases of '{state.collection}' moved.", "Another process is working on it.", "Run it again."
        ) from error
    _forget(client, [sight.uuids[index] for index, _ in gone.values()])


def _forget(client: OpenSearch, uuids: Iterable[str]) -> None:
    """Delete the journal entries of deleted indexes. Without the permission they stay; `osembed drop --leftovers` removes them."""
    journal = Journal(client)
    with suppress(AuthError):
        for key in (f"{kind}:{uuid}" for uuid in uuids for kind in OF_INDEX):
            journal.forget(key)


def _prove_ours(lease: Lease, level: Level, index: str) -> None:
    """Raise CollectionError unless an index's name, metadata and UUID show that it belongs to this migration."""
    move = lease.state.moves[level]
    target = indexes.resolve_indexes(lease.client, {level: index})[level]
    named = index_name(lease.state.collection, level, target.meta.identity, target.meta.generation)
    known = {move.blue: move.blue_uuid, move.green: move.green_uuid or target.uuid}
    if target.meta.collection != lease.state.collection or named != index or known.get(index) != target.uuid:
        raise CollectionError(
            f"{index} does not provably belong to this migration.",
            "Its name, metadata or UUID is not the one that osembed created.",
            f"Look at it (GET {index}), and delete it yourself if it is yours.",
        )
