"""Retrieval metrics over judgments. Pure functions; tests compare them with ir-measures.

They follow trec_eval: a judgment above 0 is relevant, the gain is the judgment itself, the discount of rank r is log2(r + 1) (Järvelin and
Kekäläinen, 2002), and queries without a relevant judgment are left out. All values are from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

Judgments = Mapping[str, int]
Metric = Callable[[Sequence[str], Judgments], float]


def ndcg(ranking: Sequence[str], judged: Judgments, depth: int = 10) -> float:
    """Return the normalised discounted cumulative gain of the first `depth` results."""
    ideal = _gain(sorted((grade for grade in judged.values() if grade > 0), reverse=True)[:depth])
    return _gain([judged.get(key, 0) for key in ranking[:depth]]) / ideal if ideal else 0.0


def reciprocal_rank(ranking: Sequence[str], judged: Judgments, depth: int = 10) -> float:
    """Return 1 / rank of the first relevant result among the first `depth`, else 0."""
    return next((1.0 / rank for rank, key in enumerate(ranking[:depth], 1) if judged.get(key, 0) > 0), 0.0)


def average_precision(ranking: Sequence[str], judged: Judgments, depth: int = 100) -> float:
    """Return the sum of the precisions at each relevant result among the first `depth`, divided by the number of relevant papers."""
    relevant = sum(grade > 0 for grade in judged.values())
    hits, total = 0, 0.0
    for rank, key in enumerate(ranking[:depth], 1):
        if judged.get(key, 0) > 0:
            hits += 1
            total += hits / rank
    return total / relevant if relevant else 0.0


def recall(ranking: Sequence[str], judged: Judgments, depth: int = 100) -> float:
    """Return the share of the relevant papers that are among the first `depth` results."""
    relevant = sum(grade > 0 for grade in judged.values())
    return sum(judged.get(key, 0) > 0 for key in ranking[:depth]) / relevant if relevant else 0.0


METRICS: dict[str, Metric] = {
    "ndcg@10": ndcg,
    "mrr@10": reciprocal_rank,
    "map@100": average_precision,
    "recall@100": recall,
}


def _gain(grades: Sequence[int]) -> float:
    return sum(max(grade, 0) / math.log2(rank + 1) for rank, grade in enumerate(grades, 1))
