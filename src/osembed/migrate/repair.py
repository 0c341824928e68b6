"""Mend a live collection after writers that bypass osembed: embed what has no vector or a stale one, take out orphaned chunks.

Works from a kept mark, so that a run costs what changed since the last one. Everything is written by compare-and-set on the version that
was read: a repair never overwrites anybody's newer write.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from osembed import bulk
from osembed.bulk import BulkLoop
from osembed.client import OpenSearch
from osembed.encoders import Encoders
from osembed.fence import Turnstile
from osembed.identity import text_hash
from osembed.index import Target, Targets, resolve
from osembed.journal import Journal
from osembed.migrate import integrity, scan
from osembed.migrate.copy import OWN, PAGE
from osembed.migrate.scan import Found
from osembed.opensearch import changes, reads, sight
from osembed.opensearch.patience import settled
from osembed.passage import stored_passage
from osembed.schema import LEVELS, Level

_YOUNG_S = 900  # an ingest writes chunks before their paper: younger orphans may be its


@dataclass
class Repair:
    """What a repair did: documents looked at, embedded anew, chunks deleted, and orphans too young to judge."""

    looked_at: int = 0
    embedded: int = 0
    orphans: int = 0
    young: int = 0
    seconds: float = 0.0


def repair(client: OpenSearch, collection: str, targets: Targets, encoders: Encoders) -> Repair:
    """Mend what changed since the last repair; all of it at the first."""
    settled(lambda: sight.prove(client, [target.place for target in targets.values()]))
    began, done, loop = time.monotonic(), Repair(), BulkLoop(client)
    turnstile = Turnstile(client, collection)
    try:
        for level in LEVELS:
            while not _level(client, targets[level], level, encoders, loop, done):
                turnstile.wait()
                now: Targets | None = settled(partial(resolve, client, collection))
                targets = now or targets
        _orphans(client, targets, loop, done)
    finally:
        loop.close()
    done.seconds = round(time.monotonic() - began, 2)
    return done


def _level(client: OpenSearch, target: Target, level: Level, encoders: Encoders, loop: BulkLoop, done: Repair) -> bool:
    """Mend one level; False where the index refused writes (a fence) or vanished."""
    journal, key = Journal(client), f"repair:{target.uuid}"
    encoder = settled(lambda: encoders.of(target.meta, journal))
    marks = dict((settled(lambda: journal.read(key)) or {}).get("marks", {}))
    points = settled(lambda: scan.checkpoints(client, target.index))
    settled(lambda: changes.refresh(client, target.index))
    for shard, point in points.items():
        for page in scan.settled_scan(client, target.index, shard, marks.get(str(shard), -1), point, size=PAGE[level]):
            done.looked_at += len(page)
            stale = list(_stale(target, level, encoder.model.spec, page))
            vectors = encoder.encode([text for _, text in stale if text])
            by_text = dict(zip([text for _, text in stale if text], vectors, strict=True))
            outcome = loop.send(
                bulk.put(target.write_alias, doc.id, _mended(target, doc, text, by_text), (doc.seq, doc.term), doc.routing)
                for doc, text in stale
            )
            done.embedded += outcome.done
            if outcome.blocked:
                return False
            marks[str(shard)] = page[-1].seq
            _keep(journal, key, marks)
        marks[str(shard)] = max(point.safe, marks.get(str(shard), -1))
    _keep(journal, key, marks)
    return True


def _stale(target: Target, level: Level, spec: Any, page: Sequence[Found]) -> Iterator[tuple[Found, str]]:
    """Yield the documents whose vector is missing or not of their text, with that text ('' where a vector has no words to stand for)."""
    mine = target.meta.identity
    for doc in page:
        text, stored = stored_passage(spec, level, doc.fields), doc.fields.get("embedding")
        right = bool(stored) and doc.fields.get("identity") == mine.hash and doc.fields.get("text_hash") == text_hash(text)
        if text and not right:
            yield doc, text
        elif not text and stored:
            yield doc, ""


def _mended(target: Target, doc: Found, text: str, vectors: dict[str, Any]) -> dict[str, Any]:
    fields = {name: value for name, value in doc.fields.items() if name not in OWN or name == "origin"}
    if text:
        fields.update(identity=target.meta.identity.hash, text_hash=text_hash(text), embedding=target.on_wire(vectors[text]))
    return fields


def _orphans(client: OpenSearch, targets: Targets, loop: BulkLoop, done: Repair) -> None:
    """Delete chunks whose paper is gone, unless they are so young that their paper may be on its way."""
    for target in targets.values():
        settled(partial(changes.refresh, client, target.index))
    now = settled(lambda: reads.server_clock(client))
    chunks = targets["chunks"]
    for paper_id, why in settled(lambda: list(integrity.faults(client, targets["papers"].index, chunks.index))):
        if "without a paper" not in why:
            continue
        query = {"term": {"paper_id": paper_id}}
        body = {"size": 10_000, "query": query, "_source": ["ingested_at"], "seq_no_primary_term": True}
        hits = settled(partial(reads.search, client, chunks.index, body))["hits"]["hits"]
        old = [hit for hit in hits if now - _written(hit) > _YOUNG_S]
        done.young += len(hits) - len(old)
        outcome = loop.send(
            bulk.delete(chunks.write_alias, hit["_id"], (hit["_seq_no"], hit["_primary_term"]), hit.get("_routing")) for hit in old
        )
        done.orphans += outcome.done


def _written(hit: dict[str, Any]) -> float:
    """Return when a chunk was ingested, in seconds; long ago for one that does not say."""
    try:
        return datetime.fromisoformat(hit["_source"]["ingested_at"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return 0.0


def _keep(journal: Journal, key: str, marks: dict[str, int]) -> None:
    settled(lambda: journal.change(key, lambda _: {"marks": dict(marks)}))
