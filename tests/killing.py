"""End or hold a real osembed process at one of its requests, by a proxy between it and the real node."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from tests.forking import Command
from tests.proxy import Fault, FaultProxy


def spawn(*arguments: str, stderr: int = subprocess.DEVNULL) -> subprocess.Popen:
    """Start the osembed command in a process of its own."""
    return Command(*arguments, stdout=subprocess.DEVNULL, stderr=stderr)


def kill_at(number: int, fault: str, url: str, arguments: Callable[[str], list[str]]) -> tuple[int, bool]:
    """Run a command in a process that is killed -9 at request `number`; return how many requests were seen and whether the fault fired.

    Args:
        fault: the process dies "before" the request reaches the server, once it is "applied" but unanswered, or soon after it was "answered".
        arguments: makes the command's arguments from the address to use.
    """
    with FaultProxy(url) as proxy:
        process: list[subprocess.Popen] = []

        def rule(request):
            if request.number != number:
                return None
            end = process[0].kill
            if fault == "before":
                return Fault("lost", before=end)
            if fault == "applied":
                return Fault("unanswered", after=end)
            threading.Timer(0.02, end).start()
            return Fault("pass")

        proxy.rules.append(rule)
        process.append(spawn(*arguments(proxy.url)))
        process[0].wait(120)
        if proxy.fired and fault != "answered":
            assert process[0].returncode == -9
        return len(proxy.seen), bool(proxy.fired)


def sample(total: int, count: int) -> list[int]:
    """A rotating sample of request numbers: all of them in a few days of runs."""
    day = int(time.time() // 86400)
    return sorted({(day * 11 + step * max(total // count, 1)) % total + 1 for step in range(count)})


class Held:
    """A process stopped (SIGSTOP) while one of its requests is on its way; `wake` lets both go on."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process
        self._stopped, self._go = threading.Event(), threading.Event()

    def stop(self) -> None:
        """Stop the process, and keep its request from the server until `wake`."""
        self._process.send_signal(signal.SIGSTOP)
        self._stopped.set()
        self._go.wait(120)

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def wait(self) -> None:
        """Return once the process is stopped."""
        assert self._stopped.wait(60)

    def wake(self) -> int:
        """Let the request and the process go on; return how the process ended."""
        self._go.set()
        self._process.send_signal(signal.SIGCONT)
        return self._process.wait(60)


def before_first(monkeypatch: pytest.MonkeyPatch, where: object, function: str, strike: Callable[[], object]) -> None:
    """Let something happen just before a function's first call."""
    genuine, struck = getattr(where, function), threading.Event()

    def wrapped(*given: object, **named: object) -> object:
        if not struck.is_set():
            struck.set()
            strike()
        return genuine(*given, **named)

    monkeypatch.setattr(where, function, wrapped)
