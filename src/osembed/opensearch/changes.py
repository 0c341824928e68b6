"""Every request that changes an index, an alias or a setting. A change counts as done if it is acknowledged or can be read back.

After `acknowledged: false` or a lost response the outcome is unknown. The state is then read, and the request is repeated if needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from osembed.errors import AuthError, ClusterError, MissingError, RefusedError, UnsettledError
from osembed.opensearch import answers, reads
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.patience import retry_read, retry_seconds
from osembed.opensearch.refusals import explain_failure, index_of, on_index

Action = dict[str, dict[str, Any]]
_EXISTS = "resource_already_exists_exception"


def create_index(client: OpenSearch, name: str, body: Mapping[str, Any]) -> bool:
    """Create an index; return False if it already exists. Raises RefusedError if the server does not accept it."""
    created = True  # unless a response says that it exists; then another process created it

    def send() -> Any:
        nonlocal created
        try:
            return client.indices.create(index=name, body=dict(body))
        except RefusedError as error:
            if error.kind != _EXISTS:
                raise
            created = False
            return {"acknowledged": True}

    _sure(send, lambda: bool(reads.indexes(client, [name], "*.aliases,*.settings.index.uuid")), f"The creation of {name}")
    return created


def put_settings(client: OpenSearch, names: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Change settings of indexes. Names are flat, with or without `index.`; None restores the server's default."""
    wanted = {f"index.{name.removeprefix('index.')}": value for name, value in settings.items()}

    def done() -> bool:
        found = reads.indexes(client, names, flat=True)
        return all(_holds(found[name]["settings"], wanted) for name in names if name in found)

    _sure(lambda: client.indices.put_settings(index=",".join(names), body=wanted), done, f"The new settings of {', '.join(names)}")


def put_mapping(client: OpenSearch, index: str, body: Mapping[str, Any]) -> None:
    """Add fields to a mapping, or replace its `_meta`. Raises RefusedError if a field already has another type."""

    def done() -> bool:
        found = reads.description(client, index)["mappings"]
        return _covers(found, body)

    _sure(lambda: client.indices.put_mapping(index=index, body=dict(body)), done, f"The mapping of {index}")


def update_aliases(client: OpenSearch, actions: Sequence[Action], *, wait_s: float | None = None, server_s: float | None = None) -> None:
    """Change aliases and delete indexes (`remove_index`) in one request that applies completely or not at all.

    Args:
        client: the connection.
        actions: as in the `_aliases` API; with `must_exist` on removals they are a compare-and-set.
        wait_s: for how long an unknown outcome is checked and retried; 0 raises at once, for callers that check themselves.
        server_s: timeout of the request, for the server and the client.

    Raises MissingError if a condition does not hold, UnsettledError if the outcome stays unknown.
    """
    params: dict[str, Any] = {} if server_s is None else {"timeout": f"{max(1, int(server_s) - 1)}s", "request_timeout": server_s}
    send = lambda: client.indices.update_aliases(body={"actions": list(actions)}, params=dict(params))  # noqa: E731
    try:
        _sure(send, lambda: _moved(client, actions), "The change of aliases", wait_s)
    except AuthError as error:
        if error.where or not error.actions:
            raise
        raise on_index(error, ", ".join(sorted({step["index"] for action in actions for step in action.values()}))) from error


def block_writes(client: OpenSearch, names: Sequence[str], server_s: float) -> None:
    """Put a write block on indexes. Raises UnsettledError or AuthError unless every shard of each is blocked.

    There is no retry here: after an unknown outcome the caller lifts the block, because it knows how long writers may wait.
    """
    path, params = f"/{quote(','.join(names))}/_block/write", {"timeout": f"{max(1, int(server_s) - 1)}s", "request_timeout": server_s}
    answers.blocked(client.transport.perform_request("PUT", path, params=params), names)


def lift_block(client: OpenSearch, names: Sequence[str]) -> None:
    """Lift the write blocks of indexes, even incomplete ones. Raises UnsettledError or AuthError if one remains.

    A block that not every shard confirmed has a UUID, and no setting lifts it: it must be completed first.
    """
    there = sorted(reads.indexes(client, names, "*.settings.index.uuid"))  # a deleted index would fail the whole request
    if not there:
        return
    put_settings(client, there, {"blocks.write": None})
    left = _half_blocked(client, there)
    if left:  # incomplete blocks: complete them, then lift them
        block_writes(client, left, 30)
        put_settings(client, left, {"blocks.write": None})
        left = _half_blocked(client, left)
    if left:
        raise UnsettledError(
            f"The write block of {', '.join(left)} could not be lifted.",
            "Writes are refused until it is lifted.",
            f'As an administrator: PUT {left[0]}/_block/write, then PUT {left[0]}/_settings {{"index.blocks.write": null}}',
        )


def put_pipeline(client: OpenSearch, name: str, body: Mapping[str, Any]) -> None:
    """Create a search pipeline. Raises RefusedError if the server does not have its processors."""
    path = f"/_search/pipeline/{quote(name)}"
    _sure(
        lambda: client.transport.perform_request("PUT", path, body=dict(body)),
        lambda: reads.pipeline(client, name) is not None,
        f"The search pipeline {name}",
    )


def refresh(client: OpenSearch, *names: str) -> None:
    """Make all writes searchable on all copies. Raises UnsettledError if a copy failed, MissingError if an index is gone."""
    where = ",".join(names)
    retry_read(lambda: answers.whole(client.indices.refresh(index=where), where))


def force_merge(client: OpenSearch, index: str) -> None:
    """Merge an index into one segment. Raises UnsettledError if a shard failed."""
    answers.whole(client.indices.forcemerge(index=index, max_num_segments=1, request_timeout=3600), index)


def write_document(client: OpenSearch, index: str, key: str, body: Mapping[str, Any], seen: tuple[int, int] | None) -> None:
    """Write one document if it still has the version `seen` (sequence number, primary term); None if it must not exist yet.

    Raises ConflictError if the version differs, MissingError if the index does not exist.
    """
    only = {"if_seq_no": seen[0], "if_primary_term": seen[1]} if seen else {"op_type": "create"}
    params = {**only, "require_alias": "false"}
    answers.written(client.index(index=index, id=key, body=dict(body), params=params), index, key)


def delete_document(client: OpenSearch, index: str, key: str, seen: tuple[int, int]) -> None:
    """Delete one document if it still has the version `seen`; do nothing if it is gone. Raises ConflictError."""
    params = {"if_seq_no": seen[0], "if_primary_term": seen[1]}
    try:
        answers.written(client.delete(index=index, id=key, params=params), index, key)
    except MissingError as error:
        if not answers.absent(error) and _result_of(error) != "not_found":
            raise


def _result_of(error: MissingError) -> object:
    return error.detail.get("result") if isinstance(error.detail, Mapping) else None


def delete_index(client: OpenSearch, name: str) -> None:
    """Delete an index; do nothing if it does not exist."""
    _sure(
        lambda: client.indices.delete(index=name, params={"ignore_unavailable": "true"}),
        lambda: not reads.indexes(client, [name], "*.settings.index.uuid"),
        f"The deletion of {name}",
    )


def ask(client: OpenSearch, method: str, path: str, body: Any) -> tuple[str, ...]:
    """Send a request that changes nothing even if it is allowed. Returns the permissions that this user lacks for it; () for none.

    Any response but a refusal means that the user is allowed, for example "no such index" or a failed condition. Raises ClusterError if the
    server is unavailable, and AuthError for a refusal that names no permission.
    """
    try:
        return retry_read(lambda: _allowed(client.transport.perform_request(method, path, body=body), index_of(path)))
    except AuthError as error:
        if not error.actions:
            raise
        return error.actions
    except RefusedError as error:
        if error.status >= 500 or error.status == 429:
            raise
        return ()


def _allowed(answer: Any, where: str) -> tuple[str, ...]:
    """Return (), or raise AuthError for the first refusal inside a response: of a shard, an item or a part."""
    failure = answers.refused_part(answer)
    if failure is not None:
        raise explain_failure(failure, where, "")
    return ()


def _sure(send: Callable[[], Any], done: Callable[[], bool], what: str, wait_s: float | None = None) -> None:
    """Send a change until it is acknowledged or can be seen to have happened.

    A negative response (a refusal, a conflict, a failed condition) is final, unless an earlier attempt with an unknown outcome has succeeded
    after all. `done` reads whether the change has happened.
    """
    began, limit, pause = time.monotonic(), retry_seconds() if wait_s is None else wait_s, 0.05
    doubt = refused = False
    while True:
        try:
            answers.acknowledged(send(), what)
            return
        except AuthError as error:  # retried once: a node may not know a new role yet
            if refused:
                raise
            trouble: ClusterError = error
            refused = True
        except RefusedError as error:
            if not (doubt and done()):
                raise
            trouble = error
        except ClusterError as error:
            trouble = error
            doubt = True
        if doubt and limit and done():
            return
        if time.monotonic() - began >= limit:
            if isinstance(trouble, UnsettledError):
                raise UnsettledError(f"{what} was not acknowledged and has not happened so far.", "", trouble.hint) from trouble
            raise trouble
        time.sleep(pause)
        pause = min(2.0, pause * 2)


def _moved(client: OpenSearch, actions: Sequence[Action]) -> bool:
    """Return whether all actions of an alias request have happened."""
    steps = [(kind, step) for action in actions for kind, step in action.items()]
    found = reads.indexes(client, sorted({step["index"] for _, step in steps}), "*.aliases,*.settings.index.uuid")
    for kind, step in steps:
        index = step["index"]
        held = found.get(index, {}).get("aliases", {})
        if kind == "remove_index" and index in found:
            return False
        if (kind == "add" and step["alias"] not in held) or (kind == "remove" and step["alias"] in held and not _added_too(steps, step)):
            return False
    return True


def _added_too(steps: Sequence[tuple[str, dict[str, Any]]], removed: Mapping[str, Any]) -> bool:
    return any(kind == "add" and (step["index"], step["alias"]) == (removed["index"], removed["alias"]) for kind, step in steps)


def _half_blocked(client: OpenSearch, names: Sequence[str]) -> list[str]:
    """Return the indexes with an incomplete write block, which does not appear in their settings."""
    blocks = reads.write_blocks(client, names)
    if not blocks:
        return []
    found = reads.indexes(client, sorted(blocks), flat=True)
    kinds = ("write", "read_only", "read_only_allow_delete")
    held = {name for name, info in found.items() if any(str(info["settings"].get(f"index.blocks.{kind}")) == "true" for kind in kinds)}
    return sorted(set(found) - held)


def _holds(settings: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether flat settings have the wanted values. The server stores values as text."""
    for name, value in wanted.items():
        has = settings.get(name)
        said = str(value).lower() if isinstance(value, bool) else str(value)
        if (value is None and has is not None) or (value is not None and has != said):
            return False
    return True


def _covers(found: Any, wanted: Any) -> bool:
    """Return whether a mapping contains all of another."""
    if not isinstance(wanted, Mapping):
        return str(found).lower() == str(wanted).lower()
    return isinstance(found, Mapping) and all(name in found and _covers(found[name], part) for name, part in wanted.items())
