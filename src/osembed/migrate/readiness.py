"""Readiness of clients: during a migration, long-lived processes announce whether they have the new model, and load it before the swap.

A process that lives for only a few seconds announces nothing. The announcements serve only for a warning: a reader without the new model
searches by words only and says so, and a writer without it stops before it sends anything.
"""

from __future__ import annotations

import secrets
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from osembed.embed.encoders import Encoders
from osembed.errors import IdentityError, ModelError, OsembedError
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.heartbeat import is_surely_dead, new_entry
from osembed.opensearch.coordination.journal import Journal
from osembed.opensearch.coordination.migration_state import BEFORE_SWAP, migration_key, read_state
from osembed.opensearch.schema import IndexMeta, read_meta

_FIRST_S = 3.0  # before the first announcement, so that short commands make none
_EVERY_S = 5.0
_FORGET_S = 60.0  # entries without a beat for so long are removed
Clients = dict[str, dict[str, Any]]


class Announcer:
    """A daemon thread that announces which models its process can use, as long as its owner lives. `start` may be called repeatedly."""

    def __init__(self, client: OpenSearch, collection: str, encoders: Encoders) -> None:
        self._client, self._collection, self._encoders = client, collection, encoders
        self._token, self._entry = secrets.token_hex(8), new_entry()
        self._ready: dict[str, bool] = {}
        self._seen: dict[str, tuple[int, float]] = {}
        self._started, self._ended = False, threading.Event()

    def start(self, owner: object) -> None:
        """Start to announce, unless already started. Ends with the owner or with `stop`."""
        if not self._started:
            self._started = True
            weakref.finalize(owner, self.stop)
            threading.Thread(target=self._run, daemon=True, name="osembed-announcer").start()

    def stop(self) -> None:
        """Stop announcing."""
        self._ended.set()

    def _run(self) -> None:
        wait_s = _FIRST_S
        while not self._ended.wait(wait_s):
            with suppress(OsembedError):  # the server is unavailable, or this user may not write to the journal
                self._announce()
            wait_s = _EVERY_S

    def _announce(self) -> None:
        journal = Journal(self._client)
        state = read_state(journal.read(migration_key(self._collection)))
        if state is None or state.phase not in BEFORE_SWAP:
            return
        for move in state.moves.values():
            kept = journal.recall_index(move.green_uuid) if move.green_uuid else None
            if kept:
                self._try(read_meta(kept["meta"]))
        self._entry["beat"] += 1
        journal.change(_key(self._collection), self._enter)

    def _try(self, meta: IndexMeta) -> None:
        """Load the new model now, so that the first query after the swap does not wait for it."""
        if self._ready.get(meta.identity.hash):
            return
        try:
            self._encoders.of(meta.stored_model)
            self._ready[meta.identity.hash] = True
        except (ModelError, IdentityError):
            self._ready[meta.identity.hash] = False

    def _enter(self, stored: dict[str, Any]) -> dict[str, Any]:
        now, clients = time.monotonic(), stored.get("clients", {})
        for token, entry in clients.items():
            if self._seen.get(token, (-1, 0.0))[0] != entry["beat"]:
                self._seen[token] = (entry["beat"], now)
        kept = {token: entry for token, entry in clients.items() if now - self._seen[token][1] < _FORGET_S and not is_surely_dead(entry)}
        return {"clients": {**kept, self._token: {**self._entry, "ready": dict(self._ready)}}}


def read_clients(client: OpenSearch, collection: str) -> Clients:
    """Return the announced clients of a collection."""
    return dict((Journal(client).read(_key(collection)) or {}).get("clients", {}))


def unready_clients(before: Clients, now: Clients, identities: Mapping[str, str]) -> list[str]:
    """Return a sentence for each live client that lacks one of the models. A client is alive if it announced something after `before`.

    Args:
        before, now: two results of `read_clients`.
        identities: identity → model name.
    """
    lacking = []
    for token, entry in now.items():
        if is_surely_dead(entry) or (token in before and before[token]["beat"] == entry["beat"]):
            continue
        missing = [name for identity, name in identities.items() if not entry.get("ready", {}).get(identity)]
        if missing:
            lacking.append(f"process {entry['pid']} on {entry['host']} has not announced {', '.join(sorted(set(missing)))}")
    return lacking


def _key(collection: str) -> str:
    return f"clients:{collection}"
