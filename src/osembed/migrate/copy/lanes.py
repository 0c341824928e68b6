"""The ways of a migration's levels as they stand: from which index, to which, under which staging alias."""

from __future__ import annotations

from osembed.embed.encoders import Encoders
from osembed.migrate.copy.copier import Lane
from osembed.opensearch import indexes
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.journal import Journal
from osembed.opensearch.coordination.migration_state import MigrationState
from osembed.opensearch.schema import staging_alias


def make_lanes(client: OpenSearch, state: MigrationState, encoders: Encoders) -> list[Lane]:
    """Return the ways of a migration's levels as they stand, under the present holder's staging aliases."""
    levels = list(state.moves)
    sources = indexes.resolve_indexes(client, {level: state.source(level) for level in levels})
    targets = indexes.resolve_indexes(client, {level: state.target(level) for level in levels})
    leg, journal = 2 * state.generation + (1 if state.back else 0), Journal(client)
    return [
        Lane(
            level,
            sources[level],
            targets[level],
            staging_alias(state.collection, level, state.attempt),
            encoders.of(targets[level].meta.stored_model, journal.recall_witness),
            leg,
        )
        for level in levels
    ]
