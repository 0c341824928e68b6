"""Progress on stderr: a bar on a terminal, nothing elsewhere; lines or JSON events on request."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import orjson

from osembed.cli.output import print_error, safe_text

if TYPE_CHECKING:
    from osembed.migrate.progress import Progress

_EVERY_S = {"lines": 15.0, "json": 1.0}
_RECENT_S = 60.0  # forecasts use this window only: a resumed run first skips finished work much faster than it can continue
_FIRST_S = 5.0  # an earlier forecast would be a guess


class Forecast:
    """Estimates the remaining time from the speed in the last minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def left_s(self, done: float, now: float) -> float | None:
        """Return the remaining seconds, or None if it is too early to tell.

        Args:
            done: share of the work that is done, from 0 to 1.
            now: seconds on any clock.
        """
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _RECENT_S:
            self._seen.popleft()
        began, before = self._seen[0]
        if now - began < _FIRST_S or done <= before:
            return None
        return (1 - done) * (now - began) / (done - before)


class Meter:
    """Shows the share of work that is done, with a line of text.

    Args:
        label: shown until the first call of `show`.
        kind: auto (a bar on a terminal, else nothing), lines, json, or off.
    """

    def __init__(self, label: str, kind: str = "auto") -> None:
        self._label, self._kind = label, kind
        self._forecast = Forecast()
        self._said = time.monotonic()
        self._live: Any = None
        self._task: Any = None

    def __enter__(self) -> Meter:
        self._forecast.left_s(0.0, time.monotonic())  # so that the first report after a long window can already give a forecast
        if self._kind == "auto" and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (BarColumn(), TextColumn("{task.description}", markup=False))
            self._live = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._live.add_task(self._label, total=None)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, done: float | None, text: str, facts: dict[str, Any] | None = None, left_s: float | None = None) -> None:
        """Show the progress.

        Args:
            done: from 0 to 1; None if the total is unknown.
            text: the progress for people.
            facts: the same for programs (`--progress json`).
            left_s: remaining seconds, if the caller knows better than a forecast from the time so far.
        """
        now = time.monotonic()
        if left_s is None and done is not None:
            left_s = self._forecast.left_s(done, now)
        if self._live:
            self._live.update(self._task, total=None if done is None else 1.0, completed=done or 0.0, description=_line(done, text, left_s))
        elif now - self._said >= _EVERY_S.get(self._kind, float("inf")):
            self._said = now
            if self._kind == "json":
                event = {"event": "progress", "done": done, "left_s": left_s, **(facts or {})}
                print_error(orjson.dumps(event).decode())
            else:
                print_error(_line(done, text, left_s))

    def show_progress(self, progress: Progress) -> None:
        """Show the progress of a migration or a verification."""
        done = min(1.0, progress.done / progress.total) if progress.total else None
        behind = "" if progress.converging else f" · not converging, {progress.lag:,} behind"
        text = f"{progress.phase} · {progress.done:,} of {progress.total:,} documents · {progress.rate:,.0f}/s{behind}"
        facts = {"phase": progress.phase, "documents": progress.done, "total": progress.total, "per_s": progress.rate}
        self.show(done, text, {**facts, "converging": progress.converging}, progress.eta_s)


def _line(done: float | None, text: str, left_s: float | None) -> str:
    share = "" if done is None else f"{done:4.0%} "
    return f"{share}{safe_text(text)}{'' if left_s is None else f' · about {_span(left_s)} left'}"


def _span(seconds: float) -> str:
    """Return a duration in seconds, minutes, or hours and minutes."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
