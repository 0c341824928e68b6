"""Heartbeats: entries of processes in the journal, and a thread that keeps this process's entry fresh.

Clocks of different machines are never compared. An observer watches an entry's beat on its own monotonic clock: an entry that does not
change for long enough is dead. A process on the observer's own machine that no longer runs is dead immediately.
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
    """Calls `beat` every two seconds in its own thread until it is closed.

    Attributes:
        lost: set when a beat returned False, because another process has replaced the entry.
    """

    def __init__(self, beat: Callable[[], bool]) -> None:
        self._beat, self._closing, self.lost = beat, threading.Event(), threading.Event()
        self._confirmed = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True, name="osembed-heartbeat")
        self._thread.start()

    @property
    def silent_s(self) -> float:
        """Seconds since the server last confirmed a beat, including time for which the process was paused."""
        return time.monotonic() - self._confirmed

    def confirm(self, sent: float) -> None:
        """Note that a request sent at this time (monotonic seconds) found the entry to be this process's own."""
        self._confirmed = max(self._confirmed, sent)

    def close(self) -> None:
        """End the thread. Waits for a beat in progress."""
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
                continue  # the server is unavailable; the work itself will report it


def new_entry() -> dict[str, Any]:
    """Return an entry for this process: its beat (from 0), host, process id and start time."""
    return {"beat": 0, "host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}


def is_surely_dead(entry: Mapping[str, Any]) -> bool:
    """Return whether an entry's process ran on this machine and no longer runs."""
    if entry.get("host") != socket.gethostname():
        return False
    try:
        process = psutil.Process(entry["pid"])
        return bool(abs(process.create_time() - entry["started"]) > 1) or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
