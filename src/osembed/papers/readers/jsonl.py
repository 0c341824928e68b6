"""JSON lines: an object per line, or a dead letter that is fed in again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import orjson

from osembed.papers.records import DEAD_LETTER, MAX_RECORD, Record, Rejected


def read_lines(content: IO[bytes], name: str) -> Iterator[Record | Rejected]:
    """Read JSON lines as records."""
    number = 0
    while line := content.readline(MAX_RECORD + 1):
        number += 1
        where = f"{name}:{number}"
        if len(line) > MAX_RECORD:
            while line and not line.endswith(b"\n"):
                line = content.readline(MAX_RECORD)
            yield Rejected(f"larger than {MAX_RECORD >> 20} MB", where, {})
            continue
        if line.strip():
            yield _json_line(line.removeprefix(b"\xef\xbb\xbf"), where)


def _json_line(line: bytes, where: str) -> Record | Rejected:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return Rejected(f"not JSON: {error}", where, {"raw": line.decode("utf-8", "replace").rstrip("\n")})
    if not isinstance(fields, dict):
        return Rejected("not a JSON object", where, {"raw": line.decode("utf-8", "replace").rstrip("\n")})
    if DEAD_LETTER in fields:  # a dead letter fed in again: what counts is the record inside
        inner = fields.get("record")
        return Record(inner if isinstance(inner, dict) else {}, str(fields.get("source") or where))
    return Record(fields, where)
