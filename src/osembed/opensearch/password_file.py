"""Read a password file: it must hold only the password, and no other user may be able to read or change it."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from osembed.errors import InputError

_LIMIT = 4096
_OTHERS = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH


def read_password(name: str) -> str:
    """Return the password in a file. Raises InputError if the file is unusable or not private."""
    path = Path(name)
    try:
        with path.open("rb") as file:
            _check_private(path, os.fstat(file.fileno()))  # check the open file, because the path could point to another one a moment later
            content = file.read(_LIMIT + 1)
    except IsADirectoryError as error:
        raise _unusable(path, "is a folder") from error
    except FileNotFoundError as error:
        raise _unusable(path, "does not exist") from error
    except OSError as error:
        raise _unusable(path, f"cannot be read ({error.strerror})", "Check the path and its permissions.") from error
    return _only_line(path, content)


def _check_private(path: Path, status: os.stat_result) -> None:
    """Raise InputError for a file that others may read (they know the password) or write (they choose it)."""
    if os.name == "nt":  # Windows does not keep permissions in the mode
        return
    mode = stat.S_IMODE(status.st_mode)
    if mode & _OTHERS:
        raise InputError(
            f"The password file {path} can be read or changed by others (mode {mode:04o}).",
            "A password must stay private.",
            f"Run: chmod 600 {shlex.quote(str(path))}",
        )
    if status.st_uid not in (os.geteuid(), 0):
        raise InputError(
            f"The password file {path} belongs to another user (number {status.st_uid}).",
            "That user can read and change it.",
            "Use a file of your own, with mode 600.",
        )


def _only_line(path: Path, content: bytes) -> str:
    """Return the only line of a file with its spaces, but without the newline that editors append. Raises InputError."""
    try:
        line = content.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise _unusable(path, "is not UTF-8 text") from error
    if not line:
        raise _unusable(path, "is empty")
    if len(content) > _LIMIT:
        raise _unusable(path, f"is longer than {_LIMIT} bytes")
    if "\n" in line or "\r" in line:
        raise _unusable(path, "has more than one line")
    if any(character < " " or character == "\x7f" for character in line):
        raise _unusable(path, "holds control characters")
    return line


def _unusable(path: Path, found: str, hint: str = "It must hold only the password, as one line of text.") -> InputError:
    return InputError(f"The password file {path} {found}.", "", hint)
