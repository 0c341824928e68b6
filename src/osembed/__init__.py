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
    from osembed.evaluate import Evaluation
    from osembed.generation import Wish
    from osembed.ingest.intake import Summary
    from osembed.listing import collections
    from osembed.opensearch.collections import CollectionInfo
    from osembed.opensearch.export import Exported
    from osembed.opensearch.stored import StoredPaper
    from osembed.papers.records import Record
    from osembed.results import Hit, Passage, SearchResult

_HOMES = {
    "Collection": "collection",
    "CollectionInfo": "opensearch.collections",
    "Evaluation": "evaluate",
    "Exported": "opensearch.export",
    "Hit": "results",
    "OsembedError": "errors",
    "Passage": "results",
    "Record": "papers.records",
    "SearchResult": "results",
    "StoredPaper": "opensearch.stored",
    "Summary": "ingest.intake",
    "Wish": "generation",
    "choose_models": "arguments",
    "collections": "listing",
}
__all__ = [
    "Collection",
    "CollectionInfo",
    "Evaluation",
    "Exported",
    "Hit",
    "OsembedError",
    "Passage",
    "Record",
    "SearchResult",
    "StoredPaper",
    "Summary",
    "Wish",
    "choose_models",
    "collections",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'osembed' has no attribute '{name}'")
    return getattr(import_module(f"osembed.{_HOMES[name]}"), name)
