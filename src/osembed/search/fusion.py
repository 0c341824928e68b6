"""Fuse two rankings into one, with the formulas of OpenSearch's neural-search plugin. Pure functions.

A document that only one leg found scores 0 in the other, and the other's weight stays in the denominator. Ties are broken by id, so that equal
input gives equal output on every page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from osembed.limits import Fusion

RANK_CONSTANT = 60
_LEAST = 0.001  # the server's value for the lowest score, so that a found document never scores like one not found


@dataclass(frozen=True)
class Fused:
    """One document in a fused ranking. `parts` holds its normalised score per leg, before weighting."""

    id: str
    score: float
    parts: tuple[float, ...]


def fuse_rankings(legs: Sequence[Mapping[str, float]], fusion: Fusion, weights: Sequence[float]) -> list[Fused]:
    """Return the fused ranking of several legs (id → raw score), best first.

    min_max, l2 and z_score take the weighted arithmetic mean of normalised scores. rrf sums weight / (60 + rank) (Cormack, Clarke and
    Büttcher, 2009).
    """
    normalised = [_NORMALISE[fusion](leg) for leg in legs]
    share = 1.0 if fusion == "rrf" else sum(weights)
    fused = []
    for key in set().union(*normalised):
        parts = tuple(leg.get(key, 0.0) for leg in normalised)
        fused.append(Fused(key, sum(w * part for w, part in zip(weights, parts, strict=True)) / share, parts))
    return sorted(fused, key=lambda found: (-found.score, found.id))


def _min_max(leg: Mapping[str, float]) -> dict[str, float]:
    if not leg:
        return {}
    low, high = min(leg.values()), max(leg.values())
    if high == low:
        return dict.fromkeys(leg, 1.0)
    return {key: (score - low) / (high - low) or _LEAST for key, score in leg.items()}


def _l2(leg: Mapping[str, float]) -> dict[str, float]:
    length = math.sqrt(sum(score * score for score in leg.values()))
    return {key: score / length if length else _LEAST for key, score in leg.items()}


def _z_score(leg: Mapping[str, float]) -> dict[str, float]:
    if not leg:
        return {}
    deviation = stdev(leg.values()) if len(leg) > 1 else 0.0  # sample standard deviation, as on the server
    if deviation == 0:  # the server keeps the raw scores in this case
        return dict(leg)
    mean = fmean(leg.values())
    return {key: max((score - mean) / deviation, _LEAST) for key, score in leg.items()}


def _reciprocal_rank(leg: Mapping[str, float]) -> dict[str, float]:
    ranked = sorted(leg, key=lambda key: (-leg[key], key))  # ties by id
    return {key: 1.0 / (RANK_CONSTANT + rank) for rank, key in enumerate(ranked, 1)}


_NORMALISE = {"min_max": _min_max, "l2": _l2, "z_score": _z_score, "rrf": _reciprocal_rank}
