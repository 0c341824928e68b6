"""Repair a live collection after writes that bypassed osembed: embed documents without a current vector, delete orphaned chunks.

A repair starts from a stored mark, so its cost depends on the changes since the last one. Documents are written by compare-and-set, so a
repair never overwrites a newer write. Documents that the server refused are stored with the mark, and the next repair tries them again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from osembed.embed.encoders import Encoders
from osembed.embed.passage_vectors import BAD_VECTOR, PassageVectors
from osembed.embed.protocol import Encoder
from osembed.errors import CollectionError
from osembed.migrate.copy.level_copy import OWN, PAGE
from osembed.migrate.copy.window import derived_fields
from osembed.migrate.proof import integrity
from osembed.opensearch import changes, operation, reads, scan, sight
from osembed.opensearch.bulk import BulkLoop
from osembed.opensearch.checkpoints import whole_checkpoints
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.fence import FenceWait, wait_writable
from osembed.opensearch.coordination.journal import Journal
from osembed.opensearch.coordination.migration_state import migration_key, read_state
from osembed.opensearch.documents import StoredDocument
from osembed.opensearch.indexes import resolve
from osembed.opensearch.patience import until_settled
from osembed.opensearch.target import Target, Targets
from osembed.papers.levels import LEVELS, Level
from osembed.passages.passage import PassageText, stored_passage

_YOUNG_S = 900  # an ingest writes chunks before their paper, so younger orphans may belong to a running ingest
_MOST_REFUSED = 5000  # in one journal entry; more than that is not a problem of single documents
_ROUNDS = 3  # attempts for documents that others keep changing; the next repair sees their new versions anyway


@dataclass
class Repair:
    """What a repair did.

    Attributes:
        looked_at: documents that were read.
        embedded: documents that got a new vector.
        orphans: chunks without a paper that were deleted.
        young: chunks without a paper that were left: their ingest may still be running.
        refused: "level/id" → why it could not be mended.
        seconds: how long it took.
        unblocked: indexes whose write block was lifted.
    """

    looked_at: int = 0
    embedded: int = 0
    orphans: int = 0
    young: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    unblocked: list[str] = field(default_factory=list)


@dataclass
class _Kept:
    """What the journal keeps of the repairs of one index: shard → mark, and id → (routing, why it was refused)."""

    marks: dict[str, int] = field(default_factory=dict)
    refused: dict[str, tuple[str | None, str]] = field(default_factory=dict)


class _Fenced(Exception):
    """The index refused writes, or vanished: wait, then look where the collection is."""


def repair(client: OpenSearch, collection: str, targets: Targets, encoders: Encoders) -> Repair:
    """Repair the documents that changed since the last repair (all at first), and those that it could not repair. Returns the result."""
    until_settled(lambda: sight.prove(client, [target.place for target in targets.values()]))
    lifted = until_settled(lambda: _unblock(client, collection, targets))
    began, done, loop = time.monotonic(), Repair(unblocked=lifted), BulkLoop(client)
    fence_wait = FenceWait(client, collection)
    try:
        for level in (*LEVELS, None):
            while True:
                try:
                    if level:
                        _Level(client, targets[level], level, encoders, loop, done).run()
                    else:
                        until_settled(partial(_orphans, client, targets, loop, done))
                    break
                except _Fenced:
                    fence_wait.wait()
                    moved = until_settled(lambda: resolve(client, collection))
                    targets = moved or targets
    finally:
        loop.close()
    done.seconds = round(time.monotonic() - began, 2)
    return done


def _unblock(client: OpenSearch, collection: str, targets: Targets) -> list[str]:
    """Lift write blocks that do not belong to a running swap, even incomplete ones; wait for a running swap. Returns the indexes."""
    blocks = reads.write_blocks(client, [target.index for target in targets.values()])
    mine = sorted(index for index, said in blocks.items() if not any("read-only" in text for text in said))
    if not mine:
        return []
    state = read_state(Journal(client).read(migration_key(collection)))
    if state and state.fence:
        wait_writable(client, collection)
    else:
        changes.lift_block(client, mine)
    return mine


class _Level:
    """The repair of one index."""

    def __init__(self, client: OpenSearch, target: Target, level: Level, encoders: Encoders, loop: BulkLoop, done: Repair) -> None:
        self._client, self._target, self._level, self._loop, self._done = client, target, level, loop, done
        self._journal, self._key = Journal(client), f"repair:{target.uuid}"
        self._encoder: Encoder = encoders.of(target.meta.stored_model, self._journal.recall_witness)
        stored = self._journal.read(self._key) or {}
        refused = {key: (routing, why) for key, (routing, why) in stored.get("refused", {}).items()}
        self._kept = _Kept(dict(stored.get("marks", {})), refused)

    def run(self) -> None:
        """Repair documents that were refused before, then those that changed since the marks. Raises _Fenced if the index refuses writes."""
        self._retry()
        until_settled(self._catch_up, progress=lambda: dict(self._kept.marks))
        self._keep()
        self._done.refused.update({f"{self._level}/{key}": why for key, (_, why) in self._kept.refused.items()})

    def _retry(self) -> None:
        keys = [(key, routing) for key, (routing, _) in self._kept.refused.items()]
        for start in range(0, len(keys), PAGE[self._level]):
            part = keys[start : start + PAGE[self._level]]
            docs = until_settled(partial(scan.read_now, self._client, self._target.index, part, fields=()))
            for key, _ in part:
                self._kept.refused.pop(key)
            self._mend(list(docs.values()))

    def _catch_up(self) -> None:
        """Repair changed documents page by page and move the marks, so that a retry continues after the last page."""
        client, index, marks = self._client, self._target.index, self._kept.marks
        points = whole_checkpoints(client, index)
        changes.refresh(client, index)
        for shard, point in points.items():
            for page in scan.scan(client, index, shard, marks.get(str(shard), -1), point, size=PAGE[self._level]):
                self._done.looked_at += len(page)
                for doc in page:
                    self._kept.refused.pop(doc.id, None)  # it has a new version, which is repaired here
                self._mend(page)
                marks[str(shard)] = page[-1].seq
                self._keep()
            marks[str(shard)] = max(point.safe, marks.get(str(shard), -1))

    def _mend(self, page: Sequence[StoredDocument]) -> None:
        """Repair a page of documents. Refused ones are recorded; those that others changed in the meantime are read again."""
        for _ in range(_ROUNDS):
            stale = list(_stale(self._target, self._level, self._encoder.model.spec, page))
            if not stale:
                return
            mended = dict(self._mended(stale))
            alias, by_id = self._target.write_alias, {doc.id: doc for doc, _ in stale}
            outcome = self._loop.send(
                operation.put(alias, key, fields, (by_id[key].seq, by_id[key].term), by_id[key].routing) for key, fields in mended.items()
            )
            self._done.embedded += outcome.done
            self._refuse({key: (by_id[key].routing, why) for key, why in outcome.rejected.items()})
            if outcome.blocked:
                raise _Fenced
            changed = [(key, by_id[key].routing) for key in outcome.conflicts]
            page = list(scan.read_now(self._client, self._target.index, changed, fields=()).values()) if changed else []

    def _mended(self, stale: Sequence[tuple[StoredDocument, PassageText | None]]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (id, document) with the user's fields unchanged and osembed's fields derived again."""
        vectors = PassageVectors()
        vectors.tokenise(self._encoder.tokeniser, (passage for _, passage in stale if passage))
        vectors.embed(self._encoder)
        for doc, passage in stale:
            # `origin` pairs the document with the other side of a migration, so it must survive.
            fields = {name: value for name, value in doc.fields.items() if name not in OWN or name == "origin"}
            if passage:
                if not vectors.is_usable(passage):
                    self._refuse({doc.id: (doc.routing, BAD_VECTOR)})
                    continue
                fields.update(derived_fields(self._target, passage, vectors))
            yield doc.id, fields

    def _refuse(self, refused: dict[str, tuple[str | None, str]]) -> None:
        self._kept.refused.update(refused)
        if len(self._kept.refused) > _MOST_REFUSED:
            raise CollectionError(
                f"{len(self._kept.refused):,} documents of {self._target.index} were refused: {next(iter(refused.values()))[1]}",
                "With so many, the index itself must be at fault. The repair stopped and keeps its mark.",
                "Check the index, for example its mapping, then run `osembed verify --repair` again.",
            )

    def _keep(self) -> None:
        self._journal.change(self._key, lambda _: {"marks": dict(self._kept.marks), "refused": dict(self._kept.refused)})


def _stale(target: Target, level: Level, spec: Any, page: Sequence[StoredDocument]) -> Iterator[tuple[StoredDocument, PassageText | None]]:
    """Yield documents whose vector is missing or outdated, with their text; None if the document has a vector but no text."""
    mine = target.meta.identity
    for doc in page:
        passage, stored = stored_passage(spec, level, doc.fields), doc.fields.get("embedding")
        if not passage:
            if stored:
                yield doc, None
        elif not stored or doc.fields.get("identity") != mine.hash or doc.fields.get("text_hash") != passage.key:
            yield doc, passage


def _orphans(client: OpenSearch, targets: Targets, loop: BulkLoop, done: Repair) -> None:
    """Delete chunks whose paper is gone, unless they are so young that their paper may still be written."""
    papers, chunks = targets["papers"], targets["chunks"]
    changes.refresh(client, papers.index, chunks.index)
    now, done.young = reads.server_clock(client), 0
    orphaned = [key for key, why in integrity.find_faults(client, papers.index, chunks.index) if why.endswith(integrity.ORPHANED)]
    if orphaned:
        changes.refresh(client, papers.index)
    for paper_id in orphaned:
        for page in scan.matching(client, chunks.index, {"term": {"paper_id": paper_id}}, ("ingested_at",)):
            if scan.read_anywhere(client, papers.index, [paper_id]):  # written since they were counted
                break
            old = [doc for doc in page if now - _written(doc) > _YOUNG_S]
            done.young += len(page) - len(old)
            outcome = loop.send(operation.delete(chunks.write_alias, doc.id, (doc.seq, doc.term), doc.routing) for doc in old)
            done.orphans += outcome.done
            done.refused.update({f"chunks/{key}": why for key, why in outcome.rejected.items()})
            if outcome.blocked:
                raise _Fenced


def _written(doc: StoredDocument) -> float:
    """Return when a chunk was ingested, in seconds since 1970; 0 if it does not say."""
    try:
        return datetime.fromisoformat(doc.fields["ingested_at"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return 0.0
