"""Verify single documents: a copy against its source version, a vector against its text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from osembed.embed.passage_vectors import PassageVectors, is_usable
from osembed.migrate.copy.level_copy import OWN, PAGE, pack_version
from osembed.migrate.proof.sides import Pair, Side
from osembed.migrate.proof.verification import Check, FaultCount
from osembed.models.identity import WITNESS_COSINE, row_cosines
from osembed.opensearch import reads, scan
from osembed.opensearch.checkpoints import whole_checkpoints
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.documents import StoredDocument
from osembed.opensearch.patience import until_settled
from osembed.opensearch.vectors import from_wire
from osembed.passages.passage import stored_passage

SAMPLE = 400  # documents per level, unless all are verified
_NORM = 0.01  # allowed deviation of a normalised vector's length from 1; bf16 and base64 round trips stay well below


def check_documents(client: OpenSearch, side: Side, full: bool, seen: Callable[[int], None]) -> list[Check]:
    """Return checks of single documents: version, fields, text and vector. `seen` is called with the size of each page."""
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
        "versions": "the copy is not of the source's version",
        "fields": "the user's own fields differ from the source's",
        "text hashes": "the vector is missing or belongs to another text",
        "vectors": f"the stored vector is not the model's vector of the text (cosine below {WITNESS_COSINE})",
        "norms": "the vector is zero, not finite, not normalised or of another dimension",
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
    """Compare copies with their source documents. Documents that changed since are left to the next catch-up."""
    keys = [(doc.id, doc.routing) for doc in page]
    now = until_settled(lambda: scan.read_now(client, pair.level_copy.source.index, keys, fields=()))
    back = any(base[0] >= 0 for base in pair.bases.values())
    for doc in page:
        origin = now.get(doc.id)
        if origin is None or doc.fields.get("origin") != origin.seq:
            continue  # changed or deleted since; the check of ids and origins covers the rest
        expected = pack_version(pair.level_copy.turn, origin.term, origin.seq)
        tallies["versions"].see(doc.id, "" if back or doc.version == expected else f"version {doc.version}, not {expected}")
        mine, theirs = _users(doc.fields), _users(origin.fields)
        names = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
        tallies["fields"].see(doc.id, f"{', '.join(names)} differ" if names else "")


def _against_text(side: Side, page: Sequence[StoredDocument], tallies: Mapping[str, FaultCount]) -> None:
    """Embed texts again and compare the vectors with the stored ones."""
    spec, meta = side.encoder.model.spec, side.target.meta
    passages = {doc.id: stored_passage(spec, side.level, doc.fields) for doc in page}
    fresh = PassageVectors()
    fresh.tokenise(side.encoder.tokeniser, (passage for passage in passages.values() if passage))
    fresh.embed(side.encoder)
    for doc in page:
        passage, stored = passages[doc.id], from_wire(doc.fields.get("embedding"))
        if not passage:
            tallies["text hashes"].see(doc.id, "has a vector, but no words" if stored is not None else "")
            continue
        tallies["text hashes"].see(doc.id, "" if doc.fields.get("text_hash") == passage.key and stored is not None else "stale or missing")
        if stored is None:
            continue
        fault = _norm_fault(stored, meta.identity.dimension, meta.identity.normalize)
        tallies["norms"].see(doc.id, fault)
        if not fault:
            cosine = float(row_cosines(stored[None], fresh.vector(passage)[None])[0])
            tallies["vectors"].see(doc.id, "" if cosine >= WITNESS_COSINE else f"cosine {cosine:.4f}")


def _norm_fault(vector: np.ndarray[Any, Any], dimension: int, normalize: bool) -> str:
    if vector.shape != (dimension,):
        return f"{vector.size} numbers, not {dimension}"
    if not is_usable(vector):
        return "zero or not finite"
    length = float(np.linalg.norm(vector))
    return f"length {length:.4f}" if normalize and abs(length - 1) > _NORM else ""


def _users(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in OWN}
