"""osembed: papers in, hybrid search on OpenSearch out.

>>> from osembed import Collection

Importing this package loads neither torch nor opensearch-py; they come with the first use of what needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from osembed.arguments import choose_models
    from osembed.collection import Collection
    from osembed.errors import OsembedError
    from osembed.evaluate.evaluation import Evaluation
    from osembed.ingest.spec import CollectionSpec
    from osembed.ingest.summary import Summary
    from osembed.listing import collections
    from osembed.opensearch.collections import CollectionInfo
    from osembed.opensearch.export import Exported
    from osembed.opensearch.stored_papers import StoredPaper
    from osembed.papers.records import Record
    from osembed.search.results import Hit, Passage, SearchResult

_HOMES = {
    "Collection": "collection",
    "CollectionInfo": "opensearch.collections",
    "Evaluation": "evaluate.evaluation",
    "Exported": "opensearch.export",
    "Hit": "search.results",
    "OsembedError": "errors",
    "Passage": "search.results",
    "Record": "papers.records",
    "SearchResult": "search.results",
    "StoredPaper": "opensearch.stored_papers",
    "Summary": "ingest.intake",
    "CollectionSpec": "ingest.loading",
    "choose_models": "arguments",
    "collections": "listing",
}
__all__ = [
    "Collection",
    "CollectionInfo",
    "CollectionSpec",
    "Evaluation",
    "Exported",
    "Hit",
    "OsembedError",
    "Passage",
    "Record",
    "SearchResult",
    "StoredPaper",
    "Summary",
    "choose_models",
    "collections",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'osembed' has no attribute '{name}'")
    return getattr(import_module(f"osembed.{_HOMES[name]}"), name)
