"""Read tables: one record per row, columns named in the first row, separated by commas, semicolons or tabs."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import IO, Any

from osembed.papers.fields import TEXTS, name_of
from osembed.papers.records import Place, Record, Rejected, decoded_text, too_large

MAX_ROW = 16 * 2**20  # bytes; the parser needs up to about twenty times as much memory
_LINE_OVERHEAD = 64  # bytes of memory that each kept line costs in addition
_REREADS = 16  # how often lines after an unclosed quote are read again; each time may cost a row of the largest size
_SEPARATORS = ",;\t"
_EXTRA = "extra columns"
_SKIPPED_AT_ONCE = 2**20
_LINE = re.compile(rb"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")


def read_table(content: IO[bytes], place: Place) -> Iterator[Record | Rejected]:
    """Yield the records of a table. Numeric values become numbers, except in the id, title and text."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW))
    rows = _Rows(content)
    columns: list[str] = []
    for row in rows:
        where = f"{place.name}:{rows.line}"
        if rows.fault and not columns:
            yield Rejected(rows.fault, where, {})
            return
        if not columns:
            columns, guessed = row, rows.guessed
            continue
        encoding = rows.guessed or guessed
        if rows.fault or len(row) != len(columns):
            reason = rows.fault or f"has not {len(columns)} columns"
            yield Rejected(reason, where, _record(columns, row, where, place).fields, "columns" if row else "")
        elif encoding:
            yield Rejected("not UTF-8", where, _record(columns, row, where, place).fields, f"read as {encoding}")
        else:
            yield _record(columns, row, where, place)


class _Lines:
    """Lines for the parser; the lines of the current row are kept. `guessed` is the encoding of lines that are not UTF-8."""

    def __init__(self, content: IO[bytes]) -> None:
        self._pieces, self._waiting, self._size = _cut(content), deque[bytes](), 0
        self.number, self.row, self.ended, self.guessed = 0, list[bytes](), False, ""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        """Return the next line. Raises OverflowError if the row has become too large."""
        line = self._waiting.popleft() if self._waiting else next(self._pieces, b"")
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        self.row.append(line)
        self._size += len(line) + _LINE_OVERHEAD
        if self._size > MAX_ROW:
            raise OverflowError
        text, guessed = decoded_text(line)
        self.guessed = self.guessed or guessed
        return text

    def begin(self) -> None:
        """Start a new row."""
        self.row, self._size, self.guessed = [], 0, ""

    def read_again(self) -> None:
        """Put back all lines of the row except the first, to read them as separate rows."""
        again = self.row[1:]
        self._waiting.extendleft(reversed(again))
        self.number -= len(again)
        self.row, self.ended = self.row[:1], False


def _cut(content: IO[bytes]) -> Iterator[bytes]:
    r"""Yield the lines of a file, which end with \n, \r\n or a single \r. Lines that are too large are truncated."""
    tail = b""
    while data := content.readline(MAX_ROW + 1 - len(tail)):
        data, tail = tail + data, b""
        if data.find(b"\r", 0, -2) < 0:
            yield data
        else:
            for piece in map(re.Match.group, _LINE.finditer(data)):
                if len(data) > MAX_ROW and not piece.endswith((b"\r", b"\n")):
                    tail = piece
                else:
                    yield piece
        if len(data) > MAX_ROW and not tail and not data.endswith(b"\n"):
            while (rest := content.readline(_SKIPPED_AT_ONCE)) and not rest.endswith(b"\n"):
                pass


class _Rows:
    """The rows of a table.

    Attributes:
        line: number of the last row's first line.
        fault: what is wrong with that row; "" for nothing.
        guessed: its encoding if it is not UTF-8.
    """

    def __init__(self, content: IO[bytes]) -> None:
        self._lines, self._rereads = _Lines(content), 0
        self._parser: Any = None
        self.line, self.fault = 0, ""

    def __iter__(self) -> Iterator[list[str]]:
        while (row := self._next()) is not None:
            if row or self.fault:
                yield row

    @property
    def guessed(self) -> str:
        return self._lines.guessed

    def _next(self) -> list[str] | None:
        self._lines.begin()
        self.line, self.fault = self._lines.number + 1, ""
        try:
            row: list[str] = next(self._parser) if self._parser else self._header()
        except StopIteration:
            return None
        except (OverflowError, csv.Error):
            return self._broken()
        return self._broken() if self._lines.ended else row

    def _header(self) -> list[str]:
        """Return the column names, using the separator that gives the most columns."""
        line = next(self._lines).removeprefix("\ufeff")
        rows = {separator: next(csv.reader([line], delimiter=separator), []) for separator in _SEPARATORS}
        separator = max(rows, key=lambda separator: len(rows[separator]))
        if rows[separator]:
            self._parser = csv.reader(self._lines, delimiter=separator)
        return [name.strip() for name in rows[separator]]

    def _broken(self) -> list[str]:
        """Reject a row that does not end. Only its first line is lost, unless reading the others again would cost too much."""
        lines, ended = len(self._lines.row), self._lines.ended
        if lines == 1 and not ended:
            self.fault = too_large(MAX_ROW)
            return []
        self._rereads += 1
        if self._rereads <= _REREADS:
            self._lines.read_again()
            lines = 1
        self.fault = f"a quote never closes: {lines} lines" if lines > 1 else "a quote never closes"
        return next(csv.reader([decoded_text(self._lines.row[0])[0]], delimiter=self._parser.dialect.delimiter), [])


def _fields(columns: Sequence[str], row: Sequence[str]) -> dict[str, Any]:
    """Return the values of a row by column name."""
    fields: dict[str, Any] = {name: value for name, value in zip(columns, row, strict=False) if name}
    return {**fields, _EXTRA: list(row[len(columns) :])} if len(row) > len(columns) else fields


def _record(columns: Sequence[str], row: Sequence[str], where: str, place: Place) -> Record:
    raw = _fields(columns, row)
    texts = {name_of(raw, field, place.names) for field in TEXTS}
    fields = {name: value if name in texts or name == _EXTRA else _typed(value) for name, value in raw.items()}
    key = name_of(raw, "id", place.names)
    former = str(_typed(raw[key])) if key else ""
    return Record(fields, where, former if key and former != raw[key] else "")


def _typed(value: str) -> Any:
    """Return a number for text that is a number, but keep text like 007. CSV itself has only strings."""
    text = value.strip()
    if text.isdecimal() and (text == "0" or not text.startswith("0")) and len(text) < 16:
        return int(text)
    try:
        return float(text) if "." in text and text.replace(".", "", 1).lstrip("-").isdecimal() else value
    except ValueError:
        return value
