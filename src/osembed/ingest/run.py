"""The ingest flow: read → prepare → embed → write. Each stage runs in a thread ahead of the next; memory is bounded by a few windows."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import orjson

from osembed.embed.encoders import Encoders
from osembed.errors import MissingError
from osembed.ingest.delete import require_writes
from osembed.ingest.intake import Batch, Intake
from osembed.ingest.loading import Opened
from osembed.ingest.prepare import Reading, Window, chunk_operations, paper_operation, prepare_window, without_papers
from osembed.ingest.prune import Pruner
from osembed.ingest.summary import Summary
from osembed.models.identity import text_hash
from osembed.opensearch import changes, indexes, sight
from osembed.opensearch.bulk import BulkLoop, Outcome
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.fence import FenceWait
from osembed.opensearch.coordination.journal import Journal
from osembed.opensearch.documents import chunk_id, paper_of, read_documents
from osembed.opensearch.operation import Operation
from osembed.opensearch.patience import until_settled
from osembed.opensearch.sight import Witnesses
from osembed.opensearch.target import Targets
from osembed.papers.levels import LEVELS, Level
from osembed.papers.metadata import note_dropped
from osembed.papers.paper import Paper
from osembed.papers.records import Rejected
from osembed.stream import staged

if TYPE_CHECKING:
    from osembed.embed.native.encoder import Encoder

T = TypeVar("T")
_REDOS = 12  # attempts to write a paper that others keep changing
_UNREADABLE = 0.1  # share of unknown tokens that triggers a warning; in a script that the model knows it is a few per thousand
Progress = Callable[[Summary], None]


class Ingest:
    """One run over one input."""

    def __init__(self, client: OpenSearch, opened: Opened, encoders: Encoders, intake: Intake) -> None:
        self._client, self._encoders, self._intake = client, encoders, intake
        self._collection = opened.targets["papers"].meta.collection
        self._targets, self._entry = opened.targets, opened.entry
        self._journal = Journal(client)
        self._redo: dict[str, Paper] = {}
        self._tries: Counter[str] = Counter()
        self._blocked: set[str] = set()
        self._ended = threading.Event()
        self._report: Callable[[str], None] = lambda _: None
        self._witnesses = Witnesses(client)
        self._late = self._warned = False
        self._pruner = Pruner(client, self._collection, intake.inventory, lambda text: self._report(text))
        self.summary = intake.summary

    def run(self, progress: Progress, report: Callable[[str], None]) -> Summary:
        """Read, embed and write; return the summary when every paper is written or rejected. Does not publish."""
        self._report, self._started = report, time.monotonic()
        summary = self.summary
        for level in LEVELS:
            encoder = self._encoder(level)
            summary.models[level], summary.backends[level] = self._targets[level].meta.model, encoder.backend
        self._prove_sight()
        self._pruner.load()
        loop = BulkLoop(self._client, report=report)
        try:
            require_writes(self._client, self._targets, loop)
            self._stream(self._intake.windows(), loop, progress)
            self._late = True
            self._stream(self._intake.late_windows(), loop, progress)
            self._refresh()
            if summary.indexed:
                self._prove_sight()  # a security rule may hide exactly what was just written
            if self._intake.options.prune:
                self._intake.look_again()
                self._pruner.prune(summary, self._now, loop, self._intake.options.max_delete)
                self._refresh()
        finally:
            loop.close()
        self._intake.finish()
        summary.seconds["wall"] = time.monotonic() - self._started
        return summary

    def _stream(self, batches: Iterator[Batch], loop: BulkLoop, progress: Progress) -> None:
        """Pass batches through all stages."""
        prepared = staged(map(self._prepare_batch, staged(batches)))
        embedded = staged(map(self._embed, prepared))
        try:
            for window in embedded:
                self._write(window, loop)
                self._write_again(loop)
                self.summary.done = self._intake.share(window.bytes_read)
                self.summary.seconds["wall"] = time.monotonic() - self._started
                progress(self.summary)
        except BaseException:
            self._ended.set()  # stop the embedding of a window that will not be written
            raise
        finally:
            for stage in (embedded, prepared):
                stage.close()

    def _prove_sight(self) -> None:
        """Raise an error if this user sees only part of the collection: comparing papers with a part would be wrong."""
        self._settled(lambda: sight.prove(self._client, [target.place for target in self._now().values()]))

    def _settled(self, attempt: Callable[[], T]) -> T:
        """Run an attempt, waiting and reporting while the server is unavailable."""
        return until_settled(attempt, report=lambda text: self._report(text))

    def _encoder(self, level: Level) -> Encoder:
        return self._settled(lambda: self._encoders.of(self._targets[level].meta.stored_model, self._journal.recall_witness))

    def _refresh(self) -> None:
        """Refresh the indexes, so that tallies of chunks see what was written. Indexes deleted by a migration are skipped."""
        for level in LEVELS:
            with suppress(MissingError):
                self._settled(lambda level=level: changes.refresh(self._client, self._targets[level].index))  # type: ignore[misc]

    def _prepare_batch(self, batch: Batch) -> Window:
        self._pruner.claim(batch.held)
        window = self._prepare(batch.papers)
        window.bytes_read = batch.bytes_read
        return window

    def _prepare(self, papers: Sequence[Paper]) -> Window:
        if not papers:
            return Window(self._targets)
        for last in (False, False, True):
            targets = self._now()  # a migration may have moved the collection since the last window
            try:
                window = self._settled(partial(self._compare, targets, papers))
            except MissingError:  # a migration has just moved it and deleted its old indexes
                if last:
                    raise
                continue
            for paper in window.waiting:
                self._intake.wait(paper, last=False)
            return window
        raise AssertionError("unreachable")

    def _compare(self, targets: Targets, papers: Sequence[Paper]) -> Window:
        waits = (lambda *_: False) if self._late else self._intake.comes_later
        window = prepare_window(self._client, targets, self._readings(targets), papers, waits)
        former = {paper.former: paper for paper in papers if paper.former}
        if former:
            stored = read_documents(self._client, targets["papers"], list(former), ["title"])
            self._intake.seen.note_former(
                {key: former[key].id for key, old in stored.items() if old.fields.get("title") == former[key].title}
            )
        return window

    def _readings(self, targets: Targets) -> dict[Level, Reading]:
        encoders = {level: self._encoders.of(targets[level].meta.stored_model, self._journal.recall_witness) for level in LEVELS}
        return {level: Reading(encoder.model.spec, encoder.tokeniser) for level, encoder in encoders.items()}

    def _embed(self, window: Window) -> Window:
        started = time.perf_counter()
        for level in LEVELS:
            meta = window.targets[level].meta
            tokens = window.tokens.pop(meta.identity.hash, None)
            if tokens is None:
                continue
            encoder = self._settled(partial(self._encoders.of, meta.stored_model, self._journal.recall_witness))
            vectors = encoder.embed(tokens, self._ended.is_set)
            keys = map(text_hash, tokens.texts)
            window.vectors[meta.identity.hash].update(zip(keys, vectors, strict=True))
            self.summary.embedded += len(tokens)
            self.summary.tokens += tokens.read
            self._count_unknown(tokens.unknown, meta.model)
        self.summary.seconds["forward"] += time.perf_counter() - started
        self.summary.seconds["tokenise"] += window.tokenise_s
        return window

    def _count_losses(self, window: Window) -> None:
        summary = self.summary
        summary.beyond += window.words_beyond
        summary.unseen += window.unseen
        for why, names in window.dropped.items():
            for name, count in names.items():
                note_dropped(summary.dropped, why, name, count)

    def _count_unknown(self, unknown: int, model: str) -> None:
        """Warn once if the model cannot read the papers' script."""
        summary = self.summary
        summary.unknown += unknown
        if not self._warned and summary.unknown > _UNREADABLE * summary.tokens:
            self._warned = True
            self._report(
                f"{summary.unknown / summary.tokens:.0%} of the tokens are unknown to {model}: it was not trained for this script, and vector "
                "search will find little. Use a multilingual model, such as paraphrase-multilingual-MiniLM-L12-v2 (`osembed models`)."
            )

    def _write(self, window: Window, loop: BulkLoop, *, again: bool = False) -> None:
        """Write chunks, then commit their papers. Papers with conflicts or blocked writes are kept for another try."""
        summary = self.summary
        if not again:  # what these papers lose was counted at their first try
            self._count_losses(window)
        self._intake.settle(window.unchanged, "unchanged")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        window = self._without_bad_vectors(window)
        started = time.perf_counter()
        operations = list(chunk_operations(window, now))
        summary.seconds["serialise"] += time.perf_counter() - started
        by_id = {work.paper.id: work.paper for work in window.works}
        outcome = self._send(loop, operations)
        window = without_papers(window, self._sort_out(outcome, by_id, paper_of))
        self._leave(window, "chunks", operations, outcome)
        started = time.perf_counter()
        commits = [paper_operation(window, work, now) for work in window.works]
        summary.seconds["serialise"] += time.perf_counter() - started
        outcome = self._send(loop, commits)
        window = without_papers(window, self._sort_out(outcome, by_id, lambda key: key))
        self._leave(window, "papers", commits, outcome)
        self._intake.settle([work.paper.id for work in window.works], "indexed")
        summary.chunks += sum(len(work.chunks) for work in window.works)

    def _leave(self, window: Window, level: Level, operations: Sequence[Operation], outcome: Outcome) -> None:
        """Store witnesses of what was written, by which later commands detect whether fields are hidden from their user."""
        place = window.targets[level].place
        shown = {
            work.paper.id if level == "papers" else chunk_id(work.paper.id, 0): {"paper_id": work.paper.id, "meta": work.meta}
            for work in window.works
            if level == "papers" or work.chunks
        }
        chosen = set(self._settled(lambda: self._witnesses.choose(place, shown)))
        sent = {operation.id: orjson.loads(operation.document) for operation in operations if operation.id in chosen and operation.document}
        if sent:
            self._settled(lambda: self._witnesses.leave(place, sent, outcome.versions))

    def _send(self, loop: BulkLoop, operations: list[Operation]) -> Outcome:
        started = time.perf_counter()
        outcome = loop.send(operations)
        self.summary.seconds["server"] += time.perf_counter() - started
        return outcome

    def _sort_out(self, outcome: Outcome, papers: Mapping[str, Paper], owner: Callable[[str], str]) -> set[str]:
        """Keep papers whose operations failed for another try, or reject them. Returns their ids."""
        failed: set[str] = set()
        self._blocked.update(owner(key) for key in outcome.blocked)
        for key in (*outcome.conflicts, *outcome.blocked):
            self._redo[owner(key)] = papers[owner(key)]
            failed.add(owner(key))
        for key, reason in outcome.rejected.items():
            paper = papers[owner(key)]
            if paper.id in failed:
                continue
            failed.add(paper.id)
            if "failed to parse" in reason and self._tries[paper.id] == 0:
                self._redo[paper.id] = paper  # another writer mapped a metadata field first: retry with that mapping
            else:
                self._intake.reject(Rejected(f"refused by the server: {reason}", paper.source, paper.fields))
        return failed

    def _write_again(self, loop: BulkLoop) -> None:
        """Process papers again, from reading the stored version on, if another writer changed them or their index was fenced."""
        turn, fence_wait = 0, FenceWait(self._client, self._collection, self._report)
        while self._redo:
            papers, self._redo = list(self._redo.values()), {}
            if self._blocked:  # a migration is swapping: wait, then write to the new indexes with the new model
                self._blocked.clear()
                until_settled(lambda: self._entry.check(surely=True))  # raises DroppedError if a drop caused the block
                fence_wait.wait()
            else:
                self._tries.update(paper.id for paper in papers)
                time.sleep(random.uniform(0, min(3.0, 0.05 * 2**turn)))
                turn += 1
            for paper in papers:
                if self._tries[paper.id] > _REDOS:
                    self._intake.reject(Rejected("kept changing under this ingest", paper.source, paper.fields))
            papers = [paper for paper in papers if self._tries[paper.id] <= _REDOS]
            self._targets = self._now()
            self._refresh()
            if papers:
                self._write(self._embed(self._prepare(papers)), loop, again=True)

    def _now(self) -> Targets:
        """Return the collection's current indexes: a migration may have moved it.

        Raises DroppedError if it was dropped, even if it has been created again since.
        """
        self._settled(self._entry.check)
        published = self._settled(lambda: indexes.resolve(self._client, self._collection))
        if published:
            return published
        now = {level: target.index for level, target in self._targets.items()}
        return self._settled(lambda: indexes.resolve_indexes(self._client, now))

    def _without_bad_vectors(self, window: Window) -> Window:
        """Reject papers with a vector that is zero or not finite. The server would refuse them or, worse, rank them."""
        bad: dict[str, set[str]] = {
            identity: {key for key, vector in vectors.items() if not np.isfinite(vector).all() or not vector.any()}
            for identity, vectors in window.vectors.items()
        }
        if not any(bad.values()):
            return window
        chunk_bad = bad.get(window.targets["chunks"].meta.identity.hash, set())
        paper_bad = bad.get(window.targets["papers"].meta.identity.hash, set())
        failed = set()
        for work in window.works:
            if text_hash(work.passage) in paper_bad or any(text_hash(passage) in chunk_bad for passage in work.passages):
                failed.add(work.paper.id)
                self._intake.reject(Rejected("its vector is zero or not finite", work.paper.source, work.paper.fields))
        return without_papers(window, failed)
