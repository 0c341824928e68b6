"""Open files, decompress them in pieces, and turn UTF-16 into UTF-8."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import stat
import sys
import zlib
from pathlib import Path
from typing import IO, Any, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_LONGEST_WINDOW = 29  # log2 of the memory that a .zst may ask for: 512 MB
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
FAULTS = (OSError, EOFError, ValueError, zlib.error, zstd.ZstdError)


def open_file(file: Path) -> IO[bytes]:
    """Open a regular file. Raises OSError for anything else, because a pipe may block and a device never ends."""
    raw = os.fdopen(os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb")
    if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
        raw.close()
        raise OSError("not a regular file")
    return raw


def unpacked_stream(raw: IO[bytes], file: Path) -> IO[bytes]:
    """Return the decompressed content of an open file. Reading a damaged part raises one of FAULTS."""
    content: Any = raw
    if file.suffix.lower() == ".gz":
        content = gzip.GzipFile(fileobj=raw)
    elif file.suffix.lower() == ".zst":
        content = zstd.ZstdFile(raw, options={zstd.DecompressionParameter.window_log_max: _LONGEST_WINDOW})
    if content.peek(2)[:2] in _WIDE:
        return cast(IO[bytes], io.BufferedReader(_Narrowed(content)))
    return cast(IO[bytes], content)


def explain_damage(error: Exception) -> str:
    """Return the reason of a read error, without the path."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if "Frame requires too much memory" in text:
        return f"its zstd window is longer than {2 ** (_LONGEST_WINDOW - 20)} MB: compress it again with a shorter --long"
    return text


class _Narrowed(io.RawIOBase):
    """UTF-16 read as UTF-8."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content, self._left = content, b""
        self._decoder = codecs.getincrementaldecoder("utf-16")()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            piece = self._content.read(2**16)
            self._left = self._decoder.decode(piece, final=not piece).encode("utf-8", "replace")
            if not piece:
                break
        taken = self._left[: len(buffer)]
        buffer[: len(taken)] = taken
        self._left = self._left[len(taken) :]
        return len(taken)
