"""A server that is short of disk or memory, and a client that is: named as what they are, waited for or stopped, resumed without loss.

One real node whose data lies on a small file system: it is filled and emptied for real, and its breakers are set low. F7, F25.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from osembed.collection import Collection
from osembed.errors import ClusterError, CollectionError, OsembedError, UnsettledError
from osembed.migrate.copy.copier import Copier
from osembed.migrate.proof.verdict import GateOptions
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.reads import cluster_nodes
from tests.conftest import dump, paper, run
from tests.disk import MB, SmallDisk, SmallNode
from tests.forking import command
from tests.killing import before_first

pytestmark = pytest.mark.usefixtures("known_models", "room")
T = TypeVar("T")
DISK = "cluster.routing.allocation.disk"
WATERMARKS = {f"{DISK}.watermark.low": "24mb", f"{DISK}.watermark.high": "16mb", f"{DISK}.watermark.flood_stage": "12mb"}
OPTIONS = {"gate": GateOptions(skip=True), "gentle": False}
BREAKERS = {
    "total": ("indices.breaker.total.limit", "1%"),  # every request
    "request": ("indices.breaker.request.limit", "1b"),  # aggregations
    "in flight": ("network.breaker.inflight_requests.limit", "3kb"),  # bulk requests
}


@pytest.fixture(scope="module")
def disk(tmp_path_factory) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path_factory.mktemp("small"), 96) as mounted:
        yield mounted


@pytest.fixture(scope="module")
def node(disk, home, tmp_path_factory) -> Iterator[SmallNode]:
    """A node on the small disk, which it measures as often as it can."""
    often = {"cluster.info.update.interval": "10s", "monitor.fs.health.refresh_interval": "2s"}
    with SmallNode(tmp_path_factory.mktemp("node"), disk.path, **WATERMARKS, **often) as running:
        yield running


@pytest.fixture(scope="module")
def url(node) -> str:
    return node.url


@pytest.fixture(scope="module")
def client(node) -> OpenSearch:
    return node.client


@pytest.fixture
def room(name, disk, node) -> Iterator[None]:
    """Each test ends with an empty disk and without a limit of memory, before its collection is deleted."""
    yield
    disk.make_room()
    recover(node)


@pytest.fixture
def patient(monkeypatch) -> Callable[[float], None]:
    """Set how long commands wait."""

    def wait(seconds: float) -> None:
        monkeypatch.setenv("OSEMBED_PATIENCE_SECONDS", str(seconds))
        monkeypatch.setenv("OSEMBED_RETRY_SECONDS", "1")

    wait(90)
    return wait


def recover(node: SmallNode) -> None:
    """Undo whatever a test did to the node, and wait until all its shards are back."""
    limits = {setting: None for setting, _ in BREAKERS.values()}
    ends = time.monotonic() + 120
    while True:
        try:  # a node whose disk was full to the last byte has stepped down, and is its own manager again when it has seen the room
            node.set(**{f"{DISK}.threshold_enabled": None}, **limits)
            break
        except ClusterError:
            if time.monotonic() > ends:
                raise
    node.client.transport.perform_request("POST", "/_cluster/reroute?retry_failed=true")
    while time.monotonic() < ends:
        blocks = str(node.client.cluster.state(metric="blocks").get("blocks", {}))
        if not ("disk usage" in blocks or "global" in blocks) and node.client.cluster.health()["status"] == "green":
            return
        time.sleep(0.3)
    raise AssertionError(f"the node did not recover: {blocks}")


@contextmanager
def later(seconds: float, *steps: Callable[[], object]) -> Iterator[None]:
    """Let something happen while the block runs."""
    timer = threading.Timer(seconds, lambda: [step() for step in steps])
    timer.start()
    try:
        yield
    finally:
        timer.join()


@contextmanager
def keeping(step: Callable[[], object]) -> Iterator[None]:
    """Do something again and again while the block runs: the server undoes it from time to time."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(0.1):
            step()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def flood(disk: SmallDisk, node: SmallNode, alias: str) -> None:
    """Fill the disk beyond the flood stage, and wait until the server has noticed."""
    disk.fill(leave=8 * MB)
    ends = time.monotonic() + 60
    while "read_only_allow_delete" not in str(node.client.indices.get_settings(index=alias)):
        assert time.monotonic() < ends, "the server does not notice that its disk is full"
        time.sleep(0.2)


def drown(disk: SmallDisk, node: SmallNode) -> None:
    """Fill the disk to the last byte; nobody watches, so that the next write itself fails."""
    node.set(**{f"{DISK}.threshold_enabled": False})
    disk.fill(leave=0)


def completed(node: SmallNode, work: Callable[[], T]) -> T:
    """Run what a full disk has ended. Where it left a shard without a checkpoint, start that again in the way that the error names."""
    try:
        return work()
    except UnsettledError as told:
        [command] = re.findall(r"reroute ({.*})\. Then", told.hint)
        node.client.transport.perform_request("POST", "/_cluster/reroute", body=command.replace("NODE", "small"))
        assert node.client.cluster.health(params={"wait_for_status": "green", "timeout": "60s"})["status"] == "green"
        return work()


def restart(node: SmallNode, name: str) -> None:
    """Start all shards of a collection again: what was only shown, and not kept, is gone."""
    for index in node.client.indices.get(index=f"{name},{name}-chunks"):
        command = {"cancel": {"index": index, "shard": 0, "node": "small", "allow_primary": True}}
        node.client.transport.perform_request("POST", "/_cluster/reroute", body={"commands": [command]})
    assert node.client.cluster.health(params={"wait_for_status": "green", "timeout": "60s"})["status"] == "green"


def undisturbed(client: OpenSearch, url: str, name: str, small, path: str) -> dict[str, dict]:
    """Return what the same input makes of an empty collection when nothing goes wrong."""
    twin = f"{name}-twin"
    Collection(twin, url).ingest(path, small)
    return {key.removeprefix(twin): fields for key, fields in dump(client, twin).items()}


def contents(client: OpenSearch, name: str) -> dict[str, dict]:
    return {key.removeprefix(name): fields for key, fields in dump(client, name).items()}


def stopped(done: subprocess.CompletedProcess[str], words: str) -> None:
    """The command has ended with an error that names the trouble, and no traceback."""
    assert done.returncode == 1, done
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "{" not in done.stderr


def test_flood_stage_ends_an_ingest_with_its_name_and_the_same_command_completes(disk, node, client, name, url, small, write, patient):
    """Beyond the flood stage: exit 1 and the disk's name after the patience; with room again the same command goes on. Nothing is lost."""
    path = write([paper(n, 200) for n in range(24)])
    expected = undisturbed(client, url, name, small, path)
    Collection(name, url).ingest(write([paper(n, 200) for n in range(8)], "first.jsonl"), small)
    acknowledged = contents(client, name)
    flood(disk, node, name)
    patient(3)
    arguments = ("ingest", path, "--url", url, "--collection", name)
    stopped(run(*arguments), "disk of its node is full beyond the flood-stage watermark")
    patient(90)
    with later(1, disk.make_room):
        done = run(*arguments)
    assert done.returncode == 0, done.stderr
    found = contents(client, name)
    assert found == expected
    assert {key: found[key] for key in acknowledged} == acknowledged


def test_no_space_left_ends_an_ingest_with_its_name_and_the_same_command_completes(disk, node, client, name, url, small, write, patient):
    """The write itself fails and the shard with it: named; the shard brought back, the same command completes, and what it wrote is kept."""
    path = write([paper(n, 200) for n in range(24)])
    expected = undisturbed(client, url, name, small, path)
    Collection(name, url).ingest(write([paper(n, 200) for n in range(8)], "first.jsonl"), small)
    drown(disk, node)
    patient(3)
    arguments = ("ingest", path, "--url", url, "--collection", name)
    stopped(run(*arguments), "disk")
    patient(30)
    with later(1, disk.make_room, lambda: recover(node)):
        done = completed(node, lambda: Collection(name, url).ingest(path))
    assert done.read == done.indexed + done.unchanged
    restart(node, name)
    assert contents(client, name) == expected


def test_a_migration_that_does_not_fit_is_refused_before_it_begins(disk, client, name, url, small, models, write):
    """The plan compares the forecast with the free disk; nothing is created."""
    collection = Collection(name, url)
    collection.ingest(write([paper(n, 200) for n in range(8)]), small)
    disk.fill(leave=12 * MB + MB // 2)  # above the flood stage, below what the forecast leaves free: 15 %
    ends = time.monotonic() + 30
    while any(node["fs"]["total"]["available_in_bytes"] > 13 * MB for node in cluster_nodes(client, "fs").values()):
        assert time.monotonic() < ends
        time.sleep(0.2)
    before = set(client.indices.get(index=f"{name}*", params={"expand_wildcards": "all"}))
    with pytest.raises(CollectionError, match="will not fit.*disk"):
        collection.migrate(str(models.mirror), **OPTIONS)
    assert set(client.indices.get(index=f"{name}*", params={"expand_wildcards": "all"})) == before


def test_a_disk_that_fills_up_during_the_copy_is_waited_for(disk, node, client, name, url, small, models, write, patient, monkeypatch):
    """The copy fills the disk for real: it ends with the disk's name, the next run waits until there is room, and all papers are there."""
    collection = Collection(name, url)
    collection.ingest(write([paper(n, 200) for n in range(16)]), small)
    expected = contents(client, name).keys()
    before_first(monkeypatch, Copier, "catch_up", lambda: drown(disk, node))
    patient(3)
    with pytest.raises(OsembedError, match="disk"):
        collection.migrate(str(models.mirror), **OPTIONS)
    patient(40)
    told: list[str] = []
    with later(2, disk.make_room, lambda: recover(node)), pytest.MonkeyPatch.context() as patch:
        patch.setattr("osembed.opensearch.coordination.lease.is_surely_dead", lambda _: True)  # it could not give its lease back
        again = Collection(name, url, report=told.append)
        assert completed(node, lambda: again.migrate(str(models.mirror), **OPTIONS)).phase == "swapped"
    assert contents(client, name).keys() == expected
    restart(node, name)
    assert collection.verify(full=True).passed
    assert contents(client, name).keys() == expected


@pytest.mark.parametrize(
    ("breaker", "steps"), [("total", ("ingest", "verify", "migrate")), ("request", ("ingest", "verify")), ("in flight", ("ingest",))]
)
def test_a_circuit_breaker_is_named_and_waited_for(breaker, steps, node, client, name, url, small, models, write, patient):
    """Whatever needs the memory that is not there ends with the breaker's name; once there is some again the same goes on."""
    collection = Collection(name, url)
    collection.ingest(write([paper(n, 200) for n in range(3)], "first.jsonl"), small)
    path = write([paper(n, 200) for n in range(6)])
    work: dict[str, Callable[[], object]] = {
        "ingest": lambda: collection.ingest(path, small),
        "verify": lambda: collection.verify(full=True),
        "migrate": lambda: collection.migrate(str(models.mirror), **OPTIONS),
    }
    setting, low = BREAKERS[breaker]
    for step in steps:
        node.set(**{setting: low})
        patient(1.5)
        with pytest.raises(ClusterError, match="short of memory.*circuit breaker"):
            work[step]()
        patient(90)
        with later(1.5, lambda: node.set(**{setting: None})):
            work[step]()
    assert sum("-chunks/" not in key for key in contents(client, name)) == 6
    assert collection.status()[0].model == ("tiny-mirror" if "migrate" in steps else "tiny-bert")


def test_a_search_says_that_the_server_is_short_of_memory(node, name, url, small, write, patient):
    """A search waits for seconds, not minutes, and then says what is the matter."""
    Collection(name, url).ingest(write([paper(n, 200) for n in range(4)]), small)
    setting, low = BREAKERS["total"]
    node.set(**{setting: low})
    stopped(run("search", "study of species", "--url", url, "--collection", name), "short of memory")


def test_the_breaker_of_vectors_is_waited_for(node, client, name, url, small, write, patient):
    """The k-NN plugin refuses documents with 400 while its breaker has triggered: no paper is rejected for that."""
    collection = Collection(name, url)
    collection.ingest(write([paper(n, 200) for n in range(2)]), small)
    node.set(**{"knn.circuit_breaker.triggered": True})
    try:
        patient(1.5)
        triggered = keeping(lambda: node.set(**{"knn.circuit_breaker.triggered": True}))
        with triggered, pytest.raises(ClusterError, match="short of memory.*circuit breaker"):
            collection.ingest(write([paper(n, 200) for n in range(4)]), small)
        patient(90)
        with later(1.5, lambda: node.set(**{"knn.circuit_breaker.triggered": False})):
            assert collection.ingest(write([paper(n, 200) for n in range(4)]), small).rejected == 0
    finally:
        node.set(**{"knn.circuit_breaker.triggered": None})


def test_dead_letters_that_cannot_be_written_end_an_ingest(client, name, url, write, models):
    """A rejected paper that could not be kept would go unnoticed: the ingest ends with the file's name, and runs again."""
    path = write([paper(1, 150), paper(2, 20)])
    arguments = ("ingest", path, "--model", str(models.bert), "--url", url, "--collection", name)
    stopped(run(*arguments, "--dead-letters", "/dev/full"), "dead letters cannot be written to /dev/full: No space left on device")
    assert run(*arguments).returncode == 0
    assert sum("-chunks/" not in key for key in contents(client, name)) == 1


def test_an_output_that_is_full_or_closed_harms_nothing(client, name, url, write, models):
    """A full stdout is an error with its name; a closed one is its reader's right; without stderr the work is done all the same."""
    path = write([paper(n, 150) for n in range(3)])
    arguments = command("ingest", path, "--model", str(models.bert), "--url", url, "--collection", name)
    with open("/dev/full", "w") as full:
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, timeout=240, env=os.environ)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
        assert "output cannot be written: No space left on device" in done.stderr
        assert subprocess.run(arguments, stdout=subprocess.DEVNULL, stderr=full, timeout=240, env=os.environ).returncode == 0
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(arguments, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=240, env=os.environ)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
    assert sum("-chunks/" not in key for key in contents(client, name)) == 3
