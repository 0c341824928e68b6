"""Progress: a bar on a terminal, now and then a line elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from osembed.cli.output import complain, safe

if TYPE_CHECKING:
    from osembed.migrate.progress import Progress

_QUIET_S = 15  # between lines where stderr is no terminal


class Meter:
    """Shows a share of the work that is done, and what is said about it."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._started = self._said = time.monotonic()
        self._live: Any = None
        self._task: Any = None

    def __enter__(self) -> Meter:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                BarColumn(),
                TextColumn("{task.percentage:3.0f}%"),
                TextColumn("{task.description}", markup=False),
                TimeRemainingColumn(),
            )
            self._live = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._live.add_task(self._label, total=1.0)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, done: float, text: str, left_s: float | None = None) -> None:
        """Show how far it is, from 0 to 1, and how long it will take: as is known, else by the time so far."""
        if self._live:
            self._live.update(self._task, completed=done, description=safe(text))
            return
        now = time.monotonic()
        if now - self._said >= _QUIET_S:
            self._said = now
            left = left_s if left_s is not None else (now - self._started) * (1 / done - 1) if done else 0
            eta = f", about {left:.0f} s left" if left else ""
            complain(f"{done:4.0%} {safe(text)}{eta}")

    def show_progress(self, progress: Progress) -> None:
        """Show where a migration or a verification is."""
        done = progress.done / progress.total if progress.total else 0.0
        behind = "" if progress.converging else f" · not converging, {progress.lag:,} behind"
        text = f"{progress.phase} · {progress.done:,} of {progress.total:,} documents · {progress.rate:,.0f}/s{behind}"
        self.show(min(1.0, done), text, progress.eta_s)
