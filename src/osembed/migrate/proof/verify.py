"""Verification: compare the new indexes with the old ones, and vectors with their texts. Reads only.

Differences between the indexes and faults of the new vectors prevent a swap. Faults that the old index already has are reported as
inherited: a migration copies a collection as it is, and `verify --repair` repairs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from osembed.migrate.copy import pairs
from osembed.migrate.copy.level_copy import LevelCopy
from osembed.migrate.progress import Progress
from osembed.migrate.proof import integrity, recall
from osembed.migrate.proof.documents import SAMPLE, check_documents
from osembed.migrate.proof.sides import Pair, Side
from osembed.migrate.proof.verification import EXAMPLES, Check, Verdict, Verification
from osembed.opensearch import answers, changes, reads, scan
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.documents import StoredDocument
from osembed.opensearch.patience import until_settled
from osembed.opensearch.target import Target
from osembed.passages.passage import stored_passage

Watch = Callable[[Progress], None]
_RECALL = 0.95  # lowest recall@10 of a graph that passes
_RECALL_QUANTISED = 0.9  # the same for 7-bit vectors, which trade recall for size


def verify(
    client: OpenSearch,
    collection: str,
    sides: Sequence[Side],
    *,
    full: bool = False,
    still: Sequence[Target] = (),
    watch: Watch = lambda _: None,
) -> Verification:
    """Verify indexes against their sources if they are targets of a migration, else against their own texts. Returns the report.

    Args:
        client: the connection.
        collection: its name.
        sides: the indexes, at most one per level.
        full: check every document instead of a sample of 400 per level; ids and origins are always compared completely.
        still: the live index of a level that does not move, to compare chunks with papers.
        watch: called with the progress after each page of documents; may raise to stop.
    """
    began = time.monotonic()
    seen = _Watched(watch, sum(_planned(client, side, full) for side in sides))
    kind = "migration" if any(side.pair for side in sides) else "live"
    report = Verification(collection, kind, {side.level: side.target.index for side in sides}, full)
    for side in sides:
        until_settled(partial(changes.refresh, client, side.target.index))
        if side.pair:
            report.checks.append(_ids(client, side.pair))
        report.checks += check_documents(client, side, full, seen.add)
        report.checks.append(until_settled(partial(_identities, client, side)))
        report.checks.append(_recall(client, side))
    report.checks += until_settled(lambda: integrity.check_integrity(client, sides, still))
    report.seconds = round(time.monotonic() - began, 2)
    return report


class _Watched:
    """Counts checked documents and reports the progress."""

    def __init__(self, watch: Watch, total: int) -> None:
        self._watch, self._began, self._progress = watch, time.monotonic(), Progress("verifying", total=total)
        watch(self._progress)

    def add(self, count: int) -> None:
        self._progress.advance(count, self._began)
        self._watch(self._progress)


def _planned(client: OpenSearch, side: Side, full: bool) -> int:
    """Return how many documents of an index will be checked individually."""
    until_settled(lambda: changes.refresh(client, side.target.index))
    count = until_settled(lambda: reads.count(client, side.target.index))
    return count if full else min(count, SAMPLE)


def _ids(client: OpenSearch, pair: Pair) -> Check:
    """Check that the target has exactly the source's ids, each with the origin of its last version."""
    level_copy, faults, pending = pair.level_copy, [], 0
    seen = until_settled(lambda: reads.count(client, level_copy.source.index))
    if seen and not any(mark >= 0 for mark in pair.marks.values()):
        return Check(
            "ids and origins", level_copy.level, "failed", 0, seen, f"none of {seen:,} documents was compared: they are not copied yet"
        )
    for shard, mark in pair.marks.items():
        base = pair.bases.get(shard, (-1, -1))
        found = until_settled(partial(pairs.compare_shard, client, level_copy, int(shard), mark, base))
        # Both sides may have changed since the comparison: realtime reads of the source decide what is a fault.
        now = until_settled(partial(_now, client, level_copy, found.missing))
        alive = until_settled(partial(_now, client, level_copy, found.extra))
        for key, number in found.missing:
            if f"{level_copy.level}/{key}" not in pair.failed and key in now and now[key].seq == number:
                faults.append(f"{key} is missing or outdated")
        for key, number in found.extra:
            if number < 0:  # no origin: another program wrote it
                faults.append(f"{key} was not written by this migration")
            elif key not in alive:
                pending += 1
    if faults:
        return Check(
            "ids and origins", level_copy.level, "failed", seen, len(faults), f"{len(faults):,} documents differ", faults[:EXAMPLES]
        )
    verdict: Verdict = "pending" if pending else "passed" if seen else "empty"
    note = f", {pending:,} deletes not yet repeated" if pending else ""
    return Check("ids and origins", level_copy.level, verdict, seen, 0, f"{seen:,} documents{note}")


def _now(client: OpenSearch, level_copy: LevelCopy, keys: Mapping[pairs.Key, str | None]) -> dict[str, StoredDocument]:
    return scan.read_now(client, level_copy.source.index, [(key, routing) for (key, _), routing in keys.items()])


def _identities(client: OpenSearch, side: Side) -> Check:
    """Check that every document with text carries the identity of its index."""
    mine = side.target.meta.identity.hash
    body = {
        "size": EXAMPLES * 20,
        "track_total_hits": True,
        "query": {"bool": {"must_not": [{"term": {"identity": mine}}]}},
        "_source": {"excludes": ["embedding"]},
    }
    answer = reads.search(client, side.target.index, body)
    spec, total = side.encoder.model.spec, answers.total(answer, side.target.index)
    listed = answer["hits"]["hits"]
    wordless = [hit for hit in listed if not stored_passage(spec, side.level, hit["_source"]) and "identity" not in hit["_source"]]
    faults = total - len(wordless) if total <= len(listed) else total
    examples = [f"{hit['_id']}: {hit['_source'].get('identity', 'none')}" for hit in listed if hit not in wordless][:EXAMPLES]
    count = reads.count(client, side.target.index)
    found = f"{faults:,} of {count:,} documents belong to another model" if faults else f"{count:,} documents"
    return Check("identities", side.level, "failed" if faults else "passed" if count else "empty", count, faults, found, examples)


def _recall(client: OpenSearch, side: Side) -> Check:
    value, queries = until_settled(lambda: recall.measure_recall(client, side.target))
    if not queries:
        there = reads.count(client, side.target.index, {"exists": {"field": "embedding"}})
        found = f"none of {there:,} vectors could be searched for" if there else "no vectors"
        return Check("recall@10", side.level, "failed" if there else "empty", 0, int(there > 0), found)
    found = f"{value:.3f} of the exact ten nearest are found, {queries} queries"
    floor = _RECALL_QUANTISED if side.target.meta.profile == "lucene-sq" else _RECALL
    return Check("recall@10", side.level, "passed" if value >= floor else "failed", queries, int(value < floor), found)
