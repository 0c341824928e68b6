"""Metrics against ir-measures (trec_eval's numbers), on random rankings."""

from __future__ import annotations

import random

import ir_measures
import pytest
from ir_measures import AP, RR, R, nDCG

from osembed.evaluate.metrics import METRICS


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_trec_eval(seed):
    """nDCG@10, MRR@10, MAP@100 and recall@100 with graded judgments, unjudged and irrelevant results."""
    rng = random.Random(seed)
    judged = {f"q{q}": {f"d{d}": rng.choice([0, 1, 2, 3]) for d in rng.sample(range(300), 25)} for q in range(20)}
    rankings = {query: [f"d{d}" for d in rng.sample(range(300), rng.randint(1, 150))][:100] for query in judged}
    run = {query: {doc: 1000.0 - rank for rank, doc in enumerate(ranking)} for query, ranking in rankings.items()}
    theirs = {"ndcg@10": nDCG @ 10, "mrr@10": RR @ 10, "map@100": AP @ 100, "recall@100": R @ 100}
    expected = ir_measures.calc_aggregate(list(theirs.values()), judged, run)
    for name, metric in METRICS.items():
        mean = sum(metric(rankings[query], judged[query]) for query in judged) / len(judged)
        assert mean == pytest.approx(expected[theirs[name]], abs=1e-9)


def test_nothing_relevant_is_zero():
    """No division by zero where nothing is relevant or nothing was found."""
    for metric in METRICS.values():
        assert metric(["a"], {"a": 0}) == metric([], {"a": 1}) == 0.0
