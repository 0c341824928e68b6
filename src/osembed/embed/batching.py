"""Queries of many threads, embedded together: while one forward runs, those that arrive wait, and share the next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_MOST = 64  # queries per forward: more of them would make the first wait without gain


@dataclass(eq=False)
class _Asked:
    """One query.

    Attributes:
        called: set when the query is settled, or when its thread is to run the next forward.
        vector, error: how it was settled.
    """

    text: str
    called: threading.Event = field(default_factory=threading.Event)
    vector: NDArray[np.float32] | None = None
    error: Exception | None = None


class QueryBatcher:
    """Turns concurrent calls for one vector each into few calls for many. A call that meets no other waits for nobody.

    Whoever comes while nothing runs leads: it embeds what waits, itself included, and hands the lead to the first of those that came meanwhile.
    """

    def __init__(self, embed: Callable[[Sequence[str]], NDArray[np.float32]]) -> None:
        self._embed = embed
        self._guard = threading.Lock()
        self._waiting: list[_Asked] = []
        self._led = False

    def vector(self, text: str) -> NDArray[np.float32]:
        """Return the vector of one text: float32 [dimension]. Raises what the forward that it was part of raised."""
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
        """Embed the first of those who wait, of whom this thread is one, and call the next to lead."""
        with self._guard:
            batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
        try:
            for asked, vector in zip(batch, self._embed([asked.text for asked in batch]), strict=True):
                asked.vector = vector
        except Exception as error:  # each of the waiting threads raises it
            for asked in batch:
                asked.error = error
        except BaseException:  # this thread is interrupted, and the others' queries are still to be embedded
            with self._guard:
                self._waiting = batch[1:] + self._waiting
            batch = []
            raise
        finally:
            for asked in batch:
                asked.called.set()
            self._hand_on()

    def _leave(self, asked: _Asked) -> None:
        """Go without a vector, as this thread is interrupted; the lead must not be lost with it."""
        with self._guard:
            waits = asked in self._waiting
            if waits:
                self._waiting.remove(asked)
        if waits and asked.called.is_set():
            self._hand_on()

    def _hand_on(self) -> None:
        """Call the first of those who wait to lead."""
        with self._guard:
            self._led = bool(self._waiting)
            for asked in self._waiting[:1]:
                asked.called.set()
