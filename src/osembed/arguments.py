"""Check and normalise arguments from Python callers before anything is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from osembed.errors import InputError
from osembed.ingest.spec import CollectionSpec
from osembed.limits import checked_value, guess_name
from osembed.models.registry import PRESETS
from osembed.papers.readers.dicts import Dicts
from osembed.search.filters import parse_filters
from osembed.search.options import SearchOptions
from osembed.search.searcher import check_query


def choose_models(
    model: str | None = None, paper: str | None = None, chunk: str | None = None, preset: str | None = None
) -> CollectionSpec:
    """Return a spec that names models.

    Args:
        model: the model of both levels.
        paper, chunk: the model of one level.
        preset: a known pair of models, instead of the others.
    """
    preset = None if preset is None else checked_value("preset", preset)
    if preset and (model or paper or chunk):
        raise InputError("A preset and a model were given.", "Each of them sets the models.", "Use only one of them.")
    both = PRESETS[preset] if preset else (model, model)
    return CollectionSpec(paper_model=paper or both[0], chunk_model=chunk or both[1])


def several_texts(name: str, given: str | Path | Iterable[str | Path]) -> list[str]:
    """Return one text or several as a list of strings; a single string is one item. Raises InputError for anything but texts and paths."""
    items = [given] if isinstance(given, str | Path) or not isinstance(given, Iterable) else list(given)
    return list(checked_value(name, items, list[str]))


def find_inputs(papers: Any) -> list[str] | Dicts:
    """Return papers from Python as Dicts, and paths as a list of strings. Raises InputError for anything else."""
    found = Dicts.peek(papers)
    return found if isinstance(found, Dicts) else several_texts("papers", found)


def make_spec(spec: CollectionSpec | str | None) -> CollectionSpec:
    """Return a spec. A string is the name of a model; None means no requirements."""
    return spec if isinstance(spec, CollectionSpec) else choose_models(spec)


def check_question(query: str, options: dict[str, Any]) -> tuple[str, SearchOptions]:
    """Check a query and its options, before a server is contacted or started. Returns both."""
    chosen = build_options(SearchOptions, options)
    parse_filters(chosen.where)
    return check_query(query), chosen


def as_filters(where: str | Sequence[str]) -> tuple[str, ...]:
    """Return one filter or several as a tuple."""
    return (where,) if isinstance(where, str) else tuple(where)


def build_options(kind: type, options: dict[str, Any]) -> Any:
    """Return an options object. Raises InputError for an unknown name."""
    names = list(kind.__dataclass_fields__)  # type: ignore[attr-defined]
    unknown = sorted(set(options) - set(names))
    if unknown:
        raise InputError(f"There is no option '{unknown[0]}'.{guess_name(unknown[0], names)}", "", f"Options are {', '.join(names)}.")
    return kind(**options)
