"""Tables of text: a row per record, its columns named by the first row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import IO, Any

from osembed.papers.records import MAX_RECORD, Record, Rejected


def read_table(content: IO[bytes], name: str) -> Iterator[Record | Rejected]:
    """Read a table as records."""
    csv.field_size_limit(MAX_RECORD)
    rows = csv.DictReader(io.TextIOWrapper(content, encoding="utf-8-sig", newline="", errors="surrogateescape"))
    for row in rows:
        where = f"{name}:{rows.line_num}"
        fields = {key: _typed(value) for key, value in row.items() if key and isinstance(value, str)}
        if None in row or None in row.values():
            yield Rejected(f"has not {len(rows.fieldnames or [])} columns", where, fields)
        elif any(isinstance(value, str) and not value.isprintable() and _has_escapes(value) for value in row.values()):
            yield Rejected("not UTF-8", where, {})
        else:
            yield Record(fields, where)


def _has_escapes(value: str) -> bool:
    return any("\udc80" <= char <= "\udcff" for char in value)


def _typed(value: str) -> Any:
    """CSV knows only strings: give numbers back their type, but keep 007 and the like."""
    text = value.strip()
    if text.isdecimal() and (text == "0" or not text.startswith("0")) and len(text) < 16:
        return int(text)
    try:
        return float(text) if "." in text and text.replace(".", "", 1).lstrip("-").isdecimal() else value
    except ValueError:
        return value
