"""Dead letters: a file of rejected records with reasons, which can be fixed and ingested again."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from osembed.errors import OutputError
from osembed.papers.records import DEAD_LETTER, Rejected
from osembed.paths import data_folder


class DeadLetters:
    """A JSONL file of rejected records with reasons, which `osembed ingest FILE` can read. Only its owner may read it."""

    def __init__(self, path: str | None, collection: str) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        self._path = Path(path) if path else data_folder() / "dead-letters" / f"{collection}-{stamp}-{os.getpid()}.jsonl"
        self._file: int | None = None
        self._used = False

    def write(self, rejected: Rejected) -> None:
        """Append one rejected record. Raises OutputError."""
        line = {DEAD_LETTER: rejected.reason, "source": rejected.source, "record": rejected.fields}
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file, self._used = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), True
            self._append(self._file, _line({**line, "check": rejected.check} if rejected.check else line))
        except OSError as error:
            raise OutputError(
                f"The dead letters cannot be written to {self._path}: {error.strerror}.",
                "A rejected paper would go unnoticed. Acknowledged writes are kept.",
                "Free some space, or use another file with --dead-letters FILE; then run the same command again.",
            ) from error

    def _append(self, file: int, line: bytes) -> None:
        """Append a line completely or not at all. A disk that fills up may accept a part of it, which is then removed."""
        before, left = os.fstat(file), line
        try:
            while left:
                left = left[os.write(file, left) :]
        except OSError:
            if stat.S_ISREG(before.st_mode):
                os.ftruncate(file, before.st_size)
            raise

    def close(self) -> str | None:
        """Close the file. Returns its path, or None if nothing was rejected."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        return str(self._path) if self._used else None


def _line(letter: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(letter, default=str, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # integers beyond 64 bits or single surrogates, which the standard library can write
        return json.dumps(letter, default=str).encode() + b"\n"
