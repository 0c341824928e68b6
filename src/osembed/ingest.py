"""The ingest flow: read → prepare → embed → write, each stage a thread ahead of the next, memory bounded by a few windows."""

from __future__ import annotations

import os
import random
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import orjson

from osembed import index as indexes
from osembed.bulk import BulkLoop, Operation, Outcome
from osembed.client import OpenSearch
from osembed.encoders import Encoders
from osembed.errors import InputError, MissingError, OutputError
from osembed.fence import Turnstile
from osembed.generation import Opened
from osembed.identity import text_hash
from osembed.index import Targets
from osembed.journal import Journal
from osembed.limits import check_fields
from osembed.opensearch import changes, sight
from osembed.opensearch.patience import settled
from osembed.opensearch.sight import Witnesses
from osembed.paper import Paper, to_paper
from osembed.paths import data_folder
from osembed.prepare import Reading, Window, chunk_operations, paper_operation, prepare, without
from osembed.read import DEAD_LETTER, Reader, Record, Rejected
from osembed.schema import LEVELS, Level
from osembed.store import chunk_id, paper_of, require_writes
from osembed.stream import staged

if TYPE_CHECKING:
    from osembed.embed.encoder import Encoder

T = TypeVar("T")
DEFAULT_MIN_WORDS = 100
_WINDOW_PAPERS = 256
_WINDOW_CHARS = 400_000
_REDOS = 12


@dataclass(frozen=True)
class IngestOptions:
    """How an ingest reads its input.

    Attributes:
        min_words: fewest words of abstract and body together.
        names: osembed's field → the name that the input uses, such as {"title": "name"}.
        dead_letters: file for what was rejected; by default one in osembed's data folder, made only when needed.
    """

    min_words: int = DEFAULT_MIN_WORDS
    names: Mapping[str, str] = field(default_factory=dict)
    dead_letters: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        unknown = set(self.names) - {"id", "title", "abstract", "body", "meta"}
        if unknown:
            raise InputError(
                f"There is no field '{sorted(unknown)[0]}' to map.",
                "",
                "Use id, title, abstract, body or meta, like title=name.",
            )


@dataclass
class Summary:
    """What an ingest did; read = indexed + unchanged + rejected.

    Attributes:
        reasons: why papers were rejected, counted.
        embedded: passages that went through a model, `tokens` the tokens it read of them.
        unseen: tokens of chunks beyond the model's window: no model sees them.
        beyond: words after the last allowed chunk, which no model sees either.
        dropped: metadata fields that did not agree with the mapping, counted; their papers were kept.
        seconds: wall time, and within it per stage: tokenise, forward, serialise, server (stages overlap).
        published: False while another process still loads this first generation.
    """

    collection: str
    read: int = 0
    indexed: int = 0
    unchanged: int = 0
    rejected: int = 0
    chunks: int = 0
    embedded: int = 0
    tokens: int = 0
    unseen: int = 0
    beyond: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("wall", "tokenise", "forward", "serialise", "server"), 0.0))
    skipped: dict[str, int] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    backends: dict[str, str] = field(default_factory=dict)
    dead_letters: str | None = None
    published: bool = True
    done: float = 0.0


Progress = Callable[[Summary], None]


class Ingest:
    """One run over one input."""

    def __init__(self, client: OpenSearch, opened: Opened, encoders: Encoders, options: IngestOptions) -> None:
        self._client, self._encoders, self._options = client, encoders, options
        self._collection = opened.targets["papers"].meta.collection
        self._targets, self._entry = opened.targets, opened.entry
        self._journal = Journal(client)
        self._redo: dict[str, Paper] = {}
        self._tries: Counter[str] = Counter()
        self._blocked: set[str] = set()
        self._ended = threading.Event()
        self._report: Callable[[str], None] = lambda _: None
        self._letters = DeadLetters(options.dead_letters, self._collection)
        self._witnesses = Witnesses(client)
        self.summary = Summary(self._collection)

    def run(self, paths: Sequence[str], progress: Progress, report: Callable[[str], None]) -> Summary:
        """Read, embed and write; return when every paper is settled. Does not publish."""
        reader, self._report = Reader(paths), report
        summary, started = self.summary, time.monotonic()
        for level in LEVELS:
            encoder = self._encoder(level)
            summary.models[level], summary.backends[level] = self._targets[level].meta.model, encoder.backend
        self._prove_sight()
        loop = BulkLoop(self._client, report=report)
        try:
            require_writes(self._client, self._targets, loop)
        except BaseException:
            loop.close()
            raise
        prepared = staged(map(self._prepare, staged(self._windows(reader))))
        embedded = staged(map(self._embed, prepared))
        try:
            for window in embedded:
                self._write(window, loop)
                self._write_again(loop)
                summary.done = reader.bytes_read / reader.bytes_total if reader.bytes_total else 0.0
                summary.seconds["wall"] = time.monotonic() - started
                progress(summary)
            self._refresh()
            if summary.indexed:
                self._prove_sight()  # a rule may hide just what was written now
        finally:
            self._ended.set()  # an interrupted run does not wait for a window to be embedded that nobody will write
            for stage in (embedded, prepared):
                stage.close()
            loop.close()
            summary.dead_letters = self._letters.close()
        summary.skipped = reader.skipped
        summary.seconds["wall"] = time.monotonic() - started
        return summary

    def _prove_sight(self) -> None:
        """Refuse to compare papers with a collection of which this user sees a part."""
        self._settled(lambda: sight.prove(self._client, [target.place for target in self._now().values()]))

    def _settled(self, attempt: Callable[[], T]) -> T:
        """Wait for a server that is away or short of something, and say so."""
        return settled(attempt, report=lambda text: self._report(text))

    def _encoder(self, level: Level) -> Encoder:
        return self._settled(lambda: self._encoders.of(self._targets[level].meta, self._journal))

    def _refresh(self) -> None:
        """Make visible what was written, so that the tallies of chunks see it; an index that is gone needs none."""
        for level in LEVELS:
            with suppress(MissingError):
                self._settled(lambda level=level: changes.refresh(self._client, self._targets[level].index))  # type: ignore[misc]

    def _windows(self, records: Iterable[Record | Rejected]) -> Iterator[list[Paper]]:
        """Gather papers into windows; of two with one id in a window the later wins."""
        window: dict[str, Paper] = {}
        chars = 0
        for record in records:
            self.summary.read += 1
            paper = record if isinstance(record, Rejected) else to_paper(record, self._options.names, self._options.min_words)
            if isinstance(paper, Rejected):
                self._reject(paper)
                continue
            if paper.id in window:
                self._count_rejected("duplicate id: a later record of this input won")
            window[paper.id] = paper
            chars += len(paper.text)
            if len(window) >= _WINDOW_PAPERS or chars >= _WINDOW_CHARS:
                yield list(window.values())
                window, chars = {}, 0
        yield list(window.values())

    def _prepare(self, papers: Sequence[Paper]) -> Window:
        if not papers:
            return Window(self._targets)
        for last in (False, False, True):
            targets = self._now()  # a migration may have moved the collection since the last window
            try:
                return self._settled(lambda targets=targets: prepare(self._client, targets, self._readings(targets), papers))  # type: ignore[misc]
            except MissingError:  # it moved just now, and its old indexes are gone
                if last:
                    raise
        raise AssertionError("unreachable")

    def _readings(self, targets: Targets) -> dict[Level, Reading]:
        encoders = {level: self._encoders.of(targets[level].meta, self._journal) for level in LEVELS}
        return {level: Reading(encoder.model.spec, encoder.tokeniser) for level, encoder in encoders.items()}

    def _embed(self, window: Window) -> Window:
        started = time.perf_counter()
        for level in LEVELS:
            meta = window.targets[level].meta
            tokens = window.tokens.pop(meta.identity.hash, None)
            if tokens is None:
                continue
            encoder = self._settled(lambda meta=meta: self._encoders.of(meta, self._journal))  # type: ignore[misc]
            vectors = encoder.embed(tokens, self._ended.is_set)
            keys = map(text_hash, tokens.texts)
            window.vectors[meta.identity.hash].update(zip(keys, vectors, strict=True))
            self.summary.embedded += len(tokens)
            self.summary.tokens += tokens.read
        self.summary.seconds["forward"] += time.perf_counter() - started
        self.summary.seconds["tokenise"] += window.tokenise_s
        return window

    def _write(self, window: Window, loop: BulkLoop) -> None:
        """Write chunks, then commit their papers; what conflicts or is blocked is kept for another try."""
        summary = self.summary
        summary.unchanged += window.unchanged
        summary.beyond += window.words_beyond
        summary.unseen += window.unseen
        summary.dropped.update(window.dropped)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        window = self._without_bad_vectors(window)
        started = time.perf_counter()
        operations = list(chunk_operations(window, now))
        summary.seconds["serialise"] += time.perf_counter() - started
        by_id = {work.paper.id: work.paper for work in window.works}
        outcome = self._send(loop, operations)
        window = without(window, self._sort_out(outcome, by_id, paper_of))
        self._leave(window, "chunks", operations, outcome)
        started = time.perf_counter()
        commits = [paper_operation(window, work, now) for work in window.works]
        summary.seconds["serialise"] += time.perf_counter() - started
        outcome = self._send(loop, commits)
        window = without(window, self._sort_out(outcome, by_id, lambda key: key))
        self._leave(window, "papers", commits, outcome)
        summary.indexed += len(window.works)
        summary.chunks += sum(len(work.chunks) for work in window.works)

    def _leave(self, window: Window, level: Level, operations: Sequence[Operation], outcome: Outcome) -> None:
        """Leave witnesses of what was written: whoever comes next can see by them whether fields are hidden from it."""
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
        """Put papers whose operations failed where they belong: another try, or the dead letters. Return their ids."""
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
                self._redo[paper.id] = paper  # another writer mapped a metadata field first: try with their mapping
            else:
                self._reject(Rejected(f"refused by the server: {reason}", paper.source, paper.fields))
        return failed

    def _write_again(self, loop: BulkLoop) -> None:
        """Redo papers that somebody else changed meanwhile, or whose index was fenced, from the read on."""
        turn, turnstile = 0, Turnstile(self._client, self._collection, self._report)
        while self._redo:
            papers, self._redo = list(self._redo.values()), {}
            if self._blocked:  # a migration is swapping: wait, then write where the collection is then, with the model it has then
                self._blocked.clear()
                settled(lambda: self._entry.check(surely=True))  # or its indexes are gone
                turnstile.wait()
            else:
                self._tries.update(paper.id for paper in papers)
                time.sleep(random.uniform(0, min(3.0, 0.05 * 2**turn)))
                turn += 1
            for paper in papers:
                if self._tries[paper.id] > _REDOS:
                    self._reject(Rejected("kept changing under this ingest", paper.source, paper.fields))
            papers = [paper for paper in papers if self._tries[paper.id] <= _REDOS]
            self._targets = self._now()
            self._refresh()
            if papers:
                self._write(self._embed(self._prepare(papers)), loop)

    def _now(self) -> Targets:
        """Return the indexes that the collection consists of at this moment: a migration may have moved it.

        Raises DroppedError where it was dropped, even if it was made anew since.
        """
        self._settled(self._entry.check)
        published = self._settled(lambda: indexes.resolve(self._client, self._collection))
        if published:
            return published
        now = {level: target.index for level, target in self._targets.items()}
        return self._settled(lambda: indexes.resolve_indexes(self._client, now))

    def _without_bad_vectors(self, window: Window) -> Window:
        """Reject papers of which a vector is zero or not finite; the server would refuse or, worse, rank them."""
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
                self._reject(Rejected("its vector is zero or not finite", work.paper.source, work.paper.fields))
        return without(window, failed)

    def _reject(self, rejected: Rejected) -> None:
        self._count_rejected(rejected.reason)
        self._letters.write(rejected)

    def _count_rejected(self, reason: str) -> None:
        self.summary.rejected += 1
        self.summary.reasons[reason.split(": ")[0] if reason.startswith("not JSON") else reason[:120]] += 1


class DeadLetters:
    """A JSONL file of what was rejected, with the reason; `osembed ingest FILE` reads it again. Readable by its owner only."""

    def __init__(self, path: str | None, collection: str) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        self._path = Path(path) if path else data_folder() / "dead-letters" / f"{collection}-{stamp}-{os.getpid()}.jsonl"
        self._file: int | None = None

    def write(self, rejected: Rejected) -> None:
        """Append one rejected record."""
        line = {DEAD_LETTER: rejected.reason, "source": rejected.source, "record": rejected.fields}
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._append(self._file, orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE))
        except OSError as error:
            raise OutputError(
                f"The dead letters cannot be written to {self._path}: {error.strerror}.",
                "A rejected paper would go unnoticed. What was acknowledged is kept.",
                "Make room there, or name another file with --dead-letters FILE; then run the same command again.",
            ) from error

    def _append(self, file: int, line: bytes) -> None:
        """Append a line, whole or not at all: a disk that fills up takes a part of it first."""
        before, left = os.fstat(file), line
        try:
            while left:
                left = left[os.write(file, left) :]
        except OSError:
            if stat.S_ISREG(before.st_mode):
                os.ftruncate(file, before.st_size)
            raise

    def close(self) -> str | None:
        """Close the file; return its path, or None where nothing was rejected."""
        if self._file is None:
            return None
        os.close(self._file)
        return str(self._path)
