"""The journey of a migration, who else is there, and what stops it: on the real node, with small models."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import orjson
import psutil
import pytest

from osembed.arguments import choose_models
from osembed.collection import Collection
from osembed.errors import AuthError, BusyError, CollectionError, InputError, ModelError, UnavailableError
from osembed.ingest.spec import CollectionSpec
from osembed.migrate import direction, readiness, swap
from osembed.migrate.copy.copier import Copier
from osembed.migrate.copy.level_copy import pack_version
from osembed.migrate.options import MigrateOptions
from osembed.migrate.proof.verdict import GateOptions
from osembed.opensearch import indexes, reads
from osembed.opensearch.client import Access, connect
from osembed.opensearch.coordination import fence
from osembed.opensearch.coordination import lease as leases
from osembed.opensearch.node.install import CLUSTER_NAME
from tests.conftest import EXAMPLES, paper, run
from tests.killing import before_first, spawn
from tests.oracle import blocked, contents, everything, leftovers
from tests.proxy import Fault

UNJUDGED = GateOptions(skip=True)
QUICK = MigrateOptions(gate=UNJUDGED, gentle=False)
pytestmark = pytest.mark.usefixtures("known_models")


@pytest.fixture
def started(collection, small, write) -> Collection:
    """A small collection."""
    collection.ingest(write([paper(n, 200, year=2000 + n) for n in range(8)]), small)
    return collection


def migrate(collection: Collection, model, **options):
    return collection.migrate(str(model), **{"gate": UNJUDGED, "gentle": False, **options})


def test_the_whole_journey_from_the_shell(name, url, models, client):
    """plan, migrate --no-swap (5), status, swap, rollback, migrate again, finish: each says what it did, in words and in JSON."""
    where = ["--collection", name, "--url", url]
    assert run("ingest", str(EXAMPLES / "corpus.jsonl"), "--model", str(models.bert), *where).returncode == 0
    target = ["--model", str(models.mirror), *where]
    plan = json.loads(run("migrate", "plan", "--json", *target).stdout)
    assert plan["fits"]
    assert {level["documents"] for level in plan["levels"]} == {45, 332}
    assert any("_aliases" in call for call in plan["calls"])
    assert leftovers(client, name) == set()
    ready = run("migrate", "--no-swap", *target)
    assert (ready.returncode, "Swap with" in ready.stdout) == (5, True), ready.stderr
    assert run("migrate", "plan", *target).returncode == 0
    assert "ready" in run("migrate", "status", *where).stdout
    assert "passed" in run("migrate", "status", "--report", *where).stdout
    refused = run("migrate", "finish", *where)
    assert (refused.returncode, "not swapped yet" in refused.stderr) == (2, True)
    swapped = run("migrate", "swap", *where)
    assert (swapped.returncode, "Writers waited" in swapped.stdout) == (0, True), swapped.stderr
    assert json.loads(run("status", "--json", *where).stdout)[0]["model"] == "tiny-mirror"
    assert "seconds" not in run("migrate", "finish", *where).stdout
    assert run("migrate", "finish", *where).returncode == 2
    assert run("migrate", "rollback", *where).returncode == 0
    assert run("migrate", "abort", *where).returncode == 0
    assert run("migrate", "abort", *where).stdout.startswith("Nothing to do")
    again = json.loads(run("migrate", "--json", *target).stdout)
    assert (again["phase"], again["gate"]["verdict"], again["exit_code"]) == ("swapped", "passed", 0)
    assert run("migrate", *target).returncode == 0
    assert run("migrate", "finish", "--grace", "0", *where).returncode == 0
    assert leftovers(client, name) == set()
    assert "Nothing to do" in run("migrate", *target).stdout


def test_chunks_are_copied_one_to_one_with_their_fields(started, client, models):
    """Ids, words, metadata and their mapping are the same; identity, vector, text hash and origin are the new model's."""
    before = {level: dict(everything(client, target.index)) for level, target in indexes.resolve(client, started.name).items()}
    migrate(started, models.mirror)
    for level, target in indexes.resolve(client, started.name).items():
        after = dict(everything(client, target.index))
        assert after.keys() == before[level].keys()
        for key, doc in after.items():
            old = before[level][key]
            own = {"embedding", "identity", "text_hash", "origin", "token_count"}
            assert {k: v for k, v in doc.items() if k not in own} == {k: v for k, v in old.items() if k not in own}
            assert sum(a * b for a, b in zip(doc["embedding"], old["embedding"], strict=True)) < -0.99
        assert target.meta_types["year"] == "double"


def test_one_level_moves_alone(started, client, models):
    """Only the chunks get another model; the papers' index stays, and search works over both."""
    papers = indexes.resolve(client, started.name)["papers"].index
    done = started.migrate(spec=CollectionSpec(chunk_model=str(models.mirror)), gate=UNJUDGED, gentle=False)
    targets = indexes.resolve(client, started.name)
    assert (done.phase, targets["papers"].index, targets["chunks"].meta.model) == ("swapped", papers, "tiny-mirror")
    assert started.search("study of species", mode="hybrid").models == {"papers": "tiny-bert", "chunks": "tiny-mirror"}
    started.rollback(gate=UNJUDGED, gentle=False)
    assert {target.meta.model for target in indexes.resolve(client, started.name).values()} == {"tiny-bert"}


def test_another_dimension_and_a_model_without_normalisation(started, client, models):
    """From 32 to 16 dimensions, and on to a dot-product model."""
    migrate(started, models.dense)
    assert {row.dimension for row in started.status()} == {16}
    started.migration().finish(0)
    migrate(started, models.mpnet)
    assert {target.meta.identity.normalize for target in indexes.resolve(client, started.name).values()} == {False}
    assert {row.generation for row in started.status()} == {3}


def test_another_profile_carries_the_vectors(collection, client):
    """The same (real) model in a quantised mapping: nothing is embedded, every vector is carried over."""
    started = collection
    started.ingest(str(EXAMPLES / "corpus.jsonl"))
    done = started.migrate(spec=CollectionSpec(profile="lucene-sq"), gate=UNJUDGED, gentle=False)
    assert (done.phase, done.copied.embedded) == ("swapped", 0)
    assert done.copied.carried == done.copied.seen > 8
    target = indexes.resolve(client, started.name)["chunks"]
    assert target.meta.profile == "lucene-sq"
    assert "encoder" in str(client.indices.get_mapping(index=target.index))
    started.migration().finish(0)
    assert started.migrate(spec=CollectionSpec(profile="lucene-sq")).phase == "nothing to do"


def test_an_empty_collection_and_empty_shards(client, name, url, small, write, models):
    """Nothing to copy is no error; nor is a shard that never held a document (F44)."""
    collection = Collection(name, url)
    collection.ingest(write([paper(1)]), CollectionSpec(**{**small.__dict__, "shards": 3}))
    collection.delete("p1")
    assert migrate(collection, models.mirror).phase == "swapped"
    collection.migration().finish(0)
    collection.ingest(write([paper(1)]))
    assert migrate(collection, models.bert).phase == "swapped"
    assert collection.status()[0].documents == 1


def test_operators_settings_and_fields_come_along(started, client, models):
    """Replicas, an added field, an alias of another team: green has what blue had, and what was mapped meanwhile."""
    blue = indexes.resolve(client, started.name)["papers"].index
    client.indices.put_mapping(index=blue, body={"properties": {"journal": {"type": "keyword"}}})
    client.indices.put_settings(index=blue, body={"index.refresh_interval": "7s"})
    client.indices.put_alias(index=blue, name=f"{started.name}-other", body={"filter": {"exists": {"field": "journal"}}})
    client.index(index=started.name, id="own", body={"title": "Own", "body": "Written around.", "journal": "J"}, refresh=True)
    started.migrate(str(models.mirror), swap=False, gate=UNJUDGED, gentle=False)
    client.indices.put_mapping(index=blue, body={"properties": {"volume": {"type": "integer"}}})
    client.index(index=started.name, id="late", body={"title": "Late", "body": "Later.", "volume": 3})
    started.swap(gate=UNJUDGED, gentle=False)
    green = indexes.resolve(client, started.name)["papers"].index
    properties = client.indices.get_mapping(index=green)[green]["mappings"]["properties"]
    assert (properties["journal"]["type"], properties["volume"]["type"]) == ("keyword", "integer")
    assert client.indices.get_settings(index=green)[green]["settings"]["index"]["refresh_interval"] == "7s"
    assert [hit["_id"] for hit in client.search(index=f"{started.name}-other")["hits"]["hits"]] == ["own"]
    assert client.get(index=green, id="late")["_source"]["embedding"]


def test_f6_two_at_once(started, proxy, name, url, models):
    """A second migrate, a rollback, a finish beside a running one: exit code 3, and the holder is named; the first ends well."""
    arguments = ["migrate", "--model", str(models.mirror), "--no-gate", "--collection", name]
    held, go = threading.Event(), threading.Event()
    proxy.once("_bulk", Fault("pass", before=lambda: (held.set(), go.wait(60))))
    first = spawn(*arguments, "--url", proxy.url, stderr=subprocess.PIPE)
    assert held.wait(60)
    for step in ([], ["rollback"], ["finish"]):
        more = arguments[1:3] if not step else []
        second = run("migrate", *step, *more, "--collection", name, "--url", url)
        assert (second.returncode, f"Process {first.pid}" in second.stderr) == (3, True), second.stderr
    go.set()
    assert first.wait(60) == 0


def test_pause_and_resume_from_outside(started, models):
    """Paused, it waits and holds the lease; resumed, it goes on."""
    seen: list[str] = []
    started.migrate(str(models.mirror), swap=False, gate=UNJUDGED, gentle=False)
    started.migration().control(paused=True)
    thread = threading.Thread(target=lambda: seen.append(started.swap(gate=UNJUDGED, gentle=False).phase))
    started.client.index(index=started.name, id="w", body={"title": "A write", "body": "meanwhile"}, refresh=True)
    thread.start()
    time.sleep(2)
    assert not seen
    assert started.migration().state.lease is not None
    started.migration().control(paused=False)
    thread.join(30)
    assert seen == ["swapped"]


@pytest.mark.parametrize("when", ["copy", "fence"])
def test_f30_a_third_party_moves_the_alias(when, started, client, name, models, monkeypatch):
    """Somebody points the alias elsewhere, while copying or inside the fence: refused, nothing overwritten, no block left."""
    other = f"{name}-theirs"
    client.indices.create(index=other, body={"mappings": {"properties": {"title": {"type": "text"}}}})
    blue = indexes.resolve(client, name)["papers"].index

    def steal():
        actions = [{"remove": {"index": blue, "alias": name}}, {"add": {"index": other, "alias": name, "is_write_index": True}}]
        client.indices.update_aliases(body={"actions": actions})

    if when == "copy":
        migrate(started, models.mirror, swap=False)
        steal()
        with pytest.raises(CollectionError, match="cannot continue: the alias"):
            started.swap(gate=UNJUDGED, gentle=False)
    else:
        genuine = swap.actions
        monkeypatch.setattr(swap, "actions", lambda *given: (genuine(*given), steal())[0])
        with pytest.raises(CollectionError, match="alias was moved during the swap"):
            migrate(started, models.mirror)
    assert list(client.indices.get_alias(name=name)) == [other]
    assert not client.indices.get_settings(index=blue)[blue]["settings"]["index"].get("blocks")
    back = [{"remove": {"index": other, "alias": name}}, {"add": {"index": blue, "alias": name, "is_write_index": True}}]
    client.indices.update_aliases(body={"actions": back})
    if when != "copy":
        monkeypatch.setattr(swap, "actions", genuine)
    assert migrate(started, models.mirror).phase == "swapped"


def test_f26_a_foreign_block_is_neither_removed_nor_passed(started, client, name, models):
    """A write block that was there before: refused, with the request that lifts it; it stays."""
    blue = indexes.resolve(client, name)["chunks"].index
    client.indices.put_settings(index=blue, body={"index.blocks.write": True})
    with pytest.raises(CollectionError, match="write block that osembed did not set"):
        migrate(started, models.mirror)
    assert blocked(client, name) == [blue]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ({"alias": {"filter": {"exists": {"field": "title"}}}}, "has a filter or routing"),
        ({"settings": {"index.final_pipeline": "some-pipeline"}}, "final pipeline"),
    ],
)
def test_f29_preflight_names_the_repair(spoil, words, started, client, name, models):
    """Filtered aliases and final pipelines stop it before anything is created, with the command that mends them."""
    blue = indexes.resolve(client, name)["papers"].index
    if "alias" in spoil:
        client.indices.put_alias(index=blue, name=name, body={**spoil["alias"], "is_write_index": True})
    else:
        client.ingest.put_pipeline(id="some-pipeline", body={"processors": []})
        client.indices.put_settings(index=blue, body=spoil["settings"])
    with pytest.raises(CollectionError, match=words):
        migrate(started, models.mirror)
    assert leftovers(client, name) == set()


def test_f32_an_index_under_a_policy_is_refused(started, proxy, name, models):
    """An ISM policy may delete the source: refused, with the call that detaches it. (The node has no ISM plugin; the proxy answers for it.)"""

    def explain(request):
        index = request.path.rsplit("/", 1)[-1]
        return Fault("answer", body=orjson.dumps({index: {"policy_id": "rollover"}})) if "_ism/explain" in request.path else None

    proxy.rules.append(explain)
    with pytest.raises(CollectionError, match="_plugins/_ism/remove"):
        migrate(Collection(name, proxy.url), models.mirror)


def test_a_full_disk_is_said_before_anything_is_created(started, proxy, client, name, models):
    """'Will not fit', from the nodes' own figures."""

    def small(answer: bytes) -> bytes:
        found = orjson.loads(answer)
        for node in found.get("nodes", {}).values():
            node.get("fs", {})["total"] = {"total_in_bytes": 10**9, "available_in_bytes": 10**8}
        return orjson.dumps(found)

    proxy.rules.append(lambda request: Fault("rewrite", rewrite=small) if "_nodes" in request.path and "fs" in request.path else None)
    with pytest.raises(CollectionError, match="will not fit"):
        migrate(Collection(name, proxy.url), models.mirror)
    assert leftovers(client, name) == set()


@pytest.mark.parametrize(("share", "fits"), [(100.5, False), (40.0, True)])
def test_graphs_beyond_the_circuit_breaker_are_said(share, fits, started, proxy, name, small):
    """Two nodes with so much of their graph memory in use: what both generations need is compared with what all nodes have."""
    node = {"graph_memory_usage": 1_000_000, "graph_memory_usage_percentage": share}

    def elsewhere(request):
        if request.path == "/":  # faiss is refused on the embedded node; nothing is created here
            return Fault("rewrite", rewrite=lambda answer: answer.replace(CLUSTER_NAME.encode(), b"theirs"))
        answer = {"_nodes": {"total": 2, "successful": 2, "failed": 0}, "nodes": {"a": node, "b": node}}
        return Fault("answer", body=orjson.dumps(answer)) if "_knn/stats" in request.path else None

    proxy.rules.append(elsewhere)
    plan = Collection(name, proxy.url).migration().plan(replace(small, profile="faiss"))
    assert (plan.fits, any("circuit breaker" in problem for problem in plan.problems)) == (fits, not fits)


def test_external_versions_are_refused(started, client, name, models):
    """A writer with versions of its own would meet conflicts for ever after a swap."""
    client.index(index=name, id="own", body={"title": "x"}, params={"version": 1763700000000, "version_type": "external"}, refresh=True)
    with pytest.raises(CollectionError, match="sets its own versions"):
        migrate(started, models.mirror)


def test_f9_a_missing_model_stops_before_anything(started, client, name):
    """Model files are looked for before any index is made; another model than the one begun is refused."""
    with pytest.raises(ModelError):
        migrate(started, "./nowhere")
    assert leftovers(client, name) == set()


def test_another_model_than_the_one_begun_is_refused(started, models):
    """One collection moves to one model at a time."""
    migrate(started, models.mirror, swap=False)
    with pytest.raises(InputError, match="migration of .* to tiny-mirror is in progress"):
        migrate(started, models.dense)


def test_f31_the_source_or_the_target_is_made_anew(started, client, name, models):
    """Green deleted during the copy, or made anew by others: never filled again in silence; an abort ends it cleanly."""
    migrate(started, models.mirror, swap=False)
    green = started.migration().state.moves["papers"].green
    client.indices.delete(index=green)
    client.indices.create(index=green)
    with pytest.raises(CollectionError, match="created again"):
        started.swap(gate=UNJUDGED, gentle=False)
    client.indices.delete(index=green)
    started.migration().abort()
    assert leftovers(client, name) <= {f"staging-{name}-{n}" for n in range(9)}


def test_abort_deletes_only_what_is_provably_ours(started, client, models):
    """An index that took green's place is somebody else's."""
    migrate(started, models.mirror, swap=False)
    green = started.migration().state.moves["chunks"].green
    client.indices.delete(index=green)
    client.indices.create(index=green)
    with pytest.raises(CollectionError):
        started.migration().abort()
    assert client.indices.exists(index=green)
    client.indices.delete(index=green)


def test_f27_a_swap_whose_answer_is_lost(started, proxy, client, name, models):
    """The request timed out and was applied: found done. It timed out and was not: lifted, tried again."""

    def is_swap(request):
        return "_aliases" in request.path and b'"alias":"%s"' % name.encode() in request.body

    kinds = ["lost", "unanswered"]
    proxy.rules.append(lambda request: Fault(kinds.pop(0)) if is_swap(request) and kinds else None)
    done = migrate(Collection(name, proxy.url), models.mirror)
    assert (done.phase, done.fences, kinds) == ("swapped", 2, [])
    assert not blocked(client, name)


def test_a_client_that_dies_while_it_lifts_a_fence(started, client, name, models, monkeypatch):
    """It took the staging aliases and did not come to lift the block: the migrator does, before it waits for its next try."""
    seen: list[bool] = []

    def take_and_die() -> None:
        state = started.migration().state
        sight = fence.look(client, state)
        assert fence.hand_over(client, state, sight, sight.attempt + 1, {level: move.green for level, move in state.moves.items()})
        raise UnavailableError("The server is away.")

    before_first(monkeypatch, swap, "actions", take_and_die)
    before_first(monkeypatch, direction.Direction, "_pause", lambda: seen.append(bool(blocked(client, name))))
    done = migrate(started, models.mirror)
    assert (done.phase, done.fences, seen) == ("swapped", 2, [False])
    assert not blocked(client, name)


def test_f28_not_acknowledged_is_no_failure(started, proxy, client, name, models):
    """acknowledged: false of a creation, a mapping, a swap, always: the state decides. Of a block, once: it is lifted, and asked for again."""
    blocks: list[str] = []

    def unacknowledged(answer: bytes) -> bytes:
        return answer.replace(b'acknowledged":true', b'acknowledged":false')

    def rule(request):
        if "_block" in request.path:
            blocks.append(request.path)
        doubted = request.method in ("PUT", "POST") and ("_block" not in request.path or len(blocks) == 1)
        return Fault("rewrite", rewrite=unacknowledged) if doubted else None

    proxy.rules.append(rule)
    done = migrate(Collection(name, proxy.url), models.mirror)
    assert (done.phase, done.fences, len(blocks)) == ("swapped", 2, 2)
    assert not blocked(client, name)


def test_f24_partial_answers_are_not_believed(started, proxy, name, models, client):
    """A shard that timed out or failed in a scan: asked again, nothing is missed."""

    def partial(answer: bytes) -> bytes:
        found = orjson.loads(answer)
        found["timed_out"], found["hits"]["hits"] = True, found["hits"]["hits"][:1]
        return orjson.dumps(found)

    expected = contents(client, name).keys()
    left = [3]

    def rule(request):
        if "_seq_no" not in request.body.decode(errors="replace") or "_search" not in request.path or not left[0]:
            return None
        left[0] -= 1
        return Fault("rewrite", rewrite=partial)

    proxy.rules.append(rule)
    assert migrate(Collection(name, proxy.url), models.mirror).phase == "swapped"
    assert (left[0], contents(client, name).keys()) == (0, expected)


def test_f11_to_f16_a_long_run_of_faults(started, proxy, name, models, client):
    """Lost, unanswered and cut answers, 503 and 429, all through a migration: it ends, and nothing is missing."""
    expected = contents(client, name)
    busy, away = Fault("answer", status=429, body=b"{}"), Fault("answer", status=503, body=b"{}")
    faults = {17: Fault("lost"), 23: away, 31: Fault("unanswered"), 13: busy}

    def rule(request):
        safe = request.method == "GET" or any(part in request.path for part in ("_search", "_bulk", "_mget", "_count"))
        return next((fault for every, fault in faults.items() if request.number % every == 0), None) if safe else None

    proxy.rules.append(rule)
    assert migrate(Collection(name, proxy.url), models.mirror).phase == "swapped"
    assert proxy.fired >= 5
    assert {key: doc[:2] for key, doc in contents(client, name).items()} == {key: doc[:2] for key, doc in expected.items()}


def test_f17_a_document_that_cannot_be_copied(started, client, name, models):
    """It is named, not copied, and stops the swap unless that is allowed; it stays in the old index."""
    migrate(started, models.mirror, swap=False)
    green = started.migration().state.moves["papers"].green
    client.indices.put_mapping(index=green, body={"properties": {"word": {"type": "integer"}}})
    blue = started.migration().state.moves["papers"].blue
    client.indices.put_mapping(index=blue, body={"properties": {"word": {"type": "keyword"}}})
    client.index(index=name, id="odd", body={"title": "Odd", "body": "One.", "word": "no number"}, refresh=True)
    done = started.swap(gate=UNJUDGED, gentle=False)
    assert "1 documents could not be copied" in done.refused
    assert "papers/odd" in done.notices[0]
    assert not blocked(client, name)
    assert started.swap(gate=UNJUDGED, gentle=False, allow_failed=1).phase == "swapped"
    assert client.exists(index=blue, id="odd")


def test_a_rollback_names_what_it_cannot_bring_back(started, client, name, url, models):
    """Refused at once, with the documents and the reason, readers undisturbed; with leave it goes on without them, and says so again."""
    migrate(started, models.mirror)
    papers = started.migration().state.moves["papers"]
    client.indices.put_mapping(index=papers.blue, body={"properties": {"word": {"type": "integer"}}})
    client.indices.put_mapping(index=papers.green, body={"properties": {"word": {"type": "keyword"}}})
    client.index(index=name, id="odd", body={"title": "Odd", "body": "One.", "word": "no number"}, refresh=True)
    done = started.rollback(gentle=False)
    assert (done.phase, list(done.failed)) == ("return", ["papers/odd"])
    assert "1 documents could not be copied" in done.refused
    assert list(client.indices.get_alias(name=name)) == [papers.green]
    assert not blocked(client, name)
    shell = run("migrate", "rollback", "--collection", name, "--url", url)
    assert (shell.returncode, "papers/odd" in shell.stderr, "they use the new model" in shell.stdout) == (4, True, True)
    back = started.rollback(gentle=False, allow_failed=1)
    assert (back.phase, list(back.failed)) == ("returned", ["papers/odd"])
    assert any("could not be brought back" in notice for notice in back.notices)
    assert "papers/odd" in started.migration().abort().failed


def test_what_a_swap_left_behind_is_back_after_a_rollback(started, client, name, models):
    """A document that could not be copied was not deleted by anybody: the way back keeps it; without one, `finish` names it."""
    migrate(started, models.mirror, swap=False)
    papers = started.migration().state.moves["papers"]
    client.indices.put_mapping(index=papers.green, body={"properties": {"word": {"type": "integer"}}})
    client.indices.put_mapping(index=papers.blue, body={"properties": {"word": {"type": "keyword"}}})
    client.index(index=name, id="odd", body={"title": "Odd", "body": "One.", "word": "no number"}, refresh=True)
    done = started.swap(gate=UNJUDGED, gentle=False, allow_failed=1)
    assert (done.phase, list(done.failed)) == ("swapped", ["papers/odd"])
    assert any("were left behind" in notice for notice in done.notices)
    client.index(index=name, id="later", body={"title": "Later", "body": "After the swap."}, refresh=True)
    started.delete("p1")
    back = started.rollback(gentle=False)
    assert (back.phase, back.failed) == ("returned", {})
    assert any("are back" in notice for notice in back.notices)
    found = {key for key, _ in everything(client, papers.blue)}
    assert {"odd", "later"} <= found
    assert "p1" not in found


def test_finish_names_what_goes_with_the_old_index(started, client, name, models):
    """Documents that were left behind on purpose are deleted with it, and named."""
    migrate(started, models.mirror, swap=False)
    papers = started.migration().state.moves["papers"]
    client.indices.put_mapping(index=papers.green, body={"properties": {"word": {"type": "integer"}}})
    client.indices.put_mapping(index=papers.blue, body={"properties": {"word": {"type": "keyword"}}})
    client.index(index=name, id="odd", body={"title": "Odd", "body": "One.", "word": "no number"}, refresh=True)
    started.swap(gate=UNJUDGED, gentle=False, allow_failed=1)
    done = started.migration().finish(0)
    assert (done.phase, list(done.failed)) == ("finished", ["papers/odd"])
    assert "papers/odd" in done.notices[0]


def test_f35_clocks_do_not_matter(started, models, monkeypatch):
    """An hour off: only what is shown changes."""
    genuine = time.time
    monkeypatch.setattr(time, "time", lambda: genuine() - 3600)
    assert migrate(started, models.mirror).phase == "swapped"
    assert started.rollback(gate=UNJUDGED, gentle=False).phase == "returned"


def test_a_swap_that_was_interrupted_once_its_aliases_had_moved_is_completed_by_the_same_command(started, models, monkeypatch):
    """What is not done yet is done; only a swap after that is one too many."""
    migrate(started, models.mirror, swap=False)
    genuine, refused = reads.server_clock, []

    def refuse(client):
        if refused:
            return genuine(client)
        refused.append(client)
        raise AuthError("The server does not allow this user cluster:monitor/health.")

    monkeypatch.setattr(reads, "server_clock", refuse)
    with pytest.raises(AuthError):
        started.swap(gate=UNJUDGED, gentle=False)
    assert started.swap(gate=UNJUDGED, gentle=False).phase == "swapped"
    with pytest.raises(InputError, match="already been swapped"):
        started.swap(gate=UNJUDGED, gentle=False)


def test_f44_not_converging_is_said_and_no_fence_is_raised(started, client, name, models, monkeypatch):
    """Writes faster than embedding: status says so; when they stop, it ends."""
    said: list[str] = []
    genuine, stop = Copier._embedded, threading.Event()
    monkeypatch.setattr(Copier, "_embedded", lambda self, window: (time.sleep(0.4 if window.docs else 0), genuine(self, window))[1])

    def flood():
        own, number = connect(Access.from_environment(started._url)), 0
        while not stop.is_set():
            lines = []
            for _ in range(200):
                number += 1
                lines += [{"index": {"_index": name, "_id": f"f{number % 3000}"}}, {"title": f"Flood {number}", "body": "water"}]
            own.bulk(body="\n".join(map(json.dumps, lines)) + "\n", params={"refresh": "true"})

    collection = Collection(name, started._url, report=said.append)
    flooding = threading.Thread(target=flood, daemon=True)
    flooding.start()
    moved: list[str] = []
    mover = threading.Thread(target=lambda: moved.append(migrate(collection, models.mirror).phase), daemon=True)
    mover.start()
    deadline = time.monotonic() + 300  # said when three passes in a row took longer than the one before
    while time.monotonic() < deadline and not any("Not converging" in text for text in said):
        time.sleep(0.2)
    state = started.migration().state
    assert not moved
    assert any("Not converging" in text for text in said)
    assert state.fence == ""
    stop.set()
    flooding.join(30)
    monkeypatch.setattr(Copier, "_embedded", genuine)
    mover.join(90)
    assert moved == ["swapped"]


def test_f22_a_new_primary_repeats_the_pass(started, models, monkeypatch):
    """The primary term changes while a page is read: the page is thrown away and read again."""
    genuine, calls = reads.primary_terms, [0]

    def terms(client, index):
        calls[0] += 1
        found = genuine(client, index)
        return {shard: term + 1 for shard, term in found.items()} if calls[0] == 3 else found

    monkeypatch.setattr(reads, "primary_terms", terms)
    assert migrate(started, models.mirror).phase == "swapped"
    assert started.status()[0].documents == 8


def test_f43_deletes_do_not_come_back(started, client, name, models, monkeypatch):
    """A document deleted while its copy is on the way, and one deleted and made again, end as their writer left them."""
    genuine, done = Copier._write, [False]

    def write(self, window):
        if window.docs and not done[0] and window.level_copy.level == "papers":
            done[0] = True
            client.delete(index=name, id="p1")
            client.delete(index=name, id="p2")
            client.index(index=name, id="p2", body={"title": "Again", "body": "Made again."})
            client.delete_by_query(index=name, body={"query": {"ids": {"values": ["p3"]}}})
        return genuine(self, window)

    monkeypatch.setattr(Copier, "_write", write)
    assert migrate(started, models.mirror).phase == "swapped"
    found = contents(client, name)
    assert "papers/p1" not in found
    assert "papers/p3" not in found
    assert found["papers/p2"][0] == "Again"


def test_resume_embeds_nothing_twice(started, models, monkeypatch):
    """After a copy was interrupted by an error, what is in the new index already is not embedded again."""
    genuine, calls = Copier._write, [0]

    def write(self, window):
        copied = genuine(self, window)
        if window.docs:
            calls[0] += 1
            raise RuntimeError("interrupted")
        return copied

    monkeypatch.setattr(Copier, "_write", write)
    with pytest.raises(RuntimeError):
        migrate(started, models.mirror)
    monkeypatch.setattr(Copier, "_write", genuine)
    done = migrate(started, models.mirror)
    assert done.phase == "swapped"
    assert done.copied.embedded < started.status()[0].documents + started.status()[1].documents


def test_a_reader_without_the_new_model_says_so(started, name, url, models, write, monkeypatch):
    """It searches by words, flagged, and never with the wrong model; the swap warns of a client that announced that it lacks the model."""
    entry = {"beat": 1, "host": "elsewhere", "pid": 7, "started": 0.0, "ready": {}}
    heard = iter([{"a": entry, "b": entry}, {"a": {**entry, "beat": 2}, "b": entry}])
    monkeypatch.setattr("osembed.migrate.direction.read_clients", lambda *_: next(heard))
    done = migrate(started, models.mirror)
    assert sum("has not announced tiny-mirror" in text for text in done.notices) == 1
    monkeypatch.setattr("osembed.embed.encoders.find_model", lambda *_: None)
    result = Collection(name, url).search("species 3")
    assert (result.degraded, result.mode) == (True, "lexical")
    with pytest.raises(ModelError):
        Collection(name, url).ingest(write([paper(50)], "late.jsonl"))


@pytest.mark.parametrize("has_it", [True, False])
def test_readers_announce_what_they_can_embed(has_it, started, client, name, url, models, monkeypatch):
    """A reader that was there before loads the new model ahead of the swap; one that cannot find it is named before the swap."""
    monkeypatch.setattr(readiness, "_FIRST_S", 0.0)
    monkeypatch.setattr(readiness, "_EVERY_S", 0.2)
    reader = Collection(name, url)
    reader.search("species 3")
    if not has_it:  # the migrator has loaded it already by its name
        monkeypatch.setattr("osembed.embed.encoders.find_model", lambda *_: None)
    assert migrate(started, models.mirror, swap=False).phase == "ready"
    wanted = indexes.resolve_indexes(client, {"papers": started.migration().state.moves["papers"].green})["papers"].meta.identity.hash
    ends = time.monotonic() + 20
    while not any(entry["ready"].get(wanted) is has_it for entry in readiness.read_clients(client, name).values()):
        assert time.monotonic() < ends
        time.sleep(0.1)
    done = started.swap(gate=UNJUDGED, gentle=False)
    assert done.phase == "swapped"
    assert any("search by words only" in notice for notice in done.notices) is not has_it
    time.sleep(1.1)  # the announcer may have resolved just before the swap; that holds for a second
    assert reader.search("species 3").degraded is not has_it


def test_documents_of_other_programs_keep_their_routing(collection, client, name, models, small, write, monkeypatch):
    """Two shards, documents written and deleted with a routing of their own: there, and back."""
    collection.ingest(write([paper(n, 200) for n in range(8)]), replace(small, shards=2))
    for number in range(20):
        client.index(index=name, id=f"r{number}", routing=f"k{number % 5}", body={"title": f"Routed {number}", "body": f"words {number}"})

    def meanwhile():
        client.delete(index=name, id="r1", routing="k1")
        client.index(index=name, id="r2", routing="k2", body={"title": "Changed", "body": "others"})

    before_first(monkeypatch, direction, "verify", meanwhile)
    for step in (lambda: migrate(collection, models.mirror), lambda: collection.rollback(gentle=False)):
        assert step().phase in ("swapped", "returned")
        found = dict(everything(client, indexes.resolve(client, name)["papers"].index))
        assert {key for key in found if key.startswith("r")} == {f"r{number}" for number in range(20) if number != 1}
        assert client.get(index=name, id="r2", routing="k2")["_source"]["title"] == "Changed"
        assert client.get(index=name, id="r3", routing="k3")["_source"]["body"] == "words 3"


def test_a_gentle_migration_yields_to_others(started, proxy, name, url, models):
    """Its threads that embed have a lower priority than everybody else's."""
    nice: list[int] = []
    process = spawn("migrate", "--gentle", "--no-gate", "--model", str(models.mirror), "--collection", name, "--url", proxy.url)
    proxy.once("_bulk", Fault("pass", before=lambda: nice.extend(_priorities(process.pid))))
    assert process.wait(120) == 0
    assert max(nice) > psutil.Process().nice() == min(nice)


def _priorities(pid: int) -> list[int]:
    """The nice values of a process's threads."""
    stats = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/stat")]
    return [int(stat.rpartition(")")[2].split()[16]) for stat in stats]


def test_versions_are_ordered():
    """Later operations get greater numbers: leg before term before sequence number."""
    assert pack_version(4, 1, 7) < pack_version(4, 1, 8) < pack_version(4, 2, 0) < pack_version(5, 1, 0) < 2**63
    with pytest.raises(CollectionError):
        pack_version(2**13, 1, 1)


def test_a_lease_that_is_lost_stops_its_holder(started, models):
    """Another token in the journal: the old holder's next change is refused."""
    migrate(started, models.mirror, swap=False)
    first = leases.claim_lease(started.client, started.name, lambda state: state)
    journal = leases.Journal(started.client)
    journal.change(f"migration:{started.name}", lambda state: {**state, "lease": {**state["lease"], "token": "other"}})
    with pytest.raises(BusyError, match="taken over"):
        first.update(rate=1.0)
    first.close()
    journal.change(f"migration:{started.name}", lambda state: {**state, "lease": None})


def test_a_holder_that_was_silent_asks_before_it_goes_on(started, models, monkeypatch):
    """The server was away for longer than a beat may take: it goes on where nobody took over, and only there."""
    migrate(started, models.mirror, swap=False)
    held = leases.claim_lease(started.client, started.name, lambda state: state)
    monkeypatch.setattr(leases, "_SELF_S", -1.0)
    held.check()
    assert held.state.lease["beat"] >= 1
    journal = leases.Journal(started.client)
    journal.change(f"migration:{started.name}", lambda state: {**state, "lease": {**state["lease"], "token": "other"}})
    with pytest.raises(BusyError, match="taken over"):
        held.check()
    held.close()
    journal.change(f"migration:{started.name}", lambda state: {**state, "lease": None})


def test_choosing_nothing_is_an_error(started):
    """A migration needs to know where to."""
    with pytest.raises(InputError, match="No model, profile or language"):
        started.migrate(spec=choose_models())


def test_a_collection_deleted_by_hand_can_be_made_and_migrated_again(started, client, name, models, small, write):
    """Whoever deletes all indexes of a migration ends it: the journal's memory of it stands in nobody's way."""
    assert migrate(started, models.mirror).phase == "swapped"
    for index in client.indices.get(index=f"{name}*", params={"expand_wildcards": "all"}):
        client.indices.delete(index=index)
    started.ingest(write([paper(n, 200) for n in range(3)]), small)
    with pytest.raises(InputError, match="no migration in progress"):
        started.rollback(gate=UNJUDGED)
    assert migrate(started, models.mirror).phase == "swapped"
