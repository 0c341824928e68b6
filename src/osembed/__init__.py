"""osembed: turn papers into a hybrid search index on OpenSearch.

>>> from osembed import Collection

Importing this package loads neither torch nor opensearch-py; they are loaded on first use. docs/api.md describes every name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from osembed.arguments import choose_models
    from osembed.collection import Collection
    from osembed.errors import (
        AuthError,
        BlockedError,
        BusyError,
        ClusterError,
        CollectionError,
        ConflictError,
        DroppedError,
        IdentityError,
        InputError,
        LastingError,
        MissingError,
        ModelError,
        NodeError,
        NoPaperError,
        NoPapersError,
        OsembedError,
        OutputError,
        PruneError,
        RefusedError,
        UnavailableError,
        UnsettledError,
    )
    from osembed.evaluate.evaluation import Evaluation, EvaluationRow
    from osembed.ingest.options import IngestOptions
    from osembed.ingest.spec import CollectionSpec
    from osembed.ingest.summary import Summary
    from osembed.listing import collections
    from osembed.migrate.copy.window import CopyCounts
    from osembed.migrate.migration import Migration
    from osembed.migrate.options import MigrateOptions, MigrateResult
    from osembed.migrate.progress import Progress
    from osembed.migrate.proof.repair import Repair
    from osembed.migrate.proof.verdict import Gate, GateOptions, LostQuery, MetricVerdict
    from osembed.migrate.proof.verification import Check, Verification
    from osembed.migrate.route import LevelPlan, MigrationPlan
    from osembed.opensearch.client import Server
    from osembed.opensearch.collections import CollectionInfo
    from osembed.opensearch.coordination.migration_state import LevelMove, MigrationState
    from osembed.opensearch.doctor import Finding
    from osembed.opensearch.drop import DropResult
    from osembed.opensearch.drop_plan import DroppedIndex, DropPlan
    from osembed.opensearch.export import Exported
    from osembed.opensearch.status import LevelStatus
    from osembed.opensearch.stored_papers import StoredChunk, StoredPaper
    from osembed.papers.records import Record
    from osembed.search.options import SearchOptions, SimilarOptions
    from osembed.search.results import Facet, Hit, Passage, SearchResult

_HOMES = {
    "AuthError": "errors",
    "BlockedError": "errors",
    "BusyError": "errors",
    "Check": "migrate.proof.verification",
    "ClusterError": "errors",
    "Collection": "collection",
    "CollectionError": "errors",
    "CollectionInfo": "opensearch.collections",
    "CollectionSpec": "ingest.spec",
    "ConflictError": "errors",
    "CopyCounts": "migrate.copy.window",
    "DropPlan": "opensearch.drop_plan",
    "DropResult": "opensearch.drop",
    "DroppedError": "errors",
    "DroppedIndex": "opensearch.drop_plan",
    "Evaluation": "evaluate.evaluation",
    "EvaluationRow": "evaluate.evaluation",
    "Exported": "opensearch.export",
    "Facet": "search.results",
    "Finding": "opensearch.doctor",
    "Gate": "migrate.proof.verdict",
    "GateOptions": "migrate.proof.verdict",
    "Hit": "search.results",
    "IdentityError": "errors",
    "IngestOptions": "ingest.options",
    "InputError": "errors",
    "LastingError": "errors",
    "LevelMove": "opensearch.coordination.migration_state",
    "LevelPlan": "migrate.route",
    "LevelStatus": "opensearch.status",
    "LostQuery": "migrate.proof.verdict",
    "MetricVerdict": "migrate.proof.verdict",
    "MigrateOptions": "migrate.options",
    "MigrateResult": "migrate.options",
    "Migration": "migrate.migration",
    "MigrationPlan": "migrate.route",
    "MigrationState": "opensearch.coordination.migration_state",
    "MissingError": "errors",
    "ModelError": "errors",
    "NoPaperError": "errors",
    "NoPapersError": "errors",
    "NodeError": "errors",
    "OsembedError": "errors",
    "OutputError": "errors",
    "Passage": "search.results",
    "Progress": "migrate.progress",
    "PruneError": "errors",
    "Record": "papers.records",
    "RefusedError": "errors",
    "Repair": "migrate.proof.repair",
    "SearchOptions": "search.options",
    "SearchResult": "search.results",
    "Server": "opensearch.client",
    "SimilarOptions": "search.options",
    "StoredChunk": "opensearch.stored_papers",
    "StoredPaper": "opensearch.stored_papers",
    "Summary": "ingest.summary",
    "UnavailableError": "errors",
    "UnsettledError": "errors",
    "Verification": "migrate.proof.verification",
    "choose_models": "arguments",
    "collections": "listing",
}
__all__ = [
    "AuthError",
    "BlockedError",
    "BusyError",
    "Check",
    "ClusterError",
    "Collection",
    "CollectionError",
    "CollectionInfo",
    "CollectionSpec",
    "ConflictError",
    "CopyCounts",
    "DropPlan",
    "DropResult",
    "DroppedError",
    "DroppedIndex",
    "Evaluation",
    "EvaluationRow",
    "Exported",
    "Facet",
    "Finding",
    "Gate",
    "GateOptions",
    "Hit",
    "IdentityError",
    "IngestOptions",
    "InputError",
    "LastingError",
    "LevelMove",
    "LevelPlan",
    "LevelStatus",
    "LostQuery",
    "MetricVerdict",
    "MigrateOptions",
    "MigrateResult",
    "Migration",
    "MigrationPlan",
    "MigrationState",
    "MissingError",
    "ModelError",
    "NoPaperError",
    "NoPapersError",
    "NodeError",
    "OsembedError",
    "OutputError",
    "Passage",
    "Progress",
    "PruneError",
    "Record",
    "RefusedError",
    "Repair",
    "SearchOptions",
    "SearchResult",
    "Server",
    "SimilarOptions",
    "StoredChunk",
    "StoredPaper",
    "Summary",
    "UnavailableError",
    "UnsettledError",
    "Verification",
    "choose_models",
    "collections",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'osembed' has no attribute '{name}'")
    return getattr(import_module(f"osembed.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
