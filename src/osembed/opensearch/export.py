"""Export the papers of the index that is live at the start, as JSON lines that `ingest` can read back, sorted by id.

First the ids are listed by sequence number, shard by shard. A document that changes during the listing appears again later, so none is
missed and no scroll has to be kept open. Then the papers are read by id in real time, so each paper is consistent.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import orjson

from osembed.errors import AuthError, CollectionError, MissingError, OutputError
from osembed.opensearch import reads, sight
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.patience import Report, until_settled
from osembed.opensearch.target import Target
from osembed.papers.exported import EXPORTED, to_record
from osembed.papers.paper import Paper, to_paper
from osembed.papers.records import Record

_LISTED = 5000  # ids per request
_READ = 64  # full papers per request
Key = tuple[str, str]  # id and routing, "" for none


@dataclass
class Exported:
    """The result of an export.

    Attributes:
        collection, index: the source of the papers.
        papers: number of papers written.
        changed: papers that others changed during the export; each was written in the state at the time of reading.
        added: papers that others added after the ids were listed; they are not in the export.
        deleted: papers that were deleted between listing and reading.
        unfit: id → why `ingest` will reject the paper; it was written nevertheless.
        left_out: id → why the paper was not written.
        unproven: why this user may not see everything; "" if it is proven that it does.
    """

    collection: str
    index: str
    papers: int = 0
    changed: int = 0
    added: int = 0
    deleted: int = 0
    unfit: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    unproven: str = ""


@dataclass(frozen=True)
class Export:
    """An export of one index.

    Attributes:
        target: the index that is live at the start; a swap during the export does not matter.
        only: filter clauses, all of which must match.
        report: called when the server is waited for.
    """

    client: OpenSearch
    target: Target
    only: Sequence[Mapping[str, Any]] = ()
    report: Report = lambda _: None

    def run(self, write: Callable[[bytes], object], progress: Callable[[int, int], None] = lambda *_: None) -> Exported:
        """Pass each paper as a line to `write`; call `progress` with the number of papers read and the total. Returns the result.

        Raises CollectionError if the index is deleted during the export, which is then incomplete.
        """
        done = Exported(self.target.meta.collection, self.target.index, unproven=self._unproven())
        with closing(Listing()) as listing:
            try:
                marks = self._list(listing)
                changed = self._read(listing, done, write, progress)
                for key, _ in self._later(marks):  # changes during the export, for the report
                    if listing.has(key):
                        changed.add(key)
                    else:
                        done.added += 1
                self._check_same()
            except MissingError as error:
                raise self._gone() from error
            except sqlite3.OperationalError as error:
                raise OutputError(
                    f"The ids of the papers cannot be stored: {error}.", "", "Free some space in the folder for temporary files."
                ) from error
        done.changed = len(changed)
        return done

    def _read(self, listing: Listing, done: Exported, write: Callable[[bytes], object], progress: Callable[[int, int], None]) -> set[Key]:
        """Write the listed papers. Returns those that changed after they were listed."""
        changed: set[Key] = set()
        total, last, seen = len(listing), "", 0
        for batch in listing.batches(_READ):
            found = self._documents([key for key, _ in batch])
            for key, seq in batch:
                document = found.get(key)
                if document is None:
                    done.deleted += 1
                elif key[0] == last:
                    done.left_out[last] = "another document of this id, which a program has routed elsewhere, was written"
                else:
                    last = key[0]
                    write(_line(document, self.target.meta_types, done))
                    if document["_seq_no"] != seq:
                        changed.add(key)
            seen += len(batch)
            progress(seen, total)
        return changed

    def _documents(self, keys: Sequence[Key]) -> dict[Key, dict[str, Any]]:
        wanted = [(key, routing or None) for key, routing in keys]
        read = lambda: reads.documents(self.client, self.target.index, wanted, excluded=("embedding",))  # noqa: E731
        return {(found["_id"], found.get("_routing") or ""): found for found in until_settled(read, report=self.report)}

    def _list(self, listing: Listing) -> dict[int, int]:
        """List all papers. Returns each shard's last sequence number. Starts over if a primary moves: a new one may not show all yet."""
        while True:
            marks, terms = dict.fromkeys(range(self._shards()), -1), self._terms()
            for shard in marks:
                for page in self._pages(shard, -1):
                    listing.add(page)
                    marks[shard] = page[-1][1]
            if self._terms() == terms:
                return marks

    def _later(self, marks: Mapping[int, int]) -> Iterator[tuple[Key, int]]:
        """Yield the papers that were written after the ids were listed."""
        for shard, mark in marks.items():
            for page in self._pages(shard, mark):
                yield from page

    def _pages(self, shard: int, last: int) -> Iterator[list[tuple[Key, int]]]:
        more = True
        while more:
            body = {
                "size": _LISTED,
                "query": {"bool": {"filter": [*self.only, {"range": {"_seq_no": {"gt": last}}}]}},
                "sort": [{"_seq_no": "asc"}],
                "seq_no_primary_term": True,
                "track_total_hits": False,
                "_source": False,
            }
            search = lambda body=body: reads.search_shard(self.client, self.target.index, shard, body)  # noqa: E731
            hits = until_settled(search, report=self.report)["hits"]["hits"]
            if hits:
                yield [((hit["_id"], hit.get("_routing") or ""), hit["_seq_no"]) for hit in hits]
                last = hits[-1]["_seq_no"]
            more = len(hits) == _LISTED

    def _shards(self) -> int:
        settings = reads.indexes(self.client, [self.target.index], "*.settings.index.number_of_shards")
        if self.target.index not in settings:
            raise self._gone()
        return int(settings[self.target.index]["settings"]["index"]["number_of_shards"])

    def _terms(self) -> dict[int, int]:
        try:
            return reads.primary_terms(self.client, self.target.index)
        except AuthError:  # a reader may lack this permission; then `unproven` says that nothing is proven
            return {}

    def _check_same(self) -> None:
        """Raise CollectionError if the index was deleted, or created again, during the export."""
        found = reads.indexes(self.client, [self.target.index], "*.settings.index.uuid")
        if found.get(self.target.index, {}).get("settings", {}).get("index", {}).get("uuid") != self.target.uuid:
            raise self._gone()

    def _unproven(self) -> str:
        try:
            until_settled(lambda: sight.prove(self.client, [self.target.place]), report=self.report)
        except AuthError as error:
            return error.found
        return ""

    def _gone(self) -> CollectionError:
        return CollectionError(
            f"The index {self.target.index}, which was live when this export started, is gone.",
            "The papers read so far are incomplete.",
            "Run the same command again: it reads the index that is live now.",
        )


class Listing:
    """The papers of an index with their sequence numbers, sorted by id; SQLite moves them to disk if there are many."""

    def __init__(self) -> None:
        self._table = sqlite3.connect("")  # a private temporary database, deleted when it is closed
        self._table.execute("CREATE TABLE papers (id TEXT, routing TEXT, seq INTEGER, PRIMARY KEY (id, routing)) WITHOUT ROWID")

    def add(self, page: Sequence[tuple[Key, int]]) -> None:
        """Add papers. For a paper that is already listed, the later sequence number replaces the earlier one."""
        self._table.executemany("INSERT OR REPLACE INTO papers VALUES (?, ?, ?)", [(*key, seq) for key, seq in page])

    def has(self, key: Key) -> bool:
        """Return whether a paper is listed."""
        return self._table.execute("SELECT 1 FROM papers WHERE id = ? AND routing = ?", key).fetchone() is not None

    def close(self) -> None:
        """Delete the listing."""
        self._table.close()

    def __len__(self) -> int:
        return int(self._table.execute("SELECT count(*) FROM papers").fetchone()[0])

    def batches(self, size: int) -> Iterator[list[tuple[Key, int]]]:
        """Yield all papers sorted by id, `size` at a time."""
        rows = self._table.execute("SELECT id, routing, seq FROM papers ORDER BY id, routing")
        while batch := rows.fetchmany(size):
            yield [((key, routing), seq) for key, routing, seq in batch]


def _line(document: Mapping[str, Any], types: Mapping[str, str], done: Exported) -> bytes:
    """Return a stored paper as a JSON line, and count it in `done`."""
    key, stored = document["_id"], document["_source"]
    record = to_record(key, stored, types)
    paper = to_paper(Record(record, ""), {}, 0)
    if not isinstance(paper, Paper):
        done.unfit[key] = paper.reason
    elif stored.get("input_hash") and stored["input_hash"] != paper.content_hash:
        record[EXPORTED] |= {"content_hash": paper.content_hash, "input_hash": stored["input_hash"]}
    done.papers += 1
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
