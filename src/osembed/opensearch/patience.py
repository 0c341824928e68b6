"""How long an answer that proves nothing is asked for again.

Two settings: OSEMBED_RETRY_SECONDS for a single read (a search that a person waits for), OSEMBED_PATIENCE_SECONDS for long work that
can only go on with the answer (ingest, migration, verification).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

from osembed.errors import AuthError, BlockedError, ClusterError, InputError, LastingError, RefusedError, UnavailableError, UnsettledError

T = TypeVar("T")
Report = Callable[[str], None]
_RETRY_S = 20.0
_PATIENCE_S = 600.0
_TOLD_AT = 3  # tries, or
_TOLD_S = 1.0  # seconds: what is over in a moment is not worth a word


def retry_seconds() -> float:
    """Return how long a single read is repeated."""
    return _seconds("OSEMBED_RETRY_SECONDS", _RETRY_S)


def patience_seconds() -> float:
    """Return how long work waits for a server that is away or takes nothing."""
    return _seconds("OSEMBED_PATIENCE_SECONDS", _PATIENCE_S)


def retry_read(send: Callable[[], T], limit_s: float | None = None) -> T:
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
        except LastingError:
            raise
        except (UnsettledError, UnavailableError):
            if time.monotonic() - began >= limit:
                raise
        time.sleep(pause)
        pause = min(2.0, pause * 2)


def until_settled(
    attempt: Callable[[], T],
    stopped: Callable[[], None] = lambda: None,
    *,
    report: Report = lambda _: None,
    progress: Callable[[], object] = lambda: None,
    only: type[ClusterError] = ClusterError,
) -> T:
    """Run an attempt again while the server is away, short of something, or answers in part.

    Refusals and answers that say what is end it at once.

    Args:
        attempt: may run several times.
        stopped: called in between; may raise to end the waiting.
        report: told what is being waited for, and told again when that changes.
        progress: what it returns changes when an attempt that failed has brought the work forward: then the wait begins anew.
        only: the errors that are waited for.

    Raises LastingError when nothing came of it for too long.
    """
    began, pause, tries, limit, seen, told = 0.0, 0.1, 0, patience_seconds(), progress(), ""
    while True:
        try:
            return attempt()
        except only as error:
            if not _may_settle(error):
                raise
            trouble = error
        if not tries or progress() != seen:  # counted from the first failure: an attempt may have worked well for hours before
            began, pause, tries, seen = time.monotonic(), 0.1, 0, progress()
        waited = time.monotonic() - began
        if waited > limit:
            raise lasting_error(f"The server does not settle for {waited:.0f} s", trouble) from trouble
        tries += 1
        if (tries >= _TOLD_AT or waited >= _TOLD_S) and trouble.found != told:
            told = trouble.found
            report(f"Waiting for the server, up to {limit:.0f} s: {told}")
        stopped()
        time.sleep(pause)
        pause = min(2.0, pause * 2)


def lasting_error(found: str, trouble: ClusterError) -> LastingError:
    """Return the error that ends a wait: what has lasted and for how long, what the trouble is, and what to do about it."""
    return LastingError(
        f"{found}: {trouble.found}",
        "What was acknowledged is kept.",
        trouble.hint or "See to the server (`osembed doctor`), then run the same command again: it goes on where it stopped.",
    )


def _may_settle(error: ClusterError) -> bool:
    """Whether an error may be gone at the next try: not a refusal, not what says for good how things are."""
    if isinstance(error, AuthError | LastingError):
        return False
    if isinstance(error, BlockedError):
        return error.status == 429  # a full disk: the server lifts that block by itself
    return not isinstance(error, RefusedError) or error.status >= 500 or error.status == 429


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise InputError(f"{name} is '{text}'.", "It says for how many seconds to wait.", f"Set it to a number, such as {default:g}.")
    return seconds
