"""What readers hand on: records as they stand in their files, and what could not be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MAX_RECORD = 64 * 2**20
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
