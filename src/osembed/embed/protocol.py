"""What turns texts into vectors, whatever runs the model. Loads no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from osembed.embed.batching import QueryBatcher
from osembed.models.spec import Model
from osembed.passages.tokens import Tokeniser, Tokens
from osembed.stream import staged

Vectors = NDArray[np.float32]
_PIECE = 8192  # texts that are tokenised at once, ahead of the forward


class Encoder(Protocol):
    """A loaded model. Thread-safe."""

    model: Model
    tokeniser: Tokeniser

    @property
    def backend(self) -> str:
        """The backend in words, as provenance and messages name it."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Tokenise and embed texts: float32 [texts, dimension]."""

    def encode_query(self, query: str) -> Vectors:
        """Embed a query, with its prompt: float32 [dimension]."""

    def embed(self, tokens: Tokens, stopped: Callable[[], bool] = ...) -> Vectors:
        """Embed tokenised texts: float32 [texts, dimension], in their order, normalised where the model says so.

        Raises InterruptedError between two batches once `stopped` says so.
        """


class LocalEncoder(ABC):
    """What the encoders of this machine have in common: a tokeniser, and queries of many threads that share forwards."""

    def __init__(self, model: Model, device: str, precision: str) -> None:
        self.model, self.device, self.precision = model, device, precision
        self.tokeniser, self._batcher = Tokeniser(model), QueryBatcher(self.encode)

    @property
    @abstractmethod
    def backend(self) -> str:
        """The backend in words, as provenance and messages name it."""

    @abstractmethod
    def embed(self, tokens: Tokens, stopped: Callable[[], bool] = lambda: False) -> Vectors:
        """Embed tokenised texts, as `Encoder.embed` says."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Tokenise and embed texts: float32 [texts, dimension]. Long lists are tokenised ahead of the forward."""
        if len(texts) <= _PIECE:
            return self.embed(self.tokeniser.tokenise(texts))
        pieces = (texts[start : start + _PIECE] for start in range(0, len(texts), _PIECE))
        return np.concatenate([self.embed(tokens) for tokens in staged(map(self.tokeniser.tokenise, pieces))])

    def encode_query(self, query: str) -> Vectors:
        """Embed a query: float32 [dimension]. Concurrent calls share forwards."""
        return self._batcher.vector(self.model.spec.query(query))
