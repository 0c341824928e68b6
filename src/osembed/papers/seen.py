"""The ids of one run, so that the last of several records with the same id wins, however far apart they are.

The first record with an id is processed immediately. A later one is kept until the end of the input, because the first one may not be
stored yet when the later one is compared. A changed paper whose stored version came from another place of this input is kept too: a later
record with that id will probably follow, and a second run must not write both again.
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
_READ_AHEAD = 16  # few at a time, because records may be large


class SeenIds:
    """The ids of one run. Thread-safe."""

    def __init__(self) -> None:
        self._spill = Spill(_TABLES)

    def meet(self, ids: Iterable[str]) -> set[str]:
        """Note ids. Returns those that were noted before."""
        keys = {_key(paper_id): paper_id for paper_id in ids}
        known = {keys[key] for key in self._outcomes(keys)}
        self._spill.write("INSERT OR IGNORE INTO seen (key) VALUES (?)", [(key,) for key in keys])
        return known

    def settle(self, ids: Iterable[str], outcome: str) -> dict[str, str]:
        """Note the outcome of papers. Returns the outcomes of earlier records with the same ids."""
        keys = {_key(paper_id): paper_id for paper_id in ids}
        before = {keys[key]: earlier for key, earlier in self._outcomes(keys).items() if earlier}
        self._spill.write(
            "INSERT INTO seen VALUES (?, ?) ON CONFLICT DO UPDATE SET outcome = excluded.outcome", [(key, outcome) for key in keys]
        )
        return before

    def wait(self, paper_id: str, record: Record, *, last: bool) -> Record | None:
        """Keep a record until the end of the input. Returns the superseded record, if one with the same id is kept already.

        With `last` the new record replaces the kept one; otherwise the kept one stays.
        """
        found = self._spill.ask("SELECT record FROM waiting WHERE id = ?", (paper_id,))
        if found and not last:
            return record
        self._spill.ask("INSERT OR REPLACE INTO waiting (id, record) VALUES (?, ?)", (paper_id, _packed(record)))
        return _unpacked(found[0][0]) if found else None

    def waiting(self) -> Iterator[Record]:
        """Yield the kept records."""
        last = 0
        while rows := self._spill.ask("SELECT number, record FROM waiting WHERE number > ? ORDER BY number LIMIT ?", (last, _READ_AHEAD)):
            for last, record in rows:  # noqa: B007 - the next query starts there
                yield _unpacked(record)

    def note_former(self, pairs: dict[str, str]) -> None:
        """Note papers that are stored under a former id: former id → current id."""
        self._spill.write("INSERT OR IGNORE INTO former VALUES (?, ?)", list(pairs.items()))

    def doubled(self) -> Iterator[tuple[str, str]]:
        """Yield (former id, current id) of papers that are stored twice. A former id that is the id of another record does not count."""
        last = ""
        while rows := self._spill.ask("SELECT id, now FROM former WHERE id > ? ORDER BY id LIMIT ?", (last, AT_ONCE)):
            borne = self._outcomes({_key(former): former for former, _ in rows})
            yield from ((former, now) for former, now in rows if _key(former) not in borne)
            last = rows[-1][0]

    def close(self) -> None:
        """Delete the temporary data."""
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
