"""osembed's own index in the cluster: what each index is, who is loading, witness vectors.

Every document is changed only by compare-and-set. The journal never decides whether something is done: aliases and documents do.
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
    """Reads and changes journal documents of one cluster."""

    def __init__(self, client: OpenSearch) -> None:
        self._client = client

    def read(self, key: str) -> State | None:
        """Return a document's state (a realtime read), or None."""
        found = self._get(key)
        return found[0] if found else None

    def read_several(self, keys: Sequence[str]) -> dict[str, State]:
        """Read several documents' states; those that are not there are left out. (One by one: that needs no further permission.)"""
        found = {key: self.read(key) for key in keys}
        return {key: state for key, state in found.items() if state is not None}

    def change(self, key: str, step: Callable[[State], State | None]) -> State:
        """Apply `step` to a document's state by compare-and-set until it holds; return the new state.

        `step` gets {} where there is no document, and returns the new state or None to leave it as it is. It may run several times.
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
        """Return the states of all documents of a kind by key, but for those that were written in the last second."""
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
        """Delete a document, if it is one that `only` accepts; return whether it is gone."""
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
        """Keep an index's description by its UUID, so that a wiped `_meta` can be restored; the first entry stays."""
        self.change(f"index:{uuid}", lambda kept: None if kept else {"meta": meta, "wanted": wanted})

    def recall_index(self, uuid: str) -> State | None:
        """Return {"meta", "wanted"} of an index, or None for one that osembed did not create."""
        return self.read(f"index:{uuid}")

    def remember_witness(self, identity: str, vectors: NDArray[np.float32]) -> None:
        """Keep the witness vectors of an identity unless they are there already."""
        self.change(f"witness:{identity}", lambda kept: None if kept else {"vectors": vectors.tolist()})

    def recall_witness(self, identity: str) -> NDArray[np.float32] | None:
        """Return the witness vectors of an identity, float32 [texts, dimension], or None."""
        kept = self.read(f"witness:{identity}")
        return np.asarray(kept["vectors"], dtype=np.float32) if kept else None

    def _get(self, key: str) -> tuple[State, tuple[int, int]] | None:
        found = reads.document(self._client, JOURNAL, key)
        return (found["_source"]["state"], (found["_seq_no"], found["_primary_term"])) if found else None

    def _write(self, key: str, state: State, seen: tuple[int, int] | None) -> bool:
        """Write a document if it is still the one that was seen; False where somebody else was faster."""
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
        """Create the journal's index unless it is there."""
        if not reads.indexes(self._client, [JOURNAL], "*.settings.index.uuid"):
            self._create()

    def _create(self) -> None:
        changes.create_index(self._client, JOURNAL, read_mapping("journal.json"))
