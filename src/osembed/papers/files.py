"""Write files of papers completely or not at all."""

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
    """Raise InputError unless the path can be written and has a name by which `ingest` recognises JSON lines."""
    if path.is_dir() or not path.name.removesuffix(".gz").endswith(_LINES):
        raise InputError(
            f"{path} is {'a folder' if path.is_dir() else 'not a name for JSON lines'}.",
            "`ingest` recognises files by their names.",
            "Use a name like papers.jsonl or papers.jsonl.gz, or - for standard output.",
        )
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a regular file.", "It would be replaced.", "Use - and redirect: osembed export - > FILE")
    if not path.resolve().parent.is_dir():
        raise InputError(f"There is no folder {path.parent}.", "", "Create it, or use another one.")


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing, compressed if its name ends in .gz. It appears under its name only when it is completely on disk.

    After a failure nothing remains, and a previous file of that name is unchanged. Raises OutputError if it cannot be written.
    """
    real = path.resolve()  # write to the target of a link and keep the link
    part = real.with_name(f".osembed-{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as raw:
            if real.suffix == ".gz":
                with gzip.GzipFile(
                    "", "wb", fileobj=raw, mtime=0
                ) as packed:  # without name and time, so that equal papers give equal files
                    yield cast(IO[bytes], packed)
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        part.replace(real)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}.",
            "Nothing of it remains; a file that existed before is unchanged.",
            "Free some space, or use another file.",
        ) from error
    finally:
        part.unlink(missing_ok=True)
