"""Papers out of an index, as JSON lines that `ingest` reads again: those that were live when it began, ordered by id.

First the ids are listed by sequence number, shard by shard: a document that changes meanwhile comes up again further on, so none is missed and
nothing has to be held open. Then the papers are read by id, in real time: each is whole, as it is at that moment.
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

_LISTED = 5000
_READ = 64  # full papers in one answer
Key = tuple[str, str]  # id and routing, "" for none


@dataclass
class Exported:
    """What an export did.

    Attributes:
        collection, index: where the papers came from.
        papers: how many were written.
        changed: papers that were written or changed by others while they were read; they are as they were at their moment.
        added: papers that came after the ids were listed; they are not among those written.
        deleted: papers that were listed, and gone when they were to be read.
        unfit: id → why `ingest` will reject it as it stands; it is written all the same.
        left_out: id → why it was not written.
        unproven: why it is not known whether this user sees everything; "" where that is proven.
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
    """One export of one index.

    Attributes:
        target: the index that is live when it begins; a swap meanwhile does not matter.
        only: filter clauses that all must hold.
        report: told what is waited for.
    """

    client: OpenSearch
    target: Target
    only: Sequence[Mapping[str, Any]] = ()
    report: Report = lambda _: None

    def run(self, write: Callable[[bytes], object], progress: Callable[[int, int], None] = lambda *_: None) -> Exported:
        """Hand each paper to `write`, as a line; `progress` gets how many were read, and of how many.

        Raises CollectionError where the index is deleted meanwhile: what was written then is not the whole.
        """
        done = Exported(self.target.meta.collection, self.target.index, unproven=self._unproven())
        with closing(Listing()) as listing:
            try:
                marks = self._list(listing)
                changed = self._read(listing, done, write, progress)
                for key, _ in self._later(marks):
                    if listing.has(key):
                        changed.add(key)
                    else:
                        done.added += 1
                self._check_same()
            except MissingError as error:
                raise self._gone() from error
            except sqlite3.OperationalError as error:
                raise OutputError(
                    f"The ids of the papers cannot be kept: {error}.", "", "Make room in the folder of temporary files."
                ) from error
        done.changed = len(changed)
        return done

    def _read(self, listing: Listing, done: Exported, write: Callable[[bytes], object], progress: Callable[[int, int], None]) -> set[Key]:
        """Write the papers that are listed; return those that have changed since they were."""
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
        """List all papers; return each shard's last sequence number. Anew where a primary moves: a fresh one's searches may lag behind."""
        while True:
            marks, terms = dict.fromkeys(range(self._shards()), -1), self._terms()
            for shard in marks:
                for page in self._pages(shard, -1):
                    listing.add(page)
                    marks[shard] = page[-1][1]
            if self._terms() == terms:
                return marks

    def _later(self, marks: Mapping[int, int]) -> Iterator[tuple[Key, int]]:
        """Yield what was written after the ids were listed."""
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
        except AuthError:  # a reader may not ask; then nothing is proven anyway, and `unproven` says so
            return {}

    def _check_same(self) -> None:
        """Refuse an index that was deleted and made anew meanwhile."""
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
            f"The index {self.target.index}, which was live when this export began, is gone.",
            "What was read until then is not the whole.",
            "Run the same command again: it reads what is live now.",
        )


class Listing:
    """The papers of an index with their sequence numbers, ordered by id; on disk once they are many."""

    def __init__(self) -> None:
        self._table = sqlite3.connect("")  # a private file, which goes when it is closed
        self._table.execute("CREATE TABLE papers (id TEXT, routing TEXT, seq INTEGER, PRIMARY KEY (id, routing)) WITHOUT ROWID")

    def add(self, page: Sequence[tuple[Key, int]]) -> None:
        """Add papers; of one that is there already, the later sequence number stays."""
        self._table.executemany("INSERT OR REPLACE INTO papers VALUES (?, ?, ?)", [(*key, seq) for key, seq in page])

    def has(self, key: Key) -> bool:
        """Whether a paper is listed."""
        return self._table.execute("SELECT 1 FROM papers WHERE id = ? AND routing = ?", key).fetchone() is not None

    def close(self) -> None:
        """Forget all."""
        self._table.close()

    def __len__(self) -> int:
        return int(self._table.execute("SELECT count(*) FROM papers").fetchone()[0])

    def batches(self, size: int) -> Iterator[list[tuple[Key, int]]]:
        """Yield all, ordered by id, so many at a time."""
        rows = self._table.execute("SELECT id, routing, seq FROM papers ORDER BY id, routing")
        while batch := rows.fetchmany(size):
            yield [((key, routing), seq) for key, routing, seq in batch]


def _line(document: Mapping[str, Any], types: Mapping[str, str], done: Exported) -> bytes:
    """Return a stored paper as a line, and count it."""
    key, stored = document["_id"], document["_source"]
    record = to_record(key, stored, types)
    paper = to_paper(Record(record, ""), {}, 0)
    if not isinstance(paper, Paper):
        done.unfit[key] = paper.reason
    elif stored.get("input_hash") and stored["input_hash"] != paper.content_hash:
        record[EXPORTED] |= {"content_hash": paper.content_hash, "input_hash": stored["input_hash"]}
    done.papers += 1
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
