"""Judged queries: which papers are relevant to each query, and how relevant."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import orjson

from osembed.errors import InputError


@dataclass(frozen=True)
class Judged:
    """Queries and their judgments: query id → text, query id → paper id → grade."""

    queries: dict[str, str]
    judgments: dict[str, dict[str, int]]


def read_judged(folder: Path, split: str = "test") -> Judged:
    """Read queries.jsonl and qrels/SPLIT.tsv. Raises InputError if one is missing or malformed."""
    queries_file, judgments_file = folder / "queries.jsonl", folder / "qrels" / f"{split}.tsv"
    for file in (queries_file, judgments_file):
        if not file.is_file():
            raise InputError(
                f"There is no {file}.",
                "",
                "A folder in BEIR layout has queries.jsonl and qrels/test.tsv (query-id, corpus-id, score).",
            )
    judgments: dict[str, dict[str, int]] = {}
    with judgments_file.open(newline="", encoding="utf-8") as lines:
        for number, row in enumerate(csv.reader(lines, delimiter="\t"), 1):
            if number == 1 and not row[-1].lstrip("-").isdigit():  # a header
                continue
            if len(row) < 3 or not row[-1].lstrip("-").isdigit():
                raise InputError(f"{judgments_file}:{number} is not query-id, corpus-id, score, separated by tabs.")
            judgments.setdefault(row[0], {})[row[-2]] = int(row[-1])
    texts = {str(entry["_id"]): str(entry["text"]) for entry in map(orjson.loads, queries_file.read_bytes().splitlines())}
    if blank := next((query for query in judgments if query in texts and not texts[query].strip()), None):
        raise InputError(f"Query {blank} in {queries_file} has no text.", "It finds nothing with any model.", "Remove it.")
    relevant = {query for query, judged in judgments.items() if any(grade > 0 for grade in judged.values())}
    usable = {query: text for query, text in texts.items() if query in relevant}
    if not usable:
        raise InputError(f"{folder} has no query with a relevant judgment.", "There is nothing to measure.")
    return Judged(usable, {query: judgments[query] for query in usable})
