"""The sides of a verification: an index with its model's encoder and, in a migration, its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from osembed.embed.protocol import Encoder
from osembed.migrate.copy.level_copy import LevelCopy
from osembed.opensearch.coordination.migration_state import MigrationState
from osembed.opensearch.target import Target
from osembed.papers.levels import Level


@dataclass(frozen=True)
class Pair:
    """One level of a running migration: the copy, its marks and bases, and the documents that failed."""

    level_copy: LevelCopy
    marks: Mapping[str, int]
    bases: Mapping[str, tuple[int, int]]
    failed: frozenset[str]


@dataclass(frozen=True)
class Side:
    """One index to verify, with its model's encoder. `pair` is set if it is the target of a migration."""

    target: Target
    level: Level
    encoder: Encoder
    pair: Pair | None = None


def pair_of(level_copy: LevelCopy, state: MigrationState) -> Pair:
    """Return one level of a migration in the form for verification."""
    move = state.moves[level_copy.level]
    failed = frozenset(key for key in state.failed if key.startswith(f"{level_copy.level}/"))
    return Pair(level_copy, move.marks, move.bases if state.back else {}, failed)
