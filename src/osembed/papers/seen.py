"""Ids that one run has met, so that of several records with one id the last wins, however far apart they stand.

The first record with an id flows on at once. A later one cannot: the first may still be on its way, and what is stored would be compared too
early. It waits here for the end of the input, and so does a changed paper whose stored version came from another place of this input: most
likely a later record is about to come, and a second run must not write both again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator

import orjson

from osembed.papers.records import Record
from osembed.papers.spill import AT_ONCE, Spill

_TABLES = (
    "CREATE TABLE seen (key INTEGER PRIMARY KEY, outcome TEXT)",
    "CREATE TABLE waiting (number INTEGER PRIMARY KEY, id TEXT UNIQUE, record BLOB)",
    "CREATE TABLE former (id TEXT PRIMARY KEY, now TEXT)",
)
_READ_AHEAD = 16  # records that wait may be large


class SeenIds:
    """The ids of one run. Its methods may be called from several threads."""

    def __init__(self) -> None:
        self._spill = Spill(_TABLES)

    def meet(self, ids: Iterable[str]) -> set[str]:
        """Note ids; return those that were met before."""
        keys = {_key(paper_id): paper_id for paper_id in ids}
        known = {keys[key] for key in self._outcomes(keys)}
        self._spill.write("INSERT OR IGNORE INTO seen (key) VALUES (?)", [(key,) for key in keys])
        return known

    def settle(self, ids: Iterable[str], outcome: str) -> dict[str, str]:
        """Note how papers were settled; return how an earlier record with the same id was, where there was one."""
        keys = {_key(paper_id): paper_id for paper_id in ids}
        before = {keys[key]: earlier for key, earlier in self._outcomes(keys).items() if earlier}
        self._spill.write(
            "INSERT INTO seen VALUES (?, ?) ON CONFLICT DO UPDATE SET outcome = excluded.outcome", [(key, outcome) for key in keys]
        )
        return before

    def wait(self, paper_id: str, record: Record, *, last: bool) -> Record | None:
        """Keep a record for the end of the input; return the one that is superseded: of two that wait, the last or else the new one."""
        found = self._spill.ask("SELECT record FROM waiting WHERE id = ?", (paper_id,))
        if found and not last:
            return record
        self._spill.ask("INSERT OR REPLACE INTO waiting (id, record) VALUES (?, ?)", (paper_id, _packed(record)))
        return _unpacked(found[0][0]) if found else None

    def waiting(self) -> Iterator[Record]:
        """Yield the records that waited."""
        last = 0
        while rows := self._spill.ask("SELECT number, record FROM waiting WHERE number > ? ORDER BY number LIMIT ?", (last, _READ_AHEAD)):
            for last, record in rows:  # noqa: B007 - the next question starts there
                yield _unpacked(record)

    def note_former(self, pairs: dict[str, str]) -> None:
        """Note papers that are stored under a former id: former → what it is now."""
        self._spill.write("INSERT OR IGNORE INTO former VALUES (?, ?)", list(pairs.items()))

    def doubled(self) -> Iterator[tuple[str, str]]:
        """Yield (former id, id now) of papers that are stored twice; a former id that another record of this run bears is none."""
        last = ""
        while rows := self._spill.ask("SELECT id, now FROM former WHERE id > ? ORDER BY id LIMIT ?", (last, AT_ONCE)):
            borne = self._outcomes({_key(former): former for former, _ in rows})
            yield from ((former, now) for former, now in rows if _key(former) not in borne)
            last = rows[-1][0]

    def close(self) -> None:
        """Forget everything."""
        self._spill.close()

    def _outcomes(self, keys: Iterable[int]) -> dict[int, str | None]:
        return dict(self._spill.ask_each("SELECT key, outcome FROM seen WHERE key IN (%s)", list(keys)))


def _key(paper_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(paper_id.encode(), digest_size=8).digest(), "big", signed=True)


def _packed(record: Record) -> bytes:
    whole = {"fields": record.fields, "source": record.source, "former": record.former}
    try:
        return orjson.dumps(whole, default=str)
    except TypeError:  # an integer beyond 64 bits
        return json.dumps(whole, default=str).encode()


def _unpacked(data: bytes) -> Record:
    try:
        return Record(**orjson.loads(data))
    except orjson.JSONDecodeError:
        return Record(**json.loads(data))
