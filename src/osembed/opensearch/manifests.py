"""Manifests: the papers that came from each folder or file, kept in the journal so that a later run can detect which are gone.

A manifest is a series of journal entries, each with some ids. Ids are added before the papers are written, so a killed run has listed
everything that it may have written. One entry per collection lists the manifests.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.journal import Journal, State
from osembed.papers.readers.folders import Root

_SEGMENT = 2000  # ids per entry: some tens of kilobytes


@dataclass(frozen=True)
class Other:
    """Another root of the same collection. `where` is its name in messages, `ids` are some of its papers."""

    where: str
    ids: tuple[str, ...]


class Manifests:
    """The manifests of one collection. A root is identified by host name and path."""

    def __init__(self, client: OpenSearch, collection: str) -> None:
        self._journal, self._collection, self._host = Journal(client), collection, platform.node()
        self._segments: dict[str, int] = {}

    def read(self, root: Root) -> Iterator[list[str]]:
        """Yield the ids in a root's manifest, some at a time. Records the root's current source prefix."""
        key = self._key(root)
        entry = self._roots().get(key)
        if entry is None:
            return
        if root.prefix not in entry["prefixes"]:
            entry = self._enter(root)
        yield from self._read_segments(key, entry)

    def add(self, root: Root, ids: list[str]) -> None:
        """Append ids to a root's manifest."""
        key = self._key(root)
        if ids and key not in self._segments:
            self._segments[key] = int(self._enter(root)["segments"])
        while ids:
            ids = self._append(key, self._segments[key] - 1, ids)
            if ids:
                self._segments[key] = int(self._enter(root, self._segments[key] + 1)["segments"])

    def remove(self, root: Root, doomed: Callable[[list[str]], set[str]]) -> None:
        """Remove ids from a root's manifest: `doomed` gets some of its ids and returns those to remove."""
        key = self._key(root)

        def step(state: State) -> State | None:
            ids = state.get("ids", [])
            gone = doomed(ids)
            return {"ids": [paper_id for paper_id in ids if paper_id not in gone]} if gone else None

        for number in range(int(self._roots().get(key, {}).get("segments", 0))):
            self._journal.change(_segment_key(self._collection, key, number), step)

    def prefixes(self, root: Root) -> list[str]:
        """Return the prefixes that the sources of a root's papers may have: a link is another name of the same folder."""
        return list(self._roots().get(self._key(root), {}).get("prefixes", []))

    def others(self, root: Root) -> Iterator[Other]:
        """Yield the papers of all other roots, some at a time."""
        for key, entry in self._roots().items():
            if key != self._key(root):
                where = entry["path"] if entry["host"] == self._host else f"{entry['path']} on {entry['host']}"
                yield from (Other(where, tuple(ids)) for ids in self._read_segments(key, entry))

    def _key(self, root: Root) -> str:
        return hashlib.blake2b(f"{self._host}\0{root.path}".encode(), digest_size=12).hexdigest()

    def _roots(self) -> dict[str, State]:
        return dict((self._journal.read(_manifests_key(self._collection)) or {}).get("roots", {}))

    def _enter(self, root: Root, segments: int = 1) -> State:
        """Add a root with at least this many segments, and return its entry."""
        key = self._key(root)

        def step(state: State) -> State | None:
            roots = state.get("roots", {})
            before = roots.get(key, {"prefixes": [], "segments": 0})
            prefixes = list(dict.fromkeys([*before["prefixes"], root.prefix]))
            after = {"host": self._host, "path": root.path, "prefixes": prefixes, "segments": max(before["segments"], segments)}
            return {"roots": {**roots, key: after}} if after != before else None

        return dict(self._journal.change(_manifests_key(self._collection), step)["roots"][key])

    def _read_segments(self, key: str, entry: State) -> Iterator[list[str]]:
        for number in range(entry["segments"]):
            yield (self._journal.read(_segment_key(self._collection, key, number)) or {}).get("ids", [])

    def _append(self, key: str, number: int, ids: list[str]) -> list[str]:
        """Append ids to a segment while it has room. Returns the remaining ids."""
        taken = 0

        def step(state: State) -> State | None:
            nonlocal taken
            kept = state.get("ids", [])
            taken = max(0, _SEGMENT - len(kept))
            return {"ids": [*kept, *ids[:taken]]} if taken else None

        self._journal.change(_segment_key(self._collection, key, number), step)
        return ids[taken:]


def manifest_keys(journal: Journal, collection: str) -> list[str]:
    """Return the keys of all journal entries of a collection's manifests. The last one lists the others, so it must be deleted last."""
    found = journal.read(_manifests_key(collection))
    roots = (found or {}).get("roots", {}).items()
    segments = [_segment_key(collection, key, number) for key, entry in roots for number in range(entry["segments"])]
    return [*segments, _manifests_key(collection)] if found else []


def _manifests_key(collection: str) -> str:
    return f"manifests:{collection}"


def _segment_key(collection: str, key: str, number: int) -> str:
    return f"manifest:{collection}:{key}:{number}"
