"""Files to records: folders of .txt and .md, .jsonl, .csv, each also .gz or .zst, BEIR's corpus.jsonl, standard input.

A record is a plain dictionary with the line it came from. What cannot be read becomes a `Rejected`, never an exception: one bad line must not
cost the others.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import orjson

from osembed.errors import InputError

MAX_RECORD = 64 * 2**20
_TEXT = (".txt", ".md")
_TABLE = (".jsonl", ".ndjson", ".csv")
_PACKED = (".gz", ".zst")
_NO_PAPERS = ("readme", "notice", "license", "licence", "changelog", "contributing")
DEAD_LETTER = "osembed_dead_letter"


@dataclass(frozen=True)
class Record:
    """One input record as it stands in its file."""

    fields: dict[str, Any]
    source: str


@dataclass(frozen=True)
class Rejected:
    """A record that will not be indexed, and why. `fields` is what can be fed in again."""

    reason: str
    source: str
    fields: dict[str, Any]


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
                yield from _jsonl(sys.stdin.buffer, "stdin")
                continue
            before = self.bytes_read
            yield from self._read_file(root, file)
            self.bytes_read = before + file.stat().st_size

    def _read_file(self, root: Path, file: Path) -> Iterator[Record | Rejected]:
        name = str(file.relative_to(root.parent)) if root != file else file.name
        try:
            with _open(file) as raw:
                kind = _kind(file)
                content = _unpacked(raw, file)
                if kind in _TEXT:
                    yield _text(content, file, root, name)
                    return
                before = self.bytes_read
                for row in _csv(content, name) if kind == ".csv" else _jsonl(content, name):
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
            if _kind(root) not in _TEXT + _TABLE:
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
                why = _unfit(file, real)
                if why:
                    self.skipped[why] = self.skipped.get(why, 0) + 1
                else:
                    yield file


def _unfit(file: Path, root: Path) -> str:
    """Return why a file of a folder is passed over, or ''."""
    if file.name.startswith("."):
        return "hidden files"
    if _kind(file) not in _TEXT + _TABLE:
        return f"{file.suffix or 'no'} suffix"
    if file.name.lower().startswith(_NO_PAPERS):
        return "readme, notice or licence files"
    if not file.resolve().is_relative_to(root):
        return "links that leave the folder"
    if not stat.S_ISREG(file.stat().st_mode):
        return "devices and pipes"
    return ""


def _kind(file: Path) -> str:
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _open(file: Path) -> IO[bytes]:
    raw = file.open("rb")
    if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
        raw.close()
        raise OSError("not a regular file")
    return raw


def _unpacked(raw: IO[bytes], file: Path) -> IO[bytes]:
    if file.suffix.lower() == ".gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if file.suffix.lower() == ".zst":
        import zstandard

        return io.BufferedReader(cast(io.RawIOBase, zstandard.ZstdDecompressor().stream_reader(raw)))
    return raw


def _text(content: IO[bytes], file: Path, root: Path, name: str) -> Record | Rejected:
    data = content.read(MAX_RECORD + 1)
    if len(data) > MAX_RECORD:
        return Rejected(f"larger than {MAX_RECORD >> 20} MB", name, {})
    try:
        text = _decode(data)
    except UnicodeDecodeError as error:
        return Rejected(f"not UTF-8 at byte {error.start}", name, {})
    title, _, body = text.strip().partition("\n")
    title = title.lstrip("#").strip() if _kind(file) == ".md" else title.strip()
    inside = file.relative_to(root) if root != file else Path(file.name)
    plain = inside.name
    for suffix in reversed(inside.suffixes):
        if suffix.lower() in _TEXT + _PACKED:
            plain = plain.removesuffix(suffix)
    return Record({"id": (inside.parent / plain).as_posix(), "title": title, "body": body.strip()}, name)


def _jsonl(content: IO[bytes], name: str) -> Iterator[Record | Rejected]:
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


def _csv(content: IO[bytes], name: str) -> Iterator[Record | Rejected]:
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


def _decode(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")
