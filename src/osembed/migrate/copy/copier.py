"""Copy and catch up in one loop: scan changes in the source, embed them with the target's model, write them, move the mark.

A mark never passes a document that is neither acknowledged in the target nor recorded as failed. Each copy carries `origin`, its sequence
number in the source, and a version made of turn, primary term and sequence number. So repeating a window is harmless and costs no
embedding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from osembed.embed.passage_vectors import BAD_VECTOR
from osembed.errors import RefusedError
from osembed.migrate.copy.level_copy import PAGE, LevelCopy, Marks, Outdated, version_of
from osembed.migrate.copy.window import CopyCounts, Window, document_of, paths_of, refuse_foreign
from osembed.opensearch import changes, operation, reads, scan
from osembed.opensearch.bulk import BulkLoop
from osembed.opensearch.checkpoints import whole_checkpoints
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.documents import StoredDocument
from osembed.opensearch.operation import Operation
from osembed.opensearch.patience import until_settled
from osembed.opensearch.sight import Witnesses
from osembed.passages.passage import stored_passage
from osembed.stream import staged


class Copier:
    """Copies levels.

    `settle` is called after each window, from one thread at a time, and moves the mark. `between` is called before each window and may wait
    or raise.
    """

    def __init__(
        self,
        client: OpenSearch,
        level_copies: Sequence[LevelCopy],
        loop: BulkLoop,
        settle: Callable[[Window, CopyCounts], None],
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self._client, self._lanes, self._loop, self._settle, self._between = client, level_copies, loop, settle, between
        self._done = 0
        self._known: dict[str, set[str]] = {}
        self._witnesses = Witnesses(client)

    def catch_up(self, marks: Callable[[], Marks]) -> CopyCounts:
        """Copy everything that changed after the marks, up to now, and return the counts. Raises Outdated if another holder took over."""
        total = CopyCounts()

        def attempt() -> None:
            total.add(self._pass(marks()))

        until_settled(attempt, self._between, progress=lambda: self._done)
        return total

    def copy_now(self, level_copy: LevelCopy, docs: list[StoredDocument]) -> CopyCounts:
        """Copy documents that were just read, overwriting whatever the target has under their ids. This repairs a wrong target."""
        window = self._embedded(self._prepared(Window(level_copy, -1, -1, docs), trust=False))
        there = scan.read_now(self._client, level_copy.target.index, [(doc.id, doc.routing) for doc in docs])
        operations = []
        for doc in docs:
            document = document_of(window, doc)
            old = there.get(doc.id)
            if old is None:
                operations.append(operation.copy(level_copy.alias, doc.id, document, version_of(level_copy, doc), doc.routing))
            else:  # another writer gave it a higher version, so only compare-and-set can replace it
                operations.append(operation.put(level_copy.alias, doc.id, document, (old.seq, old.term), doc.routing))
        outcome = self._loop.send(operations)
        if outcome.blocked:
            raise Outdated(f"the target refuses writes to {outcome.blocked[0]}")
        return CopyCounts(len(docs), outcome.done, window.embedded, failed=outcome.rejected)

    def _pass(self, marks: Marks) -> CopyCounts:
        total = CopyCounts()
        prepared = staged(map(self._prepared, staged(self._windows(marks))))
        with ThreadPoolExecutor(1, thread_name_prefix="osembed-copy") as writer:
            pending: Future[CopyCounts] | None = None
            try:
                for window in prepared:
                    self._between()
                    self._embedded(window)  # while the previous window is written
                    if pending:  # windows are settled in order, so a mark never passes an unfinished window
                        total.add(pending.result())
                    pending = writer.submit(self._write, window)
                if pending:
                    total.add(pending.result())
            finally:
                prepared.close()
        return total

    def _windows(self, marks: Marks) -> Iterator[Window]:
        """Yield windows of changes, shard by shard. A last window without documents moves the mark over gaps in the sequence numbers."""
        for level_copy in self._lanes:
            index = level_copy.source.index
            at = whole_checkpoints(self._client, index)
            changes.refresh(self._client, index)
            for shard, point in sorted(at.items()):
                mark = marks[level_copy.level].get(str(shard), -1)
                last, excluded = mark, () if level_copy.carries else ("embedding",)  # old vectors are read only if they can be reused
                for page in scan.scan(self._client, index, shard, mark, point, size=PAGE[level_copy.level], excluded=excluded):
                    last = page[-1].seq
                    yield Window(level_copy, shard, last, page, seen=len(page))
                if point.safe > last:
                    yield Window(level_copy, shard, point.safe, [])

    def _prepared(self, window: Window, trust: bool = True) -> Window:
        """Leave out documents that are already copied, reuse vectors of the same space, tokenise the rest."""
        level_copy = window.level_copy
        if window.docs and trust:
            refuse_foreign(window)
            there = scan.read_now(self._client, level_copy.target.index, [(doc.id, doc.routing) for doc in window.docs])
            window.docs = [doc for doc in window.docs if doc.id not in there or there[doc.id].version != version_of(level_copy, doc)]
        for doc in window.docs:
            passage = stored_passage(level_copy.encoder.model.spec, level_copy.level, doc.fields)
            if not passage:
                continue
            window.passages[doc.id] = passage
            old = doc.vector(level_copy.target.meta.identity, passage) if level_copy.carries else None
            if old is not None:
                window.vectors.keep(passage, old, doc.fields.get("token_count"))
        window.vectors.tokenise(level_copy.encoder.tokeniser, window.passages.values())
        return window

    def _embedded(self, window: Window) -> Window:
        tokens = window.vectors.embed(window.level_copy.encoder)
        if tokens:
            window.embedded, window.tokens = len(tokens), tokens.read
        return window

    def _write(self, window: Window) -> CopyCounts:
        level_copy = window.level_copy
        copied = CopyCounts(window.seen, embedded=window.embedded, tokens=window.tokens)
        copied.carried = sum(not window.vectors.is_fresh(passage) for passage in window.passages.values())
        if window.docs:
            self._map_new_fields(window)
            operations: list[Operation] = []
            sent: dict[str, dict[str, Any]] = {}
            for doc in window.docs:
                passage = window.passages.get(doc.id)
                if passage and not window.vectors.is_usable(passage):
                    copied.failed[doc.id] = BAD_VECTOR
                    continue
                sent[doc.id] = document_of(window, doc)
                operations.append(operation.copy(level_copy.alias, doc.id, sent[doc.id], version_of(level_copy, doc), doc.routing))
            outcome = self._loop.send(operations)
            if outcome.blocked:
                raise Outdated(f"the target refuses writes to {outcome.blocked[0]}")
            chosen = self._witnesses.choose(level_copy.target.place, sent)
            routings = {doc.id: doc.routing for doc in window.docs}
            self._witnesses.leave(level_copy.target.place, {key: sent[key] for key in chosen}, outcome.versions, routings)
            copied.written = outcome.done + len(outcome.conflicts)  # a conflict means that the target has this or a newer version
            copied.failed.update(outcome.rejected)
            self._take_out(level_copy, [doc for doc in window.docs if doc.id in copied.failed])
        self._settle(window, copied)
        self._done += 1
        return copied

    def _take_out(self, level_copy: LevelCopy, docs: list[StoredDocument]) -> None:
        """Delete from the target the documents that could not be copied, because an outdated version would be wrong."""
        if docs:
            routed = {doc.id: doc.routing for doc in docs}
            there = scan.read_now(self._client, level_copy.target.index, list(routed.items()))
            outcome = self._loop.send(
                operation.delete(level_copy.alias, key, (old.seq, old.term), routed[key]) for key, old in there.items()
            )
            if outcome.blocked:
                raise Outdated("the target refuses deletes")

    def _map_new_fields(self, window: Window) -> None:
        """Add to the target's mapping the fields that appeared in the source after the target was created, with their types."""
        level_copy, names = window.level_copy, set().union(*(paths_of(doc.fields) for doc in window.docs))
        known = self._known.setdefault(level_copy.target.index, set())
        if names <= known:
            return
        properties = reads.properties(self._client, level_copy.source.index)
        properties.pop("embedding", None)
        with suppress(RefusedError):  # already mapped differently: the documents themselves are then refused with a reason
            changes.put_mapping(self._client, level_copy.target.index, {"properties": properties})
        known |= names


def per_second(count: int, began: float) -> float:
    """Return a rate per second since a moment on the monotonic clock."""
    return count / max(time.monotonic() - began, 1e-6)
