"""Taking a collection away: what goes and what stays, who is in the way, and whoever meets it; what is left over, and what clears it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import get_args

import orjson
import pytest

from osembed.collection import Collection
from osembed.errors import AuthError, BusyError, CollectionError, DroppedError, InputError, OsembedError
from osembed.ingest import delete as deletes
from osembed.ingest.spec import CollectionSpec
from osembed.migrate import migration as migrations
from osembed.migrate.proof.verdict import GateOptions
from osembed.opensearch import changes, drop_plan, indexes, reads
from osembed.opensearch import drop as drops
from osembed.opensearch.client import connect
from osembed.opensearch.coordination.journal import JOURNAL, Journal
from osembed.opensearch.leftovers import Kind
from osembed.opensearch.schema import PIPELINE
from osembed.opensearch.survey import survey_indexes
from tests.conftest import paper, run
from tests.forking import Command
from tests.killing import Held, before_first, kill_at, sample, spawn
from tests.oracle import contents
from tests.proxy import Fault, FaultProxy
from tests.secured import role_spec

pytestmark = pytest.mark.usefixtures("known_models")
UNJUDGED = {"gate": GateOptions(skip=True), "gentle": False}
FAULTS = ("before", "applied", "answered")


@pytest.fixture
def live(collection, small, write) -> Collection:
    """A small collection."""
    collection.ingest(write([paper(n, 150) for n in range(5)]), small)
    return collection


@pytest.fixture
def impatient(monkeypatch) -> None:
    """A drop of this process believes after three seconds that a silent process is dead; the real time is twelve."""
    monkeypatch.setattr(drops, "DEAD_S", 3.0)
    monkeypatch.setattr(drop_plan, "_EARLY_S", 3.0)


def there(client, name: str) -> set[str]:
    """The indexes that are called after a collection, or stand behind its aliases."""
    return set(
        client.indices.get(index=f"{name},{name}-*,staging-{name}-*", params={"expand_wildcards": "all", "ignore_unavailable": "true"})
    )


def shared(client) -> tuple:
    """What no drop may touch: the journal's index and the search pipeline."""
    return reads.indexes(client, [JOURNAL], "*.settings.index.uuid"), reads.pipeline(client, PIPELINE)


def check_gone(client, name: str) -> None:
    """Nothing is left but a tombstone that is complete."""
    assert there(client, name) == set()
    seen = survey_indexes(client, name)
    assert (seen.keys, seen.migration, seen.state["dropped"]["done"]) == ((), None, True)
    assert set(seen.state) == {"drops", "floor", "dropped"}


def shell(name: str, url: str, *more: str) -> subprocess.CompletedProcess[str]:
    return run("drop", "--collection", name, "--url", url, *more)


@contextmanager
def feeding(name: str, url: str, *more: str):
    """An ingest in a process of its own that waits for more on its standard input."""
    arguments = ["ingest", "-", "--collection", name, "--url", url, *more]
    process = Command(*arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    process.stdin.write(orjson.dumps(paper("fed"), option=orjson.OPT_APPEND_NEWLINE))  # before the first paper nothing is begun
    process.stdin.flush()
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stderr.close()


def wait_entered(client, name: str, kind: str) -> None:
    """Return once a process is entered as loading or feeding a collection."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        if (Journal(client).read(f"collection:{name}") or {}).get(kind):
            return
        time.sleep(0.1)
    raise AssertionError(f"nobody entered as one of the {kind}")


def wait_indexes(client, name: str, count: int) -> None:
    """Return once a collection has so many indexes."""
    ends = time.monotonic() + 60
    while len(there(client, name)) < count:
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_a_collection_goes_and_nothing_else(live, client, url, name, small, write):
    """Indexes and journal entries go; journal, pipeline and a collection with a longer name stay; commands say dropped; it can be made anew."""
    other = Collection(f"{name}-other", url)
    other.ingest(write([paper(n, 150) for n in range(3)], "other.jsonl"), small)
    before, kept = shared(client), contents(client, other.name)
    old = there(client, name) - there(client, other.name)
    done = shell(name, url, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["indexes"]) == old
    check_gone_beside(client, name, other.name)
    assert (shared(client), contents(client, other.name)) == (before, kept)
    searched = run("search", "species", "--collection", name, "--url", url)
    assert (searched.returncode, "was dropped" in searched.stderr) == (1, True)
    again = shell(name, url, "--yes")
    assert (again.returncode, again.stdout) == (0, "Nothing to do.\n")
    assert live.ingest(write([paper(9, 150)]), small).indexed == 1
    assert live.search("species 9").found == 1
    assert not old & {row.index for row in live.status()}
    assert live.drop().phase == "dropped"
    assert contents(client, other.name) == kept


def check_gone_beside(client, name: str, other: str) -> None:
    """As `check_gone`, where another collection's name begins with this one's."""
    assert there(client, name) == there(client, other)
    assert survey_indexes(client, name).keys == ()
    assert survey_indexes(client, name).state["dropped"]["done"]


def test_what_was_never_there(collection, url, client):
    """A collection that does not exist is an error, and nothing is written into the journal for it."""
    with pytest.raises(CollectionError, match="There is no collection"):
        collection.drop()
    assert Journal(client).read(f"collection:{collection.name}") is None
    assert Journal(client).read(f"migration:{collection.name}") is None


def test_it_has_to_be_confirmed(live, url, name, client, tmp_path, monkeypatch):
    """Without a terminal --yes is needed, on the command line: neither the environment nor a file can say it."""
    before = there(client, name)
    refused = shell(name, url)
    assert (refused.returncode, f"osembed drop --collection {name} --yes" in refused.stderr) == (2, True)
    assert all(index in refused.stderr for index in before)
    assert run("drop", "--collection", name, "--url", url, env={"OSEMBED_YES": "1"}).returncode == 2
    file = tmp_path / "osembed.toml"
    file.write_text("[drop]\nyes = true\n")
    said = run("drop", "--collection", name, "--url", url, env={"OSEMBED_CONFIG": str(file)})
    assert (said.returncode, "configuration file" in said.stderr) == (2, True)
    assert there(client, name) == before


@pytest.mark.parametrize(("typed", "code"), [("papers\n", 2), ("\n", 2), ("NAME\n", 0)])
def test_the_name_is_typed(typed, code, live, url, name, client):
    """On a terminal the collection's name has to be typed; anything else deletes nothing."""
    before = there(client, name)
    leader, follower = pty.openpty()
    arguments = ["drop", "--collection", name, "--url", url]
    process = Command(*arguments, stdin=follower, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    os.write(leader, typed.replace("NAME", name).encode())
    _, said = process.communicate(timeout=120)
    os.close(leader)
    os.close(follower)
    assert process.returncode == code, said
    assert f"Type {name}" in said.decode()
    assert there(client, name) == (set() if code == 0 else before)


@pytest.mark.parametrize("first", [True, False])
def test_an_ingest_that_beats_is_in_the_way(first, client, url, name, small, collection, write, models):
    """While an ingest runs, of a first load or of a published collection, a drop ends with 3; once it is killed, at once it does not count."""
    if not first:
        collection.ingest(write([paper(1, 150)]), small)
    with feeding(name, url, "--model", str(models.bert)) as process:
        wait_entered(client, name, "loaders" if first else "writers")
        wait_indexes(client, name, 2)
        before = there(client, name)
        refused = shell(name, url, "--yes")
        assert (refused.returncode, f"process {process.pid}" in refused.stderr) == (3, True), refused.stderr
        assert there(client, name) == before
    began = time.monotonic()
    plan = collection.plan_drop()
    assert collection.drop(plan).phase == "dropped"
    assert time.monotonic() - began < 10
    check_gone(client, name)


def test_an_ingest_leaves_no_entry_behind(live, client, name, small, write):
    """Ended or failed, a run strikes out its entry: a drop does not wait for it."""
    assert live.ingest(write([paper(1, 150)], "again.jsonl")).read == 1
    with pytest.raises(InputError):
        live.ingest(write([paper(1, 150)], "again.jsonl"), CollectionSpec(chunk_words=77))
    state = Journal(client).read(f"collection:{name}")
    assert (state["writers"], state["loaders"]) == ({}, {})


def test_a_dead_migration_goes_too(live, client, proxy, url, name, models):
    """A migrator that beats is in the way (3); killed, both generations are listed and go."""
    go_on = threading.Event()
    proxy.once("/_bulk", Fault("lost", before=lambda: go_on.wait(120)))
    process = spawn("migrate", "--model", str(models.mirror), "--no-gate", "--collection", name, "--url", proxy.url)
    try:
        wait_indexes(client, name, 4)
        refused = shell(name, url, "--yes")
        assert (refused.returncode, "process" in refused.stderr) == (3, True), refused.stderr
    finally:
        process.kill()
        process.wait()
        go_on.set()
    listed = shell(name, url)
    assert listed.returncode == 2
    assert all(index in listed.stderr for index in there(client, name))
    assert "new model, not published" in listed.stderr
    assert shell(name, url, "--yes").returncode == 0
    check_gone(client, name)
    assert live.migration().state is None


def kill_and_complete(number, fault, name, url, client, collection) -> bool:
    """Kill a drop at one request, see that it is one thing or the other, and drop again; return whether it was killed."""
    before = there(client, name)
    _, fired = kill_at(number, fault, url, lambda at: ["drop", "--yes", "--collection", name, "--url", at])
    assert there(client, name) in (before, set())
    state = Journal(client).read(f"collection:{name}")
    if there(client, name) == set() and not state["dropped"]["done"]:
        with pytest.raises(DroppedError):
            collection.search("anything")
        with pytest.raises(DroppedError, match="Complete it"):
            collection.ingest([paper(1)])
    collection.drop()
    check_gone(client, name)
    return fired


@pytest.mark.parametrize("migrating", [False, True])
def test_killed_at_a_request_and_run_again(migrating, collection, client, url, name, small, write, models):
    """Sampled requests, each killed: all indexes are there or none, and the same command completes it."""
    records, before = write([paper(n, 150) for n in range(3)]), shared(client)
    for number, fault in zip(sample(36, 3), FAULTS, strict=True):
        collection.ingest(records, small)
        if migrating:
            collection.migrate(str(models.mirror), swap=False, **UNJUDGED)
        assert kill_and_complete(number, fault, name, url, client, collection)
    assert shared(client) == before


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_killed_at_every_request(fault, collection, client, url, name, small, write):
    """The same at every request, until a drop ends without being killed."""
    records, number, fired = write([paper(n, 150) for n in range(2)]), 0, True
    while fired:
        number += 1
        collection.ingest(records, small)
        fired = kill_and_complete(number, fault, name, url, client, collection)
    assert number > 30


def test_killed_at_its_deletion(live, client, url, name, small, write):
    """Killed as the deletion is applied: no command takes the rest for a collection, and an ingest waits for the drop to be completed."""
    with FaultProxy(url) as proxy:
        process = spawn("drop", "--yes", "--collection", name, "--url", proxy.url)
        proxy.rules.append(lambda request: Fault("unanswered", after=process.kill) if b"remove_index" in request.body else None)
        process.wait(120)
        assert proxy.fired == 1
    assert there(client, name) == set()
    with pytest.raises(DroppedError, match="Complete it"):
        live.ingest(write([paper(1, 150)]), small)
    assert any(check.name == "interrupted drop" and "osembed drop" in check.advice for check in live.doctor())
    assert live.drop().phase == "dropped"
    check_gone(client, name)
    assert live.ingest(write([paper(1, 150)]), small).indexed == 1


@pytest.mark.parametrize("where", ["_aliases", f"{JOURNAL}/_doc/drop"])
def test_a_user_who_may_not_delete(where, live, client, name, url, small, write):
    """Refused by the server, of the indexes or of the journal's entries: nothing is deleted, and the collection can be fed as before."""
    before = there(client, name)
    body = b'{"error": {"type": "security_exception", "reason": "no permissions for [indices:admin/delete]"}, "status": 403}'
    with FaultProxy(url) as proxy:
        kinds = ("DELETE", "POST")
        proxy.rules.append(lambda request: Fault("answer", 403, body) if where in request.path and request.method in kinds else None)
        with pytest.raises(AuthError):
            Collection(name, proxy.url).drop()
        assert proxy.fired
    assert there(client, name) == before
    assert not (Journal(client).read(f"collection:{name}") or {}).get("dropped")
    assert live.ingest(write([paper(9, 150)], "more.jsonl")).indexed == 1
    assert live.drop().phase == "dropped"
    check_gone(client, name)


@pytest.mark.parametrize("alias", ["", "-chunks"])
def test_a_foreign_index_behind_the_alias(alias, live, client, url, name):
    """It is named and refused, and nothing is deleted; nor is it where it says that it is the collection's, under another name."""
    stranger, own = f"{name}-of-somebody", live.status()[0].index
    said = client.indices.get_mapping(index=own)[own]["mappings"]["_meta"]
    client.indices.create(index=stranger, body={"aliases": {f"{name}{alias}": {}}})
    before = there(client, name)
    refused = shell(name, url, "--yes")
    assert (refused.returncode, stranger in refused.stderr) == (1, True)
    client.indices.put_mapping(index=stranger, body={"_meta": said})
    assert shell(name, url, "--yes").returncode == 1
    assert there(client, name) == before
    client.indices.delete_alias(index=stranger, name=f"{name}{alias}")
    assert live.drop().phase == "dropped"
    assert there(client, name) == {stranger}


def test_a_wiped_description_is_known_from_the_journal(live, client, name):
    """An index whose `_meta` some client has wiped is ours by its UUID."""
    for row in live.status():
        client.indices.put_mapping(index=row.index, body={"_meta": {}})
    assert live.drop().phase == "dropped"
    check_gone(client, name)


def test_made_anew_between_confirmation_and_deletion(live, client, name):
    """What was confirmed has another UUID now: nothing is deleted."""
    plan = live.plan_drop()
    one = live.status()[0].index
    body = client.indices.get(index=one)[one]
    client.indices.delete(index=one)
    client.indices.create(index=one, body={"mappings": body["mappings"], "aliases": body["aliases"], "settings": {"index": {"knn": True}}})
    before = there(client, name)
    with pytest.raises(CollectionError, match="has changed since it was confirmed"):
        live.drop(plan)
    assert there(client, name) == before
    assert live.drop().phase == "dropped"


def test_made_anew_just_before_the_deletion(live, client, name, monkeypatch):
    """The UUIDs are compared once more after the tombstone is written."""

    def exchange() -> None:
        one = live.status()[0].index
        client.indices.delete(index=one)
        client.indices.create(index=one)

    before_first(monkeypatch, drops, "_delete", exchange)
    names = there(client, name)
    with pytest.raises(CollectionError, match="created again"):
        live.drop()
    assert there(client, name) == names


def test_a_drop_that_wakes_up_deletes_nothing_of_a_new_collection(live, client, url, name, small, write):
    """Stopped with its deletion on the way; another drop completes, the collection is made anew; awake again it finds nothing to delete."""
    with FaultProxy(url) as proxy:
        process = spawn("drop", "--yes", "--collection", name, "--url", proxy.url)
        held = Held(process)
        proxy.rules.append(lambda request: Fault(before=held.stop) if b"remove_index" in request.body and not held.is_stopped else None)
        held.wait()
        assert live.drop().phase == "dropped"
        assert live.ingest(write([paper(7, 150)]), small).indexed == 1
        before = contents(client, name)
        assert held.wake() != 0
    assert contents(client, name) == before
    assert live.ingest(write([paper(8, 150)]), small).indexed == 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("anew", [False, True])
def test_an_ingest_that_meets_it(anew, live, client, url, name, small, write):
    """Stopped in the middle, awake after a drop: it says dropped, ends with 1, and makes nothing anew, nor writes into a new collection."""
    records = write([paper(n, 150) for n in range(20, 30)], "more.jsonl")
    with FaultProxy(url) as proxy:
        process = spawn("ingest", records, "--collection", name, "--url", proxy.url, stderr=subprocess.PIPE)
        held = Held(process)
        proxy.rules.append(lambda request: Fault(before=held.stop) if "_bulk" in request.path and not held.is_stopped else None)
        held.wait()
        assert live.drop().phase == "dropped"
        if anew:
            assert live.ingest(write([paper(7, 150)]), small).indexed == 1
        before = there(client, name)
        began = time.monotonic()
        assert held.wake() == 1
        assert time.monotonic() - began < 15
        assert b"was dropped" in process.stderr.read()
    assert there(client, name) == before
    if anew:
        assert {row.documents for row in live.status() if row.level == "papers"} == {1}
    else:
        check_gone(client, name)


@pytest.mark.usefixtures("impatient")
def test_a_first_load_whose_creation_is_on_its_way(collection, client, url, name, models, write):
    """Stopped while it creates its second index: after a drop it takes back what it has made, and says dropped."""
    records = write([paper(n, 150) for n in range(3)])
    with FaultProxy(url) as proxy:
        process = spawn("ingest", records, "--model", str(models.bert), "--collection", name, "--url", proxy.url, stderr=subprocess.PIPE)
        held = Held(process)

        def creation(request):
            is_one = request.method == "PUT" and request.path.startswith(f"/{name}-chunks-")
            return Fault(before=held.stop) if is_one and not held.is_stopped else None

        proxy.rules.append(creation)
        held.wait()
        assert collection.drop().phase == "dropped"
        assert held.wake() == 1
        assert b"was dropped" in process.stderr.read()
    check_gone(client, name)


@pytest.mark.usefixtures("impatient")
def test_a_migrator_that_meets_it(live, client, url, name, models, monkeypatch):
    """Stopped while it copies, awake after a drop: it says dropped, ends with 1, and makes nothing anew."""
    monkeypatch.setattr("osembed.opensearch.coordination.lease._DEAD_S", 4.0)
    with FaultProxy(url) as proxy:
        process = spawn(
            "migrate", "--model", str(models.mirror), "--no-gate", "--collection", name, "--url", proxy.url, stderr=subprocess.PIPE
        )
        held = Held(process)
        proxy.rules.append(lambda request: Fault(before=held.stop) if "_bulk" in request.path and not held.is_stopped else None)
        held.wait()
        assert live.drop().phase == "dropped"
        assert held.wake() == 1
        assert b"was dropped" in process.stderr.read()
    check_gone(client, name)


def test_a_search_object_that_remembers_the_old_index(live, client, name, url):
    """A searcher that has just used the index says dropped at once."""
    other = Collection(name, url)
    assert live.search("species").found
    other.drop()
    began = time.monotonic()
    with pytest.raises(DroppedError, match="was dropped"):
        live.search("species")
    with pytest.raises(DroppedError, match="was dropped"):
        live.similar("p1")
    assert time.monotonic() - began < 5


def test_a_delete_a_verification_and_a_repair_that_meet_it(live, client, name, url, small, write, monkeypatch):
    """In the middle of each the collection goes: dropped, exit code 1, and nothing is made anew."""
    other, records = Collection(name, url), write([paper(n, 150) for n in range(3)])
    places = [(deletes, "tally_chunks", lambda: live.delete("p1")), (migrations, "verify", live.verify)]
    for where, function, act in places:
        with monkeypatch.context() as patch:
            before_first(patch, where, function, other.drop)
            with pytest.raises(DroppedError) as caught:
                act()
            assert caught.value.exit_code == 1
        check_gone(client, name)
        live.ingest(records, small)
    other.drop()
    for act in (live.repair, live.verify, live.status, lambda: live.migrate("all-MiniLM-L6-v2"), lambda: live.delete("p1")):
        with pytest.raises(DroppedError):
            act()
    check_gone(client, name)


def test_a_loader_and_a_writer_beat_in_the_form_that_others_read(live, client, name, small, write):
    """Only keys are added to the stored form: what stood there before still does."""
    state = Journal(client).read(f"collection:{name}")
    assert {"generation", "indexes", "models", "loaders"} <= set(state)
    assert indexes.exist(client, state["indexes"].values())


def leftover_kinds(collection: Collection) -> dict[str, str]:
    """What doctor finds left over: kind → the command."""
    kinds = get_args(Kind)
    return {check.name: check.advice for check in collection.doctor() if check.name in kinds}


def follow(advice: str, url: str) -> None:
    """Type what doctor says."""
    words = advice.split()
    assert words[0] == "osembed"
    done = run(*words[1:], "--url", url, *(["--yes"] if words[1] == "drop" else []), *(["--grace", "0"] if words[2] == "finish" else []))
    assert done.returncode == 0, done.stderr


def make_scratch(client, name, **_) -> None:
    client.indices.create(index=f"{name}-scratch-0f3a", body={"settings": {"index": {"hidden": True}}})


def make_alias(client, name, **_) -> None:
    index = next(iter(client.indices.get_alias(name=name)))
    client.indices.put_alias(index=index, name=f"staging-{name}-4", body={"is_hidden": True})


def make_block(client, name, **_) -> None:
    client.indices.put_settings(index=name, body={"index.blocks.write": True})


def make_entry(client, name, **_) -> None:
    index = next(iter(client.indices.get_alias(name=name)))
    meta = client.indices.get_mapping(index=index)[index]["mappings"]["_meta"]["osembed"]
    Journal(client).remember_index(f"gone-{name}", meta, {})
    time.sleep(1.5)  # entries are searched for


def make_ready(client, name, collection, models, **_) -> None:
    collection.migrate(str(models.mirror), swap=False, **UNJUDGED)


def make_replaced(client, name, collection, models, **_) -> None:
    collection.migrate(str(models.mirror), **UNJUDGED)


def make_stray(client, name, collection, models, **_) -> None:
    """New indexes of a migration that the journal has forgotten."""
    collection.migrate(str(models.mirror), swap=False, **UNJUDGED)
    Journal(client).forget(f"migration:{name}")


@pytest.mark.parametrize(
    ("make", "kind", "command_of_it"),
    [
        (make_scratch, "scratch index", "drop --leftovers"),
        (make_alias, "staging alias", "drop --leftovers"),
        (make_block, "write block", "verify --repair"),
        (make_entry, "journal entry", "drop --leftovers"),
        (make_ready, "unpublished index", "migrate abort"),
        (make_replaced, "unpublished index", "migrate finish"),
        (make_stray, "unpublished index", "drop --leftovers"),
    ],
)
def test_what_is_left_over_and_what_clears_it(make, kind, command_of_it, live, client, url, name, models, write):
    """Doctor lists it with the command that clears it; typed, it is gone, and the collection is as it was."""
    assert leftover_kinds(live) == {}
    before = {key: doc[:2] for key, doc in contents(client, name).items()}
    make(client=client, name=name, url=url, collection=live, models=models)
    found = leftover_kinds(live)
    assert set(found) == {kind}
    assert command_of_it in found[kind]
    follow(found[kind], url)
    assert leftover_kinds(live) == {}
    assert {key: doc[:2] for key, doc in contents(client, name).items()} == before
    assert live.ingest(write([paper(99, 150)], "more.jsonl")).indexed == 1


def test_a_half_made_block_is_left_over(secured, name, small, write, monkeypatch):
    """A user without `block/add[s]` leaves a block with a UUID, which no setting lifts: doctor lists it, `verify --repair` lifts it (B2)."""
    for variable, value in secured.as_user("admin").items():
        monkeypatch.setenv(variable, value)
    live = Collection(name, secured.url, ca_cert=str(secured.ca))
    live.ingest(write([paper(n, 150) for n in range(3)]), small)
    spec = role_spec("migrator", name)
    allowed = spec["index_permissions"][0]
    allowed["allowed_actions"] = [*(one for one in allowed["allowed_actions"] if "block/add" not in one), "indices:admin/block/add"]
    weak = f"{name}-weak"
    secured.set_role(weak, spec)
    secured.set_user(weak, [weak])
    index = live.status()[0].index
    with pytest.raises(OsembedError):
        changes.block_writes(connect(secured.access(weak)), [index], 10)
    state = live.client.transport.perform_request("GET", f"/_cluster/state/blocks/{index}")
    assert any("uuid" in block for block in state["blocks"]["indices"][index].values())
    found = leftover_kinds(live)
    assert set(found) == {"write block"}
    follow(found["write block"], secured.url)
    assert leftover_kinds(live) == {}
    assert live.ingest(write([paper(9, 150)])).indexed == 1
    assert live.drop().phase == "dropped"


def test_a_first_load_that_was_killed_is_left_over(collection, client, url, name, models):
    """Its unpublished indexes are listed with `drop`; while it runs they are not."""
    with feeding(name, url, "--model", str(models.bert)):
        wait_entered(client, name, "loaders")
        wait_indexes(client, name, 2)
        assert leftover_kinds(collection) == {}
    found = leftover_kinds(collection)
    assert set(found) == {"unpublished index"}
    follow(found["unpublished index"], url)
    check_gone(client, name)
    assert leftover_kinds(collection) == {}


def test_clearing_refuses_while_somebody_works(live, client, url, name, models):
    """Leftovers are not cleared under a process that may be using them."""
    make_scratch(client, name)
    with feeding(name, url):
        wait_entered(client, name, "writers")
        with pytest.raises(BusyError):
            live.plan_drop(leftovers=True)
    assert live.drop(live.plan_drop(leftovers=True)).phase == "cleared"
    assert live.migration().state is None
    assert live.search("species").found
