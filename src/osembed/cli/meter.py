"""Progress: a bar on a terminal, now and then a line elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from osembed.cli.output import safe

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

    def show(self, done: float, text: str) -> None:
        """Show how far it is, from 0 to 1."""
        if self._live:
            self._live.update(self._task, completed=done, description=safe(text))
            return
        now = time.monotonic()
        if now - self._said >= _QUIET_S:
            self._said = now
            left = (now - self._started) * (1 / done - 1) if done else 0
            eta = f", about {left:.0f} s left" if left else ""
            click.echo(f"{done:4.0%} {safe(text)}{eta}", err=True)
