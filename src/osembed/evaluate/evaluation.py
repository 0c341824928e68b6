"""Measure a collection against judged queries in BEIR layout: every mode, fusion and level, side by side."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson

from osembed.errors import InputError, ModelError
from osembed.evaluate.metrics import METRICS
from osembed.limits import FUSIONS, SEARCH_LEVELS
from osembed.search.options import WINDOW, SearchOptions
from osembed.search.searcher import Searcher

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Judged:
    """Queries and their judgments: query id → text, query id → paper id → grade."""

    queries: dict[str, str]
    judgments: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Row:
    """The means of one way to search; `per_query` holds each query's values in the order of METRICS."""

    mode: str
    fusion: str
    level: str
    metrics: dict[str, float]
    per_query: dict[str, tuple[float, ...]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Evaluation:
    """All rows, with what they rest on: judged papers that the collection lacks lower every number.

    Attributes:
        notices: what this server does not do, or what this user does not see.
        left_out: ways to search that were not measured, and why: a way whose model is missing is never answered by words instead.
    """

    collection: str
    queries: int
    judged_papers: int
    missing_papers: int
    models: dict[str, str]
    rows: tuple[Row, ...]
    notices: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)


def read_judged(folder: Path, split: str = "test") -> Judged:
    """Read queries.jsonl and qrels/SPLIT.tsv. Raises InputError where one is missing or not understood."""
    queries_file, judgments_file = folder / "queries.jsonl", folder / "qrels" / f"{split}.tsv"
    for file in (queries_file, judgments_file):
        if not file.is_file():
            raise InputError(
                f"There is no {file}.",
                "",
                "A folder in BEIR layout has queries.jsonl and qrels/test.tsv (query-id, corpus-id, score).",
            )
    judgments: dict[str, dict[str, int]] = {}
    with judgments_file.open(newline="", encoding="utf-8") as lines:
        for number, row in enumerate(csv.reader(lines, delimiter="\t"), 1):
            if number == 1 and not row[-1].lstrip("-").isdigit():
                continue
            if len(row) < 3 or not row[-1].lstrip("-").isdigit():
                raise InputError(f"{judgments_file}:{number} is not query-id, corpus-id, score, separated by tabs.")
            judgments.setdefault(row[0], {})[row[-2]] = int(row[-1])
    texts = {str(entry["_id"]): str(entry["text"]) for entry in map(orjson.loads, queries_file.read_bytes().splitlines())}
    if blank := next((query for query in judgments if query in texts and not texts[query].strip()), None):
        raise InputError(f"Query {blank} in {queries_file} has no text.", "It would find nothing, whatever the model.", "Take it out.")
    relevant = {query for query, judged in judgments.items() if any(grade > 0 for grade in judged.values())}
    usable = {query: text for query, text in texts.items() if query in relevant}
    if not usable:
        raise InputError(f"{folder} has no query with a relevant judgment.", "There is nothing to measure.")
    return Judged(usable, {query: judgments[query] for query in usable})


def evaluate(
    searcher: Searcher,
    collection: str,
    judged: Judged,
    ways: list[SearchOptions] | None = None,
    progress: Progress = lambda *_: None,
) -> Evaluation:
    """Search every judged query in every way and average the metrics.

    Raises ModelError where a way that was asked for needs a model which is not on this machine; of all ways, those are left out and named.
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


def _measure(searcher: Searcher, judged: Judged, way: SearchOptions, progress: Callable[[int], None]) -> Row:
    """Search every judged query in one way, and in no other: a model that is missing is an error."""
    per_query: dict[str, tuple[float, ...]] = {}
    for place, (key, text) in enumerate(judged.queries.items(), 1):
        ranking = searcher.rank(text, replace(way, strict=True))
        per_query[key] = tuple(metric(ranking, judged.judgments[key]) for metric in METRICS.values())
        progress(place)
    columns = zip(METRICS, zip(*per_query.values(), strict=True), strict=True)
    means = {name: sum(values) / len(values) for name, values in columns}
    return Row(way.mode, way.fusion if way.mode == "hybrid" else "-", way.level, means, per_query)


def all_ways() -> Iterator[SearchOptions]:
    """Yield every level with lexical and vector search and with each fusion."""
    for level in SEARCH_LEVELS:
        for mode in ("lexical", "vector"):
            yield SearchOptions(mode=mode, level=level, size=WINDOW)
        for fusion in FUSIONS:
            yield SearchOptions(fusion=fusion, level=level, size=WINDOW)
