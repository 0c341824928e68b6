"""The identity of a vector space: a hash of everything that decides the vectors.

Name, path, backend and compute precision are not part of it. They are stored separately as provenance, because they may differ between two
machines that use the same space.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import orjson

from osembed.errors import IdentityError
from osembed.models.spec import Model

WITNESS_COSINE = 0.999
WITNESS_TEXTS = (
    "Photosynthesis converts light into chemical energy.",
    "We report a randomised trial of 412 patients with type 2 diabetes.",
    "Deep residual networks ease the training of very deep models.",
    "The enzyme's Km was 4.2 µM at pH 7.4 and 37 °C.",
    "Gravitational waves from a binary black hole merger",
    "Soil nitrogen, land use and the diversity of pollinators in temperate grassland: a twelve-year study of 48 plots.",
    "p < 0.001; 95% CI [1.2, 3.4]; n = 1,024",
    "Die Wärmeleitfähigkeit von Graphen bei tiefen Temperaturen",
    "kinase",
    "How do sleep and memory consolidation interact in older adults?",
    "A survey of approximate nearest neighbour search. Graph methods dominate at high recall, quantisation at low memory, "
    "and the two combine well when candidates are rescored with full precision.",
    "Bose–Einstein condensation 量子 αβγ ∑∫",
)


@dataclass(frozen=True)
class Identity:
    """Everything that decides a vector. Indexes with equal identities use the same space."""

    weights: str
    tokenizer: str
    pooling: str
    normalize: bool
    query_prompt: str
    passage_prompt: str
    passage_template: str
    max_length: int
    dimension: int
    vector_type: str
    space: str

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that name the space."""
        return hashlib.sha256(orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]

    def difference(self, other: Identity) -> str | None:
        """Return the first differing field in words, or None if the identities are equal."""
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if mine != theirs:
                return f"{field.name.replace('_', ' ')} ({_short(mine)} against {_short(theirs)})"
        return None


@dataclass(frozen=True)
class StoredModel:
    """The model of an index, from the index's metadata.

    Attributes:
        name, path: its name and folder on the machine that created the index; hints for finding it on this one.
        collection: the collection that the index belongs to.
    """

    identity: Identity
    name: str
    path: str
    collection: str


def identify(model: Model) -> Identity:
    """Return the identity of a model's vector space."""
    spec = model.spec
    return Identity(
        weights=model.weights_hash,
        tokenizer=model.tokenizer_hash,
        pooling=spec.pooling,
        normalize=spec.normalize,
        query_prompt=spec.query_prompt,
        passage_prompt=spec.passage_prompt,
        passage_template=f"{{title}}{spec.separator}{{text}}",
        max_length=spec.max_length,
        dimension=spec.dimension,
        vector_type="float",
        space=spec.space,
    )


def read_identity(stored: dict[str, Any]) -> Identity:
    """Return an identity from its stored form in an index's `_meta`."""
    return Identity(**{field.name: stored[field.name] for field in fields(Identity)})


def admit_backend(witness: np.ndarray, vectors: np.ndarray, what: str) -> None:
    """Raise IdentityError unless a backend reproduces the witness vectors with cosine ≥ 0.999.

    Args:
        witness: stored vectors of WITNESS_TEXTS, float32 [texts, dimension].
        vectors: the same texts embedded by the backend, float32 [texts, dimension].
        what: the backend in words, for the message.
    """
    worst = float(row_cosines(witness, vectors).min())
    if not worst >= WITNESS_COSINE:
        raise IdentityError(
            f"{what} reproduces the collection's witness vectors with cosine {worst:.4f}.",
            f"Below {WITNESS_COSINE} its vectors do not belong to the same space.",
            "Use another precision or device (--precision fp32), or check the model's files.",
        )


def row_cosines(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows of two arrays [rows, dimension]: [rows]. It is 0 for a row of zeros."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(others, axis=1)
    return np.asarray(np.einsum("ij,ij->i", vectors, others) / np.maximum(lengths, 1e-12))


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str) and len(value) < 40 else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
