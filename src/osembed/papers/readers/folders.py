"""Which files of a path are papers, and which are passed over."""

from __future__ import annotations

import stat
from pathlib import Path

TEXT = (".txt", ".md")
TABLE = (".jsonl", ".ndjson", ".csv")
PACKED = (".gz", ".zst")
_NO_PAPERS = ("readme", "notice", "license", "licence", "changelog", "contributing")


def unfit(file: Path, root: Path) -> str:
    """Return why a file of a folder is passed over, or ''."""
    if file.name.startswith("."):
        return "hidden files"
    if kind_of(file) not in TEXT + TABLE:
        return f"{file.suffix or 'no'} suffix"
    if file.name.lower().startswith(_NO_PAPERS):
        return "readme, notice or licence files"
    if not file.resolve().is_relative_to(root):
        return "links that leave the folder"
    if not stat.S_ISREG(file.stat().st_mode):
        return "devices and pipes"
    return ""


def kind_of(file: Path) -> str:
    """Return the suffix that says what a file holds, below that of its packing."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""
