"""Files as they lie on disk: opened, and unpacked where they are packed."""

from __future__ import annotations

import gzip
import io
import os
import stat
from pathlib import Path
from typing import IO, cast


def open_file(file: Path) -> IO[bytes]:
    """Open a regular file."""
    raw = file.open("rb")
    if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
        raw.close()
        raise OSError("not a regular file")
    return raw


def unpacked(raw: IO[bytes], file: Path) -> IO[bytes]:
    """Return the content of an open file."""
    if file.suffix.lower() == ".gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if file.suffix.lower() == ".zst":
        import zstandard

        return io.BufferedReader(cast(io.RawIOBase, zstandard.ZstdDecompressor().stream_reader(raw)))
    return raw
