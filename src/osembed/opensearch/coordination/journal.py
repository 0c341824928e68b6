"""The journal: osembed's own index in the cluster, with metadata of indexes, processes at work, and witness vectors.

Documents are changed only by compare-and-set. The journal never decides whether something has happened: aliases and documents do.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osembed.errors import BusyError, ConflictError, MissingError
from osembed.opensearch import changes, reads
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.schema import JOURNAL, read_mapping

State = dict[str, Any]
OF_INDEX = ("sight", "repair", "index")  # the kinds of entries that belong to one index, by its UUID
_TRIES = 50
_PAGE = 500


class Journal:
    """Reads and changes the journal of one cluster."""

    def __init__(self, client: OpenSearch) -> None:
        self._client = client

    def read(self, key: str) -> State | None:
        """Return an entry's state by a realtime read; None if it does not exist."""
        found = self._get(key)
        return found[0] if found else None

    def read_several(self, keys: Sequence[str]) -> dict[str, State]:
        """Return the states of several entries; missing ones are left out. They are read one at a time, which needs no further permission."""
        found = {key: self.read(key) for key in keys}
        return {key: state for key, state in found.items() if state is not None}

    def change(self, key: str, step: Callable[[State], State | None]) -> State:
        """Apply `step` to an entry's state by compare-and-set until it succeeds. Returns the new state.

        `step` gets {} if there is no entry. It returns the new state, or None to leave the entry unchanged. It may run several times.
        Raises BusyError if the entry keeps changing.
        """
        for _ in range(_TRIES):
            found = self._get(key)
            before = found[0] if found else {}
            after = step(dict(before))
            if after is None:
                return before
            if self._write(key, after, found[1] if found else None):
                return after
            time.sleep(random.uniform(0.01, 0.1))
        raise BusyError(f"The journal entry {key} changes faster than it can be written.", "", "Try again.")

    def entries(self, kind: str) -> dict[str, State]:
        """Return key → state of all entries of a kind. Entries written in the last second may be missing, because this is a search."""
        found: dict[str, State] = {}
        last = -1
        while True:
            newer = [{"term": {"kind": kind}}, {"range": {"_seq_no": {"gt": last}}}]
            order = [{"_seq_no": {"order": "asc", "unmapped_type": "long"}}]
            try:
                hits = reads.search(self._client, JOURNAL, {"size": _PAGE, "query": {"bool": {"filter": newer}}, "sort": order})["hits"][
                    "hits"
                ]
            except MissingError:
                return found
            found.update({hit["_id"]: hit["_source"]["state"] for hit in hits})
            if len(hits) < _PAGE:
                return found
            last = hits[-1]["sort"][0]

    def forget(self, key: str, only: Callable[[State], bool] = lambda _: True) -> bool:
        """Delete an entry if `only` accepts its state. Returns whether it is gone."""
        for _ in range(_TRIES):
            found = self._get(key)
            if found is None:
                return True
            if not only(found[0]):
                return False
            with suppress(ConflictError):
                changes.delete_document(self._client, JOURNAL, key, found[1])
                return True
            time.sleep(random.uniform(0.01, 0.1))
        raise BusyError(f"The journal entry {key} changes faster than it can be deleted.", "", "Try again.")

    def remember_index(self, uuid: str, meta: State, wanted: State) -> None:
        """Store an index's metadata by its UUID, so that a wiped `_meta` can be restored. An existing entry is kept."""
        self.change(f"index:{uuid}", lambda kept: None if kept else {"meta": meta, "wanted": wanted})

    def recall_index(self, uuid: str) -> State | None:
        """Return {"meta", "wanted"} of an index; None if osembed did not create it."""
        return self.read(f"index:{uuid}")

    def remember_witness(self, identity: str, vectors: NDArray[np.float32]) -> None:
        """Store the witness vectors of an identity, unless they exist already."""
        self.change(f"witness:{identity}", lambda kept: None if kept else {"vectors": vectors.tolist()})

    def recall_witness(self, identity: str) -> NDArray[np.float32] | None:
        """Return the witness vectors of an identity, float32 of shape (texts, dimension), or None."""
        kept = self.read(f"witness:{identity}")
        return np.asarray(kept["vectors"], dtype=np.float32) if kept else None

    def _get(self, key: str) -> tuple[State, tuple[int, int]] | None:
        found = reads.document(self._client, JOURNAL, key)
        return (found["_source"]["state"], (found["_seq_no"], found["_primary_term"])) if found else None

    def _write(self, key: str, state: State, seen: tuple[int, int] | None) -> bool:
        """Write an entry if it still has the version `seen`. Returns False if another process was faster."""
        kind, _, name = key.partition(":")
        body = {"kind": kind, "collection": name if kind == "collection" else None, "state": state}
        try:
            changes.write_document(self._client, JOURNAL, key, body, seen)
        except ConflictError:
            return False
        except MissingError:  # the very first entry, on a cluster that forbids automatic creation
            self._create()
            return False
        return True

    def ensure(self) -> None:
        """Create the journal's index unless it exists."""
        if not reads.indexes(self._client, [JOURNAL], "*.settings.index.uuid"):
            self._create()

    def _create(self) -> None:
        changes.create_index(self._client, JOURNAL, read_mapping("journal.json"))
