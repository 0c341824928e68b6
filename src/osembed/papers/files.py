"""Files of papers that are whole or not there."""

from __future__ import annotations

import gzip
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from osembed.errors import InputError, OutputError

_LINES = (".jsonl", ".ndjson")


def check_output(path: Path) -> None:
    """Raise InputError unless papers can be written there as lines that `ingest` recognises by the file's name."""
    if path.is_dir() or not path.name.removesuffix(".gz").endswith(_LINES):
        raise InputError(
            f"{path} is {'a folder' if path.is_dir() else 'no name for JSON lines'}.",
            "`ingest` goes by the name when it reads them again.",
            "Name a file like papers.jsonl or papers.jsonl.gz, or - for standard output.",
        )
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a regular file.", "It would be replaced.", "Use - and redirect: osembed export - > FILE")
    if not path.resolve().parent.is_dir():
        raise InputError(f"There is no folder {path.parent}.", "", "Make it, or name another.")


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing, packed where it is called .gz; it takes its name once all of it is on the disk.

    Where anything fails nothing stays, and what had the name before keeps it. Raises OutputError where it cannot be written.
    """
    real = path.resolve()  # a link stays a link
    part = real.with_name(f".osembed-{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as raw:
            if real.suffix == ".gz":
                with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:  # no name, no time: equal papers make equal files
                    yield cast(IO[bytes], packed)
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        part.replace(real)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}.",
            "Nothing of it stays; a file that was there before is as it was.",
            "Make room there, or name another file.",
        ) from error
    finally:
        part.unlink(missing_ok=True)
