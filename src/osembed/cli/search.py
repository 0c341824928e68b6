"""`osembed search` and `osembed similar`."""

from __future__ import annotations

import re
import shlex
from typing import Any

import click

from osembed.cli import options
from osembed.cli.output import notice, print_json, print_result
from osembed.errors import InputError

where = options.option("--where", multiple=True, metavar="FILTER", help="Like year>=2015 or topic=ecology|botany; repeat for more.")
size = options.option("--size", default=10, show_default=True, metavar="N", help="Papers per page.")


def _one_query(_: click.Context, __: click.Parameter, words: tuple[str, ...]) -> str:
    """Return the query; where the shell made several words of it, show how it is typed."""
    text = " ".join(words or ())
    if len(words or ()) > 1:
        quoted = shlex.quote(text) if re.search(r'["$`\\!]', text) else f'"{text}"'
        raise click.UsageError(f"The query came as {len(words)} words. Put it in quotes: osembed search {quoted}")
    return text


@click.command()
@click.argument("query", nargs=-1, required=True, metavar="QUERY", callback=_one_query)
@options.connection
@options.option("--mode", default="hybrid", show_default=True, metavar="hybrid|lexical|vector", help="What to search by.")
@options.option("--fusion", default="min_max", show_default=True, metavar="min_max|l2|z_score|rrf", help="How to join both.")
@options.option("--weights", default="0.5,0.5", show_default=True, metavar="W,V", help="Weight of words and of meaning.")
@where
@options.option("--level", default="both", show_default=True, metavar="both|papers|chunks", help="Which level answers.")
@size
@options.option("--page", default=1, show_default=True, metavar="N", help="Which page of the first 100 papers.")
@options.option("--hits", default="papers", show_default=True, metavar="papers|chunks", help="Papers with passages, or chunks.")
@options.option("--passages", default=2, show_default=True, metavar="N", help="Passages shown per paper.")
@options.option("--explain", is_flag=True, help="Show how each score came about.")
@options.option("--strict", is_flag=True, help="Fail instead of searching by words only where the model is missing.")
@options.option("--print-request", is_flag=True, help="Print the request for other programs instead of sending it.")
@options.compute
@options.as_json
def search(query: str, as_json: bool, print_request: bool, weights: str, **given: Any) -> None:
    """Find papers by words and meaning, with their best passages.

    By default words are looked for in whole papers and meaning in passages, and both rankings are joined. --level papers or --level chunks
    uses OpenSearch's native hybrid query on one index, where the server has a correct one (3.5 or later, with neural-search).
    A query has at most 100,000 characters; of its words the first 400 different ones are looked for.
    --print-request prints for other programs what this server understands, and says where that ranks differently.

    \b
    osembed search "how do ants find their way home"
    osembed search "CRISPR off-target" --where 'year>=2018' --where 'venue=eLife|PLOS Biology'
    osembed search "sleep and memory" --mode lexical --json
    """
    collection = options.open_collection(given)
    given["weights"] = _weights(weights)
    if print_request:
        _show_request(collection.request(query, **given), as_json)
        return
    result = collection.search(query, **given)
    if as_json:
        print_json(result)
    else:
        print_result(result)


@click.command()
@click.argument("paper_id", metavar="ID")
@options.connection
@where
@size
@options.as_json
def similar(paper_id: str, as_json: bool, where: tuple[str, ...], size: int, **given: Any) -> None:
    """Find the papers nearest to a paper, by their vectors."""
    result = options.open_collection(given).similar(paper_id, size=size, where=where)
    if as_json:
        print_json(result)
    else:
        print_result(result)


def _show_request(request: dict[str, Any], as_json: bool) -> None:
    for text in request["notices"]:
        notice(text)
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
        raise InputError(f"--weights: '{text[:60]}' are not two numbers.", "", "Write them like 0.3,0.7.") from None
