"""How long work waits for a server, and in which words it says for what. Pure: no server."""

from __future__ import annotations

import time

import pytest

from osembed.errors import AuthError, BlockedError, ClusterError, LastingError, RefusedError, UnavailableError
from osembed.opensearch.patience import until_settled
from osembed.opensearch.refusals import explain_error, explain_failure

FLOOD = "index [a] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block];"
KNN = "failed to parse: Parsing the created knn vector fields prior to indexing has failed as the circuit breaker triggered."


@pytest.fixture(autouse=True)
def patience(monkeypatch) -> None:
    monkeypatch.setenv("OSEMBED_PATIENCE_SECONDS", "0.5")


def failing(error: Exception, times: int, takes_s: float = 0.0):
    """Return an attempt that fails so often, then returns "done"."""
    left = [times]

    def attempt() -> str:
        time.sleep(takes_s)
        if left[0]:
            left[0] -= 1
            raise error
        return "done"

    return attempt


def test_what_passes_is_waited_for_and_told_once():
    """A server that is away for a moment costs nothing but the moment; the person is told once what is waited for."""
    told: list[str] = []
    assert until_settled(failing(UnavailableError("It is full."), 3), report=told.append) == "done"
    assert told == ["Waiting for the server, up to 0 s: It is full."]


@pytest.mark.parametrize("error", [AuthError("no"), RefusedError("no", status=400), BlockedError("no", status=403), LastingError("over")])
def test_what_is_said_for_good_ends_at_once(error):
    """Refusals, a person's block, and a wait that is over already: trying again would not help."""
    with pytest.raises(type(error)):
        until_settled(failing(error, 1))


def test_it_ends_with_what_the_trouble_is():
    """After the patience the error says how long, what, and what to do."""
    with pytest.raises(LastingError, match="did not recover within .* It is full") as caught:
        until_settled(failing(UnavailableError("It is full.", "", "Make room."), 10**6))
    assert caught.value.hint == "Make room."


def test_long_work_is_not_counted_as_waiting():
    """An attempt that worked for longer than the patience before it failed is tried again."""
    assert until_settled(failing(UnavailableError("away"), 1, takes_s=0.7)) == "done"


def test_progress_begins_the_wait_anew():
    """Failures between which the work goes forward are not one long failure."""
    done: list[int] = []

    def attempt() -> str:
        time.sleep(0.3)
        done.append(1)
        if len(done) < 5:
            raise UnavailableError("away")
        return "done"

    assert until_settled(attempt, progress=lambda: len(done)) == "done"


@pytest.mark.parametrize(
    ("status", "kind", "text", "said"),
    [
        (429, "cluster_block_exception", FLOOD, "disk of its node is full beyond the flood-stage watermark"),
        (
            403,
            "cluster_block_exception",
            "blocked by: [FORBIDDEN/10/cluster create-index blocked (api)];",
            "disk usage of all its nodes is above",
        ),
        (500, "translog_exception", "Failed to write operation: java.io.IOException: No space left on device", "disk of its node is full"),
        (429, "circuit_breaking_exception", "[parent] Data too large", "short of memory .* circuit breaker"),
        (503, "cluster_manager_not_discovered_exception", "", "no elected manager"),
        (503, "cluster_block_exception", "blocked by: [SERVICE_UNAVAILABLE/2/no cluster-manager];", "no elected manager"),
        (500, "node_not_connected_exception", "[one][127.0.0.1:9300] Node not connected", "A node that is needed for a is unavailable"),
        (503, "unavailable_shards_exception", "[a][0] primary shard is not active Timeout: [1m]", "A shard of a is unavailable"),
        (503, "<html><body>Service unavailable</body></html>", "", "The server answers 503 on a.$"),
    ],
)
def test_errors_are_named_as_what_they_are(status, kind, text, said):
    """Disk, memory, manager, shard; never JSON or a page of something in between. All but a person's block may pass."""
    error = explain_error(status, kind, {"error": {"type": kind, "reason": text}}, "/a/_search")
    assert isinstance(error, UnavailableError) or error.status == 429
    with pytest.raises(ClusterError, match=said):
        raise ClusterError(error.found)
    assert not set("{<") & set(str(error))


def test_parts_of_answers_are_named_alike():
    """A shard that failed for want of disk or memory says so, whatever the status."""
    breaker = explain_failure({"type": "mapper_parsing_exception", "reason": KNN}, "a", "x of a", 400)
    disk = explain_failure({"type": "i_o_exception", "reason": "No space left on device"}, "a", "1 of 1 shards of a failed")
    assert "short of memory" in breaker.found
    assert "disk of its node is full" in disk.found


def test_a_shard_that_is_not_in_primary_mode_is_named():
    """A server that has lost a primary over an election (OpenSearch issue 19150) is waited for, and the remedy is said."""
    lost = {
        "type": "retry_on_primary_exception",
        "reason": "shard is not in primary mode",
        "caused_by": {"type": "shard_not_in_primary_mode_exception", "reason": "CurrentState[STARTED] shard is not in primary mode"},
    }
    for error in (explain_failure(lost, "a", "1 shards of a failed"), explain_error(500, lost["type"], {"error": lost}, "/a/_doc/1")):
        assert isinstance(error, UnavailableError)
        assert "A primary shard of a accepts no operations" in error.found
        assert "restart the node that holds the shard" in error.hint
