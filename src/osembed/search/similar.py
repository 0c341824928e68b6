"""Seeds of a similarity search: a stored paper, or a text embedded like a passage of a paper."""

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
from osembed.papers.paper import clean_text
from osembed.passages.chunk import start_of
from osembed.passages.passage import paper_passage

_MOST_BYTES = 2**20  # of a file: more than any model sees


@dataclass(frozen=True)
class Seed:
    """What other papers are compared with.

    Attributes:
        name: its name in the result: an id, or the beginning of the text.
        words: the text for highlights, and for choosing passages if the levels have different models.
        paper: its vector in the papers' space, float32 of shape (dimension,).
        chunk: its vector in the chunks' space; None if it has none.
        leave_out: ids to exclude from the result.
        notices: sentences for the user.
    """

    name: str
    words: str
    paper: NDArray[np.float32]
    chunk: NDArray[np.float32] | None
    leave_out: Sequence[str] = ()
    notices: tuple[str, ...] = ()


def stored_seed(client: OpenSearch, targets: Targets, paper_id: str) -> Seed:
    """Return the seed of a stored paper. Raises InputError if it does not exist, CollectionError if it has no vector."""
    target = targets["papers"]
    identity = target.meta.identity
    stored = documents.read_documents(client, target, [paper_id], ["title", "identity", "embedding"]).get(paper_id)
    if stored is None:
        raise InputError(f"There is no paper '{paper_id}' in '{target.meta.collection}'.", "", "Search results show the ids.")
    vector = stored.vector(identity)
    if vector is None:
        raise CollectionError(f"The paper '{paper_id}' has no vector of this collection's model.", "", "Ingest it again.")
    same = targets["chunks"].meta.identity == identity
    return Seed(paper_id, str(stored.fields.get("title") or ""), vector, vector if same else None, [paper_id])


def text_seed(encoders: Encoders, targets: Targets, title: str, text: str) -> Seed:
    """Return the seed of a text, with the vectors that a paper of this text would have. Raises InputError for an empty text."""
    title, text = " ".join(clean_text(title).split()), clean_text(text).strip()
    if not title and not text:
        raise InputError("The text is empty.", "There is nothing to compare.", "Give a text, for example an abstract.")
    papers, chunks = targets["papers"], targets["chunks"]
    vector, cut = _embed(encoders, papers, title, text)
    same = chunks.meta.identity == papers.meta.identity
    nearest = vector if same else _embed(encoders, chunks, title, text)[0]
    words = papers.meta.identity.max_length
    said = (f"{papers.meta.model} sees the first {words} tokens of this text; the rest was not compared.",) if cut else ()
    return Seed((title or text)[:80], f"{title} {text}", vector, nearest, notices=said)


def read_text(file: str | Path) -> tuple[str, str]:
    """Return title and text of a file, whose first line is the title. Raises InputError if it cannot be read as text."""
    try:
        with Path(file).open("rb") as opened:
            data = opened.read(_MOST_BYTES)
        decoder = codecs.getincrementaldecoder("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")()
        text = decoder.decode(data, final=len(data) < _MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as text: {error}.", "", "Use a .txt or .md file.") from error
    title, _, rest = text.strip().partition("\n")
    return title.lstrip("#").strip(), rest


def _embed(encoders: Encoders, target: Target, title: str, text: str) -> tuple[NDArray[np.float32], bool]:
    """Embed a text as a passage with an index's model. Returns the vector and whether the model saw only part of the text."""
    encoder = encoders.of(target.meta.stored_model)
    spec = encoder.model.spec
    passage = paper_passage(spec, title, "", text)
    tokens = encoder.tokeniser.tokenise([passage.text])
    vector = encoder.embed(tokens)[0]
    if not is_usable(vector):
        raise ModelError(f"{target.meta.model} gives this text a vector that is zero or not finite.", "It cannot be compared with others.")
    cut = len(start_of(text, spec.max_length)) < len(text) or tokens.unseen > 0
    return vector, cut
