"""`osembed eval`: search quality on judged queries."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from osembed.cli import options
from osembed.cli.meter import Meter
from osembed.cli.output import print_evaluation, print_json

if TYPE_CHECKING:
    from osembed.evaluate.evaluation import EvaluationRow


@click.command("eval")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False))
@options.connection
@options.option("--split", default="test", show_default=True, metavar="NAME", help="Which judgments to use: qrels/NAME.tsv.")
@options.progress
@options.as_json
def evaluate(folder: str, split: str, as_json: bool, **given: Any) -> None:
    """Measure search quality on judged queries in BEIR layout.

    DIR holds queries.jsonl and qrels/test.tsv. The papers must already be in the collection. Prints nDCG@10, MRR@10, MAP@100 and recall@100
    for every mode, fusion and level.

    \b
    osembed ingest scifact/ --min-words 0 --collection scifact
    osembed eval scifact/ --collection scifact
    """
    kind, collection = given.pop("progress"), options.open_collection(given)
    with Meter("searching…", kind) as meter:
        show = lambda done, total: meter.show(done / total, f"{done:,} of {total:,} searches")  # noqa: E731
        evaluation = collection.evaluate(folder, split=split, progress=show)
    if as_json:
        print_json({**asdict(evaluation), "rows": [_without_queries(row) for row in evaluation.rows]})
    else:
        print_evaluation(evaluation)


def _without_queries(row: EvaluationRow) -> dict[str, Any]:
    """Return a row's means without the values of each query, which are for Python callers."""
    return {key: value for key, value in asdict(row).items() if key != "per_query"}
