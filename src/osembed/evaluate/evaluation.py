"""Measure a collection on judged queries in BEIR layout, for every mode, fusion and level."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from osembed.errors import InputError, ModelError
from osembed.evaluate.judged import Judged
from osembed.evaluate.metrics import METRICS
from osembed.limits import FUSIONS, SEARCH_LEVELS
from osembed.search.options import WINDOW, SearchOptions
from osembed.search.searcher import Searcher


@dataclass(frozen=True)
class EvaluationRow:
    """The means of one way to search.

    Attributes:
        mode, fusion, level: the way to search; the fusion is "-" for a single ranking.
        metrics: metric → its mean over the queries.
        per_query: query id → the value of each metric, in the order of `metrics`.
    """

    mode: str
    fusion: str
    level: str
    metrics: dict[str, float]
    per_query: dict[str, tuple[float, ...]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Evaluation:
    """The metrics of all ways to search, and what they are based on. Judged papers missing from the collection lower every number.

    Attributes:
        collection: its name.
        queries: judged queries that were searched.
        judged_papers, missing_papers: papers that judgments name, and those of them that the collection lacks.
        models: level → its model.
        rows: one for each way to search.
        notices: what this server does not do, or what this user does not see.
        left_out: ways to search that were not measured, and why: a way whose model is missing is never answered by words instead.
    """

    collection: str
    queries: int
    judged_papers: int
    missing_papers: int
    models: dict[str, str]
    rows: tuple[EvaluationRow, ...]
    notices: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)


def evaluate(
    searcher: Searcher,
    collection: str,
    judged: Judged,
    ways: list[SearchOptions] | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Evaluation:
    """Search every judged query in every way and return the averaged metrics.

    If a model is not on this machine, its ways are left out and listed; but if `ways` is given, ModelError is raised. Raises InputError if no
    judged paper is in the collection.
    """
    given, ways = bool(ways), ways or list(all_ways())
    wanted = sorted({paper for judgments in judged.judgments.values() for paper in judgments})
    missing = len(wanted) - len(searcher.present(wanted))
    if missing == len(wanted):
        raise InputError(
            f"None of the {len(wanted)} judged papers is in '{collection}'.",
            "Every number would be 0.",
            f"Ingest their corpus first: osembed ingest DIR --min-words 0 --collection {collection}",
        )
    rows, left_out, total = [], dict[str, str](), len(ways) * len(judged.queries)
    for number, way in enumerate(ways):
        done = number * len(judged.queries)
        try:
            rows.append(_measure(searcher, judged, way, lambda place, done=done: progress(done + place, total)))  # type: ignore[misc]
        except ModelError as error:
            if given:
                raise
            left_out[" ".join((way.level, way.mode, *([way.fusion] if way.mode == "hybrid" else [])))] = str(error)
    models: dict[str, str] = {level: target.meta.model for level, target in searcher.targets().items()}
    fused = any(way.mode == "hybrid" and way.level != "both" for way in ways)
    said = (searcher.fusion_notice() if fused else "", searcher.sight_notice())
    notices = tuple(filter(None, said))
    return Evaluation(collection, len(judged.queries), len(wanted), missing, models, tuple(rows), notices, left_out)


def _measure(searcher: Searcher, judged: Judged, way: SearchOptions, progress: Callable[[int], None]) -> EvaluationRow:
    """Search every judged query in one way. Strict: a missing model raises ModelError."""
    per_query: dict[str, tuple[float, ...]] = {}
    for place, (key, text) in enumerate(judged.queries.items(), 1):
        ranking = searcher.rank(text, replace(way, strict=True))
        per_query[key] = tuple(metric(ranking, judged.judgments[key]) for metric in METRICS.values())
        progress(place)
    columns = zip(METRICS, zip(*per_query.values(), strict=True), strict=True)
    means = {name: sum(values) / len(values) for name, values in columns}
    return EvaluationRow(way.mode, way.fusion if way.mode == "hybrid" else "-", way.level, means, per_query)


def all_ways() -> Iterator[SearchOptions]:
    """Yield every level with lexical and vector search and with each fusion."""
    for level in SEARCH_LEVELS:
        for mode in ("lexical", "vector"):
            yield SearchOptions(mode=mode, level=level, size=WINDOW)
        for fusion in FUSIONS:
            yield SearchOptions(fusion=fusion, level=level, size=WINDOW)
