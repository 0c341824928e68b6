"""Run a stage of a stream in a thread of its own, with a bounded queue between it and the next."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def staged(source: Iterable[T], depth: int = 1) -> Generator[T, None, None]:
    """Yield what `source` yields, produced ahead in a thread; at most `depth` items wait.

    An error in the source is raised here. Closing this generator ends the thread after the item it is working on.
    """
    waiting: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    closing = threading.Event()

    def offer(item: tuple[T | None, BaseException | None]) -> bool:
        while not closing.is_set():
            try:
                waiting.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        iterator: Iterator[T] = iter(source)
        try:
            for item in iterator:
                if not offer((item, None)):
                    break
            else:
                offer((None, StopIteration()))
        except BaseException as error:  # raised again in the consumer's thread
            offer((None, error))
        finally:
            close = getattr(iterator, "close", None)
            if close:
                close()

    thread = threading.Thread(target=produce, daemon=True, name="osembed-stage")
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc] # an item without error is a T
    finally:
        closing.set()
        thread.join()
