"""How long an answer that proves nothing is asked for again.

Two settings: OSEMBED_RETRY_SECONDS for a single read (a search that a person waits for), OSEMBED_PATIENCE_SECONDS for long work that
can only go on with the answer (ingest, migration, verification).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

from osembed.errors import AuthError, ClusterError, InputError, RefusedError, UnsettledError

T = TypeVar("T")
_RETRY_S = 20.0
_PATIENCE_S = 600.0


def retry_seconds() -> float:
    """Return how long a single read is repeated."""
    return _seconds("OSEMBED_RETRY_SECONDS", _RETRY_S)


def patience_seconds() -> float:
    """Return how long work waits for a server that is away or takes nothing."""
    return _seconds("OSEMBED_PATIENCE_SECONDS", _PATIENCE_S)


def asked(send: Callable[[], T], limit_s: float | None = None) -> T:
    """Send a read again until its answer is whole, for as long as a single read may take; a refusal is asked once more, then believed.

    A node that has not yet learnt of a role may refuse what the next one allows; a permission that is really missing costs a moment.
    """
    began, pause, refused, limit = time.monotonic(), 0.05, False, retry_seconds() if limit_s is None else limit_s
    while True:
        try:
            return send()
        except AuthError:
            if refused:
                raise
            refused = True
        except UnsettledError:
            if time.monotonic() - began >= limit:
                raise
        time.sleep(pause)
        pause = min(2.0, pause * 2)


def settled(attempt: Callable[[], T], stopped: Callable[[], None] = lambda: None, moved: Callable[[], object] = lambda: None) -> T:
    """Run an attempt again while the server is away or answers in part.

    Args:
        attempt: goes on where it stopped.
        stopped: called in between; may raise.
        moved: says how far it has come. Patience counts from the first trouble at the present place, not from the beginning of long work.

    Refusals and answers that say what is end it at once. Raises UnsettledError when nothing came of it for too long.
    """
    since, place, pause = 0.0, None, 0.1
    while True:
        try:
            return attempt()
        except AuthError:
            raise
        except RefusedError as error:
            if error.status < 500 and error.status != 429:
                raise
            trouble: ClusterError = error
        except ClusterError as error:
            trouble = error
        now = time.monotonic()
        if not since or moved() != place:
            since, place, pause = now, moved(), 0.1
        if now - since > patience_seconds():
            raise UnsettledError(
                f"The server does not settle: {trouble.found}",
                "Going on would miss documents.",
                trouble.hint or "See to the server (`osembed doctor`), then run the same command again: it goes on where it stopped.",
            ) from trouble
        stopped()
        time.sleep(pause)
        pause = min(2.0, pause * 2)


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise InputError(f"{name} is '{text}'.", "It says for how many seconds to wait.", f"Set it to a number, such as {default:g}.")
    return seconds
