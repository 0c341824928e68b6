"""Estimate how long a migration will take, and how much disk space and memory it needs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from osembed.embed.encoders import spec_of, witness_passages
from osembed.embed.protocol import Encoder
from osembed.errors import ModelError
from osembed.migrate.route import LevelPlan, Route
from osembed.models.spec import ModelSpec
from osembed.opensearch import answers, indexes, reads
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.doctor import forecast_bytes
from osembed.opensearch.schema import IndexMeta, index_name
from osembed.papers.levels import Level
from osembed.passages.passage import stored_passage

_SAMPLE = 96  # documents that are embedded to measure the speed
_SPACE_FACTOR = 1.2  # safety margin on the estimated disk space


def forecast_level(client: OpenSearch, route: Route, level: Level, encoder: Encoder) -> LevelPlan:
    """Return the estimate for one level, from a sample of its documents. Raises ModelError if the model's vectors are unusable."""
    source, meta = route.targets[level], route.metas[level]
    documents = indexes.doc_count(client, source.index)
    sample = _sample(client, source.index)
    now = _texts(spec_of(source.meta.identity, encoder.model.spec), level, sample)
    then = _texts(encoder.model.spec, level, sample)
    tokens = encoder.tokeniser.tokenise(then)
    carried = meta.identity == source.meta.identity
    seconds = 0.0
    if then and not carried:
        encoder.encode(witness_passages(encoder.model.spec))  # warm up, so that the measurement does not include start-up costs
        began = time.perf_counter()
        vectors = encoder.embed(tokens)
        seconds = (time.perf_counter() - began) / len(then) * documents
        if not (np.isfinite(vectors).all() and vectors.any(axis=1).all()):
            raise ModelError(
                f"{meta.model} produces vectors that are zero or not finite.", "They cannot be searched.", "Use another model."
            )
    share = documents / max(len(then), 1)
    size = _store_bytes(client, source.index)
    growth = 4 * documents * (meta.identity.dimension - source.meta.identity.dimension)
    return LevelPlan(
        level=level,
        source=source.index,
        target=index_name(route.collection, level, meta.identity, route.generation),
        model_now=source.meta.model,
        model_then=meta.model,
        dimension_now=source.meta.identity.dimension,
        dimension_then=meta.identity.dimension,
        documents=documents,
        tokens=0 if carried else int(tokens.read * share),
        unseen_now=_unseen(now, source.meta.identity.max_length, encoder),
        unseen_then=_unseen(then, meta.identity.max_length, encoder),
        carried=carried,
        seconds=seconds,
        graph_mb=(_graph_mb(source.meta, documents), _graph_mb(meta, documents)),
        disk_mb=(round(size / 2**20, 1), round(max(0, size + growth) / 2**20, 1)),
    )


def _sample(client: OpenSearch, index: str) -> list[dict[str, Any]]:
    query = {"function_score": {"query": {"match_all": {}}, "random_score": {"seed": 7, "field": "_seq_no"}}}
    hits = reads.search(client, index, {"size": _SAMPLE, "query": query, "_source": {"excludes": ["embedding"]}})["hits"]["hits"]
    return [hit["_source"] for hit in hits]


def _texts(spec: ModelSpec, level: Level, sample: list[dict[str, Any]]) -> list[str]:
    return [passage.text for fields in sample if (passage := stored_passage(spec, level, fields))]


def _unseen(texts: list[str], limit: int, encoder: Encoder) -> float:
    """Return the share of tokens beyond a model's window, from 0 to 1, counted with the new model's tokeniser."""
    counts = encoder.tokeniser.tokenise(texts).counts if texts else []
    return round(sum(max(0, count - limit) for count in counts) / max(1, sum(counts)), 4)


def _store_bytes(client: OpenSearch, index: str) -> int:
    return int(reads.stats(client, index, "store")["primaries"]["store"]["size_in_bytes"])


def _graph_mb(meta: IndexMeta, documents: int) -> float:
    return round(forecast_bytes(meta.identity.dimension, documents) / 2**20, 1)


def forecast_space(client: OpenSearch, levels: list[LevelPlan]) -> Iterator[str]:
    """Yield a problem if the new indexes need more disk space than the nodes have below the low watermark."""
    needed = _SPACE_FACTOR * sum(plan.disk_mb[1] for plan in levels)
    room = sum(_room(node["fs"]["total"]) for node in reads.cluster_nodes(client, "fs").values())
    if needed > room:
        yield (
            f"The new indexes will not fit: they need about {needed:,.0f} MB on disk (1.2 times the estimate), and the nodes have "
            f"{max(room, 0):,.0f} MB below the low watermark (85 %). Free disk space or add a node."
        )


def _room(total: Mapping[str, int]) -> float:
    return (total["available_in_bytes"] - 0.15 * total["total_in_bytes"]) / 2**20


def forecast_memory(client: OpenSearch, route: Route, levels: list[LevelPlan]) -> Iterator[str]:
    """Yield a problem if both generations' faiss graphs exceed the k-NN circuit breaker. Lucene's graphs use the page cache instead."""
    if not any(meta.profile == "faiss" for meta in route.metas.values()):
        return
    answer = reads.plugin_answer(client, "/_plugins/_knn/stats")
    if answer is None:
        return
    stats = answers.nodes(answer).values()
    used = sum(node.get("graph_memory_usage", 0) for node in stats) / 1024
    share = sum(node.get("graph_memory_usage_percentage", 0.0) for node in stats) / max(1, len(stats))
    limit = used / (share / 100) if share else None  # total over all nodes, whose mean share is that of the sum
    more = sum(plan.graph_mb[1] for plan in levels)
    if limit is not None and used + more > limit:
        yield (
            f"The new graphs will not fit: they need {more:,.0f} MB in addition to {used:,.0f} MB, and the k-NN circuit breaker allows "
            f"{limit:,.0f} MB. Add memory, or raise knn.memory.circuit_breaker.limit."
        )
