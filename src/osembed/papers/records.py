"""The output of readers: records, and rejected records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_RECORD = 64 * 2**20  # bytes
DEAD_LETTER = "osembed_dead_letter"


@dataclass(frozen=True)
class Record:
    """One input record.

    Attributes:
        fields: its fields as in the input.
        source: file and line.
        fields: as they are named in the file.
        source: file and line that it came from.
        former: the id as an earlier version of osembed read it, if it differs: floats lost zeros, long integers lost digits. Else "".
    """

    fields: dict[str, Any]
    source: str
    former: str = ""


@dataclass(frozen=True)
class Rejected:
    """A record that will not be indexed, with the reason. Its `fields` can be fixed and ingested again.

    Attributes:
        check: what a person must check first. A dead letter that still has it does not count as fixed.
        paper_id: the id of the paper, if it is known, because a paper that is rejected now is not gone from the input.
    """

    reason: str
    source: str
    fields: dict[str, Any]
    check: str = ""
    paper_id: str = field(default="", compare=False)


@dataclass(frozen=True)
class Place:
    """The place that a reader is reading.

    Attributes:
        name: the file's name for messages.
        stem: the id, if the file holds one paper.
        names: osembed's field → the name in this input.
    """

    name: str
    stem: str = ""
    names: Mapping[str, str] = field(default_factory=dict)


def too_large(limit: int) -> str:
    """Return the reason for a record over a limit in bytes."""
    return f"larger than {limit >> 20} MB"


def printable_name(name: str) -> str:
    r"""Return a file's name as valid UTF-8. Invalid bytes are shown like \xe9, so that different names stay different."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def decoded_text(data: bytes) -> tuple[str, str]:
    """Return bytes as text, and the guessed encoding if they are not UTF-8; else ""."""
    try:
        return data.decode("utf-8"), ""
    except UnicodeDecodeError:
        pass
    try:
        return data.decode("cp1252"), "cp1252"
    except UnicodeDecodeError:
        return data.decode("latin-1"), "latin-1"
