"""Documents one by one: a copy against the version it was made of, a vector against its text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from osembed.migrate.copy.level_copy import OWN, PAGE, pack_version
from osembed.migrate.proof.report import Check, FaultCount
from osembed.migrate.proof.sides import Pair, Side
from osembed.models.identity import WITNESS_COSINE, text_hash
from osembed.opensearch import reads, scan
from osembed.opensearch.checkpoints import whole_checkpoints
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.patience import until_settled
from osembed.opensearch.scan import StoredDocument
from osembed.opensearch.vectors import from_wire
from osembed.passages.passage import stored_passage

SAMPLE = 400
_NORM = 0.01  # how far a normalised vector's length may be from 1: bf16 and base-64 round trips stay well below


def check_documents(client: OpenSearch, side: Side, full: bool, seen: Callable[[int], None]) -> list[Check]:
    """Look at documents one by one: version, fields, text, vector."""
    names = ("versions", "fields") if side.pair else ()
    tallies = {name: FaultCount(name, side.level) for name in (*names, "text hashes", "vectors", "norms")}
    looked_at = 0
    for page in _pages(client, side, full):
        looked_at += len(page)
        if side.pair:
            _against_source(client, side.pair, page, tallies)
        _against_text(side, page, tallies)
        seen(len(page))
    words = {
        "versions": "the copy is not of the version that the source has",
        "fields": "the user's own fields differ from the source's",
        "text hashes": "the vector is of another text, or there is none",
        "vectors": f"the stored vector is not what the model makes of the text (cosine below {WITNESS_COSINE})",
        "norms": "the vector is not finite, zero, of another dimension, or not normalised",
    }
    there = reads.count(client, side.target.index)
    return [tally.check(words[name], looked_at, there) for name, tally in tallies.items()]


def _pages(client: OpenSearch, side: Side, full: bool) -> Iterator[list[StoredDocument]]:
    index, size = side.target.index, PAGE[side.level]
    if full:
        for shard, point in until_settled(lambda: whole_checkpoints(client, index)).items():
            yield from scan.settled_scan(client, index, shard, -1, point, size=size)
        return
    yield from scan.sample(client, index, SAMPLE, size)


def _against_source(client: OpenSearch, pair: Pair, page: Sequence[StoredDocument], tallies: Mapping[str, FaultCount]) -> None:
    """Compare copies with the documents they were made of; those that changed since are the next catch-up's."""
    keys = [(doc.id, doc.routing) for doc in page]
    now = until_settled(lambda: scan.read_now(client, pair.level_copy.source.index, keys, fields=()))
    back = any(base[0] >= 0 for base in pair.bases.values())
    for doc in page:
        origin = now.get(doc.id)
        if origin is None or doc.fields.get("origin") != origin.seq:
            continue  # changed or deleted since, or judged by ids and origins
        expected = pack_version(pair.level_copy.turn, origin.term, origin.seq)
        tallies["versions"].see(doc.id, "" if back or doc.version == expected else f"version {doc.version}, not {expected}")
        mine, theirs = _users(doc.fields), _users(origin.fields)
        names = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
        tallies["fields"].see(doc.id, f"{', '.join(names)} differ" if names else "")


def _against_text(side: Side, page: Sequence[StoredDocument], tallies: Mapping[str, FaultCount]) -> None:
    """Embed texts again and compare with what is stored."""
    spec, meta = side.encoder.model.spec, side.target.meta
    passages = {doc.id: stored_passage(spec, side.level, doc.fields) for doc in page}
    unique = list(dict.fromkeys(text for text in passages.values() if text))
    fresh = dict(zip(unique, side.encoder.encode(unique), strict=True)) if unique else {}
    for doc in page:
        text, stored = passages[doc.id], from_wire(doc.fields.get("embedding"))
        if not text:
            tallies["text hashes"].see(doc.id, "has a vector, but no words" if stored is not None else "")
            continue
        tallies["text hashes"].see(
            doc.id, "" if doc.fields.get("text_hash") == text_hash(text) and stored is not None else "stale or missing"
        )
        if stored is None:
            continue
        fault = _norm_fault(stored, meta.identity.dimension, meta.identity.normalize)
        tallies["norms"].see(doc.id, fault)
        if not fault:
            cosine = float(stored @ fresh[text] / max(float(np.linalg.norm(stored) * np.linalg.norm(fresh[text])), 1e-12))
            tallies["vectors"].see(doc.id, "" if cosine >= WITNESS_COSINE else f"cosine {cosine:.4f}")


def _norm_fault(vector: np.ndarray[Any, Any], dimension: int, normalize: bool) -> str:
    if vector.shape != (dimension,):
        return f"{vector.size} numbers, not {dimension}"
    if not np.isfinite(vector).all() or not vector.any():
        return "zero or not finite"
    length = float(np.linalg.norm(vector))
    return f"length {length:.4f}" if normalize and abs(length - 1) > _NORM else ""


def _users(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in OWN}
