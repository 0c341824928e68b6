"""Format pages of hits for other programs: JSON lines, CSV and BibTeX. Pure functions."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import orjson

from osembed.papers.paper import clean_text
from osembed.search.results import Hit, SearchResult

# A spreadsheet treats a cell that begins like this as a formula and runs it. In some locales the full-width forms count too.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_BIBTEX = {
    "\\": r"\textbackslash{}",
    "{": r"\textbraceleft{}",  # not \{, because BibTeX counts braces even after a backslash
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
    """Return one line per hit: a JSON object."""
    return "".join(orjson.dumps(asdict(hit), option=orjson.OPT_NON_STR_KEYS).decode() + "\n" for hit in result)


def csv_table(result: SearchResult, fields: Sequence[str]) -> str:
    """Return one row per hit (RFC 4180).

    Text that a spreadsheet would run as a formula is prefixed with an apostrophe.

    Args:
        result: the page of hits.
        fields: the columns after id and score. () means title, all metadata on the page, source and word_count.
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
    """Return one entry per paper: @article if its metadata names a journal or venue, else @misc."""
    taken: set[str] = set()
    papers = {(hit.collection, hit.id): hit for hit in result}  # several chunks of one paper become one entry
    return "\n".join(_entry(hit, _key(hit.id, taken)) for hit in papers.values())


def _cells(hit: Hit) -> dict[str, Any]:
    return {**hit.meta, **hit.texts, "title": hit.title, "source": hit.source, "word_count": hit.word_count}


def _columns(name: str, cells: Sequence[dict[str, Any]]) -> list[str]:
    """Return the columns of a field: `authors` also selects `authors.name` and other subfields."""
    name = name.removeprefix("meta.")
    below = dict.fromkeys(column for row in cells for column in row if column.startswith(f"{name}."))
    return [name] if any(name in row for row in cells) or not below else list(below)


def _cell(value: Any) -> str:
    """Return the text of a cell. Numbers stay numbers, even negative ones."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return _number(value)
    text = clean_text("; ".join(_several(value)))
    return f"'{text}" if _FORMULA.match(text) else text


def _key(paper_id: str, taken: set[str]) -> str:
    """Return an entry's key: the id in characters that BibTeX accepts, with a number if the key is already taken."""
    plain = re.sub(r"[^A-Za-z0-9:./+-]+", "_", paper_id) or "paper"
    key, number = plain, 1
    while key.lower() in taken:  # BibTeX keys are case-insensitive
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
    """Return the first non-empty value of these metadata fields as text, or ""."""
    for name in names:
        for value in _several(hit.meta.get(name)):
            if value:
                return value
    return ""


def _names(hit: Hit) -> list[str]:
    for name in _AUTHORS:
        found = _several(hit.meta.get(name))
        if len(found) == 1:  # all authors in one string
            found = re.split(r"\s*;\s*|\s+and\s+", found[0])
        if any(found):
            return [one for one in found if one.strip()]
    return []


def _author(name: str) -> str:
    """Return a name for BibTeX. Braces protect a name that BibTeX would split at "and" or at a second comma."""
    text = _latex(name)
    return f"{{{text}}}" if re.search(r"(^|\s)and(\s|$)", text, re.IGNORECASE) or text.count(",") > 1 else text


def _several(value: Any) -> list[str]:
    items = value if isinstance(value, list) else [] if value is None else [value]
    return [_number(item) if isinstance(item, float) else str(item) for item in items]


def _number(value: float) -> str:
    """Return a number as people write it: the index stores the year 2015 as 2015.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _latex(text: str) -> str:
    """Return text on one line, with the characters escaped that LaTeX treats specially."""
    return "".join(_BIBTEX.get(char, char) for char in " ".join(clean_text(text).split()))


def _verbatim(text: str) -> str:
    """Return a URL or DOI. LaTeX does not parse it as text, so only characters that would end the field are encoded."""
    return re.sub(r"[{}\\\s]", lambda found: f"%{ord(found[0]):02X}", clean_text(text).strip())
