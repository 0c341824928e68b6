"""Search several collections: each leg is one request over all of them, followed by one fusion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from osembed.embed.encoders import Encoders
from osembed.opensearch import joint
from osembed.opensearch.client import OpenSearch, Server
from osembed.opensearch.names import find_published
from osembed.opensearch.target import Target, Targets
from osembed.search import filters
from osembed.search.options import SearchOptions
from osembed.search.ranking import Question
from osembed.search.searcher import Searcher


class SeveralSearcher(Searcher):
    """Searches several collections as one. Lexical search always works; vector search needs the same model in all of them."""

    def __init__(self, client: OpenSearch, server: Server, collections: Sequence[str], encoders: Encoders) -> None:
        names = tuple(collections)
        super().__init__(client, server, names[0], encoders, resolve=lambda: joint.join([find_published(client, name) for name in names]))

    def _ask(self, text: str, options: SearchOptions, targets: Targets) -> tuple[Question, tuple[str, ...]]:
        conditions = [condition.field for condition in filters.parse_filters(options.where) if condition.field != "id"]
        others = [name.removeprefix("meta.") for name in (*options.facets, options.sort.partition(":")[0])]
        # Checked first, because the server would mix types silently.
        lacking = joint.require_one_type(targets["papers"], list(dict.fromkeys((*conditions, *others))))
        question, notices = super()._ask(text, options, targets)
        return question, (*notices, *lacking)

    def _query_vector(self, text: str, target: Target) -> NDArray[np.float32]:
        joint.require_one_space(target)
        return super()._query_vector(text, target)
