"""The gate: check before a swap that search does not get worse, with judgments or, without any, with known items.

The rule is non-inferiority: the lower 95 % bootstrap bound of the mean difference (new − old) must not be below −margin. A comparison
without evidence never passes. With fewer than fifty queries, judged papers that are missing, an old model that is not on this machine, or
searches that use no model or find nothing, the gate is inconclusive, and only a recorded override permits the swap.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from osembed.embed.encoders import model_of
from osembed.errors import IdentityError, InputError, ModelError
from osembed.evaluate.judged import Judged, read_judged
from osembed.evaluate.metrics import METRICS
from osembed.evaluate.significance import lower_bound, overlap, randomisation_p, rank_biased_overlap
from osembed.limits import Mode
from osembed.migrate.proof.verdict import Gate, GateOptions, LostQuery, MetricVerdict
from osembed.opensearch import scan
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.target import Target, Targets
from osembed.papers.levels import LEVELS, Level
from osembed.papers.paper import to_text
from osembed.search.options import WINDOW, SearchOptions
from osembed.search.searcher import Searcher

ENOUGH = 50  # fewest queries for a verdict
_KNOWN_ITEMS = 400  # queries to generate
_WORST = 5  # queries listed in the report
_SENTENCE = re.compile(r"[^.!?]{40,300}[.!?]")


@dataclass
class _Answers:
    """The queries and what both models found. Queries with a missing relevant paper are not run.

    Attributes:
        wanted: query id → ids of the papers that it should find.
        missing: relevant papers that are not in both indexes.
        found: (query id, text, old ranking, new ranking).
    """

    judged: Judged
    wanted: dict[str, set[str]]
    missing: set[str]
    found: list[tuple[str, str, list[str], list[str]]] = field(default_factory=list)


def judge_models(
    client: OpenSearch,
    blue: Searcher,
    green: Searcher,
    options: GateOptions,
    between: Callable[[], None] = lambda: None,
    moving: Collection[Level] = LEVELS,
) -> Gate:
    """Search the same queries with both models and return the verdict. `between` is called after each query and may raise.

    Raises ModelError if the new model is not available. A vector search is never replaced by a lexical one.
    """
    # Words alone would find titles and sentences in their own papers, so known items are searched by vector only.
    mode: Mode = options.mode or ("hybrid" if options.qrels else "vector")
    level = answering_level(moving)
    way = SearchOptions(mode=mode, size=WINDOW, level="papers" if level == "papers" else "both", strict=True)
    absent = ""
    if mode != "lexical":
        green.admit(level)
        try:
            blue.admit(level)
        except (ModelError, IdentityError) as error:
            absent = error.found
    answers = _ask(client, blue, green, options, level)
    for key, text in answers.judged.queries.items():
        if not answers.wanted[key] & answers.missing:
            answers.found.append((key, text, [] if absent else blue.rank(text, way), green.rank(text, way)))
            between()
    if absent:
        return _alone(answers, options, mode, absent)
    compared = [(old, new) for _, _, old, new in answers.found]
    if options.queries is not None:
        compared = [(blue.rank(text, way), green.rank(text, way)) for text in _lines(options.queries)]
    return replace(
        _compare(answers, options, mode),
        overlap=_mean([overlap(old, new) for old, new in compared]),
        rbo=_mean([rank_biased_overlap(old[:100], new[:100]) for old, new in compared]),
    )


def answering_level(moving: Collection[Level]) -> Level:
    """Return the level whose vectors are compared: chunks, which searches use by default, or papers if only papers move."""
    return "chunks" if "chunks" in moving else "papers"


def foresee_gate(published: Targets, moving: Collection[Level]) -> str:
    """Return a warning if the old model is not on this machine, so that the gate cannot compare; else ""."""
    try:
        model_of(published[answering_level(moving)].meta.stored_model)
    except (ModelError, IdentityError) as error:
        return (
            f"The gate cannot compare: {error.found} It will measure the new model alone, which cannot show that search gets no worse. "
            "The swap will be refused (exit code 4) unless you use --override REASON or --no-gate; both are recorded. "
            f"To compare: {error.hint[:1].lower()}{error.hint[1:]}"
        )
    return ""


def _ask(client: OpenSearch, blue: Searcher, green: Searcher, options: GateOptions, level: Level) -> _Answers:
    """Collect the queries, and check which of the relevant papers are in both indexes."""
    judged = read_judged(Path(options.qrels)) if options.qrels else known_items(client, blue.targets()["papers"], level)
    wanted = {key: {paper for paper, grade in judgments.items() if grade > 0} for key, judgments in judged.judgments.items()}
    relevant = sorted(set().union(*wanted.values()))
    return _Answers(judged, wanted, set(relevant) - (blue.present(relevant) & green.present(relevant)))


def _compare(answers: _Answers, options: GateOptions, mode: str) -> Gate:
    grades, asked = answers.judged.judgments, len(answers.found)
    values = {
        name: [(metric(old, grades[key]), metric(new, grades[key])) for key, _, old, new in answers.found]
        for name, metric in METRICS.items()
    }
    metrics = [_verdict(name, both, options.max_drop.get(name)) for name, both in values.items()] if asked else []
    doubt = _doubt(answers, options, mode, metrics)
    # With enough queries, "worse" takes precedence over "inconclusive".
    worse = asked >= ENOUGH and not all(metric.passed for metric in metrics)
    return Gate(
        kind=_kind(options),
        mode=mode,
        queries=asked,
        verdict="refused" if worse else "inconclusive" if doubt else "passed",
        metrics=metrics,
        worst=_worst([(text, old, new) for _, text, old, new in answers.found], values[next(iter(options.max_drop))]),
        overlap=0.0,
        rbo=0.0,
        override=options.override,
        reason="" if worse else doubt,
    )


def _doubt(answers: _Answers, options: GateOptions, mode: str, metrics: Sequence[MetricVerdict]) -> str:
    """Return why a comparison is inconclusive; "" if it is not."""
    if mode == "lexical":
        return "lexical searches use no model, so they find the same with both"
    if options.qrels and answers.missing:
        relevant = len(set().union(*answers.wanted.values()))
        return f"{len(answers.missing):,} of {relevant:,} papers that are relevant in the judgments are not in the collection"
    if len(answers.found) < ENOUGH:
        return f"only {len(answers.found)} queries could be run, and a verdict needs {ENOUGH}"
    for what, rankings in (("old", [old for _, _, old, _ in answers.found]), ("new", [new for _, _, _, new in answers.found])):
        if silent := sum(not ranking for ranking in rankings):
            return f"the {what} indexes find nothing for {silent:,} of {len(rankings):,} queries"
    if not any(metric.blue or metric.green for metric in metrics):
        return "neither model finds any relevant paper"
    return ""


def _alone(answers: _Answers, options: GateOptions, mode: str, absent: str) -> Gate:
    """Measure the new model alone. The numbers are for information; the verdict is inconclusive."""
    found = [(new, answers.judged.judgments[key]) for key, _, _, new in answers.found]
    return Gate(
        kind=_kind(options),
        mode=mode,
        queries=len(found),
        verdict="inconclusive",
        metrics=[],
        worst=[],
        overlap=0.0,
        rbo=0.0,
        override=options.override,
        reason=f"{absent} The new model alone cannot show that search gets no worse",
        alone={name: _mean([metric(ranking, judgments) for ranking, judgments in found]) for name, metric in METRICS.items()},
    )


def _kind(options: GateOptions) -> str:
    return "judgments" if options.qrels else "known items"


def known_items(client: OpenSearch, papers: Target, level: Level) -> Judged:
    """Generate queries with a known answer: titles of papers and sentences from their texts, which must find their own paper.

    Only papers that the level's vectors can find are used; the others would make any two models look alike.
    """
    findable = {"exists": {"field": "embedding"}} if level == "papers" else {"range": {"chunk_count": {"gte": 1}}}
    docs = [doc for page in scan.sample(client, papers.index, _KNOWN_ITEMS // 2, 100, findable) for doc in page]
    each = min(10, max(1, -(-2 * ENOUGH // max(1, len(docs)))))  # more queries per paper if there are few papers
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


def _worst(rankings: Sequence[tuple[str, list[str], list[str]]], values: Sequence[tuple[float, float]]) -> list[LostQuery]:
    order = sorted(range(len(rankings)), key=lambda place: values[place][1] - values[place][0])[:_WORST]
    return [
        LostQuery(rankings[place][0], *values[place], rankings[place][1][:3], rankings[place][2][:3])
        for place in order
        if values[place][1] < values[place][0]
    ]


def _lines(file: str) -> list[str]:
    try:
        return [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}.", "", "Use a text file with one query per line.") from error


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
