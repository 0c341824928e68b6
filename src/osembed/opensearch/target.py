"""A target of requests: one resolved index with its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from osembed.opensearch.schema import IndexMeta, write_alias
from osembed.opensearch.sight import Place
from osembed.opensearch.vectors import to_wire
from osembed.papers.levels import Level


@dataclass(frozen=True)
class Target:
    """One concrete index, with its metadata.

    Attributes:
        meta_types: flat name of each mapped metadata field, like `authors.name` → OpenSearch type.
        default_pipeline: the search pipeline of requests that name none; "" if the index sets none.
        healed: whether `_meta` had been wiped and was restored from the journal.
        shards: number of primary shards.
    """

    index: str
    uuid: str
    meta: IndexMeta
    meta_types: Mapping[str, str]
    refresh_interval: str = ""
    default_pipeline: str = ""
    healed: bool = False
    shards: int = 0

    @property
    def members(self) -> tuple[Target, ...]:
        """The indexes that a search of this target covers: only this one (see `joint`)."""
        return (self,)

    def key(self, index: str, document: str) -> str:
        """Return the key of a hit: its id."""
        return document

    def owner(self, key: str) -> tuple[Target, str]:
        """Return the index that holds a hit, and the hit's id in it."""
        return self, key

    @property
    def write_alias(self) -> str:
        """The private alias for writes."""
        return write_alias(self.index)

    @property
    def place(self) -> Place:
        """The index by name and UUID."""
        return Place(self.index, self.uuid)

    def on_wire(self, vector: NDArray[np.float32]) -> NDArray[np.float32] | str:
        """Return a vector in the form in which it is sent to this index."""
        return to_wire(vector) if self.meta.provenance.get("vectors") == "base64" else vector


Targets = dict[Level, Target]
