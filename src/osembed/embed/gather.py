"""Queries of many threads, embedded together: while one forward runs, those that arrive wait, and share the next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MOST = 64  # queries per forward: more of them would make the first wait without gain


@dataclass(eq=False)
class _Asked:
    """One waiting query and, once it is settled, its vector or the error that its forward ended with."""

    text: str
    vector: NDArray[np.float32] | None = None
    error: Exception | None = None


class Gatherer:
    """Turns concurrent calls for one vector each into few calls for many. A call that meets no other waits for nobody."""

    def __init__(self, embed: Callable[[Sequence[str]], NDArray[np.float32]]) -> None:
        self._embed = embed
        self._waiting: list[_Asked] = []
        self._guard, self._turn = threading.Lock(), threading.Lock()

    def vector(self, text: str) -> NDArray[np.float32]:
        """Return the vector of one text: float32 [dimension]. Raises what the forward that it was part of raised."""
        asked = _Asked(text)
        with self._guard:
            self._waiting.append(asked)
        with self._turn:  # whoever had the turn before may have embedded this one too
            while asked.vector is None and asked.error is None:
                self._embed_waiting()
        if asked.vector is None:
            assert asked.error is not None
            raise asked.error
        return asked.vector

    def _embed_waiting(self) -> None:
        with self._guard:
            batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
        try:
            vectors = self._embed([asked.text for asked in batch])
        except Exception as error:  # each of the waiting threads raises it
            for asked in batch:
                asked.error = error
            return
        except BaseException:  # this thread is interrupted; the others' queries are still to be embedded
            with self._guard:
                self._waiting = batch + self._waiting
            raise
        for asked, vector in zip(batch, vectors, strict=True):
            asked.vector = vector
