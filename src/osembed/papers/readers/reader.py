"""Read paths into records: folders of .txt and .md, .jsonl, .csv, each also .gz or .zst, BEIR's corpus.jsonl, standard input.

A record is a plain dictionary with its source. Something that cannot be read becomes a `Rejected` and never an exception, because one bad
line or file must not prevent the others from being read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from osembed.errors import InputError, NoPapersError
from osembed.papers.readers.folders import STANDARD_INPUT, FoundFile, Root, find_files
from osembed.papers.readers.jsonl import read_lines
from osembed.papers.readers.kinds import READERS, kind_of, stem_of
from osembed.papers.readers.packed import FAULTS, explain_damage, open_file, unpacked_stream
from osembed.papers.records import Place, Record, Rejected, printable_name

_NAMED = 3
Read = Iterator[Record | Rejected]


@dataclass
class Reader:
    """Reads paths in order. Iterating yields records and rejected records.

    Attributes:
        names: osembed's field → the name in the input. Needed here because ids must be read as text.
        bytes_total, bytes_read: size of the files on disk, for progress. The total is 0 if standard input is among the paths.
        skipped: reason → number of files in folders that were skipped.
        skipped_names: reason → the first names.
        only: the files of the folders to read; None for all.
        may_be_empty: whether a folder without files is allowed.
        roots: the named folders and files with several papers.
        root: the path of the last record's root; "" for standard input.

    Raises:
        InputError: a path does not exist. NoPapersError: the paths exist but hold no file to read.
    """

    paths: Sequence[str]
    names: Mapping[str, str] = field(default_factory=dict)
    bytes_total: int = 0
    bytes_read: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    skipped_names: dict[str, list[str]] = field(default_factory=dict)
    only: Container[Path] | None = None
    may_be_empty: bool = False
    roots: list[Root] = field(default_factory=list)
    root: str = ""

    def __post_init__(self) -> None:
        found = [(Root.of(str(path)), list(find_files(str(path), self._skip))) for path in self.paths]
        self._looked = list(zip(self.paths, found, strict=True))
        self._found = [(root, one) for root, several in found for one in several]
        self.roots = [root for root, _ in found if root.has_several]
        files = [found for _, found in self._found if isinstance(found, FoundFile)]
        self._names = {"stdin" if found.file == STANDARD_INPUT else found.name for found in files}
        if self.only is not None:
            self._found = [(root, one) for root, one in self._found if isinstance(one, FoundFile) and one.file in self.only]
            files = [found for found in files if found.file in self.only]
        endless = any(found.file == STANDARD_INPUT for found in files)  # its size is unknown, and so is the total
        self.bytes_total = 0 if endless else sum(found.size for found in files)
        if not self._found and not (self.may_be_empty and self.roots) and self.only is None:
            raise NoPapersError(
                f"{', '.join(printable_name(str(path)) for path in self.paths) or 'Nothing'} holds no papers.",
                "",
                "Use folders of .txt or .md files, or .jsonl or .csv files (also .gz, .zst), or - for standard input.",
            )

    def __iter__(self) -> Read:
        for root, found in self._found:
            self.root = root.path
            if isinstance(found, Rejected):
                yield found
            elif found.file == STANDARD_INPUT:
                yield from _guarded("stdin", lambda: read_lines(sys.stdin.buffer, Place("stdin", names=self.names)))
            else:
                before = self.bytes_read
                yield from _guarded(found.name, partial(self._read_file, found))
                self.bytes_read = before + found.size

    def changed(self) -> Iterator[tuple[str, Rejected]]:
        """Scan again, and yield the path of each root that has changed, with the first place that differs."""
        for path, (root, before) in self._looked:
            try:
                now = list(find_files(str(path), lambda *_: None))
            except InputError as error:
                yield root.path, Rejected(error.found, printable_name(str(path)), {})
                continue
            differing = _files(before) ^ _files(now)
            if differing:
                yield root.path, Rejected("it changed while the rest was read", min(one.name for one in differing), {})

    def covers(self, file: Path) -> bool:
        """Return whether a file, even if it does not exist yet, belongs to the input."""
        real = Path(os.path.realpath(file))
        roots = [root for root in map(os.path.realpath, self.paths) if real.is_relative_to(root)]
        hidden = [any(part.startswith(".") for part in real.relative_to(root).parts) for root in roots]  # hidden files are not read
        return kind_of(real) in READERS and not all(hidden)

    def has(self, source: str) -> bool:
        """Return whether a source (file and line) belongs to this input."""
        return source.rpartition(":")[0] in self._names or source in self._names

    def _read_file(self, found: FoundFile) -> Read:
        place, before = Place(found.name, printable_name(stem_of(found.inside)), self.names), self.bytes_read
        with open_file(found.file) as raw:
            for record in READERS[kind_of(found.file)](unpacked_stream(raw, found.file), place):
                self.bytes_read = before + min(raw.tell(), found.size)  # the file may grow while it is read
                yield record

    def _skip(self, why: str, name: str) -> None:
        self.skipped[why] = self.skipped.get(why, 0) + 1
        names = self.skipped_names.setdefault(why, [])
        if len(names) < _NAMED:
            names.append(name)


def _files(found: Iterable[FoundFile | Rejected]) -> set[FoundFile]:
    return {one for one in found if isinstance(one, FoundFile)}


def _guarded(name: str, read: Callable[[], Iterable[Record | Rejected]]) -> Read:
    """Yield the records of a file up to its end, or up to the first damage, which is yielded as a rejected record."""
    last = name
    try:
        for record in read():
            last = record.source
            yield record
    except FAULTS as error:
        beyond = f" beyond {last}" if last != name else ""
        yield Rejected(f"cannot be read{beyond}: {explain_damage(error)}", name, {})
