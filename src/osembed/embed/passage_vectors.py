"""Vectors of passages by their keys: those that are known are kept, the others are embedded, each once however often it occurs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from osembed.embed.protocol import Encoder
from osembed.passages.passage import PassageText
from osembed.passages.tokens import Tokeniser, Tokens

Vector = NDArray[np.float32]
BAD_VECTOR = "its vector is zero or not finite"


class PassageVectors:
    """The vectors of some passages under one model. Tokenising and embedding are two steps, so that two threads can take one each."""

    def __init__(self) -> None:
        self._vectors: dict[str, Vector] = {}
        self._counts: dict[str, int] = {}
        self._waiting: tuple[list[str], Tokens] | None = None
        self._fresh: frozenset[str] = frozenset()

    def keep(self, passage: PassageText, vector: Vector, token_count: int | None = None) -> None:
        """Take over a stored vector, and how many tokens its passage was counted to have."""
        self._vectors[passage.key] = vector
        if token_count:
            self._counts[passage.key] = token_count

    def tokenise(self, tokeniser: Tokeniser, passages: Iterable[PassageText]) -> None:
        """Tokenise those passages that have no vector yet."""
        missing = {passage.key: passage.text for passage in passages if passage.key not in self._vectors}
        if missing:
            tokens = tokeniser.tokenise(list(missing.values()))
            self._waiting = list(missing), tokens
            self._counts.update(zip(missing, tokens.counts, strict=True))

    def embed(self, encoder: Encoder, stopped: Callable[[], bool] = lambda: False) -> Tokens | None:
        """Embed what was tokenised, and return it; None where all was known. Raises InterruptedError once `stopped` says so."""
        if self._waiting is None:
            return None
        keys, tokens = self._waiting
        self._vectors.update(zip(keys, encoder.embed(tokens, stopped), strict=True))
        self._waiting, self._fresh = None, frozenset(keys)
        return tokens

    def vector(self, passage: PassageText) -> Vector:
        """Return the vector of a passage: float32 [dimension]. Raises KeyError where it was not embedded."""
        return self._vectors[passage.key]

    def token_count(self, passage: PassageText) -> int | None:
        """Return how many tokens a passage has, also those that the model does not read; None where that is not known."""
        return self._counts.get(passage.key)

    def is_usable(self, passage: PassageText) -> bool:
        """Whether the vector of a passage can be searched for."""
        return is_usable(self._vectors[passage.key])

    def is_fresh(self, passage: PassageText) -> bool:
        """Whether the vector of a passage was embedded here, not taken over."""
        return passage.key in self._fresh


def is_usable(vector: Vector) -> bool:
    """Whether a vector is finite and not zero: a server would refuse others or, worse, rank them."""
    return bool(np.isfinite(vector).all() and vector.any())
