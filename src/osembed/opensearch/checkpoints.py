"""How far the writes of a shard are safe: on every in-sync copy, and on disk.

What a search or a read by id finds may not be: after a write that failed half-way (a full disk) a shard can go on to show documents that it has
confirmed to nobody, and that are gone when it starts again. So nothing is concluded from what stands above a checkpoint.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from osembed.errors import UnsettledError
from osembed.opensearch import reads
from osembed.opensearch.client import OpenSearch

_CONFIRMED_S = 2.0  # writes on their way are confirmed within moments


@dataclass(frozen=True)
class Checkpoint:
    """Where a shard's primary stands: all operations up to `safe` are on every in-sync copy, `highest` was given out last."""

    safe: int
    highest: int
    term: int


def read_checkpoints(client: OpenSearch, index: str) -> dict[int, Checkpoint]:
    """Return each shard's checkpoint. Raises UnsettledError where a primary is missing or has just moved."""
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
    """Return each shard's checkpoint once all that the shard has now stands at or below it; what is written meanwhile is not waited for.

    Raises UnsettledError where that is not so in time: a scan up to the checkpoint would be complete, and not see all.
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
    """Return the error for a shard that holds more than it confirms."""
    command = {"cancel": {"index": index, "shard": shard, "node": "NODE", "allow_primary": True}}
    return UnsettledError(
        f"Shard {shard} of {index} does not confirm all of its writes: it has operation {highest} and confirms {safe}.",
        "A write that failed half-way, on a full disk say, leaves a shard so; what is not confirmed is gone when the shard starts again.",
        f"Restart the node that holds it (`GET _cat/shards/{index}`), or start the shard again: POST _cluster/reroute "
        f"{json.dumps({'commands': [command]})}. Then run the same command again.",
    )
