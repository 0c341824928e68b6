"""Kinds of files: the suffix decides which reader is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import IO

from osembed.papers.readers.jsonl import read_lines
from osembed.papers.readers.table import read_table
from osembed.papers.readers.text import read_markdown, read_text
from osembed.papers.records import Place, Record, Rejected

READERS: dict[str, Callable[[IO[bytes], Place], Iterator[Record | Rejected]]] = {
    ".txt": read_text,
    ".md": read_markdown,
    ".jsonl": read_lines,
    ".ndjson": read_lines,
    ".csv": read_table,
}
ONE_PAPER = (".txt", ".md")
_PACKED = (".gz", ".zst")
_NO_PART_OF_IDS = (*ONE_PAPER, *_PACKED)


def kind_of(file: Path) -> str:
    """Return the suffix of a file's content, without a suffix of compression."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def stem_of(inside: PurePath) -> str:
    """Return the id for a file that holds one paper: its path relative to the root, without suffix."""
    plain = inside.name
    for suffix in reversed(inside.suffixes):
        if suffix.lower() in _NO_PART_OF_IDS:
            plain = plain.removesuffix(suffix)
    return (inside.parent / plain).as_posix()
