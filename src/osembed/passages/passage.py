"""Which words of a document are embedded. Pure; ingest, migration and repair ask here, so that one text has one hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from osembed.models.spec import ModelSpec
from osembed.papers.levels import Level
from osembed.papers.paper import to_text
from osembed.passages.chunk import start_of


@dataclass(frozen=True)
class PassageText:
    """The exact string that is embedded for a document.

    Attributes:
        key: its hash, 128 bits in hexadecimal, by which its vector is found again.
    """

    text: str
    key: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.blake2b(self.text.encode("utf-8", "surrogatepass"), digest_size=16)
        object.__setattr__(self, "key", digest.hexdigest())


def paper_passage(spec: ModelSpec, title: str, abstract: str, body: str) -> PassageText:
    """Return what is embedded for a paper: its title with the abstract, else with the start of the body."""
    return PassageText(spec.passage(title, abstract or start_of(body, spec.max_length)))


def chunk_passage(spec: ModelSpec, title: str, text: str) -> PassageText:
    """Return what is embedded for a chunk: its paper's title with its text."""
    return PassageText(spec.passage(title, text))


def stored_passage(spec: ModelSpec, level: Level, fields: Mapping[str, Any]) -> PassageText | None:
    """Return what is embedded for a stored document; None for one without words, which gets no vector."""
    title = to_text(fields.get("title"))
    if level == "chunks":
        text = to_text(fields.get("text"))
        return chunk_passage(spec, title, text) if (title + text).strip() else None
    abstract, body = to_text(fields.get("abstract")), to_text(fields.get("body"))
    return paper_passage(spec, title, abstract, body) if (title + abstract + body).strip() else None
