"""Searches of one pair of indexes, whatever the aliases say."""

from __future__ import annotations

from osembed.embed.encoders import Encoders
from osembed.opensearch.client import OpenSearch, Server
from osembed.opensearch.coordination.journal import Journal
from osembed.opensearch.target import Targets
from osembed.papers.levels import Level
from osembed.search.searcher import Searcher


class PinnedSearcher(Searcher):
    """A searcher of given indexes, published or not."""

    def __init__(self, client: OpenSearch, server: Server, targets: Targets, encoders: Encoders) -> None:
        super().__init__(client, server, targets["papers"].meta.collection, encoders)
        self._pinned, self._journal, self._models = targets, Journal(client), encoders

    def admit(self, level: Level) -> None:
        """Load the model of a level, and test it against the witness vectors. Raises ModelError where this machine lacks it."""
        self._models.of(self._pinned[level].meta.stored_model, self._journal.recall_witness)

    def targets(self) -> Targets:
        """Return the given indexes."""
        return self._pinned

    def resolve(self) -> Targets:
        """Return the given indexes."""
        return self._pinned
