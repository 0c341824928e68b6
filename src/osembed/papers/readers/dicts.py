"""Papers passed from Python as dictionaries and Records. The source of each is its number."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import orjson

from osembed.errors import InputError
from osembed.papers.readers.folders import Root
from osembed.papers.readers.jsonl import read_line
from osembed.papers.records import Record, Rejected


@dataclass
class Dicts:
    """Has the same interface as a Reader of paths. The total size is unknown.

    Attributes:
        papers: the papers; a generator is consumed as the work proceeds.
        names: osembed's field → the name in the dictionaries.
    """

    papers: Iterable[object]
    names: Mapping[str, str] = field(default_factory=dict)
    bytes_total: int = 0
    bytes_read: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    skipped_names: dict[str, list[str]] = field(default_factory=dict)
    roots: tuple[Root, ...] = ()
    root: str = ""

    @classmethod
    def peek(cls, given: Any) -> Dicts | Any:
        """Return papers as Dicts, and anything else, such as paths, unchanged. Raises InputError for an empty iterable."""
        if isinstance(given, Mapping | Record):
            return cls([given])
        if isinstance(given, str | bytes) or not isinstance(given, Iterable):
            return given
        rest = iter(given)
        for first in rest:
            papers = chain([first], rest)
            return cls(papers) if isinstance(first, Mapping | Record) else papers
        raise InputError("An empty list was given.", "It holds no papers.", "Pass dictionaries, Records or paths.")

    def __iter__(self) -> Iterator[Record | Rejected]:
        for number, paper in enumerate(self.papers, 1):
            yield self._record(paper, f"dict:{number}")

    def has(self, source: str) -> bool:
        """Return whether a source belongs to papers from Python."""
        return source.startswith("dict:")

    def _record(self, paper: object, source: str) -> Record | Rejected:
        """Return a paper as if it came from a JSON file: a copy with JSON types only."""
        fields, source = (paper.fields, paper.source) if isinstance(paper, Record) else (paper, source)
        if not isinstance(fields, Mapping):
            return Rejected(f"not a dictionary but {type(fields).__name__}", source, {})
        try:
            return read_line(_line(dict(fields)), source, self.names)
        except (TypeError, ValueError) as error:
            return Rejected(f"cannot be written as JSON: {error}", source, {})


def _line(fields: dict[Any, Any]) -> bytes:
    try:
        return orjson.dumps(fields, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:  # integers beyond 64 bits: the standard library writes them
        return json.dumps(fields).encode()
