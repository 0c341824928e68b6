"""The ingest flow: read → prepare → embed → write. Each stage runs in a thread ahead of the next; memory is bounded by a few windows."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from osembed.embed.encoders import Encoders
from osembed.embed.protocol import Encoder
from osembed.errors import MissingError
from osembed.ingest.delete import require_writes
from osembed.ingest.intake import Batch, Intake
from osembed.ingest.loading import Opened
from osembed.ingest.prepare import Reading, Window, prepare_window
from osembed.ingest.prune import Pruner
from osembed.ingest.summary import ProgressCallback, Summary
from osembed.ingest.write import Writer
from osembed.opensearch import changes, indexes, sight
from osembed.opensearch.bulk import BulkLoop
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.fence import FenceWait
from osembed.opensearch.coordination.journal import Journal
from osembed.opensearch.documents import read_documents
from osembed.opensearch.patience import Report, until_settled
from osembed.opensearch.schema import IndexMeta
from osembed.opensearch.sight import Witnesses
from osembed.opensearch.target import Targets
from osembed.papers.levels import LEVELS, Level
from osembed.papers.paper import Paper
from osembed.papers.records import Rejected
from osembed.stream import staged

T = TypeVar("T")
_REDOS = 12
_UNREADABLE = 0.1  # of the tokens; papers in a script that a model knows have some per thousand


class Ingest:
    """One run over one input."""

    def __init__(self, client: OpenSearch, opened: Opened, encoders: Encoders, intake: Intake) -> None:
        self._client, self._encoders, self._intake = client, encoders, intake
        self._collection = opened.targets["papers"].meta.collection
        self._targets, self._entry = opened.targets, opened.entry
        self._journal = Journal(client)
        self._ended = threading.Event()
        self._report: Report = lambda _: None
        self._late = self._warned = False
        self._pruner = Pruner(client, self._collection, intake.inventory, lambda text: self._report(text))
        self.summary = intake.summary

    def run(self, progress: ProgressCallback, report: Report) -> Summary:
        """Read, embed and write; return when every paper is settled. Does not publish."""
        self._report, self._started = report, time.monotonic()
        summary = self.summary
        for level in LEVELS:
            encoder = self._encoder(self._targets[level].meta)
            summary.models[level], summary.backends[level] = self._targets[level].meta.model, encoder.backend
        self._prove_sight()
        self._pruner.load()  # before the input is read: see `Pruner.load`
        loop = BulkLoop(self._client, report=report)
        self._writer = Writer(loop, self._intake, Witnesses(self._client), self._settled)
        try:
            require_writes(self._client, self._targets, loop)
            self._stream(self._intake.windows(), progress)
            self._late = True
            self._stream(self._intake.late_windows(), progress)
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

    def _stream(self, batches: Iterator[Batch], progress: ProgressCallback) -> None:
        """Let batches pass through all stages."""
        prepared = staged(map(self._prepare_batch, staged(batches)))
        embedded = staged(map(self._embed, prepared))
        try:
            for window in embedded:
                self._write(window)
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

    def _encoder(self, meta: IndexMeta) -> Encoder:
        return self._settled(partial(self._encoders.of, meta.stored_model, self._journal.recall_witness))

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
        # Papers may be stored under an id from an earlier version; an equal title confirms that it is the same paper.
        former = {paper.former: paper for paper in papers if paper.former}
        if former:
            stored = read_documents(self._client, targets["papers"], list(former), ["title"])
            self._intake.seen.note_former(
                {key: former[key].id for key, old in stored.items() if old.fields.get("title") == former[key].title}
            )
        return window

    def _readings(self, targets: Targets) -> dict[Level, Reading]:
        encoders = {level: self._encoder(targets[level].meta) for level in LEVELS}
        return {level: Reading(encoder.model.spec, encoder.tokeniser) for level, encoder in encoders.items()}

    def _embed(self, window: Window) -> Window:
        started = time.perf_counter()
        for level in LEVELS:
            encoder = self._encoder(window.targets[level].meta)
            tokens = window.vectors_of(level).embed(encoder, self._ended.is_set)
            if tokens is None:
                continue
            window.counts.embedded += len(tokens)
            window.counts.tokens += tokens.read
            window.counts.unknown += tokens.unknown
        window.counts.seconds["forward"] += time.perf_counter() - started
        return window

    def _write(self, window: Window) -> None:
        """Write a window, and what has to be written again, from the read on."""
        self._writer.write(window)
        self._write_again()
        self._warn_unknown()

    def _warn_unknown(self) -> None:
        """Warn, as soon as it is seen, of models that cannot read the papers' script."""
        summary = self.summary
        if not self._warned and summary.unknown > _UNREADABLE * summary.tokens:
            self._warned = True
            models = " and ".join(dict.fromkeys(summary.models.values()))
            self._report(
                f"{summary.unknown / summary.tokens:.0%} of the tokens are unknown to {models}, which cannot read this script: searches by "
                "meaning will find little. A multilingual model reads it, such as paraphrase-multilingual-MiniLM-L12-v2 (`osembed models`)."
            )

    def _write_again(self) -> None:
        """Redo papers that somebody else changed meanwhile, or whose index was fenced."""
        turn, fence_wait, redo = 0, FenceWait(self._client, self._collection, self._report), self._writer.redo
        while redo.papers:
            papers, blocked = redo.take()
            if blocked:  # a migration is swapping: wait, then write where the collection is then, with the model it has then
                until_settled(lambda: self._entry.check(surely=True))  # or its indexes are gone
                fence_wait.wait()
            else:
                redo.tries.update(paper.id for paper in papers)
                time.sleep(random.uniform(0, min(3.0, 0.05 * 2**turn)))
                turn += 1
            for paper in papers:
                if redo.tries[paper.id] > _REDOS:
                    self._intake.reject(Rejected("kept changing under this ingest", paper.source, paper.fields))
            papers = [paper for paper in papers if redo.tries[paper.id] <= _REDOS]
            self._targets = self._now()
            self._refresh()
            if papers:
                self._writer.write(self._embed(self._prepare(papers)), again=True)

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
