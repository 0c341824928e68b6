"""Translate error responses into osembed's errors: which permission is missing on which index, which resource is short. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from osembed.errors import (
    AuthError,
    BlockedError,
    ClusterError,
    ConflictError,
    MissingError,
    RefusedError,
    UnavailableError,
    UnsettledError,
)

_ACTIONS = re.compile(r"no permissions for \[((?:[^\[\]]|\[[^\]]*\])*)\]")  # action names may contain brackets: …/bulk[s]
_USER = re.compile(r"User \[name=([^,\]]+)")
_LONGEST = 400
BROKEN_QUERY = "class_cast_exception"  # raised by a plugin that does not understand the query
_AWAY = (429, 502, 503, 504)
_NAME = re.compile(r"[a-z_]+")
_FLOOD = ("flood", "read-only-allow-delete", "read_only_allow_delete")
_DISK = ("no space left", "disk usage exceeded", "disk quota exceeded", *_FLOOD)
_BREAKER = ("circuit_breaking", "circuit breaker triggered", "data too large, data for")
_NO_SHARD = (
    "unavailable_shards",
    "no_shard_available",
    "all shards failed",
    "no such shard",
    "shard_not_found",
    "illegal_index_shard_state",
)
_NO_PRIMARY = ("not in primary mode",)
_NO_NODE = ("node_not_connected", "node_disconnected", "node_closed", "connect_transport")
_PASSING = (*_DISK, *_NO_NODE, *_NO_PRIMARY)
_NO_MANAGER = ("no cluster-manager", "no cluster_manager", "no master")
_DISK_WHY = "Acknowledged writes are kept."
_DISK_HINT = (
    "Free disk space on the server or add a node, then run the same command again. OpenSearch lifts its own block within a minute. To recover a "
    "failed shard, run `POST _cluster/reroute?retry_failed=true` or restart its node."
)


def explain_error(status: int, kind: str, detail: Any, path: str) -> ClusterError:
    """Return the error for an error response.

    Args:
        status: the HTTP status.
        kind: OpenSearch's name of the error, such as `index_not_found_exception`.
        detail: the response's body.
        path: the request's path, which names the index.
    """
    kind = kind if _NAME.fullmatch(kind) else ""  # without a name the client passes the whole response instead
    where, text = index_of(path), reason_of(detail) or kind
    failures = (detail.get("_shards") or {}).get("failures") if isinstance(detail, Mapping) else None
    if failures:  # a broadcast such as `_refresh` has no error itself, only its shards have
        named = str(failures[0].get("index") or where)
        return explain_failure(failures[0].get("reason", {}), named, f"{len(failures)} shards of {where} failed")
    if "create_block" in kind:  # set and lifted by the server itself, while the disks of all nodes are too full
        return UnavailableError(f"{where} cannot be created: disk usage is above the high watermark ({text}).", _DISK_WHY, _DISK_HINT)
    if "cluster_block" in kind or ("cluster_block" in str(detail)[:2000] and status in (403, 429)):
        return _blocked(status, kind, detail, where, text)
    if status == 403:
        return forbidden_error(text, where)
    if status in _AWAY or is_shortage(status, f"{kind} {text}"):
        return shortage_error(status, kind, text, where)
    facts = {"status": status, "kind": kind, "detail": detail}
    if status == 404:
        return MissingError(f"The server does not have it: {text}.", "", "See `osembed doctor`.", **facts)
    if status == 409:
        return ConflictError(f"Another process changed it first: {text}.", "", "Run the command again.", **facts)
    about = f" about {where}" if where else ""
    return RefusedError(f"The server answered a request{about} with {status}: {text}.", "", "See the server's log.", **facts)


def explain_failure(reason: Any, where: str, found: str, status: int = 0) -> ClusterError:
    """Return the error for one failed part of a response: a shard, one of several searches, or a document.

    Args:
        reason: the server's reason: {"type", "reason", …}, or a text.
        where: the index.
        found: what failed, in words.
        status: the status of the part; 0 if it has none.
    """
    kinds, text = _kinds(reason), reason_of({"error": reason})
    if "security_exception" in kinds or (status == 403 and "cluster_block_exception" not in kinds):
        return forbidden_error(text, where)
    if "index_not_found_exception" in kinds:
        return MissingError(f"{where} is gone: {text}.", status=404, kind="index_not_found_exception", detail=reason)
    if BROKEN_QUERY in kinds:  # no retry: the same query fails every time
        return RefusedError(f"{found}: {text}.", "", "See the server's log.", status=500, kind=BROKEN_QUERY, detail=reason)
    said = " ".join((*kinds, text)).lower()
    if is_shortage(status, said) or any(word in said for word in _NO_SHARD):
        return shortage_error(status, " ".join(kinds), text, where)
    if status and status < 500 and status not in _AWAY:
        return explain_error(status, next(iter(kinds), ""), {"error": reason}, f"/{where}")
    return UnsettledError(f"{found}: {text}." if text else f"{found}.")


def forbidden_error(text: str, where: str) -> AuthError:
    """Return the error for a refused request, with the missing permissions and the index."""
    found, user = _ACTIONS.search(text), _USER.search(text)
    who = f"user '{user[1]}'" if user else "this user"
    if not found:
        return AuthError(
            f"The server refuses {who}{_on(where)}: {text}.", "", "Ask for the permission, or use another user (OSEMBED_USER)."
        )
    actions = tuple(part.strip() for part in found[1].split(","))
    error = AuthError(
        f"The server does not allow {who} {', '.join(actions)}{_on(where)}.",
        "Nothing more was sent.",
        "Add it to the user's role (`osembed doctor` lists everything that a role needs), then run the same command again.",
    )
    error.actions, error.where = actions, where
    return error


def on_index(refused: AuthError, where: str) -> AuthError:
    """Return a refusal with the affected indexes added, for requests whose path does not name them."""
    error = AuthError(f"{refused.found.removesuffix('.')}{_on(where)}.", refused.why, refused.hint)
    error.actions, error.where = refused.actions, where
    return error


def index_of(path: str) -> str:
    """Return the index in a request path; "" for none."""
    first = unquote(path.split("?")[0].strip("/").split("/")[0])
    return "" if first.startswith("_") else first


def reason_of(detail: Any) -> str:
    """Return the innermost reason in an error response, on one line; "" if there is none."""
    cause = detail.get("error", {}) if isinstance(detail, Mapping) else detail
    while isinstance(cause, Mapping) and (cause.get("root_cause") or cause.get("caused_by")):
        inner = cause.get("caused_by") or cause["root_cause"][0]
        if inner == cause or not inner.get("reason"):
            break
        cause = {key: value for key, value in inner.items() if key != "root_cause"}
    text = cause.get("reason") if isinstance(cause, Mapping) else cause
    if str(text or "").lstrip()[:1] in ("<", "{"):  # a proxy's error page, or another kind of response
        return ""
    return re.sub(r"\s+", " ", str(text or ""))[:_LONGEST].rstrip(".")


def is_shortage(status: int, text: str) -> bool:
    """Return whether an error text, whatever its status, means that disk, memory or a node is lacking, which may be over later.

    A 400 quotes the refused document, and a paper may be about full disks, so for a 400 only the circuit breaker's own sentence counts.
    """
    said = text.lower()
    return any(word in said for word in _BREAKER) or (not 400 <= status < 500 and any(word in said for word in _PASSING))


def shortage_error(status: int, kind: str, text: str, where: str) -> UnavailableError:
    """Return the error for a temporary problem, which says whether disk, memory, the manager, a node or a shard is lacking.

    Args:
        status: the status of the response or of one item.
        kind: OpenSearch's name of the error; "" if it has none.
        text: the server's description.
        where: the index; "" for the cluster.
    """
    said = f"{kind} {text}".lower()
    if any(word in said for word in _DISK):
        beyond = " beyond the flood-stage watermark" if any(word in said for word in _FLOOD) else _told(text)
        return UnavailableError(f"{_full(where)}{beyond}.", _DISK_WHY, _DISK_HINT)
    if "manager_not_discovered" in said or "master_not_discovered" in said or any(word in said for word in _NO_MANAGER):
        return UnavailableError(
            "The cluster has no elected manager.",
            "Without a manager the cluster accepts no changes.",
            "Start the missing nodes and free disk space on the others; their logs say why no manager is elected. Then run the command again.",
        )
    if any(word in said for word in _BREAKER):
        return UnavailableError(
            f"The server is short of memory{_on(where)}: a circuit breaker refused the request{_told(text)}.",
            "The request would need more memory than the server's settings allow.",
            "Wait until the server is less busy, give its nodes more heap, or raise the breaker's limit; then run the same command again.",
        )
    if any(word in said for word in _NO_NODE):
        return UnavailableError(
            f"A node that is needed{_for(where)} is unavailable{_told(text)}.",
            "It was stopped, or the other nodes cannot reach it.",
            "Start the missing nodes, then run the same command again.",
        )
    if any(word in said for word in _NO_PRIMARY):
        return UnavailableError(
            f"A primary shard{_of(where)} accepts no operations{_told(text)}.",
            "After an election, a node may never learn that its copy is now the primary (OpenSearch issue 19150).",
            "If this lasts for minutes, restart the node that holds the shard (`GET _cat/shards` shows it); the command continues.",
        )
    if any(word in said for word in _NO_SHARD):
        return UnavailableError(
            f"A shard{_of(where)} is unavailable{_told(text)}.",
            "Its node is down, or its disk is full.",
            "`GET _cluster/allocation/explain` says why; start the node or free disk space, then `POST _cluster/reroute?retry_failed=true`.",
        )
    return UnavailableError(
        f"The server answers {status}{_on(where)}{_told(text)}.",
        "It is overloaded or not ready.",
        "Run the same command again later: it continues.",
    )


def _blocked(status: int, kind: str, detail: Any, where: str, text: str) -> ClusterError:
    facts = {"status": status, "kind": kind, "detail": detail}
    said = text.lower()
    if "create-index blocked" in said:  # set and lifted by the server itself, while all nodes are above the high watermark
        return UnavailableError(
            "The server creates no indexes: the disk usage of all its nodes is above the high watermark.", _DISK_WHY, _DISK_HINT
        )
    if any(word in said for word in _NO_MANAGER):
        return shortage_error(status, "cluster_manager_not_discovered_exception", text, where)
    if "not recovered" in said:
        return UnavailableError("The cluster has just started and has not loaded its indexes yet.", "", "Try again in a moment.")
    if any(word in said for word in _FLOOD):
        why = f"OpenSearch made it read-only. {_DISK_WHY}"
        return BlockedError(f"{_full(where)} beyond the flood-stage watermark.", why, _DISK_HINT, **facts)
    return BlockedError(
        f"{where or 'The index'} is blocked: {text}.",
        "Acknowledged writes are kept.",
        "`osembed doctor` says what the block is and what lifts it; then run the same command again.",
        **facts,
    )


def _full(where: str) -> str:
    return f"{where or 'The index'} accepts no writes: the disk of its node is full"


def _told(text: str) -> str:
    return f" ({text})" if text else ""


def _for(where: str) -> str:
    return f" for {where}" if where else ""


def _of(where: str) -> str:
    return f" of {where}" if where else ""


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
