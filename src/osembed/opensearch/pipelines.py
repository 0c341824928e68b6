"""The search pipeline that normalises hybrid queries, and the default pipeline of indexes."""

from __future__ import annotations

from typing import Any, Literal

from osembed.errors import RefusedError
from osembed.opensearch import changes, reads, schema
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.target import Target, Targets

_DEFAULT_PIPELINE = "search.default_pipeline"
Pipeline = Literal["there", "created", "unsupported"]


def default_pipeline(client: OpenSearch, source: Target) -> dict[str, Any]:
    """Return the pipeline setting for the next generation of an index: keep an operator's choice, else use what this server supports."""
    if source.default_pipeline not in ("", schema.PIPELINE):
        return {}
    return {_DEFAULT_PIPELINE: None if ensure_pipeline(client) == "unsupported" else schema.PIPELINE}


def ensure_pipeline(client: OpenSearch) -> Pipeline:
    """Create the cluster-wide search pipeline unless it exists. Returns "there", "created" or "unsupported".

    A missing default pipeline turns every query of every client into an error, so each writer checks it. A server without the neural-search
    plugin does not support it: its indexes get no default pipeline, and hybrid search is fused on the client. Such a server may still list
    a pipeline from a time when it had the plugin; only an attempt to create it shows the difference.
    """
    listed = reads.pipeline(client, schema.PIPELINE) is not None
    if listed and reads.NEURAL_SEARCH in reads.plugins(client):
        return "there"
    try:
        changes.put_pipeline(client, schema.PIPELINE, schema.read_mapping("pipeline.json"))
    except RefusedError as error:
        if "normalization-processor" in str(error.detail):  # unknown processor type: the plugin is missing
            return "unsupported"
        raise
    return "there" if listed else "created"


def fit_pipelines(client: OpenSearch, targets: Targets, found: Pipeline) -> list[str]:
    """Set the indexes' default pipeline if the server supports it, and remove it otherwise. Returns a sentence for each change.

    Other default pipelines, and `_none`, are an operator's choice and are kept.

    Args:
        client: the connection.
        targets: the indexes.
        found: the result of `ensure_pipeline`.
    """
    notices = []
    for target in targets.values():
        if found == "unsupported" and target.default_pipeline == schema.PIPELINE:
            changes.put_settings(client, [target.index], {_DEFAULT_PIPELINE: None})
            notices.append(f"{target.index} named a search pipeline that this server does not support; it now names none.")
        elif found != "unsupported" and not target.default_pipeline:
            changes.put_settings(client, [target.index], {_DEFAULT_PIPELINE: schema.PIPELINE})
            notices.append(f"{target.index} had no default search pipeline; it now has {schema.PIPELINE}.")
    return notices
