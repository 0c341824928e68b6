"""Paired statistics over queries. Pure functions.

Bootstrap: Efron and Tibshirani (1993), percentile bound of the mean of paired differences. Randomisation: Smucker, Allan and Carterette
(CIKM 2007), two-sided, signs of the differences flipped at random. Overlap at depth: Webber, Moffat and Zobel (2010), rank-biased.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 10_000  # resamples
_CHUNK = 500  # resamples computed at once, to bound memory


def lower_bound(differences: Sequence[float], confidence: float = 0.95, seed: int = 7) -> float:
    """Return the one-sided lower bootstrap bound of the mean difference."""
    values = np.asarray(differences, dtype=np.float64)
    random = np.random.default_rng(seed)
    means = np.concatenate([values[random.integers(0, len(values), (n, len(values)))].mean(axis=1) for n in _parts()])
    return float(np.quantile(means, 1 - confidence))


def randomisation_p(differences: Sequence[float], seed: int = 7) -> float:
    """Return the probability of a mean difference at least this far from 0 if the two systems were the same."""
    values = np.asarray(differences, dtype=np.float64)
    random = np.random.default_rng(seed)
    observed = abs(values.mean()) - 1e-12
    extreme = sum(int((np.abs(_flipped(values, n, random)) >= observed).sum()) for n in _parts())
    return (extreme + 1) / (_ROUNDS + 1)


def overlap(first: Sequence[str], second: Sequence[str], depth: int = 10) -> float:
    """Return the share of common entries among the first `depth` of two rankings."""
    longest = max(len(first[:depth]), len(second[:depth]))
    return len(set(first[:depth]) & set(second[:depth])) / longest if longest else 1.0


def rank_biased_overlap(first: Sequence[str], second: Sequence[str], p: float = 0.9) -> float:
    """Return the extrapolated rank-biased overlap of two rankings of equal depth: 1 for the same, 0 for disjoint."""
    depth = min(len(first), len(second))
    if not depth:
        return 1.0 if not first and not second else 0.0
    common, total, seen_a, seen_b = 0, 0.0, set[str](), set[str]()
    for rank in range(depth):
        a, b = first[rank], second[rank]
        seen_a.add(a)
        seen_b.add(b)
        common += (a in seen_b) + (b in seen_a) - (a == b)
        total += p**rank * common / (rank + 1)
    return float((1 - p) * total + p**depth * common / depth)


def _flipped(values: NDArray[np.float64], rounds: int, random: np.random.Generator) -> NDArray[np.float64]:
    signs = random.integers(0, 2, (rounds, len(values))) * 2 - 1
    means: NDArray[np.float64] = (signs * values).mean(axis=1)
    return means


def _parts() -> list[int]:
    return [_CHUNK] * (_ROUNDS // _CHUNK)
