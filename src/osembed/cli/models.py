"""`osembed models`."""

from __future__ import annotations

from dataclasses import asdict

import click

from osembed.cli import options
from osembed.cli.output import print_json, print_table


@click.command()
@options.as_json
def models(as_json: bool) -> None:
    """List the known models and which of them are on this machine.

    Any other hub id or local folder works too, with the settings that its own files state.
    """
    from osembed.models import local_folder, registry

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
    print_table(["name", "dimension", "tokens", "pooling", "similarity", "licence", "here"], rows, right=["dimension", "tokens"])
