"""Kill -9 at request N of a migration, at every place a request can be killed; run again until it ends; the invariants hold each time (F1–F3).

A sample that rotates by the day runs always; `OSEMBED_SLOW=1 scripts/test -m slow` kills at every request of a migration and of a rollback.
"""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from osembed.arguments import choose_models
from osembed.collection import Collection
from osembed.migrate.options import MigrateOptions
from osembed.migrate.proof.verdict import GateOptions
from osembed.opensearch import indexes
from tests.conftest import paper, run
from tests.killing import Held, kill_at, sample, spawn
from tests.oracle import blocked, contents, leftovers
from tests.proxy import Fault, FaultProxy

pytestmark = pytest.mark.usefixtures("known_models")

QUICK = MigrateOptions(gate=GateOptions(skip=True), gentle=False)
FAULTS = ("before", "applied", "answered")
STEPS = {"migrate": [], "rollback": ["rollback"], "abort": ["abort"], "finish": ["finish", "--grace", "0"]}


def arguments(step: str, name: str, url: str, models) -> list[str]:
    more = ["--model", str(models.mirror), "--no-gate"] if step == "migrate" else []
    return ["migrate", *STEPS[step], *more, "--collection", name, "--url", url]


def check_ended(client, name: str, expected: dict, model: str) -> None:
    """I1–I4 and I6: one index per alias, one model, every document, no block; and the collection can be written to."""
    targets = indexes.resolve(client, name)
    assert {target.meta.model for target in targets.values()} == {model}
    assert not blocked(client, name)
    identity = {target.meta.identity.hash for target in targets.values()}
    found = contents(client, name)
    assert {doc[2] for doc in found.values()} == identity
    assert {key: doc[:2] for key, doc in found.items()} == {key: doc[:2] for key, doc in expected.items()}


@pytest.fixture
def start(client, name, small, write, url):
    """A small collection, and a number of requests that a step takes without any fault."""
    collection = Collection(name, url)
    collection.ingest(write([paper(n, 200) for n in range(6)]), small)
    return collection


def kill_and_end(number, fault, step, collection, name, url, models):
    """Kill one step, then run it again to its end; return whether the kill happened."""
    _, fired = kill_at(number, fault, url, lambda at: arguments(step, name, at, models))
    migration = collection.migration()
    match step:
        case "migrate":
            assert migration.run(choose_models(str(models.mirror)), QUICK).phase == "swapped"
        case "rollback":
            assert migration.rollback(QUICK).phase == "returned"
        case "finish":
            migration.finish(0)
        case "abort":
            migration.abort()
    return fired


def migrate_killed(number, fault, client, name, url, models, collection, write, spec):
    """A migration killed at one request, run again; then written to, rolled back and cleared away."""
    before = contents(client, name)
    fired = kill_and_end(number, fault, "migrate", collection, name, url, models)
    check_ended(client, name, before, "tiny-mirror")
    assert collection.ingest(write([paper(99, 150)], "more.jsonl")).indexed == 1
    assert collection.delete("p99") == {"p99": True}
    assert collection.migration().rollback(QUICK).phase == "returned"
    check_ended(client, name, before, "tiny-bert")
    collection.migration().abort()
    assert leftovers(client, name) == set()
    return fired


@pytest.mark.parametrize("fault", FAULTS)
def test_f1_killed_at_a_request_and_run_again(fault, client, name, small, write, url, models, start):
    """Sampled requests of a migration, each killed, each ended by running it again; nothing is left behind after a rollback and abort."""
    total, _ = kill_at(0, fault, url, lambda at: arguments("migrate", name, at, models))
    start.migration().rollback(QUICK)
    start.migration().abort()
    assert total > 60
    fired = [migrate_killed(number, fault, client, name, url, models, start, write, small) for number in sample(total, 2)]
    assert all(fired)


@pytest.mark.parametrize("step", ["rollback", "abort", "finish"])
def test_f1_the_ways_out_killed_and_run_again(step, client, name, small, write, url, models, start):
    """A rollback, an abort and a finish, killed at sampled requests, end when run again, and nothing is left behind."""
    before = contents(client, name)
    total = 30
    for number, fault in zip(sample(total, 3), FAULTS, strict=True):
        swap = step != "abort"
        was = start.status()[0].model
        there = models.mirror if was == "tiny-bert" else models.bert
        start.migrate(str(there), gate=GateOptions(skip=True), gentle=False, swap=swap)
        kill_and_end(number, fault, step, start, name, url, models)
        assert start.status()[0].model == (there.name if step == "finish" else was)
        if step == "rollback":
            start.migration().abort()
        check_ended(client, name, before, there.name if step == "finish" else was)
        assert leftovers(client, name) == set()


@pytest.mark.parametrize("step", ["abort", "finish"])
def test_f1_killed_just_after_its_deletion(step, client, name, url, models, start):
    """The indexes are deleted and the journal does not know it: run again, it ends, and leaves no alias behind."""
    start.migrate(str(models.mirror), gate=GateOptions(skip=True), gentle=False, swap=step == "finish")
    with FaultProxy(url) as proxy:
        process = spawn(*arguments(step, name, proxy.url, models))
        proxy.rules.append(lambda request: Fault("unanswered", after=process.kill) if b"remove_index" in request.body else None)
        process.wait(120)
        assert proxy.fired == 1
    migration = start.migration()
    assert (migration.finish(0) if step == "finish" else migration.abort()).phase == f"{step}ed"
    assert leftovers(client, name) == set()
    assert start.migrate(str(models.bert if step == "finish" else models.mirror), gate=GateOptions(skip=True)).phase == "swapped"


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "step"), [("before", 1), ("applied", 12), ("answered", 12)])
def test_f1_killed_at_every_request(fault, step, client, name, small, write, url, models, start):
    """The same at every request, until a run ends without being killed.

    A process that is killed forgets what it knew: the cluster is the same whether the server's answer to one request was lost, or the next
    request. So every request is lost once, and of the answers each twelfth.
    """
    number = 1
    while migrate_killed(number, fault, client, name, url, models, start, write, small):
        number += step
    assert number > 60


def test_f2_killed_inside_the_fence_and_lifted_by_a_writer(client, name, small, write, url, models, start):
    """Nobody runs the migration again: a library writer that meets the fence lifts it within 15 s, and nothing of what it wrote is lost."""
    with FaultProxy(url) as proxy:
        process = spawn(*arguments("migrate", name, proxy.url, models))
        proxy.once("_block/write", Fault("unanswered", after=process.kill))
        process.wait(120)
        assert proxy.fired == 1
    assert blocked(client, name)
    began = time.monotonic()
    summary = start.ingest(write([paper(7, 150)], "during.jsonl"))
    assert summary.indexed == 1
    assert time.monotonic() - began < 15
    assert not blocked(client, name)
    assert run(*arguments("migrate", name, url, models)).returncode == 0
    assert "papers/p7" in contents(client, name)
    assert start.status()[0].model == "tiny-mirror"


def test_f3_killed_after_the_swap_was_applied(client, name, small, write, url, models, start):
    """The swap happened, its answer did not arrive: readers and writers are on the new model, and the next run records it."""
    with FaultProxy(url) as proxy:
        process = spawn(*arguments("migrate", name, proxy.url, models))

        def swap(request):
            return (
                Fault("unanswered", after=process.kill)
                if "_aliases" in request.path and b'"must_exist":true' in request.body and (b'"alias":"%s"' % name.encode() in request.body)
                else None
            )

        proxy.rules.append(swap)
        process.wait(120)
        assert proxy.fired == 1
    assert start.status()[0].model == "tiny-mirror"
    assert start.ingest(write([paper(8, 150)], "after.jsonl")).indexed == 1
    assert start.migration().state.phase == "swap"
    assert run(*arguments("migrate", name, url, models)).returncode == 0
    assert start.migration().state.phase == "swapped"
    assert start.migration().rollback(QUICK).phase == "returned"
    assert "papers/p8" in contents(client, name)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_f4_a_signal_inside_the_fence_lifts_it(sent, code, client, name, url, models, start):
    """Ctrl-C and SIGTERM while writers wait: the fence is lifted before the process ends."""
    with FaultProxy(url) as proxy:
        process = spawn(*arguments("migrate", name, proxy.url, models), stderr=subprocess.PIPE)
        proxy.once("_block/write", Fault("pass", after=lambda: process.send_signal(sent)))
        assert process.wait(120) == code
        assert proxy.fired == 1
    assert not blocked(client, name)
    assert start.status()[0].model == "tiny-bert"
    assert run(*arguments("migrate", name, url, models)).returncode == 0


def test_f5_a_stopped_process_wakes_up_powerless(client, name, small, write, url, models, start):
    """SIGSTOP with a request on its way, past the lease; another process finishes; awake again it may neither write nor swap."""
    with FaultProxy(url) as proxy:
        process = spawn(*arguments("migrate", name, proxy.url, models), stderr=subprocess.PIPE)
        held = Held(process)
        proxy.once("_bulk", Fault("pass", before=held.stop))
        held.wait()
        done = run(*arguments("migrate", name, url, models))
        assert done.returncode == 0, done.stderr
        assert start.delete(["p1"]) == {"p1": True}
        expected = contents(client, name)
        assert held.wake() == 3
        assert b"taken over" in process.stderr.read().replace(b"no longer holds", b"taken over")
    assert contents(client, name) == expected
    assert start.status()[0].model == "tiny-mirror"


def test_f5_a_creation_on_its_way_is_refused_after_a_takeover(client, name, url, models, start):
    """SIGSTOP while the creation of an index is on its way: after an abort it arrives, and the server refuses it."""
    with FaultProxy(url) as proxy:
        process = spawn(*arguments("migrate", name, proxy.url, models))
        held = Held(process)

        def creation(request):
            is_one = request.method == "PUT" and f"/{name}-" in request.path
            return Fault("pass", before=held.stop) if is_one and not held.is_stopped else None

        proxy.rules.append(creation)
        held.wait()
        done = run("migrate", "abort", "--collection", name, "--url", url)
        assert done.returncode == 0, done.stderr
        before = set(client.indices.get(index=f"{name}*", params={"expand_wildcards": "all"}))
        assert held.wake() != 0
    assert set(client.indices.get(index=f"{name}*", params={"expand_wildcards": "all"})) == before
