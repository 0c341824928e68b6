"""Options of an ingest, checked when they are created. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from osembed.errors import InputError
from osembed.limits import check_fields
from osembed.papers.columns import nearest_column

DEFAULT_MIN_WORDS = 100


@dataclass(frozen=True)
class IngestOptions:
    """How an ingest reads its input.

    Attributes:
        min_words: fewest words of abstract and body together.
        names: osembed's field → the name in the input, such as {"title": "name"}.
        dead_letters: file for rejected records; by default one in osembed's data folder, created only if needed.
        prune: afterwards remove papers that came from this input earlier and are no longer in it.
        max_delete: most papers to prune per folder or file; None means a tenth of the papers that came from it.
    """

    min_words: int = DEFAULT_MIN_WORDS
    names: Mapping[str, str] = field(default_factory=dict)
    dead_letters: str | None = None
    prune: bool = False
    max_delete: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        for name in sorted(set(self.names) - set(_FIELDS)):
            near = nearest_column([name], _FIELDS)
            hint = f"Did you mean {near}={self.names[name]}? " if near else ""
            raise InputError(f"There is no field '{name}' to map.", "", f"{hint}Use id, title, abstract, body or meta, like title=name.")


_FIELDS = ("id", "title", "abstract", "body", "meta")
