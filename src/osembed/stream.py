"""Run a stage of a stream in its own thread, with a bounded queue between it and the next stage."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()


def staged(source: Iterable[T], depth: int = 1) -> Generator[T, None, None]:
    """Yield the items of `source`, which runs ahead in a thread. At most `depth` items wait in the queue.

    An error in the source is raised here. Closing this generator ends the thread after its current item.
    """
    stage = _Stage(source, depth)
    try:
        while True:
            item = stage.waiting.get()
            if item is _END:
                return
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        stage.close()


class _Failure:
    """An error on its way to the consumer's thread."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Stage:
    def __init__(self, source: Iterable[Any], depth: int) -> None:
        self.waiting: queue.Queue[Any] = queue.Queue(depth)
        self._source, self._closing = source, threading.Event()
        self._thread = threading.Thread(target=self._produce, daemon=True, name="osembed-stage")
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread is not threading.current_thread():  # garbage collection may close a generator in any thread
            self._thread.join()

    def _produce(self) -> None:
        iterator = iter(self._source)
        try:
            for item in iterator:
                if not self._offer(item):
                    return
            self._offer(_END)
        except BaseException as error:  # raised again in the consumer's thread
            self._offer(_Failure(error))
        finally:
            close = getattr(iterator, "close", None)
            if close:
                close()

    def _offer(self, item: object) -> bool:
        while not self._closing.is_set():
            try:
                self.waiting.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
