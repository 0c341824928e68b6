"""Folders of papers whose files come and go."""

from __future__ import annotations

from pathlib import Path

from osembed.collection import Collection
from tests.conftest import paper


def place(root: Path, number: int, key: str = "") -> Path:
    record = paper(number)
    path = root / f"{key or f't{number}'}.txt"
    path.write_text(f"{record['title']}\n{record['text']}\n", encoding="utf-8")
    return path


def ids(collection: Collection) -> set[str]:
    found = collection.client.search(index=collection.name, body={"size": 1000, "_source": False})
    return {hit["_id"] for hit in found["hits"]["hits"]}
