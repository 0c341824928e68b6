"""Read text files: one paper per file, whose first line is the title."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from osembed.papers.fields import name_of
from osembed.papers.records import MAX_RECORD, Place, Record, Rejected, decoded_text, too_large

_MARK = b"\xef\xbb\xbf"


def read_text(content: IO[bytes], place: Place) -> Iterator[Record | Rejected]:
    """Yield the record of a text file."""
    data, named = content.read(MAX_RECORD + 1), {"id": place.stem}
    paper_id = place.stem if name_of(named, "id", place.names) else ""  # with --field the id may be another field
    if len(data) > MAX_RECORD:
        yield Rejected(too_large(MAX_RECORD), place.name, {}, paper_id=paper_id)
        return
    text, guessed = decoded_text(data.removeprefix(_MARK))
    title, _, body = text.strip().partition("\n")
    fields = {**named, "title": title.strip(), "body": body.strip()}
    yield Rejected("not UTF-8", place.name, fields, f"read as {guessed}", paper_id) if guessed else Record(fields, place.name)


def read_markdown(content: IO[bytes], place: Place) -> Iterator[Record | Rejected]:
    """Yield the record of a Markdown file, whose title is a heading."""
    for record in read_text(content, place):
        if record.fields:
            record.fields["title"] = record.fields["title"].lstrip("#").strip()
        yield record
