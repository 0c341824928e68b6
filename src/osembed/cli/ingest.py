"""`osembed ingest`, and the options that it shares with `osembed watch`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from osembed.cli import options
from osembed.cli.meter import Meter
from osembed.cli.output import print_json, print_summary
from osembed.errors import InputError, PruneError

if TYPE_CHECKING:
    from osembed.collection import Collection
    from osembed.ingest.spec import CollectionSpec
    from osembed.ingest.summary import Summary


reading = options.stacked(
    options.connection,
    options.models,
    options.option("--min-words", default=100, show_default=True, metavar="N", help="Reject papers with fewer words."),
    options.option("--field", "fields", multiple=True, metavar="OURS=THEIRS", help="Map a field of your input, like title=name."),
    options.option("--chunk-words", type=int, metavar="N", help="Fixed windows of N words. Default: what fits the model."),
    options.option("--chunk-overlap", type=int, metavar="N", help="Words that neighbouring chunks share (per 512)."),
    options.option("--max-chunks", type=int, metavar="N", help="Most chunks per paper."),
    options.option("--profile", metavar="lucene|lucene-sq|faiss", help="The k-NN engine of a new collection."),
    options.option("--language", metavar="NAME", help="The language of a new collection, like german or de."),
    options.option("--shards", type=int, metavar="N", help="Primary shards of a new collection."),
    options.option("--replicas", type=int, metavar="N", help="Replicas of a new collection, set after its first load."),
    options.option("--dead-letters", metavar="FILE", help="Write rejected records to this file."),
    options.option("--prune", is_flag=True, help="Afterwards remove papers that came from PATH and are no longer in it."),
    options.option(
        "--max-delete", type=int, consent=True, metavar="N", help="Prune at most N papers, even if PATH is empty. Default: a tenth."
    ),
    options.compute,
    options.progress,
)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="PATH…")
@reading
@options.as_json
def ingest(paths: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """Read papers, split them into chunks, embed and index them.

    PATH is a folder of .txt or .md files (title = first line), a .jsonl or .csv file, any of these as .gz or .zst, a folder in BEIR layout,
    or - for JSON lines on standard input. Fields are recognised by their usual names (id, title, abstract, text …); all others become
    metadata to filter by. You can run it again at any time: unchanged papers are skipped and an interrupted run is completed.

    \b
    osembed ingest papers/
    osembed ingest corpus.jsonl.gz --field id=corpusid --field body=full_text
    osembed ingest reviews/ --collection reviews --model all-mpnet-base-v2
    """
    kind = given.pop("progress")
    collection, spec, chosen = take_inputs(given)
    show = print_json if as_json else print_summary
    try:
        with Meter("reading…", kind) as meter:
            summary = collection.ingest(paths, spec, lambda summary: show_rates(meter, summary), **chosen)
    except PruneError as error:
        show(error.summary)
        raise
    show(summary)
    return 0 if summary.indexed or summary.unchanged or summary.pruned else 1


def take_inputs(given: dict[str, Any]) -> tuple[Collection, CollectionSpec, dict[str, Any]]:
    """Take the options of `reading` out of `given`; return the collection, the requested spec and the ingest options."""
    from dataclasses import replace

    from osembed.arguments import choose_models

    collection = options.open_collection(given)
    names = [given.pop(name) for name in ("model", "paper_model", "chunk_model", "preset")]
    chosen = {name: given.pop(name) for name in ("min_words", "dead_letters", "prune", "max_delete")}
    chosen["names"] = _pairs(given.pop("fields"))
    return collection, replace(choose_models(*names), **given), chosen


def _pairs(fields: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in fields:
        ours, equals, theirs = text.partition("=")
        if not (ours and equals and theirs):
            raise InputError(f"'{text}' is not a pair of names.", "", "Write it like --field title=name.")
        pairs[ours] = theirs
    return pairs


def show_rates(meter: Meter, summary: Summary) -> None:
    """Show the progress of an ingest."""
    wall = max(summary.seconds["wall"], 1e-9)
    settled = summary.indexed + summary.unchanged + summary.rejected  # papers read ahead do not count as progress
    facts = {"papers": settled, "papers_per_s": settled / wall, "tokens_per_s": summary.tokens / wall}
    meter.show(summary.done, f"{settled:,} papers · {settled / wall:.1f} papers/s · {summary.tokens / wall:,.0f} tokens/s", facts)
