"""Pages of hits as text for other programs: JSON lines, CSV and BibTeX. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import orjson

from osembed.papers.paper import clean
from osembed.search.results import Hit, SearchResult

# A spreadsheet takes a cell that begins like this for a formula, and runs it. Full-width forms count in some languages.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_BIBTEX = {
    "\\": r"\textbackslash{}",
    "{": r"\textbraceleft{}",  # not \{, since BibTeX itself counts braces, also behind a backslash
    "}": r"\textbraceright{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{char: f"\\{char}" for char in "&%$#_"},
}
_AUTHORS = ("authors", "author", "authors.name", "author.name")
_VENUES = ("journal", "venue", "booktitle", "container-title")
_DATES = ("year", "date", "published", "publication_date")
_DOI = re.compile(r"10\.\d{4,9}/\S+")


def jsonl(result: SearchResult) -> str:
    """Return one JSON object per line and hit."""
    return "".join(orjson.dumps(asdict(hit), option=orjson.OPT_NON_STR_KEYS).decode() + "\n" for hit in result)


def csv_table(result: SearchResult, fields: Sequence[str]) -> str:
    """Return one row per hit (RFC 4180).

    Text that a spreadsheet would take for a formula gets an apostrophe in front.

    Args:
        result: the page.
        fields: the columns after id and score; () for title, all metadata of the page, source and word_count.
    """
    cells = [_cells(hit) for hit in result]
    names = fields or ["title", *dict.fromkeys(name for hit in result for name in hit.meta), "source", "word_count"]
    columns = [column for name in names for column in _columns(name, cells)]
    leading = ["collection", "id", "score"] if len({hit.collection for hit in result}) > 1 else ["id", "score"]
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\r\n")
    writer.writerow(map(_cell, [*leading, *columns]))
    for hit, row in zip(result, cells, strict=True):
        writer.writerow(_cell(value) for value in [*(getattr(hit, name) for name in leading), *(row.get(name) for name in columns)])
    return lines.getvalue()


def bibtex(result: SearchResult) -> str:
    """Return one entry per paper: an article where its metadata names a journal or venue."""
    taken: set[str] = set()
    papers = {(hit.collection, hit.id): hit for hit in result}  # several chunks are one paper
    return "\n".join(_entry(hit, _key(hit.id, taken)) for hit in papers.values())


def _cells(hit: Hit) -> dict[str, Any]:
    return {**hit.meta, **hit.texts, "title": hit.title, "source": hit.source, "word_count": hit.word_count}


def _columns(name: str, cells: Sequence[dict[str, Any]]) -> list[str]:
    """Return the columns of a field; `authors` may stand for `authors.name` and others."""
    name = name.removeprefix("meta.")
    below = dict.fromkeys(column for row in cells for column in row if column.startswith(f"{name}."))
    return [name] if any(name in row for row in cells) or not below else list(below)


def _cell(value: Any) -> str:
    """Return what stands in a cell. Numbers stay numbers, whatever their sign."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return _number(value)
    text = clean("; ".join(_several(value)))
    return f"'{text}" if _FORMULA.match(text) else text


def _key(paper_id: str, taken: set[str]) -> str:
    """Return an entry's key: the id in the letters that BibTeX takes, numbered where two ids come out alike."""
    plain = re.sub(r"[^A-Za-z0-9:./+-]+", "_", paper_id) or "paper"
    key, number = plain, 1
    while key.lower() in taken:  # BibTeX tells no upper from lower case
        number += 1
        key = f"{plain}-{number}"
    taken.add(key.lower())
    return key


def _entry(hit: Hit, key: str) -> str:
    venue = _first(hit, _VENUES)
    fields = {
        "title": _latex(hit.title),
        "author": " and ".join(_author(name) for name in _names(hit)),
        "journal": _latex(venue),
        "year": "".join(re.findall(r"^\s*(\d{4})", _first(hit, _DATES))),
        "doi": _verbatim(_first(hit, ("doi",)) or (hit.id if _DOI.fullmatch(hit.id) else "")),
        "url": _verbatim(_first(hit, ("url",))),
        "abstract": _latex(hit.texts.get("abstract", "")),
    }
    lines = "".join(f",\n  {name} = {{{value}}}" for name, value in fields.items() if value)
    return f"@{'article' if venue else 'misc'}{{{key}{lines}\n}}\n"


def _first(hit: Hit, names: Sequence[str]) -> str:
    """Return the first value among these metadata fields as text."""
    for name in names:
        for value in _several(hit.meta.get(name)):
            if value:
                return value
    return ""


def _names(hit: Hit) -> list[str]:
    for name in _AUTHORS:
        found = _several(hit.meta.get(name))
        if len(found) == 1:  # one text for all of them
            found = re.split(r"\s*;\s*|\s+and\s+", found[0])
        if any(found):
            return [one for one in found if one.strip()]
    return []


def _author(name: str) -> str:
    """Return a name as BibTeX reads it; one that it would part, into authors or into more than two parts, in braces."""
    text = _latex(name)
    return f"{{{text}}}" if re.search(r"(^|\s)and(\s|$)", text, re.IGNORECASE) or text.count(",") > 1 else text


def _several(value: Any) -> list[str]:
    items = value if isinstance(value, list) else [] if value is None else [value]
    return [_number(item) if isinstance(item, float) else str(item) for item in items]


def _number(value: float) -> str:
    """Return a number as people write it: years are stored as 2015.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _latex(text: str) -> str:
    """Return text in one line that LaTeX prints as it stands."""
    return "".join(_BIBTEX.get(char, char) for char in " ".join(clean(text).split()))


def _verbatim(text: str) -> str:
    """Return an address, which LaTeX does not read as text: only what would end the field is encoded."""
    return re.sub(r"[{}\\\s]", lambda found: f"%{ord(found[0]):02X}", clean(text).strip())
