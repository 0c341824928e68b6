"""Find the files of a path: which to read, which to skip, which cannot be read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from osembed.errors import InputError
from osembed.papers.readers.kinds import ONE_PAPER, READERS, kind_of
from osembed.papers.readers.packed import explain_damage
from osembed.papers.records import Rejected, printable_name

STANDARD_INPUT = Path("-")
_NO_PAPERS = ("readme", "notice", "license", "licence", "changelog", "contributing")
Skip = Callable[[str, str], None]


@dataclass(frozen=True)
class FoundFile:
    """A file to read.

    Attributes:
        root: the path that the caller named.
        size: its size in bytes.
        changed: times of the last change of its content, and of its content, name or permissions, in nanoseconds since 1970.
    """

    root: Path
    file: Path
    size: int = 0
    changed: tuple[int, int] = (0, 0)

    @property
    def name(self) -> str:
        """The file's name for messages."""
        return shown(self.root, self.file)

    @property
    def inside(self) -> Path:
        """The file's path relative to the root."""
        return self.file.relative_to(self.root) if self.root != self.file else Path(self.file.name)


@dataclass(frozen=True)
class Root:
    """A file or folder that the caller named, identified by its real path and so independent of the working folder.

    Attributes:
        path: the real path.
        prefix: the beginning of its records' sources.
        has_several: whether it is a folder or a file with several papers, from which papers can disappear.
    """

    path: str
    prefix: str
    has_several: bool = True

    @classmethod
    def of(cls, path: str) -> Root:
        """Return the root of a path."""
        root = Path(path)
        inside = shown(root, root / "x")[:-1] if root.is_dir() else shown(root, root)
        several = root.is_dir() or kind_of(root) not in ONE_PAPER
        return cls(printable_name(os.path.realpath(root)), inside, several and root != STANDARD_INPUT)

    def holds(self, source: str) -> bool:
        """Return whether a source (file, or file and line) belongs to it."""
        return is_inside(source, self.prefix)


def is_inside(source: str, prefix: str) -> bool:
    """Return whether a source (file, or file and line) belongs to the folder or file with this prefix."""
    return source.startswith(prefix if prefix.endswith("/") else f"{prefix}:")


def shown(root: Path, file: Path) -> str:
    """Return a path for messages, starting with the name of the root folder, which is the same for `.` and for the full path."""
    if root == file:
        return printable_name(file.name)
    name = root.name if root.name not in ("", "..") else Path(os.path.realpath(root)).name
    return printable_name(str(Path(name, file.relative_to(root))))


def find_files(path: str, skip: Skip) -> Iterator[FoundFile | Rejected]:
    """Find the files of a path.

    Args:
        path: a file, a folder, or - for standard input.
        skip: called with the reason and the name of each skipped file.

    Raises:
        InputError: the path does not exist, or is of a kind that cannot be read.
    """
    root = Path(path)
    if root == STANDARD_INPUT:
        yield FoundFile(root, root)
    elif os.path.isdir(root):
        corpus = root / "corpus.jsonl"
        beir = os.path.isfile(corpus) and os.path.isfile(root / "queries.jsonl")  # BEIR layout: queries are not papers
        yield from [_look(root, corpus)] if beir else _walk(root, skip)
    elif os.path.isfile(root):
        if kind_of(root) not in READERS:
            raise InputError(
                f"{printable_name(path)} is not a kind of file that osembed reads.", "", "Use .txt, .md, .jsonl or .csv (also .gz, .zst)."
            )
        yield _look(root, root)
    elif os.path.exists(root):
        raise InputError(f"{printable_name(path)} is neither a file nor a folder.", "", "Pipe it into `osembed ingest -` (JSON lines).")
    else:
        raise InputError(f"There is no {printable_name(path)}.", "", "Check the path.")


def _walk(root: Path, skip: Skip) -> Iterator[FoundFile | Rejected]:
    """Find the files below a folder. Links to folders are not followed, so that no file is found twice."""
    real, closed = Path(os.path.realpath(root)), list[OSError]()
    for folder, subfolders, names in os.walk(root, onerror=closed.append):
        for name in [name for name in subfolders if os.path.islink(os.path.join(folder, name))]:
            skip("links to folders", shown(root, Path(folder, name)))
        # Changed in place: `os.walk` then visits only these, in a fixed order.
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for file in (Path(folder, name) for name in sorted(names)):
            try:
                why = _unfit(file, real)
            except OSError as error:  # a broken or circular link, or the file was just deleted
                yield _lost(root, file, error)
                continue
            if why:
                skip(why, shown(root, file))
            else:
                yield _look(root, file)
    for fault in closed:
        yield _lost(root, Path(fault.filename), fault)


def _look(root: Path, file: Path) -> FoundFile | Rejected:
    try:
        status = file.stat()
        return FoundFile(root, file, status.st_size, (status.st_mtime_ns, status.st_ctime_ns))
    except OSError as error:
        return _lost(root, file, error)


def _lost(root: Path, file: Path, error: Exception) -> Rejected:
    return Rejected(f"cannot be read: {explain_damage(error)}", shown(root, file), {})


def _unfit(file: Path, root: Path) -> str:
    """Return why a file in a folder is skipped; "" if it is not."""
    if file.name.startswith("."):
        return "hidden files"
    if kind_of(file) not in READERS:
        return f"{printable_name(file.suffix) or 'no'} suffix"
    if file.name.lower().partition(".")[0] in _NO_PAPERS:
        return "readme, notice or licence files"
    if file.is_symlink() and not Path(os.path.realpath(file)).is_relative_to(root):
        return "links that leave the folder"
    if not stat.S_ISREG(file.stat().st_mode):
        return "devices and pipes"
    return ""
