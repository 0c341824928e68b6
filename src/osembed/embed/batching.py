"""Batch the queries of many threads: queries that arrive during a forward pass wait and share the next one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_MOST = 64  # queries per forward pass; more would delay the first ones without a gain


@dataclass(eq=False)
class _Asked:
    """One waiting query.

    Attributes:
        called: set when the query has a result, or when its thread must run the next forward pass.
        vector, error: the result.
    """

    text: str
    called: threading.Event = field(default_factory=threading.Event)
    vector: NDArray[np.float32] | None = None
    error: Exception | None = None


class QueryBatcher:
    """Merges concurrent calls for one vector each into few calls for many. A call without concurrent ones does not wait.

    A thread that arrives while nothing runs becomes the leader. It embeds all waiting queries, including its own, and then makes the first
    thread that arrived in the meantime the next leader.
    """

    def __init__(self, embed: Callable[[Sequence[str]], NDArray[np.float32]]) -> None:
        self._embed = embed
        self._guard = threading.Lock()
        self._waiting: list[_Asked] = []
        self._led = False

    def vector(self, text: str) -> NDArray[np.float32]:
        """Return the vector of one text: float32 [dimension]. Raises the error of the forward pass that it was part of."""
        asked = _Asked(text)
        with self._guard:
            self._waiting.append(asked)
            leads, self._led = not self._led, True
        if not leads:
            try:
                asked.called.wait()
            except BaseException:
                self._leave(asked)
                raise
        if asked.vector is None and asked.error is None:
            self._lead()
        if asked.vector is None:
            assert asked.error is not None
            raise asked.error
        return asked.vector

    def _lead(self) -> None:
        """Embed the first waiting queries, including this thread's, then pass on the lead."""
        with self._guard:
            batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
        try:
            for asked, vector in zip(batch, self._embed([asked.text for asked in batch]), strict=True):
                asked.vector = vector
        except Exception as error:  # every waiting thread raises it
            for asked in batch:
                asked.error = error
        except BaseException:  # this thread is interrupted, but the queries of the others must still be embedded
            with self._guard:
                self._waiting = batch[1:] + self._waiting
            batch = []
            raise
        finally:
            for asked in batch:
                asked.called.set()
            self._hand_on()

    def _leave(self, asked: _Asked) -> None:
        """Withdraw the query of an interrupted thread. If it was called to lead, pass on the lead."""
        with self._guard:
            waits = asked in self._waiting
            if waits:
                self._waiting.remove(asked)
        if waits and asked.called.is_set():
            self._hand_on()

    def _hand_on(self) -> None:
        """Make the first waiting thread the leader."""
        with self._guard:
            self._led = bool(self._waiting)
            for asked in self._waiting[:1]:
                asked.called.set()
