"""From what the nearest papers are looked for: a stored paper, or a text that is embedded as the passage of a paper would be."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from osembed.embed.encoders import Encoders
from osembed.embed.passage_vectors import is_usable
from osembed.errors import CollectionError, InputError, ModelError
from osembed.opensearch import documents
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.target import Target, Targets
from osembed.papers.paper import clean
from osembed.passages.chunk import start_of
from osembed.passages.passage import paper_passage

_MOST_BYTES = 2**20  # of a file: more than any model sees


@dataclass(frozen=True)
class Seed:
    """What papers are compared with.

    Attributes:
        name: as it is called in the answer: an id, or how the text begins.
        words: for highlights, and for passages where the levels have different models.
        paper: its vector among papers.
        chunk: its vector among chunks, None where there is none.
        leave_out: ids that are not looked for.
    """

    name: str
    words: str
    paper: NDArray[np.float32]
    chunk: NDArray[np.float32] | None
    leave_out: Sequence[str] = ()
    notices: tuple[str, ...] = ()


def stored_seed(client: OpenSearch, targets: Targets, paper_id: str) -> Seed:
    """Return a stored paper with its vector. Raises InputError where there is none, CollectionError where it has no vector."""
    target = targets["papers"]
    identity = target.meta.identity
    stored = documents.read_documents(client, target, [paper_id], ["title", "identity", "embedding"]).get(paper_id)
    if stored is None:
        raise InputError(f"There is no paper '{paper_id}' in '{target.meta.collection}'.", "", "Ids stand in search results.")
    vector = stored.vector(identity)
    if vector is None:
        raise CollectionError(f"The paper '{paper_id}' has no vector of this collection's model.", "", "Ingest it again.")
    same = targets["chunks"].meta.identity == identity
    return Seed(paper_id, str(stored.fields.get("title") or ""), vector, vector if same else None, [paper_id])


def text_seed(encoders: Encoders, targets: Targets, title: str, text: str) -> Seed:
    """Return a text with the vectors that a paper of these words would have. Raises InputError for an empty one."""
    title, text = " ".join(clean(title).split()), clean(text).strip()
    if not title and not text:
        raise InputError("The text is empty.", "It is like no paper.", "Give an abstract, say.")
    papers, chunks = targets["papers"], targets["chunks"]
    vector, cut = _embed(encoders, papers, title, text)
    same = chunks.meta.identity == papers.meta.identity
    nearest = vector if same else _embed(encoders, chunks, title, text)[0]
    words = papers.meta.identity.max_length
    said = (f"{papers.meta.model} sees the first {words} tokens of this text; the rest was not compared.",) if cut else ()
    return Seed((title or text)[:80], f"{title} {text}", vector, nearest, notices=said)


def read_text(file: str | Path) -> tuple[str, str]:
    """Return title and text of a file, as an ingest would take it: the first line is the title. Raises InputError."""
    try:
        with Path(file).open("rb") as opened:
            data = opened.read(_MOST_BYTES)
        decoder = codecs.getincrementaldecoder("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")()
        text = decoder.decode(data, final=len(data) < _MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as text: {error}.", "", "Give a .txt or .md file.") from error
    title, _, rest = text.strip().partition("\n")
    return title.lstrip("#").strip(), rest


def _embed(encoders: Encoders, target: Target, title: str, text: str) -> tuple[NDArray[np.float32], bool]:
    """Embed a text as a passage of an index's model; say whether the model sees a part of it only."""
    encoder = encoders.of(target.meta.stored_model)
    spec = encoder.model.spec
    passage = paper_passage(spec, title, "", text)
    vector = np.asarray(encoder.encode([passage.text])[0], np.float32)
    if not is_usable(vector):
        raise ModelError(f"{target.meta.model} makes a vector of this text that is zero or not finite.", "It is near to nothing.")
    cut = len(start_of(text, spec.max_length)) < len(text) or encoder.tokeniser.tokenise([passage.text]).unseen > 0
    return vector, cut
