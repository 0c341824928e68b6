"""Tables of one run in a private temporary file of SQLite, which takes memory up to a limit, then disk."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from osembed.errors import OutputError

T = TypeVar("T")
_MEMORY_KB = 32 * 1024
AT_ONCE = 500  # values of one question


class Spill:
    """Some tables. Its methods may be called from several threads."""

    def __init__(self, tables: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._base = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        # One transaction that never ends: each commit would go through all pages that were ever changed.
        for statement in ("PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF", f"PRAGMA cache_size=-{_MEMORY_KB}", *tables, "BEGIN"):
            self.ask(statement)

    def ask(self, statement: str, values: Iterable[Any] = ()) -> list[Any]:
        """Run a statement; return its rows."""
        return self._do(lambda: self._base.execute(statement, tuple(values)).fetchall())

    def ask_each(self, statement: str, values: Sequence[Any], before: Sequence[Any] = ()) -> Iterator[Any]:
        """Yield the rows of a statement that ends in `IN (…)`, for any number of values.

        Args:
            statement: with %s for the list of values.
            values: what is listed.
            before: values of the statement that stand before the list.
        """
        for start in range(0, len(values), AT_ONCE):
            part = values[start : start + AT_ONCE]
            yield from self.ask(statement % ",".join("?" * len(part)), (*before, *part))

    def write(self, statement: str, rows: list[Any]) -> None:
        """Run a statement for each row."""
        self._do(lambda: self._base.executemany(statement, rows))

    def close(self) -> None:
        """Forget everything."""
        self._base.close()

    def _do(self, action: Callable[[], T]) -> T:
        try:
            with self._lock:
                return action()
        except sqlite3.OperationalError as error:
            raise OutputError(
                f"The ids of this run cannot be kept in a temporary file: {error}.",
                "Two records with one id would go unnoticed. What was acknowledged is kept.",
                "Make room for temporary files (TMPDIR says where), then run the same command again.",
            ) from error
