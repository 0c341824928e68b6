"""Copy and catch-up: one loop. Scan what changed in the source, embed it with the target's model, write it, move the mark.

A mark never passes anything that is not acknowledged in the target or kept among the failed. Each copy carries `origin`, the sequence number
it had in the source, and a version made of turn, primary term and sequence number: repeating a window is harmless and costs no embedding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np

from osembed.errors import RefusedError
from osembed.migrate.copy.level_copy import PAGE, LevelCopy, Marks, Outdated, version_of
from osembed.migrate.copy.window import CopyCounts, Window, document_of, paths_of, refuse_foreign
from osembed.models.identity import text_hash
from osembed.opensearch import changes, operation, reads, scan
from osembed.opensearch.bulk import BulkLoop
from osembed.opensearch.checkpoints import whole_checkpoints
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.documents import Stored
from osembed.opensearch.operation import Operation
from osembed.opensearch.patience import until_settled
from osembed.opensearch.scan import StoredDocument
from osembed.opensearch.sight import Witnesses
from osembed.passages.passage import stored_passage
from osembed.stream import staged


class Copier:
    """Copies levels. `settle` is called after each window, from one thread at a time, and moves the mark; `between` before each, and may
    wait or raise."""

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
        """Copy everything that changed since the marks, up to now. Raises Outdated when this holder was replaced."""
        total = CopyCounts()

        def attempt() -> None:
            total.add(self._pass(marks()))

        until_settled(attempt, self._between, progress=lambda: self._done)
        return total

    def copy_now(self, level_copy: LevelCopy, docs: list[StoredDocument]) -> CopyCounts:
        """Copy documents that were just read, over whatever the target has under their ids (a repair: the target strayed)."""
        window = self._embedded(self._prepared(Window(level_copy, -1, -1, docs), trust=False))
        there = scan.read_now(self._client, level_copy.target.index, [(doc.id, doc.routing) for doc in docs])
        operations = []
        for doc in docs:
            document = document_of(window, doc)
            old = there.get(doc.id)
            if old is None:
                operations.append(operation.copy(level_copy.alias, doc.id, document, version_of(level_copy, doc), doc.routing))
            else:  # whoever wrote it gave it a newer version: only compare-and-set gets past that
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
                    self._embedded(window)
                    if pending:
                        total.add(pending.result())
                    pending = writer.submit(self._write, window)
                if pending:
                    total.add(pending.result())
            finally:
                prepared.close()
        return total

    def _windows(self, marks: Marks) -> Iterator[Window]:
        """Yield what changed, shard by shard; a last window without documents carries the mark over the holes."""
        for level_copy in self._lanes:
            index = level_copy.source.index
            at = whole_checkpoints(self._client, index)
            changes.refresh(self._client, index)
            for shard, point in sorted(at.items()):
                mark = marks[level_copy.level].get(str(shard), -1)
                last, excluded = mark, () if level_copy.carries else ("embedding",)
                for page in scan.scan(self._client, index, shard, mark, point, size=PAGE[level_copy.level], excluded=excluded):
                    last = page[-1].seq
                    yield Window(level_copy, shard, last, page, seen=len(page))
                if point.safe > last:
                    yield Window(level_copy, shard, point.safe, [])

    def _prepared(self, window: Window, trust: bool = True) -> Window:
        """Leave out what is already there, carry vectors of the same space, tokenise the rest."""
        level_copy = window.level_copy
        if window.docs and trust:
            refuse_foreign(window)
            there = scan.read_now(self._client, level_copy.target.index, [(doc.id, doc.routing) for doc in window.docs])
            window.docs = [doc for doc in window.docs if doc.id not in there or there[doc.id].version != version_of(level_copy, doc)]
        identity, missing = level_copy.target.meta.identity, {}
        for doc in window.docs:
            passage = stored_passage(level_copy.encoder.model.spec, level_copy.level, doc.fields)
            if not passage:
                continue
            key = window.hashes[doc.id] = text_hash(passage)
            old = Stored((doc.seq, doc.term), doc.fields).vector(identity.hash, key, identity.dimension) if level_copy.carries else None
            if old is not None:
                window.vectors[key] = old
                if doc.fields.get("token_count"):
                    window.counts[key] = int(doc.fields["token_count"])
            else:
                missing[key] = passage
        missing = {key: passage for key, passage in missing.items() if key not in window.vectors}
        if missing:
            window.tokens = level_copy.encoder.tokeniser.tokenise(list(missing.values()))
            window.counts.update(zip(missing, window.tokens.counts, strict=True))
        return window

    def _embedded(self, window: Window) -> Window:
        if window.tokens is not None:
            vectors = window.level_copy.encoder.embed(window.tokens)
            window.vectors.update(zip(map(text_hash, window.tokens.texts), vectors, strict=True))
            window.embedded = len(window.tokens)
        return window

    def _write(self, window: Window) -> CopyCounts:
        level_copy = window.level_copy
        copied = CopyCounts(window.seen, embedded=window.embedded, tokens=window.tokens.read if window.tokens else 0)
        fresh = set(map(text_hash, window.tokens.texts)) if window.tokens else set()
        copied.carried = sum(key not in fresh for key in window.hashes.values())
        if window.docs:
            self._map_new_fields(window)
            operations: list[Operation] = []
            sent: dict[str, dict[str, Any]] = {}
            for doc in window.docs:
                vector = window.vectors.get(window.hashes.get(doc.id, ""))
                if vector is not None and not (np.isfinite(vector).all() and vector.any()):
                    copied.failed[doc.id] = "its vector is zero or not finite"
                    continue
                sent[doc.id] = document_of(window, doc)
                operations.append(operation.copy(level_copy.alias, doc.id, sent[doc.id], version_of(level_copy, doc), doc.routing))
            outcome = self._loop.send(operations)
            if outcome.blocked:
                raise Outdated(f"the target refuses writes to {outcome.blocked[0]}")
            chosen = self._witnesses.choose(level_copy.target.place, sent)
            routings = {doc.id: doc.routing for doc in window.docs}
            self._witnesses.leave(level_copy.target.place, {key: sent[key] for key in chosen}, outcome.versions, routings)
            copied.written = outcome.done + len(outcome.conflicts)
            copied.failed.update(outcome.rejected)
            self._take_out(level_copy, [doc for doc in window.docs if doc.id in copied.failed])
        self._settle(window, copied)
        self._done += 1
        return copied

    def _take_out(self, level_copy: LevelCopy, docs: list[StoredDocument]) -> None:
        """Delete from the target what could not be copied: an old version of it there would be a lie."""
        if docs:
            routed = {doc.id: doc.routing for doc in docs}
            there = scan.read_now(self._client, level_copy.target.index, list(routed.items()))
            outcome = self._loop.send(
                operation.delete(level_copy.alias, key, (old.seq, old.term), routed[key]) for key, old in there.items()
            )
            if outcome.blocked:
                raise Outdated("the target refuses deletes")

    def _map_new_fields(self, window: Window) -> None:
        """Give the target the mapping of fields that appeared in the source since it was made, types included."""
        level_copy, names = window.level_copy, set().union(*(paths_of(doc.fields) for doc in window.docs))
        known = self._known.setdefault(level_copy.target.index, set())
        if names <= known:
            return
        properties = reads.properties(self._client, level_copy.source.index)
        properties.pop("embedding", None)
        with suppress(RefusedError):  # mapped otherwise there by somebody: the documents are refused one by one, with the reason
            changes.put_mapping(self._client, level_copy.target.index, {"properties": properties})
        known |= names


def per_second(count: int, began: float) -> float:
    """Return a rate since a moment of the monotonic clock."""
    return count / max(time.monotonic() - began, 1e-6)
