"""The search pipeline that normalises hybrid queries, and the indexes that have it by default."""

from __future__ import annotations

from typing import Any, Literal

from osembed.errors import RefusedError
from osembed.opensearch import changes, reads, schema
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.target import Target, Targets

# Settings that the server gives each index for itself, or that belong to one index's history.
_DEFAULT_PIPELINE = "search.default_pipeline"
Pipeline = Literal["there", "created", "unsupported"]


def default_pipeline(client: OpenSearch, source: Target) -> dict[str, Any]:
    """Return the setting of the index that comes after another: an operator's choice stays, osembed's own is what this server can do."""
    if source.default_pipeline not in ("", schema.PIPELINE):
        return {}
    return {_DEFAULT_PIPELINE: None if ensure_pipeline(client) == "unsupported" else schema.PIPELINE}


def ensure_pipeline(client: OpenSearch) -> Pipeline:
    """Create the cluster-wide default search pipeline unless it is there; say what was found.

    A missing default pipeline turns every query of every client into an error, so each writer sees to it. A server without the neural-search
    plugin cannot have it: its indexes get no default pipeline, and hybrid search is fused on the client. Such a server may still list a
    pipeline that was created when it had the plugin; then only the attempt to create it tells.
    """
    listed = reads.pipeline(client, schema.PIPELINE) is not None
    if listed and reads.NEURAL_SEARCH in reads.plugins(client):
        return "there"
    try:
        changes.put_pipeline(client, schema.PIPELINE, schema.read_mapping("pipeline.json"))
    except RefusedError as error:
        if "normalization-processor" in str(error.detail):  # an unknown kind of processor: the plugin is not there
            return "unsupported"
        raise
    return "there" if listed else "created"


def fit_pipelines(client: OpenSearch, targets: Targets, found: Pipeline) -> list[str]:
    """Give indexes the default pipeline where the server has it, and take it away where the server cannot; return what was done.

    Other default pipelines, and `_none`, are an operator's choice and stay.

    Args:
        client: the connection.
        targets: the indexes.
        found: what `ensure_pipeline` said.
    """
    notices = []
    for target in targets.values():
        if found == "unsupported" and target.default_pipeline == schema.PIPELINE:
            changes.put_settings(client, [target.index], {_DEFAULT_PIPELINE: None})
            notices.append(f"{target.index} named a search pipeline that this server does not have; now it names none.")
        elif found != "unsupported" and not target.default_pipeline:
            changes.put_settings(client, [target.index], {_DEFAULT_PIPELINE: schema.PIPELINE})
            notices.append(f"{target.index} had no default search pipeline; now it has {schema.PIPELINE}.")
    return notices
