"""`osembed ingest`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from osembed.cli import options
from osembed.cli.meter import Meter
from osembed.cli.output import print_json, print_summary
from osembed.errors import InputError

if TYPE_CHECKING:
    from osembed.ingest.intake import Summary


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="PATH…")
@options.connection
@options.models
@options.option("--min-words", default=100, show_default=True, metavar="N", help="Reject papers with fewer words.")
@options.option("--field", "fields", multiple=True, metavar="OURS=THEIRS", help="Name of a field in your input, like title=name.")
@options.option("--chunk-words", type=int, metavar="N", help="Fixed windows of N words. Default: what the model sees whole.")
@options.option("--chunk-overlap", type=int, metavar="N", help="Words that neighbouring chunks share (per 512).")
@options.option("--max-chunks", type=int, metavar="N", help="Most chunks of a paper.")
@options.option("--profile", metavar="lucene|lucene-sq|faiss", help="The k-NN engine of a new collection.")
@options.option("--language", metavar="NAME", help="The language of a new collection's words, like german or de.")
@options.option("--shards", type=int, metavar="N", help="Primary shards of a new collection.")
@options.option("--replicas", type=int, metavar="N", help="Replicas of a new collection, once it is loaded.")
@options.option("--dead-letters", metavar="FILE", help="Where rejected records go.")
@options.compute
@options.progress
@options.as_json
def ingest(paths: tuple[str, ...], as_json: bool, fields: tuple[str, ...], **given: Any) -> int:
    """Read papers, cut them, embed them, index them.

    PATH is a folder of .txt or .md files (title = first line), a .jsonl or .csv file, any of these as .gz or .zst, a folder in BEIR layout,
    or - for JSON lines on standard input. Fields are found under their usual names (id, title, abstract, text …); all others become metadata
    to filter by. Run it again at any time: what is unchanged costs nothing, what was interrupted is completed.

    \b
    osembed ingest papers/
    osembed ingest corpus.jsonl.gz --field id=corpusid --field body=full_text
    osembed ingest reviews/ --collection reviews --model all-mpnet-base-v2
    """
    from dataclasses import replace

    from osembed.arguments import choose_models

    kind, collection = given.pop("progress"), options.open_collection(given)
    names = [given.pop(name) for name in ("model", "paper_model", "chunk_model", "preset")]
    reading = {"min_words": given.pop("min_words"), "dead_letters": given.pop("dead_letters"), "names": _pairs(fields)}
    wish = replace(choose_models(*names), **given)
    with Meter("reading…", kind) as meter:
        summary = collection.ingest(paths, wish, lambda summary: meter.show(summary.done, *_rates(summary)), **reading)
    if as_json:
        print_json(summary)
    else:
        print_summary(summary)
    return 0 if summary.indexed or summary.unchanged else 1


def _pairs(fields: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in fields:
        ours, equals, theirs = text.partition("=")
        if not (ours and equals and theirs):
            raise InputError(f"'{text}' is no pair of names.", "", "Write it like --field title=name.")
        pairs[ours] = theirs
    return pairs


def _rates(summary: Summary) -> tuple[str, dict[str, Any]]:
    """Return how far an ingest is, for people and for programs."""
    wall = max(summary.seconds["wall"], 1e-9)
    settled = summary.indexed + summary.unchanged + summary.rejected
    facts = {"papers": settled, "papers_per_s": settled / wall, "tokens_per_s": summary.tokens / wall}
    return f"{settled:,} papers · {settled / wall:.1f} papers/s · {summary.tokens / wall:,.0f} tokens/s", facts
