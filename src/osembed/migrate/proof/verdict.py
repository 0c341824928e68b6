"""Options and verdict of the gate. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from osembed.errors import InputError
from osembed.evaluate.metrics import METRICS
from osembed.limits import Mode, check_fields


@dataclass(frozen=True)
class GateOptions:
    """How a migration is judged.

    Attributes:
        qrels: folder in BEIR layout; None for known-item search: titles and sentences must find their own paper.
        max_drop: metric → how much worse the new model may be; the first one decides which queries are shown.
        mode: how is searched; None for hybrid with judgments and vector with known items (words alone would find those).
        queries: a file with one query per line, for the overlap of results.
        override: why the gate's refusal is overruled; recorded.
        skip: do not judge at all; recorded.
    """

    qrels: str | None = None
    max_drop: Mapping[str, float] = field(default_factory=lambda: {"ndcg@10": 0.02})
    mode: Mode | None = None
    queries: str | None = None
    override: str = ""
    skip: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        unknown = set(self.max_drop) - set(METRICS)
        if unknown or not self.max_drop:
            raise InputError(f"There is no metric '{next(iter(unknown), '')}'.", "", f"Use {', '.join(METRICS)}, like ndcg@10=0.01.")
        if any(not 0 <= margin < 1 for margin in self.max_drop.values()):
            raise InputError("A margin is a number from 0 to 1.", "", "For example ndcg@10=0.01 allows one point worse.")


@dataclass(frozen=True)
class MetricVerdict:
    """One metric with both models, and whether it passes.

    Attributes:
        name: of the metric, such as ndcg@10.
        blue, green: its mean with the old model, and with the new one.
        difference: green − blue, averaged over the queries.
        lower: the lower 95 % bootstrap bound of that difference.
        margin: how much worse the new model may be; None where this metric decides nothing.
        p: of a two-sided randomisation test.
        passed: whether the bound is within the margin.
    """

    name: str
    blue: float
    green: float
    difference: float
    lower: float
    margin: float | None
    p: float
    passed: bool


@dataclass(frozen=True)
class LostQuery:
    """A query that lost.

    Attributes:
        query: its text.
        blue, green: the deciding metric with the old model, and with the new one.
        blue_top, green_top: the first three papers of each.
    """

    query: str
    blue: float
    green: float
    blue_top: list[str]
    green_top: list[str]


@dataclass(frozen=True)
class Gate:
    """The judgment.

    Attributes:
        kind: judgments, or known items.
        mode: how was searched.
        queries: how many were compared.
        verdict: passed, refused or inconclusive; `reason` says why it is inconclusive.
        metrics: both models side by side; [] where the old one could not be asked, then `alone` has the new one's means.
        worst: the queries that lost most.
        overlap, rbo: how alike the results are; they decide nothing.
        override: why the refusal was overruled; "" where it was not.
        reason: why the judgement is inconclusive; "" otherwise.
        alone: metric → mean of the new model, where the old one could not be asked.
    """

    kind: str
    mode: str
    queries: int
    verdict: str
    metrics: list[MetricVerdict]
    worst: list[LostQuery]
    overlap: float
    rbo: float
    override: str = ""
    reason: str = ""
    alone: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether a swap is allowed."""
        return self.verdict == "passed" or bool(self.override)


def summary_of(gate: Gate) -> dict[str, Any]:
    """Return the part of a verdict that the migration's state keeps."""
    return {"verdict": gate.verdict, "kind": gate.kind, "queries": gate.queries, "override": gate.override, "reason": gate.reason}
