"""`osembed ingest`."""

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
    options.option("--field", "fields", multiple=True, metavar="OURS=THEIRS", help="Name of a field in your input, like title=name."),
    options.option("--chunk-words", type=int, metavar="N", help="Fixed windows of N words. Default: what the model sees whole."),
    options.option("--chunk-overlap", type=int, metavar="N", help="Words that neighbouring chunks share (per 512)."),
    options.option("--max-chunks", type=int, metavar="N", help="Most chunks of a paper."),
    options.option("--profile", metavar="lucene|lucene-sq|faiss", help="The k-NN engine of a new collection."),
    options.option("--language", metavar="NAME", help="The language of a new collection's words, like german or de."),
    options.option("--shards", type=int, metavar="N", help="Primary shards of a new collection."),
    options.option("--replicas", type=int, metavar="N", help="Replicas of a new collection, once it is loaded."),
    options.option("--dead-letters", metavar="FILE", help="Where rejected records go."),
    options.option("--prune", is_flag=True, help="Then remove the papers that PATH brought in earlier and does not have any more."),
    options.option(
        "--max-delete", type=int, consent=True, metavar="N", help="Prune up to N papers, even from an empty PATH. Default: a tenth."
    ),
    options.compute,
    options.progress,
)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="PATH…")
@reading
@options.as_json
def ingest(paths: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """Read papers, cut them, embed them, index them.

    PATH is a folder of .txt or .md files (title = first line), a .jsonl or .csv file, any of these as .gz or .zst, a folder in BEIR layout,
    or - for JSON lines on standard input. Fields are found under their usual names (id, title, abstract, text …); all others become metadata
    to filter by. Run it again at any time: what is unchanged costs nothing, what was interrupted is completed.

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
    """Return what the options of `reading` say: the collection, what is wanted of it, how papers are read."""
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
            raise InputError(f"'{text}' is no pair of names.", "", "Write it like --field title=name.")
        pairs[ours] = theirs
    return pairs


def show_rates(meter: Meter, summary: Summary) -> None:
    """Show how far an ingest is."""
    wall = max(summary.seconds["wall"], 1e-9)
    settled = summary.indexed + summary.unchanged + summary.rejected
    facts = {"papers": settled, "papers_per_s": settled / wall, "tokens_per_s": summary.tokens / wall}
    meter.show(summary.done, f"{settled:,} papers · {settled / wall:.1f} papers/s · {summary.tokens / wall:,.0f} tokens/s", facts)
