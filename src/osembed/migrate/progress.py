"""Where long work is: how many documents of how many, how fast, how long it will take."""

from __future__ import annotations

import time
from dataclasses import dataclass

_FIRST_SHARE = 0.01  # before so much is done a forecast would be a guess


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
        """Take in documents that are done.

        Args:
            count: how many more.
            began: when the phase began, on the monotonic clock.
        """
        self.done += count
        self.total = max(self.total, self.done)
        self.rate = self.done / max(time.monotonic() - began, 1e-6)
        told = self.total and self.rate and self.done / self.total >= _FIRST_SHARE
        self.eta_s = (self.total - self.done) / self.rate if told else None
