"""The proof: compare the new indexes with the old, and their vectors with their texts. Reads only.

Differences between the two, and faults of the new vectors, veto a swap. What was wrong in the old index already is reported as inherited:
a migration copies a collection as it is, and `verify --repair` mends it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from osembed.client import OpenSearch
from osembed.identity import WITNESS_COSINE, text_hash
from osembed.index import Target
from osembed.migrate import integrity, pairs, recall, scan
from osembed.migrate.copy import OWN, PAGE, Lane, pack
from osembed.migrate.progress import Progress
from osembed.migrate.scan import Found
from osembed.opensearch import answers, changes, reads
from osembed.opensearch.checkpoints import whole_checkpoints
from osembed.opensearch.patience import settled
from osembed.passage import stored_passage
from osembed.schema import Level
from osembed.state import MigrationState
from osembed.vectors import from_wire

if TYPE_CHECKING:
    from osembed.embed.encoder import Encoder

Verdict = Literal["passed", "failed", "inherited", "pending", "empty"]
Watch = Callable[[Progress], None]
SAMPLE = 400
_EXAMPLES = 5
_NORM = 0.01  # how far a normalised vector's length may be from 1: bf16 and base-64 round trips stay well below
_RECALL = 0.95
_RECALL_QUANTISED = 0.9  # seven bits a number lose some of the ten on purpose


@dataclass
class Check:
    """One check of one level: how many documents it looked at, how many faults it found, the first of them.

    What looked at nothing has not passed: `empty` where there is nothing of the kind, `failed` where there is.
    """

    name: str
    level: str
    verdict: Verdict
    checked: int
    faults: int = 0
    found: str = ""
    examples: list[str] = field(default_factory=list)


@dataclass
class Report:
    """All checks of one verification."""

    collection: str
    kind: str
    indexes: dict[str, str]
    full: bool
    checks: list[Check] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether nothing vetoes a swap."""
        return all(check.verdict != "failed" for check in self.checks)


@dataclass(frozen=True)
class Pair:
    """One level of a migration under way, for verification."""

    lane: Lane
    marks: Mapping[str, int]
    bases: Mapping[str, tuple[int, int]]
    failed: frozenset[str]


@dataclass(frozen=True)
class Side:
    """One index with the encoder of its model; `pair` where it is the target of a migration."""

    target: Target
    level: Level
    encoder: Encoder
    pair: Pair | None = None


class _Tally:
    """Counts the faults of one check and keeps the first few."""

    def __init__(self, name: str, level: str) -> None:
        self.name, self.level, self.checked, self.faults = name, level, 0, 0
        self.examples: list[str] = []

    def see(self, doc_id: str, fault: str) -> None:
        self.checked += 1
        if fault:
            self.faults += 1
            if len(self.examples) < _EXAMPLES:
                self.examples.append(f"{doc_id}: {fault}")

    def check(self, what: str, looked_at: int, there: int) -> Check:
        """Return the verdict.

        Args:
            what: a fault in words.
            looked_at: documents that all checks together were given.
            there: documents that the index has.
        """
        if there and not looked_at:
            return Check(self.name, self.level, "failed", 0, 1, f"none of {there:,} documents was looked at")
        if not self.checked:
            moving = self.name in ("versions", "fields") and looked_at > 0
            words = "all that were looked at have changed since" if moving else "there is nothing of the kind"
            return Check(self.name, self.level, "pending" if moving else "empty", 0, 0, words)
        found = f"{self.faults:,} of {self.checked:,} documents: {what}" if self.faults else f"{self.checked:,} documents"
        return Check(self.name, self.level, "failed" if self.faults else "passed", self.checked, self.faults, found, self.examples)


def verify(
    client: OpenSearch,
    collection: str,
    sides: Sequence[Side],
    *,
    full: bool = False,
    still: Sequence[Target] = (),
    watch: Watch = lambda _: None,
) -> Report:
    """Verify indexes: against their sources where they are targets of a migration, else against their own texts.

    Args:
        client: the connection.
        collection: its name.
        sides: the indexes, at most one per level.
        full: look at every document instead of a sample of 400 per level; ids and origins are always compared completely.
        still: an index of the other level that does not move, for the chunks' papers.
        watch: called after each page of documents with how far it is; may raise to end it.
    """
    began = time.monotonic()
    seen = _Watched(watch, sum(_planned(client, side, full) for side in sides))
    kind = "migration" if any(side.pair for side in sides) else "live"
    report = Report(collection, kind, {side.level: side.target.index for side in sides}, full)
    for side in sides:
        settled(lambda side=side: changes.refresh(client, side.target.index))  # type: ignore[misc]
        if side.pair:
            report.checks.append(_ids(client, side.pair))
        report.checks += _documents(client, side, full, seen)
        report.checks.append(settled(lambda side=side: _identities(client, side)))  # type: ignore[misc]
        report.checks.append(_recall(client, side))
    report.checks += settled(lambda: integrity.check(client, sides, still))
    report.seconds = round(time.monotonic() - began, 2)
    return report


class _Watched:
    """Tells how many documents were looked at."""

    def __init__(self, watch: Watch, total: int) -> None:
        self._watch, self._began, self._progress = watch, time.monotonic(), Progress("verifying", total=total)
        watch(self._progress)

    def add(self, count: int) -> None:
        self._progress.advance(count, self._began)
        self._watch(self._progress)


def _planned(client: OpenSearch, side: Side, full: bool) -> int:
    """Return how many documents of an index will be looked at one by one."""
    settled(lambda: changes.refresh(client, side.target.index))
    count = settled(lambda: reads.count(client, side.target.index))
    return count if full else min(count, SAMPLE)


def _ids(client: OpenSearch, pair: Pair) -> Check:
    """Every id of the source stands in the target with the origin of its last version, and nothing else does."""
    lane, faults, pending = pair.lane, [], 0
    seen = settled(lambda: reads.count(client, lane.source.index))
    if seen and not any(mark >= 0 for mark in pair.marks.values()):
        return Check("ids and origins", lane.level, "failed", 0, seen, f"none of {seen:,} documents was compared: they are not copied yet")
    for shard, mark in pair.marks.items():
        base = pair.bases.get(shard, (-1, -1))
        found = settled(lambda shard=shard, mark=mark, base=base: pairs.compare(client, lane, int(shard), mark, base))  # type: ignore[misc]
        now, alive = settled(lambda found=found: (_now(client, lane, found.missing), _now(client, lane, found.extra)))  # type: ignore[misc]
        for key, number in found.missing:
            if f"{lane.level}/{key}" not in pair.failed and key in now and now[key].seq == number:
                faults.append(f"{key} is missing, or not its latest version")
        for key, number in found.extra:
            if number < 0:
                faults.append(f"{key} was not put there by this migration")
            elif key not in alive:
                pending += 1
    if faults:
        return Check("ids and origins", lane.level, "failed", seen, len(faults), f"{len(faults):,} documents differ", faults[:_EXAMPLES])
    verdict: Verdict = "pending" if pending else "passed" if seen else "empty"
    note = f", {pending:,} deletes of the source still to be repeated" if pending else ""
    return Check("ids and origins", lane.level, verdict, seen, 0, f"{seen:,} documents{note}")


def _now(client: OpenSearch, lane: Lane, keys: Mapping[pairs.Key, str | None]) -> dict[str, Found]:
    return scan.read_now(client, lane.source.index, [(key, routing) for (key, _), routing in keys.items()])


def _documents(client: OpenSearch, side: Side, full: bool, seen: _Watched) -> list[Check]:
    """Look at documents one by one: version, fields, text, vector."""
    names = ("versions", "fields") if side.pair else ()
    tallies = {name: _Tally(name, side.level) for name in (*names, "text hashes", "vectors", "norms")}
    looked_at = 0
    for page in _pages(client, side, full):
        looked_at += len(page)
        if side.pair:
            _against_source(client, side.pair, page, tallies)
        _against_text(side, page, tallies)
        seen.add(len(page))
    words = {
        "versions": "the copy is not of the version that the source has",
        "fields": "the user's own fields differ from the source's",
        "text hashes": "the vector is of another text, or there is none",
        "vectors": f"the stored vector is not what the model makes of the text (cosine below {WITNESS_COSINE})",
        "norms": "the vector is not finite, zero, of another dimension, or not normalised",
    }
    there = reads.count(client, side.target.index)
    return [tally.check(words[name], looked_at, there) for name, tally in tallies.items()]


def _pages(client: OpenSearch, side: Side, full: bool) -> Iterator[list[Found]]:
    index, size = side.target.index, PAGE[side.level]
    if full:
        for shard, point in settled(lambda: whole_checkpoints(client, index)).items():
            yield from scan.settled_scan(client, index, shard, -1, point, size=size)
        return
    yield from scan.sample(client, index, SAMPLE, size)


def _against_source(client: OpenSearch, pair: Pair, page: Sequence[Found], tallies: Mapping[str, _Tally]) -> None:
    """Compare copies with the documents they were made of; those that changed since are the next catch-up's."""
    keys = [(doc.id, doc.routing) for doc in page]
    now = settled(lambda: scan.read_now(client, pair.lane.source.index, keys, fields=()))
    back = any(base[0] >= 0 for base in pair.bases.values())
    for doc in page:
        origin = now.get(doc.id)
        if origin is None or doc.fields.get("origin") != origin.seq:
            continue  # changed or deleted since, or judged by ids and origins
        expected = pack(pair.lane.leg, origin.term, origin.seq)
        tallies["versions"].see(doc.id, "" if back or doc.version == expected else f"version {doc.version}, not {expected}")
        mine, theirs = _users(doc.fields), _users(origin.fields)
        names = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
        tallies["fields"].see(doc.id, f"{', '.join(names)} differ" if names else "")


def _against_text(side: Side, page: Sequence[Found], tallies: Mapping[str, _Tally]) -> None:
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


def _identities(client: OpenSearch, side: Side) -> Check:
    """Every document with words names the identity of its index."""
    mine = side.target.meta.identity.hash
    body = {
        "size": _EXAMPLES * 20,
        "track_total_hits": True,
        "query": {"bool": {"must_not": [{"term": {"identity": mine}}]}},
        "_source": {"excludes": ["embedding"]},
    }
    answer = reads.search(client, side.target.index, body)
    spec, total = side.encoder.model.spec, answers.total(answer, side.target.index)
    listed = answer["hits"]["hits"]
    wordless = [hit for hit in listed if not stored_passage(spec, side.level, hit["_source"]) and "identity" not in hit["_source"]]
    faults = total - len(wordless) if total <= len(listed) else total
    examples = [f"{hit['_id']}: {hit['_source'].get('identity', 'none')}" for hit in listed if hit not in wordless][:_EXAMPLES]
    count = reads.count(client, side.target.index)
    found = f"{faults:,} of {count:,} documents are of another model" if faults else f"{count:,} documents"
    return Check("identities", side.level, "failed" if faults else "passed" if count else "empty", count, faults, found, examples)


def _recall(client: OpenSearch, side: Side) -> Check:
    value, queries = settled(lambda: recall.measure(client, side.target))
    if not queries:
        there = reads.count(client, side.target.index, {"exists": {"field": "embedding"}})
        found = f"none of {there:,} vectors was searched for" if there else "no vectors"
        return Check("recall@10", side.level, "failed" if there else "empty", 0, int(there > 0), found)
    found = f"{value:.3f} of the exact ten nearest are found, {queries} queries"
    floor = _RECALL_QUANTISED if side.target.meta.profile == "lucene-sq" else _RECALL
    return Check("recall@10", side.level, "passed" if value >= floor else "failed", queries, int(value < floor), found)


def _users(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in OWN}


def page_of(report: Mapping[str, Any]) -> str:
    """Return a report, as it stands in the journal, as a readable page (Markdown)."""
    verdict = "passed" if report["passed"] else "FAILED"
    lines = [
        f"# Verification of '{report['collection']}': {verdict}",
        "",
        f"{'Every document' if report['full'] else 'A sample of documents'} of {', '.join(report['indexes'].values())}, "
        f"in {report['seconds']:.1f} s. Ids and origins are always compared completely.",
        "",
        "| check | level | verdict | found |",
        "|---|---|---|---|",
    ]
    lines += [f"| {check['name']} | {check['level']} | {check['verdict']} | {check['found']} |" for check in report["checks"]]
    for check in report["checks"]:
        if check["examples"]:
            lines += ["", f"**{check['name']}, {check['level']}**", *(f"- {example}" for example in check["examples"])]
    return "\n".join(lines) + "\n"


def kept_report(report: Report) -> dict[str, Any]:
    """Return a report as the journal keeps it: its fields and a readable page."""
    kept = {**asdict(report), "passed": report.passed}
    return {**kept, "page": page_of(kept)}


def pair_of(lane: Lane, state: MigrationState) -> Pair:
    """Return one level of a migration as verification sees it."""
    move = state.moves[lane.level]
    failed = frozenset(key for key in state.failed if key.startswith(f"{lane.level}/"))
    return Pair(lane, move.marks, move.bases if state.back else {}, failed)
