"""What an ingest can be asked for, checked when it is said. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from osembed.errors import InputError
from osembed.limits import check_fields
from osembed.papers.columns import nearest

DEFAULT_MIN_WORDS = 100


@dataclass(frozen=True)
class IngestOptions:
    """How an ingest reads its input.

    Attributes:
        min_words: fewest words of abstract and body together.
        names: osembed's field → the name that the input uses, such as {"title": "name"}.
        dead_letters: file for what was rejected; by default one in osembed's data folder, made only when needed.
        prune: afterwards remove the papers that the input has brought in earlier and does not have any more.
        max_delete: most papers of one folder or file that may be pruned; None stands for a tenth of what it has brought in.
    """

    min_words: int = DEFAULT_MIN_WORDS
    names: Mapping[str, str] = field(default_factory=dict)
    dead_letters: str | None = None
    prune: bool = False
    max_delete: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        for name in sorted(set(self.names) - set(_FIELDS)):
            near = nearest([name], _FIELDS)
            hint = f"Perhaps {near}={self.names[name]}? " if near else ""
            raise InputError(f"There is no field '{name}' to map.", "", f"{hint}Use id, title, abstract, body or meta, like title=name.")


_FIELDS = ("id", "title", "abstract", "body", "meta")
