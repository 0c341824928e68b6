"""Checkpoints: up to which operation the writes of a shard are safe on every in-sync copy and on disk.

A document found by a search or a read is not always safe. After a write that failed half-way (a full disk), a shard can continue to show
documents that it never confirmed and that disappear when it restarts. So nothing is concluded from operations above a checkpoint.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from osembed.errors import UnsettledError
from osembed.opensearch import reads
from osembed.opensearch.client import OpenSearch

_CONFIRMED_S = 2.0  # normal writes are confirmed within moments


@dataclass(frozen=True)
class Checkpoint:
    """The state of a shard's primary.

    Attributes:
        safe: the global checkpoint; all operations up to this sequence number are on every in-sync copy.
        highest: the last sequence number that was assigned.
        term: the primary term.
    """

    safe: int
    highest: int
    term: int


def read_checkpoints(client: OpenSearch, index: str) -> dict[int, Checkpoint]:
    """Return each shard's checkpoint. Raises UnsettledError if a primary is missing or has just moved."""
    terms = reads.primary_terms(client, index)
    shards = reads.stats(client, index, "docs", level="shards").get("shards", {})
    found = {}
    for number, copies in shards.items():
        primary = next((copy for copy in copies if copy["routing"]["primary"]), None)
        if primary and int(number) in terms:
            at = primary["seq_no"]
            found[int(number)] = Checkpoint(int(at["global_checkpoint"]), int(at["max_seq_no"]), terms[int(number)])
    if set(found) != set(terms) or reads.primary_terms(client, index) != terms:
        raise UnsettledError(f"{len(terms) - len(found)} of {len(terms)} primaries of {index} do not answer, or one has just moved.")
    return found


def whole_checkpoints(client: OpenSearch, index: str) -> dict[int, Checkpoint]:
    """Return each shard's checkpoint when it covers everything that the shard holds now. Later writes are not waited for.

    Raises UnsettledError if that takes too long: a scan up to the checkpoint would then look complete but miss documents.
    """
    first, ends = read_checkpoints(client, index), time.monotonic() + _CONFIRMED_S
    now = first
    while True:
        behind = [number for number, at in now.items() if at.term == first[number].term and at.safe < first[number].highest]
        if not behind:
            return now
        if time.monotonic() > ends:
            raise unconfirmed(index, behind[0], now[behind[0]].safe, now[behind[0]].highest)
        time.sleep(0.05)
        now = read_checkpoints(client, index)


def unconfirmed(index: str, shard: int, safe: int, highest: int) -> UnsettledError:
    """Return the error for a shard that holds operations which it does not confirm."""
    command = {"cancel": {"index": index, "shard": shard, "node": "NODE", "allow_primary": True}}
    return UnsettledError(
        f"Shard {shard} of {index} does not confirm all of its writes: it has operation {highest} and confirms {safe}.",
        "This happens after a write failed half-way, for example on a full disk. Unconfirmed writes are lost when the shard restarts.",
        f"Restart the node that holds it (`GET _cat/shards/{index}`), or restart the shard: POST _cluster/reroute "
        f"{json.dumps({'commands': [command]})}. Then run the same command again.",
    )
