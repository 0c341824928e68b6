"""Forwards on a CPU: several batches at once, each on one core.

One batch on all cores waits at the end of every operation for the slowest of them, and all the more when another process, such as the node,
takes a part of one. Measured on two cores: 1.2 times the speed alone, 1.4 times beside a neighbour that takes a third of a core. A batch that
is alone, such as a query, is bound by reading the weights. Where they are large, several cores read them faster: it gets them all, in one
thread for all callers, since each thread that calls torch keeps helpers of its own. Where they fit a cache, waiting for each other costs more:
a query of all-MiniLM-L6-v2 takes 4.5 ms on one core, 7.6 ms on two (7.8 and 6.9 ms with cold caches).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import torch

_GENTLE = 10  # on the scale of `nice`, on which 19 is the lowest priority
_pools: dict[tuple[int, bool, bool], ThreadPoolExecutor] = {}
_guard = threading.Lock()
_gentle = 0  # works that asked for it and are not done


def worker_threads(*, together: bool = False) -> ThreadPoolExecutor:
    """Return this process's threads for forwards: as many as torch may use, each on one core; or one on all of them `together`."""
    most = torch.get_num_threads()
    with _guard:
        gentle = _gentle > 0
        size = max(1, most - 1) if gentle else most
        key = (size, together, gentle)
        if key not in _pools:
            cores, name = (size, "osembed-query") if together else (1, "osembed-forward")
            _pools[key] = ThreadPoolExecutor(1 if together else size, name, _begin, (cores, most, gentle))
        return _pools[key]


@contextmanager
def lower_priority() -> Iterator[None]:
    """Compute with one thread less, and with threads of a low priority, until the block ends; other threads keep theirs."""
    global _gentle
    with _guard:
        _gentle += 1
    try:
        yield
    finally:
        with _guard:
            _gentle -= 1


def _begin(cores: int, others: int, gentle: bool) -> None:
    """Let this thread use so many cores. The setting is at the same time what later threads start with, which another thread puts right."""
    if gentle:
        with suppress(OSError, AttributeError):  # on Linux a thread has a priority of its own, which can be lowered but not raised again
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + _GENTLE))
    torch.get_num_threads()  # torch's first look sets a thread to what threads start with: it must not come later
    torch.set_num_threads(cores)
    restorer = threading.Thread(target=torch.set_num_threads, args=(others,))
    restorer.start()
    restorer.join()
