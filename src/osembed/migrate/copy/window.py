"""Some documents of one shard on their way, and what they become in the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osembed.errors import CollectionError
from osembed.migrate.copy.level_copy import OWN, LevelCopy
from osembed.opensearch.scan import StoredDocument
from osembed.passages.tokens import Tokens

Vector = NDArray[np.float32]
_FOREIGN = 2**32  # versions beyond this that are not osembed's were set by a writer of its own


@dataclass
class Window:
    """Some documents of one shard on their way. `upto` is the mark once all of them are settled."""

    level_copy: LevelCopy
    shard: int
    upto: int
    docs: list[StoredDocument]
    hashes: dict[str, str] = field(default_factory=dict)
    vectors: dict[str, Vector] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    tokens: Tokens | None = None
    seen: int = 0
    embedded: int = 0


@dataclass
class CopyCounts:
    """What one window or pass did: documents seen, written, embedded, with a carried vector; tokens read; id → why it failed."""

    seen: int = 0
    written: int = 0
    embedded: int = 0
    carried: int = 0
    tokens: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, other: CopyCounts) -> None:
        """Take in another part."""
        self.seen += other.seen
        self.written += other.written
        self.embedded += other.embedded
        self.carried += other.carried
        self.tokens += other.tokens
        self.failed.update(other.failed)


def document_of(window: Window, doc: StoredDocument) -> dict[str, Any]:
    """Return a document as the target holds it."""
    level_copy, key = window.level_copy, window.hashes.get(doc.id)
    document = {name: value for name, value in doc.fields.items() if name not in OWN}
    document["origin"] = doc.seq
    if key is not None:
        document.update(
            identity=level_copy.target.meta.identity.hash, text_hash=key, embedding=level_copy.target.on_wire(window.vectors[key])
        )
        if level_copy.level == "chunks":
            document["token_count"] = window.counts.get(key)
    return document


def refuse_foreign(window: Window) -> None:
    """Refuse documents whose versions their writer sets: after the swap every such write would be a conflict."""
    for doc in window.docs:
        if doc.version > _FOREIGN and not 1 << 50 <= doc.version < window.level_copy.turn << 50:
            raise CollectionError(
                f"'{doc.id}' in {window.level_copy.source.index} has the version {doc.version}: some writer sets versions of its own.",
                "Copies need versions too; after a swap that writer would meet conflicts for ever.",
                "Let that writer use plain writes or if_seq_no, write these documents once without a version, then run this again.",
            )


def paths_of(fields: Mapping[str, Any], prefix: str = "") -> set[str]:
    """Return the names of all fields of a document, dotted."""
    found = set()
    for name, value in fields.items():
        found.add(prefix + name)
        if isinstance(value, Mapping):
            found |= paths_of(value, f"{prefix}{name}.")
    return found
