"""`osembed models`: the known models, and int8 quantisation."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from osembed.cli import options
from osembed.cli.output import print_json, print_notice, print_table


@click.group(invoke_without_command=True, subcommand_metavar="[STEP]")
@options.as_json
@click.pass_context
def models(context: click.Context, as_json: bool) -> None:
    """List the known models and show which of them are on this machine.

    Any other hub id or local folder works too, with the settings in its own files.
    """
    if context.invoked_subcommand:
        return
    from osembed.models.registry import local_folder, registry

    found = [(spec, local_folder(spec)) for spec in registry().values()]
    if as_json:
        print_json([{**asdict(spec), "folder": str(folder) if folder else None} for spec, folder in found])
        return
    rows = [
        [
            spec.name,
            spec.dimension,
            spec.max_length,
            spec.pooling,
            spec.similarity,
            spec.licence,
            "yes" if folder else "no",
        ]
        for spec, folder in found
    ]
    print_table(["name", "dimension", "tokens", "pooling", "similarity", "licence", "local"], rows, right=["dimension", "tokens"])


@models.command()
@click.argument("model", metavar="MODEL")
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@options.option("--to", "target", required=True, metavar="FOLDER", help="Where to write the int8 model; must not exist yet.")
@options.as_json
def quantise(model: str, paths: tuple[str, ...], target: str, as_json: bool) -> None:
    """Make an int8 model, which is faster on CPUs without bf16, and measure how much it differs.

    Its vectors differ slightly (cosine about 0.99), so it counts as a different model: move a collection to it with `osembed migrate`, whose
    gate checks that search stays as good. PATH holds papers as `osembed ingest` reads them; they are used to measure the range of the
    model's activations. Do not use the papers that you evaluate with.

    \b
    osembed models quantise all-MiniLM-L6-v2 papers/ --to ./minilm-int8
    osembed migrate --model ./minilm-int8
    """
    from osembed.embed.quantise import quantise
    from osembed.models.registry import open_model
    from osembed.papers.paper import Paper, to_paper
    from osembed.papers.readers.reader import Reader
    from osembed.papers.records import Record

    source = open_model(model)
    papers = (to_paper(record, {}, 0) for record in Reader(paths) if isinstance(record, Record))
    print_notice(f"Quantising {source.spec.name}; about a minute for a small model…")
    made = quantise(source, (paper for paper in papers if isinstance(paper, Paper)), Path(target).expanduser())
    if as_json:
        print_json({**asdict(made), "pays": made.pays})
        return
    click.echo(f"{source.spec.name} in int8: {made.folder}")
    click.echo(f"cosine to the original vectors: {made.cosine_mean:.4f} on average, {made.cosine_min:.4f} at least")
    click.echo("texts/s on this machine: " + ", ".join(f"{rate:,.1f} {backend}" for backend, rate in made.texts_per_s.items()))
    click.echo(
        f"Move to it: osembed migrate --model {target}" if made.pays else "It is not faster on this machine: keep the original model."
    )
