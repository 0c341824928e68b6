"""Read JSON lines: one object per line, which may also be a dead letter that is ingested again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import IO, Any

import orjson

from osembed.papers.fields import name_of
from osembed.papers.records import DEAD_LETTER, MAX_RECORD, Place, Record, Rejected, decoded_text, too_large

_SKIPPED_AT_ONCE = 2**20
_UNREAD = ("not JSON", "not a JSON object", "not UTF-8")


def read_lines(content: IO[bytes], place: Place) -> Iterator[Record | Rejected]:
    """Yield the records of JSON lines."""
    number = 0
    while line := content.readline(MAX_RECORD + 1):
        number += 1
        where = f"{place.name}:{number}"
        if len(line) > MAX_RECORD:
            while line and not line.endswith(b"\n"):
                line = content.readline(_SKIPPED_AT_ONCE)
            yield Rejected(too_large(MAX_RECORD), where, {})
        elif line.strip():
            yield read_line(line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n"), where, place.names)


def read_line(line: bytes, where: str, names: Mapping[str, str]) -> Record | Rejected:
    """Return the record of one JSON line."""
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return _unread(line, f"not JSON: {error}", where)
    if not isinstance(fields, dict):
        return _unread(line, "not a JSON object", where)
    if DEAD_LETTER in fields:
        return _mended(fields, line, where, names)
    return _record(fields, line, where, names)


def _unread(line: bytes, reason: str, where: str) -> Rejected:
    """Return a rejected line with its text, so that it can be fixed."""
    text, guessed = decoded_text(line)
    return Rejected("not UTF-8", where, {"raw": text}, f"read as {guessed}") if guessed else Rejected(reason, where, {"raw": text})


def _mended(letter: dict[str, Any], line: bytes, where: str, names: Mapping[str, str]) -> Record | Rejected:
    """Return the record inside a dead letter that is ingested again. A letter that nobody has fixed is rejected again."""
    reason, source, check = str(letter[DEAD_LETTER])[:200], str(letter.get("source") or where), str(letter.get("check") or "")
    inner = letter.get("record")
    fields = inner if isinstance(inner, dict) else {}
    if check or not fields:
        return Rejected(reason, source, fields, check)
    if reason.startswith(_UNREAD) and fields.keys() == {"raw"} and isinstance(fields["raw"], str):
        return read_line(fields["raw"].encode("utf-8", "replace"), source, names)
    return _record(fields, line, source, names, ("record",))


def _record(fields: dict[str, Any], line: bytes, where: str, names: Mapping[str, str], inside: tuple[str, ...] = ()) -> Record:
    """Return a record whose id has exactly the digits of its line. The parser turns 2101.00010 and integers beyond 64 bits into floats."""
    name = name_of(fields, "id", names)
    if name is None or type(fields[name]) is not float:
        return Record(fields, where)
    exact = json.loads(line, parse_float=str, parse_int=str)
    for key in inside:
        exact = exact[key]
    return Record({**fields, name: exact[name]}, where, former=str(fields[name]))
