"""Papers that a Python program hands over: dictionaries and Records, one after the other, each with its number as its source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import orjson

from osembed.errors import InputError
from osembed.read import Record, Rejected


@dataclass
class Dicts:
    """Reads like a Reader of paths; how much there is in all is unknown.

    Attributes:
        papers: what is handed over; a generator is read as the work goes on.
    """

    papers: Iterable[object]
    bytes_total: int = 0
    bytes_read: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

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
            yield _record(paper, f"dict:{number}")


def _record(paper: object, source: str) -> Record | Rejected:
    """Return a paper as it would come out of a JSON file: its own copy, of JSON's types only."""
    fields, source = (paper.fields, paper.source) if isinstance(paper, Record) else (paper, source)
    if not isinstance(fields, Mapping):
        return Rejected(f"not a dictionary but {type(fields).__name__}", source, {})
    try:
        line = orjson.dumps(dict(fields), option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError as error:
        return Rejected(f"cannot be written as JSON: {error}", source, {})
    return Record(orjson.loads(line), source)
