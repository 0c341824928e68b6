"""What readers hand on: records as they stand in their files, and what could not be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_RECORD = 64 * 2**20
DEAD_LETTER = "osembed_dead_letter"


@dataclass(frozen=True)
class Record:
    """One input record as it stands in its file.

    Attributes:
        former: the id as an earlier osembed read it, where that differs: floats lost their zeros, long integers their digits.
    """

    fields: dict[str, Any]
    source: str
    former: str = ""


@dataclass(frozen=True)
class Rejected:
    """A record that will not be indexed, and why. `fields` is what can be fed in again.

    Attributes:
        check: what a person must look at first: a dead letter that still says so is not taken for mended.
        paper_id: the id of the paper that it would be, where that is known: a paper that is rejected now is not gone.
    """

    reason: str
    source: str
    fields: dict[str, Any]
    check: str = ""
    paper_id: str = field(default="", compare=False)


@dataclass(frozen=True)
class Place:
    """Where a reader is.

    Attributes:
        name: of the file, as messages show it.
        stem: the id of a file that holds one paper.
        names: osembed's field → the name that this input uses.
    """

    name: str
    stem: str = ""
    names: Mapping[str, str] = field(default_factory=dict)


def too_large(limit: int) -> str:
    """Return the reason for a record over a limit in bytes."""
    return f"larger than {limit >> 20} MB"


def printable_name(name: str) -> str:
    r"""Return a file's name as valid UTF-8; bytes that are not are shown as \xe9, so that two names stay two."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def decoded_text(data: bytes) -> tuple[str, str]:
    """Return bytes as text, and the encoding that was guessed where they are not UTF-8, else ''."""
    try:
        return data.decode("utf-8"), ""
    except UnicodeDecodeError:
        pass
    try:
        return data.decode("cp1252"), "cp1252"
    except UnicodeDecodeError:
        return data.decode("latin-1"), "latin-1"
