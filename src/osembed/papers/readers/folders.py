"""Which files of a path are papers, which are passed over, which cannot be read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from osembed.errors import InputError
from osembed.papers.readers.kinds import READERS, kind_of
from osembed.papers.readers.packed import explain
from osembed.papers.records import Rejected, printable

STANDARD_INPUT = Path("-")
_NO_PAPERS = ("readme", "notice", "license", "licence", "changelog", "contributing")
Skip = Callable[[str, str], None]


@dataclass(frozen=True)
class Found:
    """A file that is to be read: `root` is the path that was named, `size` in bytes."""

    root: Path
    file: Path
    size: int = 0

    @property
    def name(self) -> str:
        """The file as messages show it."""
        return shown(self.root, self.file)

    @property
    def inside(self) -> Path:
        """The file's path inside what was named."""
        return self.file.relative_to(self.root) if self.root != self.file else Path(self.file.name)


def shown(root: Path, file: Path) -> str:
    """Return a path as messages show it: from the folder that was named."""
    return printable(str(file.relative_to(root.parent) if root != file else file.name))


def find(path: str, skip: Skip) -> Iterator[Found | Rejected]:
    """Find the files of a path.

    Args:
        path: a file, a folder, or - for standard input.
        skip: called with the reason and the name of each file that is passed over.

    Raises:
        InputError: there is nothing there, or nothing that could be read.
    """
    root = Path(path)
    if root == STANDARD_INPUT:
        yield Found(root, root)
    elif os.path.isdir(root):
        corpus = root / "corpus.jsonl"
        beir = os.path.isfile(corpus) and os.path.isfile(root / "queries.jsonl")  # its queries are no papers
        yield from [_look(root, corpus)] if beir else _walk(root, skip)
    elif os.path.isfile(root):
        if kind_of(root) not in READERS:
            raise InputError(
                f"{printable(path)} is of a kind that osembed does not read.", "", "Use .txt, .md, .jsonl or .csv (also .gz, .zst)."
            )
        yield _look(root, root)
    elif os.path.exists(root):
        raise InputError(f"{printable(path)} is neither a file nor a folder.", "", "Pipe it into `osembed ingest -` (JSON lines).")
    else:
        raise InputError(f"There is no {printable(path)}.", "", "Check the path.")


def _walk(root: Path, skip: Skip) -> Iterator[Found | Rejected]:
    """Find the files below a folder. Links to folders are not followed, so that none is met twice."""
    real, closed = Path(os.path.realpath(root)), list[OSError]()
    for folder, subfolders, names in os.walk(root, onerror=closed.append):
        for name in [name for name in subfolders if os.path.islink(os.path.join(folder, name))]:
            skip("links to folders", shown(root, Path(folder, name)))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for file in (Path(folder, name) for name in sorted(names)):
            try:
                why = _unfit(file, real)
            except OSError as error:  # a link to nothing or to itself; gone meanwhile
                yield _lost(root, file, error)
                continue
            if why:
                skip(why, shown(root, file))
            else:
                yield _look(root, file)
    for fault in closed:
        yield _lost(root, Path(fault.filename), fault)


def _look(root: Path, file: Path) -> Found | Rejected:
    try:
        return Found(root, file, file.stat().st_size)
    except OSError as error:
        return _lost(root, file, error)


def _lost(root: Path, file: Path, error: Exception) -> Rejected:
    return Rejected(f"cannot be read: {explain(error)}", shown(root, file), {})


def _unfit(file: Path, root: Path) -> str:
    """Return why a file of a folder is passed over, or ''."""
    if file.name.startswith("."):
        return "hidden files"
    if kind_of(file) not in READERS:
        return f"{printable(file.suffix) or 'no'} suffix"
    if file.name.lower().partition(".")[0] in _NO_PAPERS:
        return "readme, notice or licence files"
    if not Path(os.path.realpath(file)).is_relative_to(root):
        return "links that leave the folder"
    if not stat.S_ISREG(file.stat().st_mode):
        return "devices and pipes"
    return ""
