"""Find documents that were deleted in the source, or that are in the target by mistake. A copy alone cannot notice them.

Deletes leave no searchable trace. But each document in the target carries `origin`, the sequence number of the version it was copied from.
So both sides hold the same documents exactly if the source's sequence numbers and the target's origins are the same numbers. Two histograms
per shard are compared, and only unequal buckets are listed.

During a rollback, documents that have not changed since the swap pair the other way round: green's `origin` is blue's sequence number. The
bases, which are both sides' highest numbers at the swap, separate the two kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from osembed.migrate.copy.copier import Copier
from osembed.migrate.copy.level_copy import LevelCopy, Outdated
from osembed.opensearch import operation, scan
from osembed.opensearch.bulk import BulkLoop
from osembed.opensearch.client import OpenSearch

_RANGES = 200  # buckets listed per request
_AT_ONCE = 5000  # documents fixed per call
Key = tuple[str, int]


@dataclass
class Difference:
    """Documents of one shard that are on one side only: (id, number) → routing. Without a fence they are only suspects.

    Attributes:
        extra: in the target only.
        missing: in the source only.
    """

    extra: dict[Key, str | None] = field(default_factory=dict)
    missing: dict[Key, str | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.extra or self.missing)


@dataclass(frozen=True)
class Half:
    """One way of pairing: which number of the source corresponds to which number of the target, within ranges of sequence numbers."""

    source_key: str
    source_within: dict[str, int]
    target_key: str
    target_within: dict[str, int]
    highest: int


def pairing_halves(mark: int, base: tuple[int, int]) -> Iterator[Half]:
    """Yield the pairings of a shard: documents written after the bases and, during a rollback, documents unchanged since them."""
    yield Half("_seq_no", {"gt": base[0], "lte": mark}, "origin", {"gt": base[1]}, mark)
    if base[0] >= 0:
        yield Half("origin", {"lte": base[0]}, "_seq_no", {"lte": base[1]}, base[1])


def compare_shard(client: OpenSearch, level_copy: LevelCopy, shard: int, mark: int, base: tuple[int, int]) -> Difference:
    """Compare a shard's live documents on both sides, up to the mark. Refresh both sides first."""
    found = Difference()
    for half in pairing_halves(mark, base):
        width = scan.interval_for(half.highest)
        ours, _ = scan.histogram(client, level_copy.source.index, shard, half.source_key, half.source_within, width)
        theirs, strays = scan.histogram(client, level_copy.target.index, shard, half.target_key, half.target_within, width)
        unequal = sorted(start for start in ours.keys() | theirs.keys() if ours.get(start, 0) != theirs.get(start, 0))
        for first in range(0, len(unequal), _RANGES):
            ranges = [(start, start + width) for start in unequal[first : first + _RANGES]]
            here = scan.listing(client, level_copy.source.index, shard, half.source_key, half.source_within, ranges)
            there = scan.listing(client, level_copy.target.index, shard, half.target_key, half.target_within, ranges)
            found.extra.update({key: routing for key, routing in there.items() if key not in here})
            found.missing.update({key: routing for key, routing in here.items() if key not in there})
        if strays and half.target_key == "origin":
            found.extra.update(scan.listing(client, level_copy.target.index, shard, "origin", half.target_within, None))
    return found


def mend_difference(client: OpenSearch, level_copy: LevelCopy, found: Difference, copier: Copier, loop: BulkLoop) -> int:
    """Fix a difference: delete extra documents that the source does not have, copy missing ones. Realtime reads decide.

    Returns the number of changed documents. Documents with a newer version in the source are left to the next catch-up.
    """
    changed = _delete(client, level_copy, dict(list(found.extra.items())[:_AT_ONCE]), loop)
    keys = list(found.missing.items())[:_AT_ONCE]
    for first in range(0, len(keys), 100):
        part = {key: (number, routing) for (key, number), routing in keys[first : first + 100]}
        wanted = [(key, routing) for key, (_, routing) in part.items()]
        now = scan.read_now(client, level_copy.source.index, wanted, fields=())
        docs = [doc for key, doc in now.items() if doc.seq == part[key][0]]
        changed += copier.copy_now(level_copy, docs).written if docs else 0
    return changed


def _delete(client: OpenSearch, level_copy: LevelCopy, extra: dict[Key, str | None], loop: BulkLoop) -> int:
    """Delete documents from the target that the source no longer has; return their number."""
    wanted = {key: (number, routing) for (key, number), routing in extra.items()}
    alive = scan.read_now(client, level_copy.source.index, [(key, routing) for key, (_, routing) in wanted.items()])
    gone = [(key, routing) for key, (_, routing) in wanted.items() if key not in alive]
    there = scan.read_now(client, level_copy.target.index, gone)
    routed = dict(gone)
    outcome = loop.send(operation.delete(level_copy.alias, key, (doc.seq, doc.term), routed[key]) for key, doc in there.items())
    if outcome.blocked:
        raise Outdated("the target refuses deletes")
    return outcome.done
