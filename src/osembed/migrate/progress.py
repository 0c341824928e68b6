"""Progress of long work: documents done and in total, rate, remaining time."""

from __future__ import annotations

import time
from dataclasses import dataclass

_FIRST_SHARE = 0.01  # with less done, an estimate would be a guess


@dataclass
class Progress:
    """Where a running migration or verification is.

    Attributes:
        phase: what is being done.
        done, total: documents, and how many there are in all.
        rate: documents per second.
        eta_s: seconds that are left; None while that is not known.
        lag: changed documents that were left after the last pass.
        converging: False where writes come faster than they can be copied.
    """

    phase: str
    done: int = 0
    total: int = 0
    rate: float = 0.0
    eta_s: float | None = None
    lag: int = 0
    converging: bool = True

    def advance(self, count: int, began: float) -> None:
        """Count documents as done, and update rate and remaining time.

        Args:
            count: number of further documents.
            began: start of the phase on the monotonic clock.
        """
        self.done += count
        self.total = max(self.total, self.done)
        self.rate = self.done / max(time.monotonic() - began, 1e-6)
        told = self.total and self.rate and self.done / self.total >= _FIRST_SHARE
        self.eta_s = (self.total - self.done) / self.rate if told else None
