"""The gate: does search get worse? Judged before a swap, by judgments, or by known items where there are none.

The rule is non-inferiority: the lower 95 % bootstrap bound of the mean difference (new − old) must not lie below −margin. Fewer than fifty
queries decide nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from osembed.client import OpenSearch, Server
from osembed.encoders import Encoders
from osembed.errors import InputError
from osembed.evaluate import Judged, read_judged
from osembed.index import Target, Targets
from osembed.metrics import METRICS
from osembed.migrate import scan
from osembed.paper import to_text
from osembed.results import MODES, WINDOW, Mode, SearchOptions
from osembed.search import Searcher
from osembed.significance import lower_bound, overlap, randomisation_p, rank_biased_overlap

ENOUGH = 50
_KNOWN_ITEMS = 400
_WORST = 5
_SENTENCE = re.compile(r"[^.!?]{40,300}[.!?]")


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
        unknown = set(self.max_drop) - set(METRICS)
        if unknown or not self.max_drop:
            raise InputError(f"There is no metric '{next(iter(unknown), '')}'.", "", f"Use {', '.join(METRICS)}, like ndcg@10=0.01.")
        if self.mode is not None and self.mode not in MODES:
            raise InputError(f"There is no mode '{self.mode}'.", "", f"Use {', '.join(MODES)}.")
        if any(not 0 <= margin < 1 for margin in self.max_drop.values()):
            raise InputError("A margin is a number from 0 to 1.", "", "Like ndcg@10=0.01: at most one point worse.")


@dataclass(frozen=True)
class MetricVerdict:
    """One metric: means of both, mean difference, its lower 95 % bound, the margin, the randomisation p, and whether it passes."""

    name: str
    blue: float
    green: float
    difference: float
    lower: float
    margin: float | None
    p: float
    passed: bool


@dataclass(frozen=True)
class Worst:
    """A query that lost: its value with both models, and the best results of each."""

    query: str
    blue: float
    green: float
    blue_top: list[str]
    green_top: list[str]


@dataclass(frozen=True)
class Gate:
    """The judgment. `overlap` and `rbo` say how alike the results are; they decide nothing."""

    kind: str
    mode: str
    queries: int
    verdict: str
    metrics: list[MetricVerdict]
    worst: list[Worst]
    overlap: float
    rbo: float
    override: str = ""

    @property
    def passed(self) -> bool:
        """Whether a swap may go on."""
        return self.verdict == "passed" or bool(self.override)


class PinnedSearcher(Searcher):
    """A searcher of given indexes, published or not."""

    def __init__(self, client: OpenSearch, server: Server, targets: Targets, encoders: Encoders) -> None:
        super().__init__(client, server, targets["papers"].meta.collection, encoders)
        self._pinned = targets

    def targets(self) -> Targets:
        """Return the given indexes."""
        return self._pinned

    def resolve(self) -> Targets:
        """Return the given indexes."""
        return self._pinned


def judge(client: OpenSearch, blue: Searcher, green: Searcher, options: GateOptions, between: Callable[[], None] = lambda: None) -> Gate:
    """Search the same queries with both models and compare. `between` is called after each query and may raise."""
    papers = blue.targets()["papers"]
    kind = "judgments" if options.qrels else "known items"
    judged = read_judged(Path(options.qrels)) if options.qrels else known_items(client, papers)
    mode: Mode = options.mode or ("hybrid" if options.qrels else "vector")
    way = SearchOptions(mode=mode, size=WINDOW)
    values: dict[str, list[tuple[float, float]]] = {name: [] for name in METRICS}
    rankings: list[tuple[str, list[str], list[str]]] = []
    for key, text in judged.queries.items():
        old, new = blue.rank(text, way), green.rank(text, way)
        rankings.append((text, old, new))
        for name, metric in METRICS.items():
            values[name].append((metric(old, judged.judgments[key]), metric(new, judged.judgments[key])))
        between()
    compared = (
        rankings if options.queries is None else [(text, blue.rank(text, way), green.rank(text, way)) for text in _lines(options.queries)]
    )
    metrics = [_verdict(name, pairs, options.max_drop.get(name)) for name, pairs in values.items()] if rankings else []
    return Gate(
        kind=kind,
        mode=mode,
        queries=len(rankings),
        verdict=_decide(len(rankings), metrics),
        metrics=metrics,
        worst=_worst(rankings, values[next(iter(options.max_drop))]),
        overlap=_mean([overlap(old, new) for _, old, new in compared]),
        rbo=_mean([rank_biased_overlap(old[:100], new[:100]) for _, old, new in compared]),
        override=options.override,
    )


def known_items(client: OpenSearch, papers: Target) -> Judged:
    """Make queries whose answer is known: titles of papers, and sentences from their texts, must find their own paper."""
    docs = [doc for page in scan.sample(client, papers.index, _KNOWN_ITEMS // 2, 100) for doc in page]
    each = min(10, max(1, -(-2 * ENOUGH // max(1, len(docs)))))
    queries: dict[str, str] = {}
    judgments: dict[str, dict[str, int]] = {}
    for doc in docs:
        title = to_text(doc.fields.get("title"))
        text = " ".join(to_text(doc.fields.get(name)) for name in ("abstract", "body"))
        sentences = [" ".join(found.split()) for found in _SENTENCE.findall(text[:20_000])]
        step = max(1, len(sentences) // each)
        asked = ([title] if len(title.split()) >= 3 else []) + sentences[::step][:each]
        for number, query in enumerate(asked):
            queries[f"{doc.id}/{number}"] = query
            judgments[f"{doc.id}/{number}"] = {doc.id: 1}
    return Judged(queries, judgments)


def _verdict(name: str, pairs: Sequence[tuple[float, float]], margin: float | None) -> MetricVerdict:
    differences = [new - old for old, new in pairs]
    bound = lower_bound(differences)
    return MetricVerdict(
        name=name,
        blue=_mean([old for old, _ in pairs]),
        green=_mean([new for _, new in pairs]),
        difference=_mean(differences),
        lower=bound,
        margin=margin,
        p=randomisation_p(differences),
        passed=margin is None or bound >= -margin,
    )


def _decide(queries: int, metrics: Sequence[MetricVerdict]) -> str:
    if queries < ENOUGH:
        return "inconclusive"
    return "passed" if all(metric.passed for metric in metrics) else "refused"


def _worst(rankings: Sequence[tuple[str, list[str], list[str]]], values: Sequence[tuple[float, float]]) -> list[Worst]:
    order = sorted(range(len(rankings)), key=lambda place: values[place][1] - values[place][0])[:_WORST]
    return [
        Worst(rankings[place][0], *values[place], rankings[place][1][:3], rankings[place][2][:3])
        for place in order
        if values[place][1] < values[place][0]
    ]


def _lines(file: str) -> list[str]:
    try:
        return [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}.", "", "Give a text file with one query per line.") from error


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def summary_of(gate: Gate) -> dict[str, Any]:
    """Return what the migration's state keeps of a judgment."""
    return {"verdict": gate.verdict, "kind": gate.kind, "queries": gate.queries, "override": gate.override}
