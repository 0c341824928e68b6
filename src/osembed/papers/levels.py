"""The two levels at which a collection is indexed and searched."""

from __future__ import annotations

from typing import Literal

Level = Literal["papers", "chunks"]
LEVELS: tuple[Level, Level] = ("papers", "chunks")
