"""Who is alive: entries of processes in the journal, and the heart that keeps one fresh.

No clock is ever compared between machines. An observer watches an entry's beat on its own monotonic clock: what has not moved for long
enough is dead, and a process of this very machine that no longer runs is dead at once.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import psutil

from osembed.errors import OsembedError

BEAT_S = 2.0


class Heart:
    """Calls `beat` every two seconds in a thread of its own until it is closed.

    Attributes:
        lost: set when a beat returned False: somebody else has taken the entry's place.
    """

    def __init__(self, beat: Callable[[], bool]) -> None:
        self._beat, self._closing, self.lost = beat, threading.Event(), threading.Event()
        self._confirmed = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True, name="osembed-heartbeat")
        self._thread.start()

    @property
    def silent_s(self) -> float:
        """Seconds since a beat was last confirmed by the server; time that the process was stopped counts."""
        return time.monotonic() - self._confirmed

    def confirm(self, sent: float) -> None:
        """Note that a request sent at this time found the entry to be still this process's own."""
        self._confirmed = max(self._confirmed, sent)

    def close(self) -> None:
        """End the thread; waits for a beat that is under way."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(BEAT_S):
            sent = time.monotonic()
            try:
                if not self._beat():
                    self.lost.set()
                    return
                self.confirm(sent)
            except OsembedError:
                continue  # the server is away; the work itself will say so


def new_entry() -> dict[str, Any]:
    """Return an entry for this process, whose beat starts at 0."""
    return {"beat": 0, "host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}


def is_surely_dead(entry: Mapping[str, Any]) -> bool:
    """Whether an entry's process belonged to this machine and no longer runs."""
    if entry.get("host") != socket.gethostname():
        return False
    try:
        process = psutil.Process(entry["pid"])
        return bool(abs(process.create_time() - entry["started"]) > 1) or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
