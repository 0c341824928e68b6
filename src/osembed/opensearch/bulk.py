"""The bounded bulk loop: requests limited by bytes, several in flight; only failed operations are sent again.

What each response means, and what the loop does:

connection lost, timeout, 502, 503, 504        outcome unknown: send again with jitter; halve the request after a timeout
429 on the request or an item                  back off, halve the bytes, send only those items again
429 cluster_block_exception (disk)             pause, report, retry
403 cluster_block_exception (write block)      return as `blocked`: the caller finds out where to write now
413, or an operation larger than the limit     split; a single operation that is too large is rejected
409                                            return as `conflicts`: the caller reads again and decides
404 on a write (alias or index gone)           return as `blocked`
404 on a delete                                done: it is already gone
400 naming a circuit breaker or a full disk    pause and retry
any other 400                                  rejected, with the reason
401 on the request                             AuthError immediately
403 from the security plugin                   retry once, then AuthError
certificate not accepted                       ClusterError immediately
missing or other items, broken JSON            outcome unknown: send all again
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import opensearchpy
import orjson
from opensearchpy.exceptions import ConnectionTimeout, SerializationError, TransportError

from osembed.errors import ClusterError, UnavailableError
from osembed.opensearch.access import unauthorized_error
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.operation import Operation
from osembed.opensearch.patience import lasting_error, patience_seconds
from osembed.opensearch.refusals import explain_error, forbidden_error, is_shortage, reason_of, shortage_error
from osembed.opensearch.tls import cause_text, explain_certificate

MAX_BYTES = 8 * 2**20
MIN_BYTES = 64 * 2**10
MAX_OPERATION = 90 * 2**20  # http.max_content_length is 100 MB by default
_IN_FLIGHT = 2
_SERVER_S = 30.0  # how long the server may wait for an unavailable shard; less than the client's own timeout
_QUOTED = 200  # most characters of a reason that are shown
_FILTER = (
    "errors,items.*._id,items.*._index,items.*.status,items.*._seq_no,items.*._primary_term,"
    "items.*.error.type,items.*.error.reason,items.*.error.caused_by"
)
_PARAMS = {"filter_path": _FILTER, "request_timeout": 60}


@dataclass
class Outcome:
    """The outcome of one `send`. Every id is in exactly one place; `done` only counts.

    Attributes:
        done: operations that were applied.
        versions: id → (sequence number, primary term) of each document that was written.
        conflicts: ids whose condition did not hold.
        blocked: ids whose index refuses writes or is gone.
        rejected: id → reason, for operations that can never succeed.
    """

    done: int = 0
    versions: dict[str, tuple[int, int]] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)

    def add(self, other: Outcome) -> None:
        """Add the outcome of another part."""
        self.done += other.done
        self.versions.update(other.versions)
        self.conflicts += other.conflicts
        self.blocked += other.blocked
        self.rejected.update(other.rejected)


class BulkLoop:
    """Sends operations to one server. Not thread-safe: use it from one thread at a time."""

    def __init__(
        self,
        client: OpenSearch,
        *,
        max_bytes: int = MAX_BYTES,
        patience_s: float | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._client, self._max_bytes, self._report = client, max_bytes, report
        self._patience_s = patience_seconds() if patience_s is None else patience_s
        self._access, self._limit, self._denied = client.transport.access, max_bytes, False  # type: ignore[attr-defined]
        self._server_s = max(1.0, min(_SERVER_S, self._patience_s))
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._pool = ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="osembed-bulk")

    def close(self) -> None:
        """End the loop's threads. Waits for requests in flight, but not for pauses between retries."""
        self._closing.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def send(self, operations: Iterable[Operation]) -> Outcome:
        """Send operations and return when the outcome of each is known. Ids must not repeat within one call.

        Raises AuthError immediately, ClusterError if the server has accepted nothing for the loop's patience.
        """
        outcome, running = Outcome(), set[Future[Outcome]]()  # batches are made lazily, so at most a few are in memory
        for batch in self._batches(operations):
            if len(running) == _IN_FLIGHT:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    outcome.add(future.result())
            running.add(self._pool.submit(self._deliver, batch))
        for future in running:
            outcome.add(future.result())
        return outcome

    def _batches(self, operations: Iterable[Operation]) -> Iterator[list[Operation]]:
        batch: list[Operation] = []
        size = 0
        for operation in operations:
            if operation.size > MAX_OPERATION:
                yield [operation]
                continue
            if batch and size + operation.size > self._limit:
                yield batch
                batch, size = [], 0
            batch.append(operation)
            size += operation.size
        if batch:
            yield batch

    def _deliver(self, batch: list[Operation]) -> Outcome:
        """Send one batch repeatedly until the outcome of each operation is known."""
        outcome, patience = Outcome(), _Patience(self._patience_s, self._closing)
        waiting = [batch]
        while waiting:
            part = waiting.pop()
            if sum(operation.size for operation in part) > max(self._limit, MIN_BYTES) and len(part) > 1:
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
                continue
            unsettled, trouble = self._attempt(part, outcome)
            if not trouble:
                self._grow()
                patience.renew()
                continue
            if len(unsettled) < len(part):  # some operations succeeded, so the server is making progress
                patience.renew()
            if unsettled:
                waiting.append(unsettled)
                patience.wait(trouble, self._report)
        return outcome

    def _attempt(self, part: list[Operation], outcome: Outcome) -> tuple[list[Operation], ClusterError | None]:
        """Send one request. Returns the operations without an outcome, and the problem, if any."""
        if part[0].size > MAX_OPERATION:
            outcome.rejected[part[0].id] = f"too large: {part[0].size:,} bytes in one document"
            return [], UnavailableError("A document is too large.")
        try:
            answer = self._client.bulk(body=_body(part), params={**_PARAMS, "timeout": f"{self._server_s:.0f}s"})
        except SerializationError:
            return part, UnavailableError("The server's response is not JSON.")
        except ConnectionTimeout:
            self._shrink()
            return part, UnavailableError("The server did not answer in time.")
        except opensearchpy.ConnectionError as error:
            if explained := explain_certificate(error, self._access):
                raise explained from error
            return part, UnavailableError(f"The connection to the server was lost ({cause_text(error)}).")
        except TransportError as error:
            return self._refused(part, error, outcome)
        items = [next(iter(item.values())) for item in answer.get("items", [])] if isinstance(answer, Mapping) else []
        # Items carry no reference to their operation except the order, so the ids must match exactly.
        if [item.get("_id") for item in items] != [operation.id for operation in part]:
            return part, UnavailableError(f"The server returned {len(items)} items that do not match {len(part)} operations.")
        return self._settle(part, items, outcome)

    def _refused(self, part: list[Operation], error: TransportError, outcome: Outcome) -> tuple[list[Operation], ClusterError | None]:
        """Handle an error response to a whole request. Returns as `_attempt` does."""
        status, text, where = error.status_code, reason_of(error.info), self._where(part[0])
        if status == 413:
            if len(part) == 1:
                outcome.rejected[part[0].id] = f"too large: {part[0].size:,} bytes in one document"
                return [], UnavailableError("A document is too large.")
            self._shrink(below=sum(operation.size for operation in part))
            return part, UnavailableError("A request is too large.")
        if status == 403 and "cluster_block" in str(error.error):
            outcome.blocked += [operation.id for operation in part]
            return [], UnavailableError("A write block.")
        if status == 401:
            raise unauthorized_error(self._access)
        if status == 403:
            return part, self._forbidden(text or str(error.error), where)
        if status == 429:
            self._shrink()
        if status in (429, 502, 503, 504):
            return part, explain_error(status, str(error.error), error.info, f"/{where}")
        raise explain_error(int(status), str(error.error), error.info, "/_bulk")

    def _settle(self, part: list[Operation], items: list[Any], outcome: Outcome) -> tuple[list[Operation], ClusterError | None]:
        """Add the items of a response to the outcome. Returns the operations to send again, and the problem, if any."""
        again, trouble, busy = [], None, False
        for operation, item in zip(part, items, strict=True):
            verdict, text = _verdict(operation, item)
            if verdict == "done":
                outcome.done += 1
                if operation.document is not None and "_seq_no" in item:
                    outcome.versions[operation.id] = (int(item["_seq_no"]), int(item["_primary_term"]))
            elif verdict == "conflict":
                outcome.conflicts.append(operation.id)
            elif verdict == "blocked":
                outcome.blocked.append(operation.id)
            elif verdict == "rejected":
                outcome.rejected[operation.id] = text
            else:
                again.append(operation)
                where = str(item.get("_index", ""))
                trouble = self._forbidden(text, where) if verdict == "forbidden" else _shortage(item, text, where)
                busy = busy or item.get("status") == 429
        if busy:
            self._shrink()
        return again, trouble

    def _forbidden(self, text: str, where: str) -> ClusterError:
        """Return a refusal as a problem to retry the first time; raise it after that. A node may not know a new role yet."""
        with self._lock:
            denied, self._denied = self._denied, True
        if denied:
            raise forbidden_error(text, where)
        return forbidden_error(text, where)

    def _where(self, operation: Operation) -> str:
        return str(next(iter(orjson.loads(operation.action).values()))["_index"])

    def _shrink(self, below: int | None = None) -> None:
        with self._lock:
            self._limit = max(MIN_BYTES, min(self._limit, below or self._limit) // 2)

    def _grow(self) -> None:
        with self._lock:
            self._limit = min(self._max_bytes, self._limit + self._max_bytes // 16)


class _Patience:
    """Waits between retries, with jitter, from 0.1 s up to 10 s. Gives up if the server has accepted nothing for too long."""

    def __init__(self, seconds: float, closing: threading.Event) -> None:
        self._seconds, self._closing = seconds, closing
        self.renew()

    def renew(self) -> None:
        self._since, self._tries = time.monotonic(), 0

    def wait(self, trouble: ClusterError, report: Callable[[str], None]) -> None:
        waited = time.monotonic() - self._since
        if waited > self._seconds:
            raise lasting_error(f"The server has accepted no writes for {waited:.0f} s", trouble) from trouble
        self._tries += 1
        if self._tries == 3:
            report(f"The server accepts no writes; retrying for up to {self._seconds:.0f} s: {trouble.found}")
        if self._closing.wait(random.uniform(0.5, 1) * min(10.0, 0.1 * 2**self._tries)):
            raise ClusterError("The bulk loop was closed while it was waiting for the server.")


def _verdict(operation: Operation, item: Mapping[str, Any]) -> tuple[str, str]:
    """Classify one item of a bulk response: done, conflict, blocked, rejected, forbidden or again. Returns this and the reason."""
    status, error = int(item.get("status", 500)), item.get("error") or {}
    kind, text = str(error.get("type", "")), _item_reason(error)
    if 200 <= status < 300 or (status == 404 and operation.document is None and not kind):
        return "done", ""
    if status == 409:
        return "conflict", text
    if status == 404 or (status == 403 and kind == "cluster_block_exception"):
        return "blocked", text
    if status in (401, 403):
        return "forbidden", text
    if status == 429 or status >= 500 or is_shortage(status, f"{kind} {_cause(error)}"):
        return "again", text
    return "rejected", text


def _shortage(item: Mapping[str, Any], text: str, where: str) -> ClusterError:
    kind = str((item.get("error") or {}).get("type", ""))
    return shortage_error(int(item.get("status", 500)), kind, text, where)


def _cause(error: Mapping[str, Any]) -> str:
    """Return the innermost reason of a failed item, uncut. The outer reason quotes the refused value, which may be long or mislead."""
    return str((error.get("caused_by") or {}).get("reason") or error.get("reason") or "")


def _item_reason(error: Mapping[str, Any]) -> str:
    """Return why an item failed, for people: the outer reason and its cause, both shortened."""
    refused, cause = str(error.get("reason") or "")[:_QUOTED], _cause(error)[:_QUOTED]
    return refused if cause == refused else ": ".join(part for part in (refused, cause) if part)


def _body(part: list[Operation]) -> bytes:
    lines = []
    for operation in part:
        lines.append(operation.action)
        if operation.document is not None:
            lines.append(operation.document)
    return b"\n".join(lines) + b"\n"
