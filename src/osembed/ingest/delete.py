"""Delete papers with their chunks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from osembed.errors import ClusterError
from osembed.opensearch import changes, operation, permissions, reads, sight
from osembed.opensearch.bulk import BulkLoop, Outcome
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.fence import FenceWait
from osembed.opensearch.documents import STATE_FIELDS, StoredDocument, Tally, chunk_ids, paper_of, read_hit, tally_chunks
from osembed.opensearch.patience import until_settled
from osembed.opensearch.schema import JOURNAL
from osembed.opensearch.target import Target, Targets

_NOBODY, _NEVER = "osembed-scratch", (9_000_000_000_000_000, 1)  # an id that no document has, and a version that no document reaches


def require_writes(client: OpenSearch, targets: Targets, loop: BulkLoop) -> None:
    """Raise AuthError unless this user may write and delete documents and journal entries. Called before any paper is written.

    This sends one bulk request with version conditions that no document meets, so that only permissions are tested. Read permissions are
    tested by reading.
    """
    if not permissions.is_secured(client):
        return
    operations = [operation.never(JOURNAL, _NOBODY)]
    for level, target in targets.items():
        operations.append(operation.put(target.write_alias, f"{_NOBODY}-{level}-put", {}, _NEVER))
        operations.append(operation.delete(target.write_alias, f"{_NOBODY}-{level}-delete", _NEVER))
    loop.send(operations)


def delete_papers(client: OpenSearch, targets: Callable[[], Targets], loop: BulkLoop, ids: Sequence[str]) -> dict[str, bool]:
    """Delete papers, their chunks first. Returns for each id whether the paper existed.

    If it is killed half-way, the paper is still there, and the next delete (or ingest) completes the work. A paper that another process
    changes is read again. A fence (a write block during a swap) is waited for.

    Args:
        client: the connection.
        targets: called before each round for the collection's current indexes.
        loop: sends the deletes.
        ids: ids of papers.
    """
    until_settled(lambda: sight.prove(client, [target.place for target in targets().values()]))  # hidden chunks would become orphans
    found: dict[str, bool] = {}
    pending, fence_wait = list(dict.fromkeys(ids)), None
    while pending:
        now, papers, tallies = until_settled(lambda pending=pending: _look_up(client, targets(), pending))  # type: ignore[misc]
        for paper_id in pending:
            found[paper_id] = found.get(paper_id, False) or paper_id in papers
        chunks = [key for paper_id in pending for key in _chunks_of(paper_id, papers.get(paper_id, []), tallies.get(paper_id))]
        before = _delete(now["chunks"], loop, until_settled(partial(_copies, client, now["chunks"], chunks)))
        # A paper whose chunks could not all be deleted keeps its document, so that the next round finds it.
        again = set(map(paper_of, (*before.conflicts, *before.blocked)))
        after = _delete(now["papers"], loop, {paper_id: same for paper_id, same in papers.items() if paper_id not in again})
        pending = [*again, *after.conflicts, *after.blocked]
        if before.blocked or after.blocked:
            fence_wait = fence_wait or FenceWait(client, now["papers"].meta.collection)
            fence_wait.wait()
    return found


def _look_up(client: OpenSearch, now: Targets, ids: Sequence[str]) -> tuple[Targets, dict[str, list[StoredDocument]], dict[str, Tally]]:
    """Return the current indexes, every copy of the papers' documents, and the tally of their chunks."""
    changes.refresh(client, now["papers"].index, now["chunks"].index)
    return now, _copies(client, now["papers"], ids), tally_chunks(client, now["chunks"], ids)


def _chunks_of(paper_id: str, papers: Sequence[StoredDocument], tally: Tally | None) -> list[str]:
    """Return the ids of all chunks that any copy of a paper may have."""
    return list(dict.fromkeys(key for paper in (*papers, None) for key in chunk_ids(paper_id, paper, tally)))


def _delete(target: Target, loop: BulkLoop, found: Mapping[str, Sequence[StoredDocument]]) -> Outcome:
    """Delete every copy of documents, one copy of each per `send`, because ids must not repeat within a `send`."""
    outcome = Outcome()
    for turn in range(max(map(len, found.values()), default=0)):
        turns = [(key, same[turn]) for key, same in found.items() if len(same) > turn]
        outcome.add(_accepted(loop.send(operation.delete(target.write_alias, key, one.seen, one.routing) for key, one in turns)))
    return outcome


def _copies(client: OpenSearch, target: Target, ids: Sequence[str]) -> dict[str, list[StoredDocument]]:
    found = reads.copies(client, target.index, ids, STATE_FIELDS) if ids else {}
    return {key: list(map(read_hit, same)) for key, same in found.items()}


def _accepted(outcome: Outcome) -> Outcome:
    """Return the outcome. Raises ClusterError if a delete was rejected."""
    if outcome.rejected:
        raise ClusterError(f"The server refused a delete: {next(iter(outcome.rejected.values()))}.")
    return outcome
