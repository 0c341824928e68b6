"""Papers that a Python program hands over: dictionaries and Records, one after the other, each with its number as its source."""

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
    """Reads like a Reader of paths; how much there is in all is unknown.

    Attributes:
        papers: what is handed over; a generator is read as the work goes on.
        names: osembed's field → the name that the dictionaries use.
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
        """Return papers as Dicts; whatever else is given, such as paths, as it is. Raises InputError where there is nothing at all."""
        if isinstance(given, Mapping | Record):
            return cls([given])
        if isinstance(given, str | bytes) or not isinstance(given, Iterable):
            return given
        rest = iter(given)
        for first in rest:
            papers = chain([first], rest)
            return cls(papers) if isinstance(first, Mapping | Record) else papers
        raise InputError("An empty list was given.", "It holds no papers.", "Hand over dictionaries, Records or paths.")

    def __iter__(self) -> Iterator[Record | Rejected]:
        for number, paper in enumerate(self.papers, 1):
            yield self._record(paper, f"dict:{number}")

    def has(self, source: str) -> bool:
        """Whether a source may be one of these."""
        return source.startswith("dict:")

    def _record(self, paper: object, source: str) -> Record | Rejected:
        """Return a paper as it would come out of a JSON file: its own copy, of JSON's types only."""
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
