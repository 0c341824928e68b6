"""The input of an ingest: group papers into windows, put rejected records aside with a reason, keep the last record of each id."""

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
from osembed.papers.records import Record, Rejected, printable_name
from osembed.papers.seen import SeenIds

SUPERSEDED = "superseded: a later record of this input has its id"
_WINDOW_PAPERS = 256  # a window ends at either limit, so that memory is bounded
_WINDOW_CHARS = 400_000
_SAMPLE_PAPERS = 20  # read before anything is created: they decide the language of a new collection
_NAMED = 10  # ids listed in the summary
_COLUMNS = 100  # field names remembered for hints


@dataclass(frozen=True)
class Batch:
    """Papers that pass through the stages together.

    Attributes:
        bytes_read: bytes of the input read up to the end of this batch.
        held: root → all ids found in it since the last batch, including those of rejected records.
    """

    papers: list[Paper]
    bytes_read: int = 0
    held: dict[str, list[str]] = field(default_factory=dict)


class Intake:
    """One input, read once.

    Attributes:
        options: how to read it.
        sample: the first papers; empty before `look`.
        notice: a notice about the first papers, or "".
        inventory: which papers each folder and file holds.

    Raises:
        InputError: a path does not exist, or there is no file to read.
    """

    def __init__(self, papers: Sequence[str] | Dicts, options: IngestOptions, collection: str, only: Container[Path] | None = None) -> None:
        self.options = options
        self._name = "The given data" if isinstance(papers, Dicts) else ", ".join(printable_name(str(path)) for path in papers)
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
        """Read the first few papers. Raises NoPapersError if there are none, before anything is created."""
        papers, marks, chars = self._papers, list[int](), 0
        # Standard input may be slow and endless: do not wait for a second paper there.
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
        """Yield papers in windows. Papers whose id appeared in an earlier window are kept until the end of the input."""
        for window in self._gathered(self._papers):
            for paper_id in self.seen.meet(window):
                self.wait(window.pop(paper_id), last=True)
            held, self._held = self._held, {}
            yield Batch(list(window.values()), self._bytes_read, held)

    def late_windows(self) -> Iterator[Batch]:
        """Yield the papers that were kept until the end. If only part of a folder is read, they wait for a run over the whole folder."""
        if self._is_part:
            self.summary.undecided = sum(1 for _ in self.seen.waiting())
            return
        papers = (to_paper(record, self.options.names, self.options.min_words) for record in self.seen.waiting())
        for window in self._gathered(paper for paper in papers if isinstance(paper, Paper)):
            yield Batch(list(window.values()), self._reader.bytes_read)

    def wait(self, paper: Paper, *, last: bool) -> None:
        """Keep a paper until the end of the input. If one with the same id is already kept, the last one wins."""
        loser = self.seen.wait(paper.id, Record(paper.fields, paper.source, paper.former), last=last)
        if loser:
            self._supersede(paper.id, loser.source, loser.fields)

    def comes_later(self, paper: Paper, source: str) -> bool:
        """Return whether the paper stored from `source` is probably a later record of this input with the same id."""
        return source != paper.source and self._reader.has(source)

    def settle(self, ids: Sequence[str], outcome: str) -> None:
        """Count papers as indexed or unchanged. Earlier records with the same ids are then counted as superseded."""
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
        """Return the share of the input, from 0 to 1, that `bytes_read` bytes are; None if the size of the input is unknown."""
        return min(1.0, bytes_read / self._reader.bytes_total) if self._reader.bytes_total else None

    def finish(self) -> None:
        """Complete the summary at the end of the run."""
        summary = self.summary
        summary.skipped, summary.skipped_names = self._reader.skipped, self._reader.skipped_names
        for former, now in self.seen.doubled():
            summary.doubled_count += 1
            if len(summary.doubled) < _NAMED:
                summary.doubled[former] = now

    def look_again(self) -> None:
        """Mark roots that changed while they were read as incomplete: a paper that seems to be gone may be there now."""
        if isinstance(self._reader, Reader):
            for path, rejected in self._reader.changed():
                self.inventory.fail(path, rejected)

    def close(self) -> None:
        """Close the dead letters and delete the temporary files of ids."""
        self.summary.dead_letters = self._letters.close()
        self.seen.close()
        self.inventory.close()

    def nothing(self) -> NoPapersError:
        """Return the error for an input without papers."""
        summary = self.summary
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in summary.reasons.most_common(5))
        kept = self._letters.close()
        where = f"The changed part of {self._name}" if self._is_part else self._name
        found = f"{where} holds no paper that can be indexed: {summary.read:,} records read" + (f" ({reasons})." if reasons else ".")
        names = explain_names([name for name in self._columns if name != "raw"], self.options.names)
        return NoPapersError(found, names, f"They are kept in {kept}: fix them, then ingest that file." if kept else "")

    @property
    def is_empty(self) -> bool:
        """Whether an input that prunes holds no records at all."""
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
        """Note that a root holds this paper. Papers that name another source (dead letters, exported papers) do not come from this root."""
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
                f"{self._name} cannot be used to prune.",
                "Only folders and files with several papers show which papers are gone.",
                "Name the folder, or leave out --prune (`osembed config` shows whether it is set).",
            )

    def _check_letters(self) -> None:
        letters = self.options.dead_letters
        if letters and isinstance(self._reader, Reader) and self._reader.covers(Path(letters)):
            raise InputError(
                f"The dead letters {printable_name(letters)} are inside the input.",
                "Rejected records would be read and rejected again, without end.",
                "Use a file elsewhere: --dead-letters FILE.",
            )

    def _marked(self, seen: Iterable[tuple[Paper, int]], papers: Iterable[Paper]) -> Iterator[Paper]:
        """Yield the sampled papers, then the others. Before each one, `_bytes_read` is set to its position in the input."""
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
