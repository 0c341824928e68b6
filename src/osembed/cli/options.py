"""Options that several commands share, and how a Collection is made from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from osembed.cli.output import print_notice
from osembed.config import Setting
from osembed.limits import FORMATS, LIMITS, Misfit, convert_value

if TYPE_CHECKING:
    from osembed.collection import Collection

F = TypeVar("F", bound=Callable[..., Any])
_KINDS: dict[object, Any] = {click.BOOL: bool, click.INT: int, click.FLOAT: float}


class Limited(click.ParamType):  # type: ignore[type-arg] # a generic type in newer versions of click only
    """An option's type, checked against the table of limits."""

    def __init__(self, kind: Any) -> None:
        self.kind, self.name = kind, "limited"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the converted value. Ends in a usage error if it is not allowed."""
        try:
            return convert_value(value, self.kind, text=isinstance(value, str))
        except Misfit as error:
            self.fail(str(error), param, ctx)


class Several(click.ParamType):  # type: ignore[type-arg]
    """The texts of a repeatable option; in an environment variable they are separated by semicolons."""

    name = "several"
    envvar_list_splitter = ";"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text without surrounding whitespace."""
        return str(value).strip()


class SettingOption(click.Option):
    """An option that can be set on the command line, as OSEMBED_NAME or in osembed.toml.

    Attributes:
        setting: how files and the environment may set it. Options by which a person accepts a risk (consent) cannot be set there.
    """

    def __init__(self, names: Sequence[str], *, consent: bool = False, **settings: Any) -> None:
        super().__init__(names, **settings)
        limit = LIMITS.get(self.name or "")
        if self.multiple:
            self.type = Several()
        elif limit:
            self.type = Limited(limit)
        kind = list[str] if self.multiple else bool if self.is_flag else limit or _KINDS.get(self.type, str)
        self.setting = Setting(self.opts[-1].lstrip("-"), self.name or "", kind, consent)
        self.envvar = None if consent else self.setting.variable


option = partial(click.option, cls=SettingOption)


def stacked(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Return one decorator that applies several, so that --help lists them in the given order."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


server = stacked(
    option("--url", metavar="URL", help="An OpenSearch server. Default: the embedded node, started automatically."),
    option("--ca-cert", metavar="FILE", default="", help="PEM file of the authorities that may sign the server's certificate."),
    option("--insecure", is_flag=True, consent=True, help="Skip certificate verification; only for a server on this machine."),
)
connection = stacked(
    option("--collection", default="papers", show_default=True, metavar="NAME", help="The collection to use."),
    server,
)
compute = stacked(
    option("--device", default="auto", show_default=True, metavar="cpu|cuda|auto", help="Device to embed on."),
    option("--precision", default="auto", show_default=True, metavar="fp32|bf16|fp16|auto", help="Precision to embed with."),
)
models = stacked(
    option("--model", metavar="MODEL", help="The model of both levels: a name from `osembed models`, a hub id or a folder."),
    option("--paper-model", metavar="MODEL", help="The model of papers."),
    option("--chunk-model", metavar="MODEL", help="The model of chunks."),
    option(
        "--preset",
        metavar="minilm|papers",
        help="A known pair of models: minilm (default), or papers (SPECTER2, MPNet).",
    ),
)
as_json = option("--json", "as_json", is_flag=True, help="Print JSON for programs.")

progress = option(
    "--progress",
    default="auto",
    show_default=True,
    metavar="auto|lines|json|off",
    help="Progress on stderr; auto shows a bar, on a terminal only.",
)
format_ = option("--format", "format_", metavar="|".join(FORMATS), help="How hits are printed. Default: table.")


def chosen_format(context: click.Context, format_: str | None, as_json: bool) -> str:
    """Return the output format. --json means --format json; the command line overrides settings.

    Raises UsageError if the command line gives both and they contradict each other.
    """
    typed = {name: context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in ("format_", "as_json")}
    if not as_json or format_ in (None, "json") or (typed["format_"] and not typed["as_json"]):
        return format_ or ("json" if as_json else "table")
    if typed["as_json"] and not typed["format_"]:
        return "json"
    raise click.UsageError(f"--json means --format json and contradicts --format {format_}.", context)


def open_collection(options: dict[str, Any]) -> Collection:
    """Remove the connection and compute options from a command's options and return the collection that they describe."""
    from osembed.collection import Collection

    return Collection(
        options.pop("collection"),
        options.pop("url"),
        ca_cert=options.pop("ca_cert"),
        insecure=options.pop("insecure"),
        device=options.pop("device", "auto"),
        precision=options.pop("precision", "auto"),
        report=print_notice,
    )
