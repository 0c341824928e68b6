"""Turn records into papers: find the fields, clean the text, reject what cannot be indexed. Pure functions."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from osembed.papers.exported import EXPORTED, Mark, read_mark
from osembed.papers.fields import FORMER_NAMES, TEXTS, USUAL, former_name, name_of
from osembed.papers.metadata import flatten_metadata
from osembed.papers.records import Record, Rejected
from osembed.papers.words import count_words

_KINDS = {bool: "true or false", list: "a list", dict: "an object"}
_MAX_DEPTH = 20
MAX_ID_BYTES = 480  # the server's limit is 512, and a chunk's id adds a number
_OWN_NAMES = {field: field for field in USUAL}
# Control characters except tab and newline, and surrogates, which UTF-8 cannot encode.
_UNCLEAN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\ufeff]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True)
class Paper:
    """A paper that is ready to be cut and embedded.

    Attributes:
        meta: metadata with flat names, not yet checked against the mapping.
        source: file and line.
        fields: the original record, for a dead letter.
        former: the id that an earlier version of osembed would have given it, if it differs; else "".
        deep: names of metadata that is nested too deep to be kept.
        mark: the data of an exported record.
    """

    id: str
    title: str
    abstract: str
    body: str
    meta: dict[str, Any]
    source: str
    fields: dict[str, Any]
    former: str = ""
    deep: tuple[str, ...] = ()
    mark: Mark = field(default_factory=Mark)

    @property
    def text(self) -> str:
        """The text that is cut into chunks, to which `start_char` and `end_char` refer."""
        return f"{self.abstract}\n\n{self.body}" if self.abstract and self.body else self.abstract or self.body

    @property
    def word_count(self) -> int:
        """Number of words in abstract and body."""
        return count_words(self.text)

    @property
    def input_hash(self) -> str:
        """The hash that shows whether a paper has changed. An exported paper that nobody has edited keeps its original hash."""
        digest = self.content_hash
        return self.mark.input_hash if self.mark.input_hash and self.mark.content_hash == digest else digest

    @property
    def content_hash(self) -> str:
        """The hash of the whole normalised record without its source."""
        record = [self.id, self.title, self.abstract, self.body, self.meta]
        line = orjson.dumps(record, option=orjson.OPT_SORT_KEYS)
        return hashlib.blake2b(line, digest_size=16).hexdigest()


def to_paper(record: Record, names: Mapping[str, str], min_words: int) -> Paper | Rejected:
    """Return the paper of a record, or the rejected record.

    Args:
        record: the record as read.
        names: osembed's field → the name in this input, such as {"title": "name"}.
        min_words: fewest words of abstract and body together. Not applied to exported records, which were accepted before.
    """
    fields, mark, found = dict(record.fields), read_mark(record.fields), dict[str, str | None]()
    if mark:
        fields.pop(EXPORTED)
        names, min_words = _OWN_NAMES, 0
    taken = {}
    for wanted in USUAL:
        name = found[wanted] = name_of(fields, wanted, names)
        taken[wanted] = fields.pop(name) if name is not None else None
    if isinstance(taken["id"], bool | list | Mapping):
        return Rejected(f"its id is {_KINDS.get(type(taken['id']), 'an object')}, not text", record.source, record.fields)
    meta, deep = taken["meta"] if isinstance(taken["meta"], Mapping) else {}, list[str]()
    paper = Paper(
        id=str(record.fields["id"]) if mark else _to_id(taken["id"], taken),
        title=" ".join(clean_text(to_text(taken["title"])).split()),
        abstract=clean_text(to_text(taken["abstract"])).strip(),
        body=clean_text(to_text(taken["body"])).strip(),
        meta=_clean_values(flatten_metadata({**fields, **meta}, deep)),
        source=(mark.source if mark else "") or record.source,
        fields=record.fields,
        former=_former(record, found, names),
        deep=tuple(deep),
        mark=mark or Mark(),
    )
    reason = _unfit(paper, min_words)
    named = paper.id if taken["id"] is not None else ""  # an id derived from the content does not identify an earlier version
    return Rejected(reason, record.source, record.fields, paper_id=named) if reason else paper


def clean_text(text: str) -> str:
    """Return text without control characters, with \\n as line end, and encodable as UTF-8."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _SURROGATES.sub("\ufffd", _UNCLEAN.sub("", text))


def _unfit(paper: Paper, min_words: int) -> str:
    if not paper.text and not paper.title:
        return "no text"
    if not paper.id:
        return "no id"
    if len(paper.id.encode()) > MAX_ID_BYTES:
        return f"id longer than {MAX_ID_BYTES} bytes"
    if paper.word_count < min_words:
        return f"fewer than {min_words} words"
    return ""


def _former(record: Record, found: Mapping[str, str | None], names: Mapping[str, str]) -> str:
    """Return the id that an earlier version of osembed would have given this record; "" if it is the same."""
    if record.former:
        return _to_id(record.former, {})
    if all(found[field] is None or found[field] == names.get(field) or found[field] in FORMER_NAMES for field in TEXTS):
        return ""
    before = {field: former_name(record.fields, field, names) for field in TEXTS}
    taken = {field: record.fields[name] if name is not None else None for field, name in before.items()}
    return _to_id(taken["id"], taken)


def normal_id(text: str) -> str:
    """Return the normalised form of an id."""
    return unicodedata.normalize("NFC", " ".join(clean_text(text).split()))


def _to_id(value: Any, taken: Mapping[str, Any]) -> str:
    if value is None:  # without an id, the content decides it, so that the same record always gets the same id
        content = to_text(taken["title"]) + "\n" + to_text(taken["abstract"]) + "\n" + to_text(taken["body"])
        return hashlib.blake2b(clean_text(content).encode(), digest_size=10).hexdigest() if content.strip() else ""
    return normal_id(str(value))


def to_text(value: Any, depth: int = 0) -> str:
    """Return a text field as one string. Lists of paragraphs, or of sections with a `text`, are joined, down to a limited depth."""
    if isinstance(value, list | Mapping):
        parts = value if isinstance(value, list) else (value.get("heading"), value.get("text"))
        return "\n\n".join(filter(None, (to_text(part, depth + 1) for part in parts))) if depth < _MAX_DEPTH else ""
    return "" if value is None else str(value)


def _clean_values(meta: dict[str, Any]) -> dict[str, Any]:
    def cleaned(value: Any) -> Any:
        if isinstance(value, str):
            return clean_text(value)
        return [cleaned(item) for item in value] if isinstance(value, list) else value

    return {clean_text(name): cleaned(value) for name, value in meta.items()}
