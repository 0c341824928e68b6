"""One paper per file: the first line is its title."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from osembed.papers.records import MAX_RECORD, Place, Record, Rejected, decoded, too_large

_MARK = b"\xef\xbb\xbf"


def read_text(content: IO[bytes], place: Place) -> Iterator[Record | Rejected]:
    """Read a text file as a record."""
    data = content.read(MAX_RECORD + 1)
    if len(data) > MAX_RECORD:
        yield Rejected(too_large(MAX_RECORD), place.name, {}, paper_id=place.stem)
        return
    text, guessed = decoded(data.removeprefix(_MARK))
    title, _, body = text.strip().partition("\n")
    fields = {"id": place.stem, "title": title.strip(), "body": body.strip()}
    yield Rejected("not UTF-8", place.name, fields, f"read as {guessed}", place.stem) if guessed else Record(fields, place.name)


def read_markdown(content: IO[bytes], place: Place) -> Iterator[Record | Rejected]:
    """Read a Markdown file as a record: its title is a heading."""
    for record in read_text(content, place):
        if record.fields:
            record.fields["title"] = record.fields["title"].lstrip("#").strip()
        yield record
