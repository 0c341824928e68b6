"""One level's way: from which index, to which, through which staging alias, embedded by what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from osembed.embed.encoders import Encoders
from osembed.errors import CollectionError
from osembed.opensearch import indexes
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.journal import Journal
from osembed.opensearch.coordination.migration_state import MigrationState
from osembed.opensearch.scan import StoredDocument
from osembed.opensearch.schema import staging_alias
from osembed.opensearch.target import Target
from osembed.papers.levels import Level

if TYPE_CHECKING:
    from osembed.embed.native.encoder import Encoder

Marks = Mapping[Level, Mapping[str, int]]
# Fields that osembed derives for the index it writes to; everything else is the user's and is copied as it is.
OWN = ("embedding", "identity", "text_hash", "origin", "token_count")
PAGE: Mapping[Level, int] = {"papers": 128, "chunks": 256}


class Outdated(Exception):
    """The staging alias is gone or the target refuses: somebody else has taken over."""


@dataclass(frozen=True)
class LevelCopy:
    """One level's way: from which index, to which, through which staging alias, embedded by what.

    Attributes:
        turn: grows with every direction change of the collection, so that copies of this turn are newer than all of earlier ones.
    """

    level: Level
    source: Target
    target: Target
    alias: str
    encoder: Encoder
    turn: int

    @property
    def carries(self) -> bool:
        """Whether both indexes hold the same space, so that vectors may be carried over."""
        return self.source.meta.identity.hash == self.target.meta.identity.hash


def pack_version(turn: int, term: int, seq: int) -> int:
    """Return a copy's version: turn in 13 bits, primary term in 14, sequence number in 36. Later operations get greater numbers."""
    if turn >= 2**13 or term >= 2**14 or seq >= 2**36:
        raise CollectionError("The index has been written or failed over more often than versions can count.", "", "Report this, please.")
    return (turn << 50) | (term << 36) | seq


def version_of(level_copy: LevelCopy, doc: StoredDocument) -> int:
    """Return the version that a copy of a document gets in the target."""
    return pack_version(level_copy.turn, doc.term, doc.seq)


def make_copies(client: OpenSearch, state: MigrationState, encoders: Encoders) -> list[LevelCopy]:
    """Return the ways of a migration's levels as they stand, under the present holder's staging aliases."""
    levels = list(state.moves)
    sources = indexes.resolve_indexes(client, {level: state.source(level) for level in levels})
    targets = indexes.resolve_indexes(client, {level: state.target(level) for level in levels})
    turn, journal = 2 * state.generation + (1 if state.back else 0), Journal(client)
    return [
        LevelCopy(
            level,
            sources[level],
            targets[level],
            staging_alias(state.collection, level, state.attempt),
            encoders.of(targets[level].meta.stored_model, journal.recall_witness),
            turn,
        )
        for level in levels
    ]
