"""Which words of a document are embedded. Pure; ingest, migration and repair ask here, so that one text has one hash."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from osembed.models.folder import ModelSpec
from osembed.papers.levels import Level
from osembed.papers.paper import to_text
from osembed.passages.chunk import start_of


def paper_passage(spec: ModelSpec, title: str, abstract: str, body: str) -> str:
    """Return what is embedded for a paper: its title with the abstract, else with the start of the body."""
    return spec.passage(title, abstract or start_of(body, spec.max_length))


def stored_passage(spec: ModelSpec, level: Level, fields: Mapping[str, Any]) -> str:
    """Return what is embedded for a stored document; '' for one without words, which gets no vector."""
    title = to_text(fields.get("title"))
    if level == "chunks":
        text = to_text(fields.get("text"))
        return spec.passage(title, text) if (title + text).strip() else ""
    abstract, body = to_text(fields.get("abstract")), to_text(fields.get("body"))
    return paper_passage(spec, title, abstract, body) if (title + abstract + body).strip() else ""
