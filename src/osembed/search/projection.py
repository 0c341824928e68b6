"""Which fields of a paper a search returns. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from osembed.search import filters

_TEXTS = ("abstract", "body")  # long, so returned only on request
_ALWAYS = ("title", "source", "word_count")
_DEFAULT = [*_ALWAYS, "meta"]


@dataclass(frozen=True)
class Projection:
    """The requested fields by name; () for all metadata and no long text."""

    names: tuple[str, ...] = ()

    @property
    def source(self) -> list[str]:
        """The parts of a paper that the server must send."""
        return [*_DEFAULT, *(name for name in _TEXTS if name in self.names)]

    @property
    def paths(self) -> list[str]:
        """The requested fields under the names in the index."""
        return [name if name in (*_ALWAYS, *_TEXTS) else f"meta.{name.removeprefix('meta.')}" for name in self.names]

    def meta(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return the requested metadata in the requested order. A name also selects its subfields."""
        if not self.names:
            return dict(stored)
        wanted = [name.removeprefix("meta.") for name in self.names if name not in (*_TEXTS, *_ALWAYS)]
        return {key: value for name in wanted for key, value in stored.items() if key == name or key.startswith(f"{name}.")}

    def texts(self, source: Mapping[str, Any]) -> dict[str, str]:
        """Return the requested long texts."""
        return {name: str(source.get(name) or "") for name in self.names if name in _TEXTS}


def choose_fields(names: Sequence[str], types: Mapping[str, str]) -> Projection:
    """Return the projection on these fields. Raises InputError for a field that no paper has."""
    given = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    for name in given:
        if name not in (*_TEXTS, *_ALWAYS) and name.removeprefix("meta.") not in types:
            raise filters.unknown_field(name, types, (*_ALWAYS, *_TEXTS), "show", parents=True)
    return Projection(given)
