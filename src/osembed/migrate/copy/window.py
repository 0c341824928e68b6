"""A window: documents of one shard on their way to the target, and the form they get there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from osembed.embed.passage_vectors import PassageVectors
from osembed.errors import CollectionError
from osembed.migrate.copy.level_copy import OWN, LevelCopy
from osembed.opensearch.documents import StoredDocument
from osembed.opensearch.target import Target
from osembed.passages.passage import PassageText

_FOREIGN = 2**32  # a higher version that is not from osembed was set by another writer


@dataclass
class Window:
    """Some documents of one shard on their way. `upto` is the mark once all of them are settled."""

    level_copy: LevelCopy
    shard: int
    upto: int
    docs: list[StoredDocument]
    passages: dict[str, PassageText] = field(default_factory=dict)
    vectors: PassageVectors = field(default_factory=PassageVectors)
    seen: int = 0
    embedded: int = 0
    tokens: int = 0


@dataclass
class CopyCounts:
    """What one window or pass did.

    Attributes:
        seen: documents that were read.
        written: documents that were written.
        embedded: documents that went through the model.
        carried: documents whose vector was kept.
        tokens: that the model read.
        failed: id → why it could not be copied.
    """

    seen: int = 0
    written: int = 0
    embedded: int = 0
    carried: int = 0
    tokens: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, other: CopyCounts) -> None:
        """Add the counts of another part."""
        self.seen += other.seen
        self.written += other.written
        self.embedded += other.embedded
        self.carried += other.carried
        self.tokens += other.tokens
        self.failed.update(other.failed)


def document_of(window: Window, doc: StoredDocument) -> dict[str, Any]:
    """Return a document in the form that it gets in the target."""
    level_copy, passage = window.level_copy, window.passages.get(doc.id)
    document = {name: value for name, value in doc.fields.items() if name not in OWN}
    document["origin"] = doc.seq
    if passage:
        document.update(derived_fields(level_copy.target, passage, window.vectors))
    return document


def derived_fields(target: Target, passage: PassageText, vectors: PassageVectors) -> dict[str, Any]:
    """Return the fields that osembed derives from the words of a document."""
    fields = {"identity": target.meta.identity.hash, "text_hash": passage.key, "embedding": target.on_wire(vectors.vector(passage))}
    return fields | ({"token_count": vectors.token_count(passage)} if target.meta.level == "chunks" else {})


def refuse_foreign(window: Window) -> None:
    """Raise CollectionError for a document whose writer sets its own versions: after the swap all such writes would be conflicts."""
    for doc in window.docs:
        if doc.version > _FOREIGN and not 1 << 50 <= doc.version < window.level_copy.turn << 50:
            raise CollectionError(
                f"'{doc.id}' in {window.level_copy.source.index} has the version {doc.version}: some writer sets its own versions.",
                "Copies need versions too; after a swap all writes by that writer would be conflicts.",
                "Let that writer use plain writes or if_seq_no, write these documents once without a version, then run this again.",
            )


def paths_of(fields: Mapping[str, Any], prefix: str = "") -> set[str]:
    """Return the flat names of all fields of a document, such as `meta.year`."""
    found = set()
    for name, value in fields.items():
        found.add(prefix + name)
        if isinstance(value, Mapping):
            found |= paths_of(value, f"{prefix}{name}.")
    return found
