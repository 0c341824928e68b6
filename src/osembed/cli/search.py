"""`osembed search` and `osembed similar`: find papers and print them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from osembed.cli import options
from osembed.cli.output import print_json, print_notice
from osembed.cli.result_output import print_result
from osembed.errors import InputError
from osembed.limits import FUSIONS

if TYPE_CHECKING:
    from osembed.search.results import SearchResult

where = options.option("--where", multiple=True, metavar="FILTER", help="Like year>=2015 or topic=ecology|botany; repeat for more.")
size = options.option("--size", default=10, show_default=True, metavar="N", help="Papers per page.")

passages = options.option("--passages", default=2, show_default=True, metavar="N", help="Passages shown per paper.")
fields = options.option("--fields", default="", metavar="A,B", help="Which fields to show: metadata, title, abstract, body, source.")


def _one_query(_: click.Context, __: click.Parameter, words: tuple[str, ...]) -> str:
    """Return the query. If the shell split it into several words, raise a usage error that shows how to quote it."""
    text = " ".join(words or ())
    if len(words or ()) > 1:
        quoted = shlex.quote(text) if re.search(r'["$`\\!]', text) else f'"{text}"'
        raise click.UsageError(f"The query was split into {len(words)} words. Put it in quotes: osembed search {quoted}")
    return text


@click.command()
@click.argument("query", nargs=-1, required=True, metavar="QUERY", callback=_one_query)
@options.connection
@options.option("--mode", default="hybrid", show_default=True, metavar="hybrid|lexical|vector", help="How to search.")
@options.option("--fusion", default="min_max", show_default=True, metavar="|".join(FUSIONS), help="How to combine both rankings.")
@options.option("--weights", default="0.5,0.5", show_default=True, metavar="W,V", help="Weights of words and meaning.")
@where
@options.option("--level", default="both", show_default=True, metavar="both|papers|chunks", help="Which level to search.")
@size
@options.option("--page", default=1, show_default=True, metavar="N", help="Which page of the first 100 papers.")
@options.option("--hits", default="papers", show_default=True, metavar="papers|chunks", help="Show papers with passages, or single chunks.")
@passages
@options.option("--sort", default="", metavar="FIELD[:desc]", help="In lexical mode sorts all matches, else the first 100 papers.")
@options.option("--facet", "facets", multiple=True, metavar="FIELD", help="Count papers by a metadata field; repeat for more.")
@fields
@options.option("--explain", is_flag=True, help="Show how each score was computed.")
@options.option("--strict", is_flag=True, help="Fail if the model is missing, instead of searching by words only.")
@options.option("--print-request", is_flag=True, help="Print the request for other programs instead of sending it.")
@options.compute
@options.format_
@options.as_json
@click.pass_context
def search(context: click.Context, /, query: str, print_request: bool, weights: str, **given: Any) -> None:
    """Find papers by words and meaning, with their best passages.

    By default words are searched in whole papers and meaning in passages, and both rankings are combined. --level papers and --level chunks
    use OpenSearch's native hybrid query on one index if the server has a correct one (3.5 or later, with neural-search).
    A query has at most 100,000 characters; only its first 400 distinct words are searched.
    --print-request prints the request that this server understands, for other programs, and says where its ranking would differ.

    \b
    osembed search "how do ants find their way home"
    osembed search "CRISPR off-target" --where 'year>=2018' --where 'venue=eLife|PLOS Biology'
    osembed search "sleep and memory" --mode lexical --sort year:desc --facet venue
    osembed search "soil" --collection papers,reviews
    osembed search "malaria nets" --fields title,year,doi --format csv
    """
    how = options.chosen_format(context, given.pop("format_"), given.pop("as_json"))
    given |= {"weights": _weights(weights), "fields": _fields(given["fields"])}
    if given["facets"] and how not in ("table", "json"):
        raise click.UsageError(f"--format {how} cannot show facets: use table or json.", context)
    given["collection"], *also = (name.strip() for name in given["collection"].split(","))  # `also` is searched together with the first one
    collection = options.open_collection(given)
    if print_request and also:
        raise click.UsageError("--print-request works with one collection only.", context)
    if print_request:
        _show_request(collection.request(query, **given), how == "json")
        return
    _print_page(collection.search(query, also=also, **given), how, given["fields"])


@click.command()
@click.argument("paper_id", metavar="ID", required=False)
@options.connection
@options.option("--text", metavar="TEXT", help="Compare with a text, such as an abstract, instead of a stored paper.")
@options.option("--file", metavar="FILE", help="Compare with a text file, whose first line is the title.")
@where
@size
@passages
@fields
@options.compute
@options.format_
@options.as_json
@click.pass_context
def similar(context: click.Context, /, paper_id: str | None, **given: Any) -> None:
    """Find the papers whose vectors are nearest to a paper or a text.

    \b
    osembed similar malaria-nets
    osembed similar --text "Insecticide-treated nets lower the incidence of malaria in children"
    osembed similar --file draft.txt --size 20 --format bibtex
    """
    how = options.chosen_format(context, given.pop("format_"), given.pop("as_json"))
    given["fields"] = _fields(given["fields"])
    _print_page(options.open_collection(given).similar(paper_id, **given), how, given["fields"])


def _print_page(result: SearchResult, how: str, fields: Sequence[str]) -> None:
    """Print a page of hits. Notices go to stderr in every format."""
    from osembed.cli import formats

    if how == "table":
        print_result(result, fields)
        return
    for text in result.notices:
        print_notice(text)
    if how == "json":
        print_json(result)
        return
    texts = {"jsonl": formats.jsonl, "csv": lambda page: formats.csv_table(page, fields), "bibtex": formats.bibtex}
    click.echo(texts[how](result), nl=False)


def _fields(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _show_request(request: dict[str, Any], as_json: bool) -> None:
    for text in request["notices"]:
        print_notice(text)
    if as_json:
        print_json(request)
        return
    import orjson

    click.echo(orjson.dumps(request["body"]).decode())
    click.echo(f"\n{request['curl']}")


def _weights(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--weights: '{text[:60]}' is not a pair of numbers.", "", "Write them like 0.3,0.7.") from None
