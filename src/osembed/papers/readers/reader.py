"""Files to records: folders of .txt and .md, .jsonl, .csv, each also .gz or .zst, BEIR's corpus.jsonl, standard input.

A record is a plain dictionary with the line it came from. What cannot be read becomes a `Rejected`, never an exception: one bad line must not
cost the others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from osembed.errors import InputError
from osembed.papers.readers.folders import TABLE, TEXT, kind_of, unfit
from osembed.papers.readers.jsonl import read_lines
from osembed.papers.readers.packed import open_file, unpacked
from osembed.papers.readers.table import read_table
from osembed.papers.readers.text import read_text
from osembed.papers.records import Record, Rejected


@dataclass
class Reader:
    """Reads paths in order. `bytes_total` and `bytes_read` (of files as they lie on disk) serve progress.

    Attributes:
        skipped: files of a folder that were passed over, by the reason.
    """

    paths: Sequence[str]
    bytes_total: int = 0
    bytes_read: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._files = [found for path in self.paths for found in self._expand(path)]
        self.bytes_total = sum(file.stat().st_size for _, file in self._files if file != Path("-"))
        if not self._files:
            raise InputError(
                f"{', '.join(map(str, self.paths)) or 'Nothing'} holds no papers.",
                "",
                "Name folders of .txt or .md files, or .jsonl or .csv files (also .gz, .zst), or - for standard input.",
            )

    def __iter__(self) -> Iterator[Record | Rejected]:
        for root, file in self._files:
            if file == Path("-"):
                yield from read_lines(sys.stdin.buffer, "stdin")
                continue
            before = self.bytes_read
            yield from self._read_file(root, file)
            self.bytes_read = before + file.stat().st_size

    def _read_file(self, root: Path, file: Path) -> Iterator[Record | Rejected]:
        name = str(file.relative_to(root.parent)) if root != file else file.name
        try:
            with open_file(file) as raw:
                kind = kind_of(file)
                content = unpacked(raw, file)
                if kind in TEXT:
                    yield read_text(content, file, root, name)
                    return
                before = self.bytes_read
                for row in read_table(content, name) if kind == ".csv" else read_lines(content, name):
                    self.bytes_read = before + raw.tell()
                    yield row
        except (OSError, EOFError, ValueError) as error:
            yield Rejected(f"cannot be read: {error}", name, {})

    def _expand(self, path: str) -> Iterator[tuple[Path, Path]]:
        if str(path) == "-":
            yield Path("-"), Path("-")
            return
        root = Path(path)
        if not root.exists():
            raise InputError(f"There is no {path}.", "", "Check the path.")
        if root.is_file():
            if kind_of(root) not in TEXT + TABLE:
                raise InputError(
                    f"{path} is of a kind that osembed does not read.",
                    "",
                    "Use .txt, .md, .jsonl or .csv (also .gz, .zst).",
                )
            yield root, root
            return
        if (root / "corpus.jsonl").is_file() and (root / "queries.jsonl").is_file():
            yield root, root / "corpus.jsonl"  # a BEIR folder: its queries are no papers
            return
        yield from ((root, file) for file in self._walk(root))

    def _walk(self, root: Path) -> Iterator[Path]:
        real = root.resolve()
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in sorted(names):
                file = Path(folder) / name
                why = unfit(file, real)
                if why:
                    self.skipped[why] = self.skipped.get(why, 0) + 1
                else:
                    yield file
