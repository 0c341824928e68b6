"""Write a window: its chunks first, then the papers that commit them.

What the server did not take is tried again, or becomes a dead letter.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson

from osembed.embed.passage_vectors import BAD_VECTOR
from osembed.ingest.intake import Intake
from osembed.ingest.prepare import Window, Work, without_papers
from osembed.opensearch import operation
from osembed.opensearch.bulk import BulkLoop, Outcome
from osembed.opensearch.documents import chunk_id, paper_of
from osembed.opensearch.operation import Operation
from osembed.opensearch.sight import Witnesses
from osembed.papers.levels import Level
from osembed.papers.paper import Paper
from osembed.papers.records import Rejected

T = TypeVar("T")
Settle = Callable[[Callable[[], T]], T]


@dataclass
class Redo:
    """Papers that are to be done again, from the read on.

    Attributes:
        papers: by id.
        tries: how often each has been done again.
        is_blocked: whether one of them met an index that takes no writes: a migration is swapping.
    """

    papers: dict[str, Paper] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)
    is_blocked: bool = False

    def take(self) -> tuple[list[Paper], bool]:
        """Return the papers and whether one of them met a block; nothing is left to be done again then."""
        papers, blocked = list(self.papers.values()), self.is_blocked
        self.papers, self.is_blocked = {}, False
        return papers, blocked


class Writer:
    """Writes the windows of one ingest, one after the other.

    Args:
        settled: waits for a server that is away, and says so.
    """

    def __init__(self, loop: BulkLoop, intake: Intake, witnesses: Witnesses, settled: Settle[Any]) -> None:
        self._loop, self._intake, self._witnesses, self._settled = loop, intake, witnesses, settled
        self._summary = intake.summary
        self.redo = Redo()

    def write(self, window: Window, *, again: bool = False) -> None:
        """Write chunks, then commit their papers; what conflicts or is blocked is kept for another try.

        Args:
            again: whether these papers were tried before; what they lose was counted then.
        """
        self._summary.add(window.counts, losses=not again)
        self._intake.settle(window.unchanged, "unchanged")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        window = self._without_bad_vectors(window)
        by_id = {work.paper.id: work.paper for work in window.works}
        operations = self._timed("serialise", lambda: list(chunk_operations(window, now)))
        outcome = self._timed("server", lambda: self._loop.send(operations))
        window = without_papers(window, self._sort_out(outcome, by_id, paper_of))
        self._leave_witnesses(window, "chunks", operations, outcome)
        commits = self._timed("serialise", lambda: [paper_operation(window, work, now) for work in window.works])
        outcome = self._timed("server", lambda: self._loop.send(commits))
        window = without_papers(window, self._sort_out(outcome, by_id, lambda key: key))
        self._leave_witnesses(window, "papers", commits, outcome)
        self._intake.settle([work.paper.id for work in window.works], "indexed")
        self._summary.chunks += sum(len(work.chunks) for work in window.works)

    def _timed(self, stage: str, work: Callable[[], T]) -> T:
        started = time.perf_counter()
        try:
            return work()
        finally:
            self._summary.seconds[stage] += time.perf_counter() - started

    def _leave_witnesses(self, window: Window, level: Level, operations: Sequence[Operation], outcome: Outcome) -> None:
        """Leave witnesses of what was written: later users can see by them whether fields are hidden from them."""
        place = window.targets[level].place
        shown = {
            work.paper.id if level == "papers" else chunk_id(work.paper.id, 0): {"paper_id": work.paper.id, "meta": work.meta}
            for work in window.works
            if level == "papers" or work.chunks
        }
        chosen = set(self._settled(lambda: self._witnesses.choose(place, shown)))
        sent = {one.id: orjson.loads(one.document) for one in operations if one.id in chosen and one.document}
        if sent:
            self._settled(lambda: self._witnesses.leave(place, sent, outcome.versions))

    def _sort_out(self, outcome: Outcome, papers: Mapping[str, Paper], owner: Callable[[str], str]) -> set[str]:
        """Put papers whose operations failed where they belong: another try, or the dead letters. Return their ids."""
        failed: set[str] = set()
        self.redo.is_blocked = self.redo.is_blocked or bool(outcome.blocked)
        for key in (*outcome.conflicts, *outcome.blocked):
            self.redo.papers[owner(key)] = papers[owner(key)]
            failed.add(owner(key))
        for key, reason in outcome.rejected.items():
            paper = papers[owner(key)]
            if paper.id in failed:
                continue
            failed.add(paper.id)
            if "failed to parse" in reason and self.redo.tries[paper.id] == 0:
                self.redo.papers[paper.id] = paper  # another writer mapped a metadata field first: try with their mapping
            else:
                self._intake.reject(Rejected(f"refused by the server: {reason}", paper.source, paper.fields))
        return failed

    def _without_bad_vectors(self, window: Window) -> Window:
        """Reject papers of which a vector is zero or not finite; the server would refuse or, worse, rank them."""
        whole, parts = window.vectors_of("papers"), window.vectors_of("chunks")
        failed = set()
        for work in window.works:
            if not (whole.is_usable(work.passage) and all(map(parts.is_usable, work.passages))):
                failed.add(work.paper.id)
                self._intake.reject(Rejected(BAD_VECTOR, work.paper.source, work.paper.fields))
        return without_papers(window, failed) if failed else window


def chunk_operations(window: Window, now: str) -> Iterator[Operation]:
    """Yield the operations on chunks: each new one is written, each of a longer old version is deleted."""
    target, vectors = window.targets["chunks"], window.vectors_of("chunks")
    for work in window.works:
        common = {
            "paper_id": work.paper.id,
            "title": work.paper.title,
            "meta": work.meta,
            "input_hash": work.paper.input_hash,
            "identity": target.meta.identity.hash,
            "ingested_at": now,
        }
        for number, (chunk, passage) in enumerate(zip(work.chunks, work.passages, strict=True)):
            document = {
                **common,
                "text": chunk.text,
                "chunk_index": number,
                "word_count": chunk.word_count,
                "start_char": chunk.start,
                "end_char": chunk.end,
                "token_count": vectors.token_count(passage),
                "text_hash": passage.key,
                "embedding": target.on_wire(vectors.vector(passage)),
            }
            key = chunk_id(work.paper.id, number)
            yield operation.put(target.write_alias, key, document, routing=work.routings.get(key))
        for key, old in work.tail.items():
            yield operation.delete(target.write_alias, key, old.seen, old.routing)


def paper_operation(window: Window, work: Work, now: str) -> Operation:
    """Return the operation that commits a paper."""
    target, paper = window.targets["papers"], work.paper
    document = {
        "paper_id": paper.id,
        "title": paper.title,
        "abstract": paper.abstract,
        "body": paper.body,
        "meta": work.meta,
        "source": paper.source,
        "word_count": paper.word_count,
        "chunk_count": len(work.chunks),
        "input_hash": paper.input_hash,
        "text_hash": work.passage.key,
        "identity": target.meta.identity.hash,
        "ingested_at": now,
        "embedding": target.on_wire(window.vectors_of("papers").vector(work.passage)),
    }
    if work.seen is None:
        return operation.create(target.write_alias, paper.id, document)
    return operation.put(target.write_alias, paper.id, document, work.seen, work.routings.get(paper.id))
