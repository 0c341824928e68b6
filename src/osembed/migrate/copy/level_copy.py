"""The copy of one level: source, target, staging alias and encoder; versions of copied documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from osembed.embed.encoders import Encoders
from osembed.embed.protocol import Encoder
from osembed.errors import CollectionError
from osembed.opensearch import indexes
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.journal import Journal
from osembed.opensearch.coordination.migration_state import MigrationState
from osembed.opensearch.documents import StoredDocument
from osembed.opensearch.schema import staging_alias
from osembed.opensearch.target import Target
from osembed.papers.levels import Level

Marks = Mapping[Level, Mapping[str, int]]
# Fields that osembed derives for each index. All other fields belong to the user and are copied unchanged.
OWN = ("embedding", "identity", "text_hash", "origin", "token_count")
# Documents per window.
PAGE: Mapping[Level, int] = {"papers": 128, "chunks": 256}


class Outdated(Exception):
    """The staging alias is gone or the target refuses writes: another process has taken over."""


@dataclass(frozen=True)
class LevelCopy:
    """The copy of one level.

    Attributes:
        source, target: the indexes.
        alias: the staging alias through which the target is written.
        encoder: the target's model.
        turn: increases with each change of direction, so that copies in this turn have higher versions than all earlier ones.
    """

    level: Level
    source: Target
    target: Target
    alias: str
    encoder: Encoder
    turn: int

    @property
    def carries(self) -> bool:
        """Whether both indexes use the same vector space, so that vectors can be copied."""
        return self.source.meta.identity.hash == self.target.meta.identity.hash


def pack_version(turn: int, term: int, seq: int) -> int:
    """Return a copy's version: turn in 13 bits, primary term in 14, sequence number in 36. Later operations get higher versions."""
    if turn >= 2**13 or term >= 2**14 or seq >= 2**36:
        raise CollectionError("The index has had more writes or failovers than versions can count.", "", "Please report this.")
    return (turn << 50) | (term << 36) | seq


def version_of(level_copy: LevelCopy, doc: StoredDocument) -> int:
    """Return the version of a document's copy in the target."""
    return pack_version(level_copy.turn, doc.term, doc.seq)


def make_copies(client: OpenSearch, state: MigrationState, encoders: Encoders) -> list[LevelCopy]:
    """Return the copies of a migration's levels in its current direction, through the current holder's staging aliases."""
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
