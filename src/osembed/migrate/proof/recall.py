"""Measure the recall of an index's graph: its ten nearest neighbours against the exact ten."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from osembed.opensearch import reads, scan
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.target import Target
from osembed.opensearch.vectors import from_wire

_QUERIES = 50
_K = 10
_EPSILON = 1e-5  # tolerance for equal scores


def measure_recall(client: OpenSearch, target: Target) -> tuple[float, int]:
    """Return the mean recall@10 of approximate against exact search, from 0 to 1, and the number of queries. Stored vectors are the queries.

    A query for which even the exact search finds nothing is not counted.

    Exact scores come from the k-NN plugin's scoring script. A hit that scores as well as the exact tenth counts as found.
    """
    with_vector = {"exists": {"field": "embedding"}}
    docs = [doc for page in scan.sample(client, target.index, _QUERIES, _QUERIES, with_vector) for doc in page]
    vectors = [vector for doc in docs if (vector := from_wire(doc.fields.get("embedding"))) is not None]
    recalls = [recall for vector in vectors if (recall := _recall(client, target, vector)) is not None]
    return (sum(recalls) / len(recalls) if recalls else 0.0), len(recalls)


def _recall(client: OpenSearch, target: Target, vector: NDArray[np.float32]) -> float | None:
    near = {"knn": {"embedding": {"vector": vector, "k": _K}}}
    script = {"field": "embedding", "query_value": vector, "space_type": target.meta.identity.space}
    exact = {
        "script_score": {
            "query": {"exists": {"field": "embedding"}},
            "script": {"source": "knn_score", "lang": "knn", "params": script},
        }
    }
    found, best = _ids(client, target, near, _K), _ids(client, target, exact, _K * 3)
    if not best:
        return None
    # Ties with the exact tenth neighbour count as found.
    bar = sorted(best.values(), reverse=True)[min(_K, len(best)) - 1] - _EPSILON
    good = {key for key, score in best.items() if score >= bar}
    return min(1.0, len(good & found.keys()) / min(_K, len(best)))


def _ids(client: OpenSearch, target: Target, query: dict[str, Any], size: int) -> dict[str, float]:
    body = {"size": size, "query": query, "_source": False, "track_total_hits": False}
    hits = reads.search(client, target.index, body)["hits"]["hits"]
    return {hit["_id"]: hit["_score"] for hit in hits}
