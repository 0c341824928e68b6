"""Error answers in osembed's words: which permission lacks on which index, what the server is short of. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from osembed.errors import AuthError, BlockedError, ClusterError, ConflictError, MissingError, RefusedError, UnsettledError

_ACTIONS = re.compile(r"no permissions for \[((?:[^\[\]]|\[[^\]]*\])*)\]")  # actions have brackets of their own: …/bulk[s]
_USER = re.compile(r"User \[name=([^,\]]+)")
_LONGEST = 400
_AWAY = (429, 502, 503, 504)


def explain(status: int, kind: str, detail: Any, path: str) -> ClusterError:
    """Return the error that stands for an error answer.

    Args:
        status: of the answer.
        kind: OpenSearch's name for it, such as `index_not_found_exception`.
        detail: the answer's body.
        path: of the request; names the index.
    """
    where, text = index_of(path), reason_of(detail) or kind
    if "cluster_block" in kind or ("cluster_block" in str(detail)[:2000] and status in (403, 429)):
        return _blocked(status, kind, detail, where, text)
    if status == 403:
        return forbidden(text, where)
    if status in _AWAY:
        return _away(status, kind, text, where)
    facts = {"status": status, "kind": kind, "detail": detail}
    if status == 404:
        return MissingError(f"The server does not have it: {text}.", "", "See `osembed doctor`.", **facts)
    if status == 409:
        return ConflictError(f"Somebody else was faster: {text}.", "", "Run the command again.", **facts)
    about = f" about {where}" if where else ""
    return RefusedError(f"The server answered a request{about} with {status}: {text}.", "", "See the server's log.", **facts)


def explain_failure(reason: Any, where: str, found: str, status: int = 0) -> ClusterError:
    """Return the error that stands for one failed part of an answer: a shard, a search of several, a document.

    Args:
        reason: what the server says of the part: {"type", "reason", …}, or a text.
        where: the index.
        found: what failed, in words.
        status: of the part, where it has one.
    """
    kinds, text = _kinds(reason), reason_of({"error": reason})
    if "security_exception" in kinds or (status == 403 and "cluster_block_exception" not in kinds):
        return forbidden(text, where)
    if "index_not_found_exception" in kinds:
        return MissingError(f"{where} is gone: {text}.", status=404, kind="index_not_found_exception", detail=reason)
    if status and status < 500 and status not in _AWAY:
        return explain(status, next(iter(kinds), ""), {"error": reason}, f"/{where}")
    return UnsettledError(f"{found}: {text}." if text else f"{found}.")


def forbidden(text: str, where: str) -> AuthError:
    """Return the refusal of an action that a role lacks, ready to be asked for."""
    found, user = _ACTIONS.search(text), _USER.search(text)
    who = f"user '{user[1]}'" if user else "this user"
    if not found:
        return AuthError(f"The server refuses {who}{_on(where)}: {text}.", "", "Ask for the permission, or use another user (OSEMBED_USER).")
    actions = tuple(part.strip() for part in found[1].split(","))
    error = AuthError(
        f"The server does not allow {who} {', '.join(actions)}{_on(where)}.",
        "Nothing more was sent.",
        "Add it to the user's role (`osembed doctor` lists all that a role needs), then run the same command again.",
    )
    error.actions, error.where = actions, where
    return error


def on_index(refused: AuthError, where: str) -> AuthError:
    """Return a refusal with the indexes that it is about, where the request's path does not name them."""
    error = AuthError(f"{refused.found.removesuffix('.')}{_on(where)}.", refused.why, refused.hint)
    error.actions, error.where = refused.actions, where
    return error


def index_of(path: str) -> str:
    """Return the index that a request path names, "" for none."""
    first = unquote(path.split("?")[0].strip("/").split("/")[0])
    return "" if first.startswith("_") else first


def reason_of(detail: Any) -> str:
    """Return the innermost reason that an error answer gives, in one line; "" where it gives none."""
    cause = detail.get("error", {}) if isinstance(detail, Mapping) else detail
    while isinstance(cause, Mapping) and (cause.get("root_cause") or cause.get("caused_by")):
        inner = cause.get("caused_by") or cause["root_cause"][0]
        if inner == cause or not inner.get("reason"):
            break
        cause = {key: value for key, value in inner.items() if key != "root_cause"}
    text = cause.get("reason") if isinstance(cause, Mapping) else cause
    return re.sub(r"\s+", " ", str(text or ""))[:_LONGEST].rstrip(".")


def _blocked(status: int, kind: str, detail: Any, where: str, text: str) -> BlockedError:
    if "read-only-allow-delete" in text or "read_only_allow_delete" in text or "flood" in text:
        return BlockedError(
            f"{where or 'The index'} takes no writes: the disk of its node is full beyond the flood-stage watermark.",
            "OpenSearch made it read-only. What was acknowledged is kept.",
            "Free disk space or add a node (OpenSearch lifts the block by itself), then run the same command again.",
            status=status,
            kind=kind,
            detail=detail,
        )
    return BlockedError(
        f"{where or 'The index'} is blocked: {text}.",
        "What was acknowledged is kept.",
        "`osembed doctor` says what the block is and what lifts it; then run the same command again.",
        status=status,
        kind=kind,
        detail=detail,
    )


def _away(status: int, kind: str, text: str, where: str) -> ClusterError:
    if "manager_not_discovered" in kind or "master_not_discovered" in kind:
        return ClusterError(
            "The cluster has no elected manager.",
            "Without one it can change nothing.",
            "Start the missing nodes (their logs say why there is no election), then run the same command again.",
        )
    if "circuit_breaking" in kind or "circuit" in text.lower():
        return ClusterError(
            f"The server is short of memory{_on(where)}: {text}.",
            "Its circuit breaker refused the request.",
            "Wait until it is less busy or give its nodes more heap, then run the same command again.",
        )
    return ClusterError(f"The server answers {status}{_on(where)}: {text}.", "It is overloaded or not ready.", "Try again later.")


def _kinds(reason: Any) -> list[str]:
    """Return the types of a failure and of its causes, outermost first."""
    kinds = []
    while isinstance(reason, Mapping):
        kinds.append(str(reason.get("type", "")))
        reason = reason.get("caused_by") or next(iter(reason.get("root_cause") or []), None)
        if len(kinds) > 8:
            break
    return kinds


def _on(where: str) -> str:
    return f" on {where}" if where else ""
