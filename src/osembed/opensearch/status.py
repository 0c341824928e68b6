"""The live indexes of a collection with their models and sizes."""

from __future__ import annotations

from dataclasses import dataclass

from osembed.opensearch import indexes, sight
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.doctor import forecast_bytes
from osembed.opensearch.schema import alias_name
from osembed.opensearch.target import Targets


@dataclass(frozen=True)
class LevelStatus:
    """One level of a published collection.

    Attributes:
        identity: hash of the vector space.
        graph_mb: estimated memory of the vector graph in MB.
        level: papers or chunks.
        alias, index: the name that readers use, and the concrete index behind it.
        generation: of the index.
        documents: how many it has.
        model, identity, dimension: what made its vectors, and the space that they are in.
        built_by: backend, precision and device of the process that created the index.
        graph_mb: estimated memory of the vector graph.
        limits: security settings that hide a part of it from this user; the numbers then count only what it sees. "" for none.
        analyzer: how the server cuts words.
    """

    level: str
    alias: str
    index: str
    generation: int
    documents: int
    model: str
    identity: str
    dimension: int
    built_by: str
    graph_mb: float
    limits: str
    analyzer: str


def read_status(client: OpenSearch, collection: str, targets: Targets) -> list[LevelStatus]:
    """Return the status of each level of a published collection."""
    rows, limits = [], sight.limits(client, {level: target.index for level, target in targets.items()})
    for level, target in targets.items():
        meta, count = target.meta, indexes.doc_count(client, target.index)
        rows.append(
            LevelStatus(
                level=level,
                alias=alias_name(collection, level),
                index=target.index,
                generation=meta.generation,
                documents=count,
                model=meta.model,
                identity=meta.identity.hash,
                dimension=meta.identity.dimension,
                built_by=meta.provenance.get("backend", "?"),
                graph_mb=round(forecast_bytes(meta.identity.dimension, count) / 2**20, 1),
                limits=limits,
                analyzer=meta.analyzer,
            )
        )
    return rows
