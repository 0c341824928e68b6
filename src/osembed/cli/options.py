"""Options that several commands share, and how they become a Collection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from osembed.cli.output import notice

if TYPE_CHECKING:
    from osembed.collection import Collection

F = TypeVar("F", bound=Callable[..., Any])
CONNECTION = ("url", "collection", "ca_cert", "insecure")


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """Return a click option that can also be set as OSEMBED_NAME."""
    long = next(name for name in names if name.startswith("--")).split("/")[0].lstrip("-")
    settings.setdefault("envvar", f"OSEMBED_{long.replace('-', '_').upper()}")
    return click.option(*names, **settings)


def stacked(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Return one decorator that applies several, in reading order."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


server = stacked(
    option("--url", metavar="URL", help="An OpenSearch server. Default: the embedded node, started by itself."),
    option("--ca-cert", metavar="FILE", default="", help="One PEM file with the authorities that may sign the server's certificate."),
    option("--insecure", is_flag=True, help="Skip certificate verification; only for a server on this machine."),
)
connection = stacked(
    option("--collection", default="papers", show_default=True, metavar="NAME", help="The collection."),
    server,
)
compute = stacked(
    option("--device", default="auto", show_default=True, metavar="cpu|cuda|auto", help="Where to embed."),
    option("--precision", default="auto", show_default=True, metavar="fp32|bf16|fp16|auto", help="How to compute."),
)
models = stacked(
    option("--model", metavar="MODEL", help="The model of both levels: a name of `osembed models`, a hub id, a folder."),
    option("--paper-model", metavar="MODEL", help="The model of papers."),
    option("--chunk-model", metavar="MODEL", help="The model of chunks."),
    option(
        "--preset",
        metavar="minilm|papers",
        help="A known pair of models: minilm (default), or papers (SPECTER2, MPNet).",
    ),
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def open_collection(options: dict[str, Any]) -> Collection:
    """Take the connection and compute options out of a command's options and return the collection."""
    from osembed.collection import Collection

    return Collection(
        options.pop("collection"),
        options.pop("url"),
        ca_cert=options.pop("ca_cert"),
        insecure=options.pop("insecure"),
        device=options.pop("device", "auto"),
        precision=options.pop("precision", "auto"),
        report=notice,
    )
