"""Retries: how long to wait for a server that is unavailable or answers in part.

There are two settings: OSEMBED_RETRY_SECONDS for a single read (such as a search that a person waits for), and OSEMBED_PATIENCE_SECONDS for
long work that cannot continue without the server (ingest, migration, verification).
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
_TOLD_AT = 3  # report a wait after so many tries, or
_TOLD_S = 1.0  # after so many seconds; shorter waits are not worth a message


def retry_seconds() -> float:
    """Return for how many seconds a single read is retried. Raises InputError if the variable is not a number."""
    return _seconds("OSEMBED_RETRY_SECONDS", _RETRY_S)


def patience_seconds() -> float:
    """Return for how many seconds long work waits for an unavailable server. Raises InputError if the variable is not a number."""
    return _seconds("OSEMBED_PATIENCE_SECONDS", _PATIENCE_S)


def retry_read(send: Callable[[], T], limit_s: float | None = None) -> T:
    """Send a read until its response is complete, for at most `limit_s` seconds (default: `retry_seconds`). Returns the response.

    A refusal is retried once, because a node that does not know a new role yet may refuse what the next node allows.
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
    """Run an attempt repeatedly while the server is unavailable, short of resources, or answers in part. Returns its result.

    Refusals and definite responses are raised immediately.

    Args:
        attempt: the work; may run several times.
        stopped: called between attempts; may raise to end the waiting.
        report: called with what is waited for, and again when that changes.
        progress: returns a value that changes when a failed attempt has made progress; the waiting time then starts again.
        only: the errors to wait for.

    Raises LastingError if there is no success and no progress for `patience_seconds`.
    """
    began, pause, tries, limit, seen, told = 0.0, 0.1, 0, patience_seconds(), progress(), ""
    while True:
        try:
            return attempt()
        except only as error:
            if not _may_settle(error):
                raise
            trouble = error
        if not tries or progress() != seen:  # measured from the first failure: an attempt may work for hours before it fails
            began, pause, tries, seen = time.monotonic(), 0.1, 0, progress()
        waited = time.monotonic() - began
        if waited > limit:
            raise lasting_error(f"The server did not recover within {waited:.0f} s", trouble) from trouble
        tries += 1
        if (tries >= _TOLD_AT or waited >= _TOLD_S) and trouble.found != told:
            told = trouble.found
            report(f"Waiting for the server, up to {limit:.0f} s: {told}")
        stopped()
        time.sleep(pause)
        pause = min(2.0, pause * 2)


def lasting_error(found: str, trouble: ClusterError) -> LastingError:
    """Return the error that ends a wait: what lasted for how long, the underlying problem, and what to do about it."""
    return LastingError(
        f"{found}: {trouble.found}",
        "Acknowledged writes are kept.",
        trouble.hint or "Check the server (`osembed doctor`), then run the same command again: it continues where it stopped.",
    )


def _may_settle(error: ClusterError) -> bool:
    """Return whether an attempt may succeed later after this error. Refusals and definite responses are final."""
    if isinstance(error, AuthError | LastingError):
        return False
    if isinstance(error, BlockedError):
        return error.status == 429  # a full disk: the server lifts this block itself
    return not isinstance(error, RefusedError) or error.status >= 500 or error.status == 429


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise InputError(f"{name} is '{text}'.", "It is the number of seconds to wait.", f"Set it to a number, such as {default:g}.")
    return seconds
