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
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import torch

_GENTLE_NICE = 10
_crews: dict[tuple[int, bool], ThreadPoolExecutor] = {}
_guard = threading.Lock()


def worker_threads(*, together: bool = False) -> ThreadPoolExecutor:
    """Return this process's threads for forwards: as many as torch may use, each on one core; or one on all of them `together`."""
    size = torch.get_num_threads()
    key = (size, together)
    with _guard:
        if key not in _crews:
            _crews[key] = (
                ThreadPoolExecutor(1, "osembed-query") if together else ThreadPoolExecutor(size, "osembed-forward", _be_alone, (size,))
            )
        return _crews[key]


def be_gentle() -> None:
    """Give this process one thread less and a low priority; threads that exist keep theirs."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(os.getpriority(os.PRIO_PROCESS, 0), _GENTLE_NICE))
    be_fewer()


def be_fewer() -> None:
    """Let torch use one thread less, and start anew with threads of the urgency that the process has now."""
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))
    with _guard:
        _crews.clear()  # their threads end when what they work on is done


def _be_alone(others: int) -> None:
    """Let this thread use no other. The setting is at the same time what later threads start with, which another thread puts right."""
    torch.get_num_threads()  # torch's first look sets a thread to what threads start with: it must not come later
    torch.set_num_threads(1)
    restorer = threading.Thread(target=torch.set_num_threads, args=(others,))
    restorer.start()
    restorer.join()
