"""`osembed eval`."""

from __future__ import annotations

import sys
from typing import Any

import click

from osembed.cli import options
from osembed.cli.output import print_evaluation, print_json


@click.command("eval")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False))
@options.connection
@options.option("--split", default="test", show_default=True, metavar="NAME", help="Which judgments: qrels/NAME.tsv.")
@options.as_json
def evaluate(folder: str, split: str, as_json: bool, **given: Any) -> None:
    """Measure search quality against judged queries in BEIR layout.

    DIR holds queries.jsonl and qrels/test.tsv; the papers must be in the collection already. Prints nDCG@10, MRR@10, MAP@100 and recall@100
    for every mode, fusion and level, side by side.

    \b
    osembed ingest scifact/ --min-words 0 --collection scifact
    osembed eval scifact/ --collection scifact
    """
    collection = options.open_collection(given)
    if sys.stderr.isatty():
        with click.progressbar(length=1000, label="searching", file=sys.stderr) as bar:
            evaluation = collection.evaluate(folder, split=split, progress=lambda done, total: bar.update(done * 1000 // total - bar.pos))
    else:
        evaluation = collection.evaluate(folder, split=split)
    if as_json:
        print_json(evaluation)
    else:
        print_evaluation(evaluation)
