"""Copy and catch-up: one loop. Scan what changed in the source, embed it with the target's model, write it, move the mark.

A mark never passes anything that is not acknowledged in the target or kept among the failed. Each copy carries `origin`, the sequence number
it had in the source, and a version made of leg, primary term and sequence number: repeating a window is harmless and costs no embedding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from osembed.errors import CollectionError, RefusedError
from osembed.models.identity import text_hash
from osembed.opensearch import changes, operation, reads, scan
from osembed.opensearch.bulk import BulkLoop
from osembed.opensearch.checkpoints import whole_checkpoints
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.documents import Stored
from osembed.opensearch.indexes import Target
from osembed.opensearch.operation import Operation
from osembed.opensearch.patience import settled
from osembed.opensearch.scan import Found
from osembed.opensearch.sight import Witnesses
from osembed.papers.levels import Level
from osembed.passages.passage import stored_passage
from osembed.passages.tokens import Tokens
from osembed.stream import staged

if TYPE_CHECKING:
    from osembed.embed.native.encoder import Encoder

Vector = NDArray[np.float32]
Marks = Mapping[Level, Mapping[str, int]]
# Fields that osembed derives for the index it writes to; everything else is the user's and is copied as it is.
OWN = ("embedding", "identity", "text_hash", "origin", "token_count")
PAGE: Mapping[Level, int] = {"papers": 128, "chunks": 256}
_FOREIGN = 2**32  # versions beyond this that are not osembed's were set by a writer of its own


class Outdated(Exception):
    """The staging alias is gone or the target refuses: somebody else has taken over."""


@dataclass(frozen=True)
class Lane:
    """One level's way: from which index, to which, through which staging alias, embedded by what.

    Attributes:
        leg: grows with every direction change of the collection, so that copies of this leg are newer than all of earlier ones.
    """

    level: Level
    source: Target
    target: Target
    alias: str
    encoder: Encoder
    leg: int

    @property
    def carries(self) -> bool:
        """Whether both indexes hold the same space, so that vectors may be carried over."""
        return self.source.meta.identity.hash == self.target.meta.identity.hash


@dataclass
class Window:
    """Some documents of one shard on their way. `upto` is the mark once all of them are settled."""

    lane: Lane
    shard: int
    upto: int
    docs: list[Found]
    hashes: dict[str, str] = field(default_factory=dict)
    vectors: dict[str, Vector] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    tokens: Tokens | None = None
    seen: int = 0
    embedded: int = 0


@dataclass
class Copied:
    """What one window or pass did: documents seen, written, embedded, with a carried vector; tokens read; id → why it failed."""

    seen: int = 0
    written: int = 0
    embedded: int = 0
    carried: int = 0
    tokens: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, other: Copied) -> None:
        """Take in another part."""
        self.seen += other.seen
        self.written += other.written
        self.embedded += other.embedded
        self.carried += other.carried
        self.tokens += other.tokens
        self.failed.update(other.failed)


def pack(leg: int, term: int, seq: int) -> int:
    """Return a copy's version: leg in 13 bits, primary term in 14, sequence number in 36. Later operations get greater numbers."""
    if leg >= 2**13 or term >= 2**14 or seq >= 2**36:
        raise CollectionError("The index has been written or failed over more often than versions can count.", "", "Report this, please.")
    return (leg << 50) | (term << 36) | seq


class Copier:
    """Copies lanes. `settle` is called after each window, from one thread at a time, and moves the mark; `between` before each, and may
    wait or raise."""

    def __init__(
        self,
        client: OpenSearch,
        lanes: Sequence[Lane],
        loop: BulkLoop,
        settle: Callable[[Window, Copied], None],
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self._client, self._lanes, self._loop, self._settle, self._between = client, lanes, loop, settle, between
        self._done = 0
        self._known: dict[str, set[str]] = {}
        self._witnesses = Witnesses(client)

    def catch_up(self, marks: Callable[[], Marks]) -> Copied:
        """Copy everything that changed since the marks, up to now. Raises Outdated when this holder was replaced."""
        total = Copied()

        def attempt() -> None:
            total.add(self._pass(marks()))

        settled(attempt, self._between, progress=lambda: self._done)
        return total

    def copy_now(self, lane: Lane, docs: list[Found]) -> Copied:
        """Copy documents that were just read, over whatever the target has under their ids (a repair: the target strayed)."""
        window = self._embedded(self._prepared(Window(lane, -1, -1, docs), trust=False))
        there = scan.read_now(self._client, lane.target.index, [(doc.id, doc.routing) for doc in docs])
        operations = []
        for doc in docs:
            document = _document(window, doc)
            old = there.get(doc.id)
            if old is None:
                operations.append(operation.copy(lane.alias, doc.id, document, _version(lane, doc), doc.routing))
            else:  # whoever wrote it gave it a newer version: only compare-and-set gets past that
                operations.append(operation.put(lane.alias, doc.id, document, (old.seq, old.term), doc.routing))
        outcome = self._loop.send(operations)
        if outcome.blocked:
            raise Outdated(f"the target refuses writes to {outcome.blocked[0]}")
        return Copied(len(docs), outcome.done, window.embedded, failed=outcome.rejected)

    def _pass(self, marks: Marks) -> Copied:
        total = Copied()
        prepared = staged(map(self._prepared, staged(self._windows(marks))))
        with ThreadPoolExecutor(1, thread_name_prefix="osembed-copy") as writer:
            pending: Future[Copied] | None = None
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
        for lane in self._lanes:
            index = lane.source.index
            at = whole_checkpoints(self._client, index)
            changes.refresh(self._client, index)
            for shard, point in sorted(at.items()):
                mark = marks[lane.level].get(str(shard), -1)
                last, excluded = mark, () if lane.carries else ("embedding",)
                for page in scan.scan(self._client, index, shard, mark, point, size=PAGE[lane.level], excluded=excluded):
                    last = page[-1].seq
                    yield Window(lane, shard, last, page, seen=len(page))
                if point.safe > last:
                    yield Window(lane, shard, point.safe, [])

    def _prepared(self, window: Window, trust: bool = True) -> Window:
        """Leave out what is already there, carry vectors of the same space, tokenise the rest."""
        lane = window.lane
        if window.docs and trust:
            _refuse_foreign(window)
            there = scan.read_now(self._client, lane.target.index, [(doc.id, doc.routing) for doc in window.docs])
            window.docs = [doc for doc in window.docs if doc.id not in there or there[doc.id].version != _version(lane, doc)]
        identity, missing = lane.target.meta.identity, {}
        for doc in window.docs:
            passage = stored_passage(lane.encoder.model.spec, lane.level, doc.fields)
            if not passage:
                continue
            key = window.hashes[doc.id] = text_hash(passage)
            old = Stored((doc.seq, doc.term), doc.fields).vector(identity.hash, key, identity.dimension) if lane.carries else None
            if old is not None:
                window.vectors[key] = old
                if doc.fields.get("token_count"):
                    window.counts[key] = int(doc.fields["token_count"])
            else:
                missing[key] = passage
        missing = {key: passage for key, passage in missing.items() if key not in window.vectors}
        if missing:
            window.tokens = lane.encoder.tokeniser.tokenise(list(missing.values()))
            window.counts.update(zip(missing, window.tokens.counts, strict=True))
        return window

    def _embedded(self, window: Window) -> Window:
        if window.tokens is not None:
            vectors = window.lane.encoder.embed(window.tokens)
            window.vectors.update(zip(map(text_hash, window.tokens.texts), vectors, strict=True))
            window.embedded = len(window.tokens)
        return window

    def _write(self, window: Window) -> Copied:
        lane = window.lane
        copied = Copied(window.seen, embedded=window.embedded, tokens=window.tokens.read if window.tokens else 0)
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
                sent[doc.id] = _document(window, doc)
                operations.append(operation.copy(lane.alias, doc.id, sent[doc.id], _version(lane, doc), doc.routing))
            outcome = self._loop.send(operations)
            if outcome.blocked:
                raise Outdated(f"the target refuses writes to {outcome.blocked[0]}")
            chosen = self._witnesses.choose(lane.target.place, sent)
            routings = {doc.id: doc.routing for doc in window.docs}
            self._witnesses.leave(lane.target.place, {key: sent[key] for key in chosen}, outcome.versions, routings)
            copied.written = outcome.done + len(outcome.conflicts)
            copied.failed.update(outcome.rejected)
            self._take_out(lane, [doc for doc in window.docs if doc.id in copied.failed])
        self._settle(window, copied)
        self._done += 1
        return copied

    def _take_out(self, lane: Lane, docs: list[Found]) -> None:
        """Delete from the target what could not be copied: an old version of it there would be a lie."""
        if docs:
            routed = {doc.id: doc.routing for doc in docs}
            there = scan.read_now(self._client, lane.target.index, list(routed.items()))
            outcome = self._loop.send(operation.delete(lane.alias, key, (old.seq, old.term), routed[key]) for key, old in there.items())
            if outcome.blocked:
                raise Outdated("the target refuses deletes")

    def _map_new_fields(self, window: Window) -> None:
        """Give the target the mapping of fields that appeared in the source since it was made, types included."""
        lane, names = window.lane, set().union(*(_paths(doc.fields) for doc in window.docs))
        known = self._known.setdefault(lane.target.index, set())
        if names <= known:
            return
        properties = reads.properties(self._client, lane.source.index)
        properties.pop("embedding", None)
        with suppress(RefusedError):  # mapped otherwise there by somebody: the documents are refused one by one, with the reason
            changes.put_mapping(self._client, lane.target.index, {"properties": properties})
        known |= names


def _document(window: Window, doc: Found) -> dict[str, Any]:
    """Return a document as the target holds it."""
    lane, key = window.lane, window.hashes.get(doc.id)
    document = {name: value for name, value in doc.fields.items() if name not in OWN}
    document["origin"] = doc.seq
    if key is not None:
        document.update(identity=lane.target.meta.identity.hash, text_hash=key, embedding=lane.target.on_wire(window.vectors[key]))
        if lane.level == "chunks":
            document["token_count"] = window.counts.get(key)
    return document


def _version(lane: Lane, doc: Found) -> int:
    return pack(lane.leg, doc.term, doc.seq)


def _refuse_foreign(window: Window) -> None:
    """Refuse documents whose versions their writer sets: after the swap every such write would be a conflict."""
    for doc in window.docs:
        if doc.version > _FOREIGN and not 1 << 50 <= doc.version < window.lane.leg << 50:
            raise CollectionError(
                f"'{doc.id}' in {window.lane.source.index} has the version {doc.version}: some writer sets versions of its own.",
                "Copies need versions too; after a swap that writer would meet conflicts for ever.",
                "Let that writer use plain writes or if_seq_no, write these documents once without a version, then run this again.",
            )


def _paths(fields: Mapping[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for name, value in fields.items():
        found.add(prefix + name)
        if isinstance(value, Mapping):
            found |= _paths(value, f"{prefix}{name}.")
    return found


def per_second(count: int, began: float) -> float:
    """Return a rate since a moment of the monotonic clock."""
    return count / max(time.monotonic() - began, 1e-6)
