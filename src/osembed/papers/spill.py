"""Tables of one run in a private temporary SQLite database, which uses memory up to a limit and then disk."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from osembed.errors import OutputError

T = TypeVar("T")
_MEMORY_KB = 32 * 1024
AT_ONCE = 500  # values per query


class Spill:
    """A temporary database. Thread-safe."""

    def __init__(self, tables: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._base = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        # One transaction that is never committed, because each commit would go through all pages that were ever changed.
        for statement in ("PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF", f"PRAGMA cache_size=-{_MEMORY_KB}", *tables, "BEGIN"):
            self.ask(statement)

    def ask(self, statement: str, values: Iterable[Any] = ()) -> list[Any]:
        """Run a statement and return its rows. Raises OutputError if the disk is full."""
        return self._do(lambda: self._base.execute(statement, tuple(values)).fetchall())

    def ask_each(self, statement: str, values: Sequence[Any], before: Sequence[Any] = ()) -> Iterator[Any]:
        """Yield the rows of a statement that ends in `IN (…)`, for any number of values.

        Args:
            statement: the statement, with %s for the list.
            values: the values in the list.
            before: values of parameters before the list.
        """
        for start in range(0, len(values), AT_ONCE):
            part = values[start : start + AT_ONCE]
            yield from self.ask(statement % ",".join("?" * len(part)), (*before, *part))

    def write(self, statement: str, rows: list[Any]) -> None:
        """Run a statement for each row."""
        self._do(lambda: self._base.executemany(statement, rows))

    def close(self) -> None:
        """Delete the database."""
        self._base.close()

    def _do(self, action: Callable[[], T]) -> T:
        try:
            with self._lock:
                return action()
        except sqlite3.OperationalError as error:
            raise OutputError(
                f"The ids of this run cannot be stored in a temporary file: {error}.",
                "Records with the same id would go unnoticed. Acknowledged writes are kept.",
                "Free some space for temporary files (TMPDIR sets their folder), then run the same command again.",
            ) from error
