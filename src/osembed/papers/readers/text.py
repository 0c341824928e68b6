"""One paper per file: the first line is its title."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from osembed.papers.readers.folders import PACKED, TEXT, kind_of
from osembed.papers.records import MAX_RECORD, Record, Rejected


def read_text(content: IO[bytes], file: Path, root: Path, name: str) -> Record | Rejected:
    """Read a text file as a record."""
    data = content.read(MAX_RECORD + 1)
    if len(data) > MAX_RECORD:
        return Rejected(f"larger than {MAX_RECORD >> 20} MB", name, {})
    try:
        text = _decode(data)
    except UnicodeDecodeError as error:
        return Rejected(f"not UTF-8 at byte {error.start}", name, {})
    title, _, body = text.strip().partition("\n")
    title = title.lstrip("#").strip() if kind_of(file) == ".md" else title.strip()
    inside = file.relative_to(root) if root != file else Path(file.name)
    plain = inside.name
    for suffix in reversed(inside.suffixes):
        if suffix.lower() in TEXT + PACKED:
            plain = plain.removesuffix(suffix)
    return Record({"id": (inside.parent / plain).as_posix(), "title": title, "body": body.strip()}, name)


def _decode(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")
