"""What goes into an ingest: papers in windows, what is rejected put aside with its reason, of records with one id the last."""

from __future__ import annotations

import threading
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import cast

from osembed.errors import InputError, NoPapersError
from osembed.ingest.options import IngestOptions
from osembed.ingest.summary import Summary
from osembed.papers.columns import explain_names, explain_unmet
from osembed.papers.dead_letters import DeadLetters
from osembed.papers.exported import EXPORTED
from osembed.papers.inventory import Inventory
from osembed.papers.paper import Paper, normal_id, to_paper
from osembed.papers.readers.dicts import Dicts
from osembed.papers.readers.reader import Reader
from osembed.papers.records import Record, Rejected, printable
from osembed.papers.seen import SeenIds

SUPERSEDED = "superseded: a later record of this input has its id"
_WINDOW_PAPERS = 256
_WINDOW_CHARS = 400_000
_SAMPLE_PAPERS = 20
_NAMED = 10
_COLUMNS = 100


@dataclass(frozen=True)
class Batch:
    """Papers that go on together.

    Attributes:
        bytes_read: how many bytes of the input have been read with them.
        held: all ids met since the last batch, also of what was rejected, by their root.
    """

    papers: list[Paper]
    bytes_read: int = 0
    held: dict[str, list[str]] = field(default_factory=dict)


class Intake:
    """One input, read once.

    Attributes:
        options: how it is read.
        sample: the first papers, once it was looked at.
        notice: what a person should know of them.
        inventory: what its folders and files have.

    Raises:
        InputError: a path is not there, or there is no file to read.
    """

    def __init__(self, papers: Sequence[str] | Dicts, options: IngestOptions, collection: str, only: Container[Path] | None = None) -> None:
        self.options = options
        self._name = "What was handed over" if isinstance(papers, Dicts) else ", ".join(printable(str(path)) for path in papers)
        self._reader: Reader | Dicts = (
            replace(papers, names=options.names)
            if isinstance(papers, Dicts)
            else Reader(papers, options.names, only=only, may_be_empty=options.prune)
        )
        self.inventory = Inventory(self._reader.roots)
        self._check_roots()
        self._check_letters()
        self._letters = DeadLetters(options.dead_letters, collection)
        self._lock = threading.Lock()
        self._columns: dict[str, None] = {}
        self._papers: Iterator[Paper] = self._read()
        self.sample: list[Paper] = []
        self.notice = ""
        self._bytes_read = 0
        self._is_part = only is not None
        self._held: dict[str, list[str]] = {}
        self.seen = SeenIds()
        self.summary = Summary(collection)

    def look(self) -> None:
        """Read the first few papers. Raises NoPapersError where there is none, before anything is created for it."""
        papers, marks, chars = self._papers, list[int](), 0
        # What has no end may come slowly: there nothing waits for a second paper.
        for paper in islice(papers, _SAMPLE_PAPERS if self._reader.bytes_total else 1):
            self.sample.append(paper)
            marks.append(self._reader.bytes_read)
            chars += len(paper.text)
            if chars >= _WINDOW_CHARS:
                break
        if not self.sample and not self.is_empty:
            raise self.nothing()
        named = [paper.fields for paper in self.sample if EXPORTED not in paper.fields]
        if named and not self._is_part:
            self.notice = explain_unmet(list(dict.fromkeys(name for fields in named for name in fields)), self.options.names)
        self._papers = self._marked(zip(self.sample, marks, strict=True), papers)

    def windows(self) -> Iterator[Batch]:
        """Gather papers into windows; those with an id that was met before wait for the end."""
        for window in self._gathered(self._papers):
            for paper_id in self.seen.meet(window):
                self.wait(window.pop(paper_id), last=True)
            held, self._held = self._held, {}
            yield Batch(list(window.values()), self._bytes_read, held)

    def late_windows(self) -> Iterator[Batch]:
        """Gather the papers that waited for the end; those of a part of a folder wait for the whole."""
        if self._is_part:
            self.summary.undecided = sum(1 for _ in self.seen.waiting())
            return
        papers = (to_paper(record, self.options.names, self.options.min_words) for record in self.seen.waiting())
        for window in self._gathered(paper for paper in papers if isinstance(paper, Paper)):
            yield Batch(list(window.values()), self._reader.bytes_read)

    def wait(self, paper: Paper, *, last: bool) -> None:
        """Let a paper wait for the end of the input; of two with one id that wait the last stays."""
        loser = self.seen.wait(paper.id, Record(paper.fields, paper.source, paper.former), last=last)
        if loser:
            self._supersede(paper.id, loser.source, loser.fields)

    def comes_later(self, paper: Paper, source: str) -> bool:
        """Whether what is stored from `source` is probably a later record of this input with the same id."""
        return source != paper.source and self._reader.has(source)

    def settle(self, ids: Sequence[str], outcome: str) -> None:
        """Count papers as indexed or unchanged, and what an earlier record with the same id was as superseded by it."""
        summary = self.summary
        setattr(summary, outcome, getattr(summary, outcome) + len(ids))
        for paper_id, earlier in self.seen.settle(ids, outcome).items():
            setattr(summary, earlier, getattr(summary, earlier) - 1)
            self._supersede(paper_id, "an earlier place of this input", {"id": paper_id})

    def reject(self, rejected: Rejected) -> None:
        """Count a rejected record and write it to the dead letters."""
        reason = rejected.reason
        with self._lock:
            self.summary.rejected += 1
            self.summary.reasons[reason.split(": ")[0] if reason.startswith(("not JSON", "superseded")) else reason[:120]] += 1
            self._letters.write(rejected)

    def share(self, bytes_read: int) -> float | None:
        """Return which share of the input so many bytes are; None where nobody knows how much there is."""
        return min(1.0, bytes_read / self._reader.bytes_total) if self._reader.bytes_total else None

    def finish(self) -> None:
        """Complete the summary."""
        summary = self.summary
        summary.skipped, summary.skipped_names = self._reader.skipped, self._reader.skipped_names
        for former, now in self.seen.doubled():
            summary.doubled_count += 1
            if len(summary.doubled) < _NAMED:
                summary.doubled[former] = now

    def look_again(self) -> None:
        """Note which roots have changed while they were read: what they seem to lack may stand there now."""
        if isinstance(self._reader, Reader):
            for path, rejected in self._reader.changed():
                self.inventory.fail(path, rejected)

    def close(self) -> None:
        """Close the dead letters and forget the ids."""
        self.summary.dead_letters = self._letters.close()
        self.seen.close()
        self.inventory.close()

    def nothing(self) -> NoPapersError:
        """Return what is to be said of an input without a paper."""
        summary = self.summary
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in summary.reasons.most_common(5))
        kept = self._letters.close()
        where = f"What has changed in {self._name}" if self._is_part else self._name
        found = f"{where} holds no paper that can be indexed: {summary.read:,} records read" + (f" ({reasons})." if reasons else ".")
        names = explain_names([name for name in self._columns if name != "raw"], self.options.names)
        return NoPapersError(found, names, f"They are kept in {kept}: mend them, then ingest that file." if kept else "")

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing at all in what is to be pruned by."""
        return self.options.prune and not self.summary.read

    def _read(self) -> Iterator[Paper]:
        for record in self._reader:
            self.summary.read += 1
            paper = record if isinstance(record, Rejected) else to_paper(record, self.options.names, self.options.min_words)
            self._note(self._reader.root, paper)
            if isinstance(paper, Rejected):
                if len(self._columns) < _COLUMNS:
                    self._columns.update(dict.fromkeys(paper.fields))
                self.reject(paper)
            else:
                yield paper

    def _note(self, path: str, paper: Paper | Rejected) -> None:
        """Note that a root has this paper. It has not brought in what says that it comes from elsewhere: dead letters, exported papers."""
        root, paper_id = self.inventory.roots.get(path), normal_id(paper.paper_id) if isinstance(paper, Rejected) else paper.id
        if root is None:
            return
        if not paper_id:
            self.inventory.fail(path, cast(Rejected, paper))
        elif root.holds(paper.source):
            self._held.setdefault(path, []).append(paper_id)
        else:
            self.inventory.meet(path, [paper_id])

    def _check_roots(self) -> None:
        if self.options.prune and not self.inventory.roots:
            raise InputError(
                f"{self._name} is nothing to prune by.",
                "What is gone is known of folders, and of files with several papers.",
                "Name the folder, or leave --prune out (`osembed config` says whether it is set).",
            )

    def _check_letters(self) -> None:
        letters = self.options.dead_letters
        if letters and isinstance(self._reader, Reader) and self._reader.covers(Path(letters)):
            raise InputError(
                f"The dead letters {printable(letters)} are among what is read.",
                "What is rejected would be read and rejected again, without end.",
                "Name a file elsewhere: --dead-letters FILE.",
            )

    def _marked(self, seen: Iterable[tuple[Paper, int]], papers: Iterable[Paper]) -> Iterator[Paper]:
        """Yield the papers that were looked at, then the others; keep how far each stands in the input."""
        for paper, mark in seen:
            self._bytes_read = mark
            yield paper
        for paper in papers:
            self._bytes_read = self._reader.bytes_read
            yield paper
        self._bytes_read = self._reader.bytes_read

    def _gathered(self, papers: Iterable[Paper]) -> Iterator[dict[str, Paper]]:
        window: dict[str, Paper] = {}
        chars = 0
        for paper in papers:
            if paper.id in window:
                earlier = window[paper.id]
                self._supersede(paper.id, earlier.source, earlier.fields)
            window[paper.id] = paper
            chars += len(paper.text)
            if len(window) >= _WINDOW_PAPERS or chars >= _WINDOW_CHARS:
                yield window
                window, chars = {}, 0
        yield window

    def _supersede(self, paper_id: str, source: str, fields: dict[str, object]) -> None:
        if paper_id not in self.summary.superseded and len(self.summary.superseded) < _NAMED:
            self.summary.superseded.append(paper_id)
        self.reject(Rejected(SUPERSEDED, source, fields, "its id"))
