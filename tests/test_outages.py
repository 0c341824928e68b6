"""A migration while parts of the server are away or refuse writes: it waits, or ends with its reason, and never leaves a gap.

F10, F16, F18, F23, F25, F33, F34, F36. F21 is in `test_cluster.py`, F7 and real full disks in `test_disk.py`; F20 (a wrong
certificate) is the client's, in `test_server.py`; F8 (a GPU that is lost) needs a GPU.
"""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from osembed.collection import Collection
from osembed.embed.native.encoder import NativeEncoder
from osembed.errors import OsembedError, UnavailableError
from osembed.migrate import direction
from osembed.migrate.copy.copier import Copier
from osembed.migrate.proof.verdict import GateOptions
from osembed.opensearch import indexes
from osembed.opensearch.coordination.journal import JOURNAL
from tests.conftest import paper
from tests.killing import before_first, sample
from tests.oracle import blocked, contents
from tests.proxy import Fault

pytestmark = pytest.mark.usefixtures("known_models")
OPTIONS = {"gate": GateOptions(skip=True), "gentle": False}


@pytest.fixture
def started(collection, small, write) -> Collection:
    collection.ingest(write([paper(n, 200) for n in range(8)]), small)
    return collection


@pytest.mark.parametrize(("noise", "phase"), [(1e-3, "swapped"), (0.3, "verify")])
def test_f10_noise_of_the_arithmetic_is_no_fault(noise, phase, started, models, monkeypatch):
    """Vectors are compared with a tolerance: half precision's noise passes, another vector does not."""
    genuine, chooser = NativeEncoder.embed, np.random.default_rng(3)

    def noisy(self, tokens, *rest):
        vectors = genuine(self, tokens, *rest)
        return (vectors + chooser.normal(0, noise / vectors.shape[1] ** 0.5, vectors.shape)).astype(np.float32)

    before_first(monkeypatch, Copier, "catch_up", lambda: monkeypatch.setattr(NativeEncoder, "embed", noisy))
    before_first(monkeypatch, direction, "verify", lambda: monkeypatch.setattr(NativeEncoder, "embed", genuine))
    assert started.migrate(str(models.mirror), **OPTIONS).phase == phase


def test_f18_the_journal_is_away_for_a_while(started, proxy, name, models, client):
    """Seconds without the journal's index are waited for."""
    ends: list[float] = []

    def away(request):
        if "_bulk" in request.path and not ends:
            ends.append(time.monotonic() + 2)
        return Fault("answer", 503, b"{}") if JOURNAL in request.path and ends and time.monotonic() < ends[0] else None

    proxy.rules.append(away)
    expected = contents(client, name).keys()
    assert Collection(name, proxy.url).migrate(str(models.mirror), **OPTIONS).phase == "swapped"
    assert proxy.fired
    assert contents(client, name).keys() == expected


def test_f18_the_journal_is_away_for_good(started, proxy, name, models, client, monkeypatch):
    """Without the journal the run ends with its reason; the next one goes on from the last mark that was kept."""
    monkeypatch.setenv("OSEMBED_PATIENCE_SECONDS", "5")
    gone = threading.Event()

    def away(request):
        if "_bulk" in request.path:
            gone.set()
        return Fault("answer", 503, b"{}") if JOURNAL in request.path and gone.is_set() else None

    proxy.rules.append(away)
    with pytest.raises(OsembedError, match="503|taken over"):
        Collection(name, proxy.url).migrate(str(models.mirror), **OPTIONS)
    assert not blocked(client, name)
    expected = contents(client, name)
    proxy.rules.clear()
    with pytest.MonkeyPatch.context() as patch:  # the lease was not given back: this process takes it for a dead one's
        patch.setattr("osembed.opensearch.coordination.lease.is_surely_dead", lambda _: True)
        assert started.migrate(str(models.mirror), **OPTIONS).phase == "swapped"
    assert contents(client, name).keys() == expected.keys()


@pytest.mark.parametrize("side", ["blue", "green"])
def test_f25_a_flood_stage_block_is_waited_for(side, started, client, name, models, monkeypatch):
    """The server blocks writes because its disk is full; once there is room it goes on, and no document is missing."""
    expected = contents(client, name).keys()
    lifting: list[threading.Timer] = []

    def flood():
        state = started.migration().state
        index = getattr(state.moves["papers"], side)
        client.indices.put_settings(index=index, body={"index.blocks.read_only_allow_delete": True})
        lift = {"index.blocks.read_only_allow_delete": None}
        lifting.append(threading.Timer(2, client.indices.put_settings, (), {"index": index, "body": lift}))
        lifting[0].start()

    before_first(monkeypatch, Copier, "catch_up", flood)
    assert started.migrate(str(models.mirror), **OPTIONS).phase == "swapped"
    lifting[0].join()
    assert contents(client, name).keys() == expected


def test_f23_a_source_that_is_red_is_never_complete(started, proxy, client, name, models, monkeypatch):
    """A shard of the old index is away while it is scanned (503: parts are refused): waited for; for good, an error; never an end."""
    expected = contents(client, name).keys()
    blue = indexes.resolve(client, name)["papers"].index
    seen: list[float] = []

    def red(request):
        if f"/{blue}/_search" not in request.path or "_shards" not in request.path:
            return None
        seen.append(time.monotonic())
        return Fault("answer", 503, b'{"error":{"type":"search_phase_execution_exception"}}') if seen[-1] - seen[0] < outage else None

    proxy.rules.append(red)
    outage = 60.0
    monkeypatch.setenv("OSEMBED_PATIENCE_SECONDS", "5")
    with pytest.raises(OsembedError, match="did not recover"):
        Collection(name, proxy.url).migrate(str(models.mirror), **OPTIONS)
    assert started.migration().state.phase == "copy"
    seen.clear()
    outage = 2.0
    assert Collection(name, proxy.url).migrate(str(models.mirror), **OPTIONS).phase == "swapped"
    assert contents(client, name).keys() == expected


def test_a_primary_that_is_lost_after_the_swap_fails_nothing(started, proxy, client, name, models):
    """Whether somebody wrote past the fence is asked of the old index: patiently, for the swap is done."""
    blue = indexes.resolve(client, name)["papers"].index
    asked: list[str] = []

    def lost(request):
        if f"/{blue}/_stats" not in request.path or len(asked) == 3 or indexes.resolve(client, name)["papers"].index == blue:
            return None
        asked.append(request.path)
        return Fault("answer", 200, b'{"indices":{}}')

    proxy.rules.append(lost)
    done = Collection(name, proxy.url).migrate(str(models.mirror), **OPTIONS)
    assert (done.phase, len(asked), done.notices) == ("swapped", 3, [])


def test_f33_f34_clients_that_remember_the_old_index(started, name, url, models, small, write):
    """Reader and writer from before the swap, first used again when the old index is long deleted: both go on with the new model."""
    reader, writer = Collection(name, url), Collection(name, url)
    assert reader.search("study species").models["papers"] == "tiny-bert"
    writer.delete("p7")
    started.migrate(str(models.mirror), **OPTIONS)
    started.migration().finish(0)
    result = reader.search("study species")
    assert (result.models["papers"], result.degraded) == ("tiny-mirror", False)
    assert writer.ingest(write([paper(50, 150)], "late.jsonl")).indexed == 1
    assert writer.delete("p6") == {"p6": True}


def test_f36_all_reads_that_decide_ask_primaries(started, proxy, name, models):
    """Replicas may lag behind: whatever is copied, counted or compared is read from primaries."""
    done = Collection(name, proxy.url).migrate(str(models.mirror), **OPTIONS)
    assert done.phase == "swapped"
    begun = next(number for number, request in enumerate(proxy.seen) if "_bulk" in request.path)  # before that, only a plan is made
    paths = [request.path for request in proxy.seen[begun:]]
    read = [path for path in paths if f"/{name}" in path and ("/_search" in path or "/_count" in path)]
    assert len(read) > 10
    assert [path for path in read if "_primary" not in path] == []


def away(proxy, since: str, seconds: float = 2.0) -> None:
    """From the first request whose path contains `since`, answer every request with 503 for some seconds."""
    began: list[float] = []

    def rule(request):
        if not began and since in request.path:
            began.append(time.monotonic())
        return (
            Fault("answer", 503, b"<html>Service unavailable</html>", "text/html")
            if began and time.monotonic() - began[0] < seconds
            else None
        )

    proxy.rules.append(rule)


@pytest.fixture
def hasty(monkeypatch) -> None:
    """A single request is given up soon, so that an outage of seconds is what one of minutes would be."""
    monkeypatch.setenv("OSEMBED_RETRY_SECONDS", "0.3")
    monkeypatch.setenv("OSEMBED_PATIENCE_SECONDS", "60")


@pytest.mark.parametrize("since", ["", JOURNAL, "_mget", "_bulk", "_aliases"])
def test_f16_a_server_that_answers_503_for_a_while_ends_no_ingest(since, proxy, client, name, small, write, hasty):
    """From the first request, while it opens the collection, reads, writes or publishes: the ingest waits and goes on by itself."""
    away(proxy, since, 4.0)
    told: list[str] = []
    summary = Collection(name, proxy.url, report=told.append).ingest(write([paper(n, 200) for n in range(4)]), small)
    assert (summary.indexed, summary.rejected, summary.published, proxy.fired > 0) == (4, 0, True, True)
    assert len(contents(client, name)) > 4
    assert since or any("answers 503" in text and "html" not in text for text in told)


@pytest.mark.parametrize("since", ["", "_bulk", "_stats", "_block/write", "_aliases"])
def test_f16_a_server_that_answers_503_for_a_while_ends_no_migration(since, started, proxy, client, name, models, hasty):
    """From the first request, in the copy, while it proves, fences or moves the aliases: the migration waits and goes on by itself."""
    expected = contents(client, name).keys()
    away(proxy, since)
    assert Collection(name, proxy.url).migrate(str(models.mirror), **OPTIONS).phase == "swapped"
    assert proxy.fired
    assert contents(client, name).keys() == expected
    assert started.verify(full=True).passed


@pytest.mark.slow
def test_f16_503_from_any_request_on(started, proxy, client, name, models, hasty):
    """Wherever in a migration the outage begins, it ends no run: a rotating sample of its requests, there and back again."""
    expected, there = contents(client, name).keys(), [models.mirror, models.bert]
    for turn, number in enumerate(sample(200, 20)):
        seen = len(proxy.seen)
        began: list[float] = []

        def rule(request, number=seen + number, began=began):
            if request.number == number:
                began.append(time.monotonic())
            return Fault("answer", 503, b"{}") if began and time.monotonic() - began[0] < 1.5 else None

        proxy.rules[:] = [rule]
        collection = Collection(name, proxy.url)
        assert collection.migrate(str(there[turn % 2]), **OPTIONS).phase == "swapped"
        collection.migration().finish(0)
        assert contents(client, name).keys() == expected


def test_f16_deletes_and_repairs_wait_too(started, proxy, client, name, hasty):
    """A delete and a repair that meet an outage go on by themselves and report what they did."""
    away(proxy, "", 1.5)
    collection = Collection(name, proxy.url)
    assert collection.delete(["p1", "nobody"]) == {"p1": True, "nobody": False}
    client.index(index=name, id="own", body={"title": "Own", "body": "By others."}, refresh=True)
    proxy.rules.clear()
    away(proxy, "", 1.5)
    assert Collection(name, proxy.url).repair().embedded == 1


def test_f16_a_search_says_what_is_the_matter(started, proxy, name, hasty):
    """A person who searches does not wait for minutes: the status, in words, without the page that came with it."""
    away(proxy, "", 60)
    with pytest.raises(UnavailableError, match="The server answers 503") as caught:
        Collection(name, proxy.url).search("study of species")
    assert "html" not in str(caught.value)
