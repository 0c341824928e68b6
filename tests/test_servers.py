"""One journey on each real secured server: ingest, search, printed requests, migration there and back, deletion, proof, kill -9.

3.6.0 runs always; 3.4.0 and 2.19.1, and what needs servers to be started again, by `scripts/test -m servers`.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from osembed.collection import Collection
from osembed.errors import OsembedError
from osembed.evaluate.evaluation import evaluate
from osembed.evaluate.judged import Judged
from osembed.limits import MODES
from osembed.migrate.proof.verdict import GateOptions
from osembed.opensearch import indexes
from osembed.opensearch.client import OpenSearch, connect
from osembed.opensearch.curl import curl_line
from osembed.opensearch.schema import PIPELINE
from osembed.search.options import SearchOptions
from osembed.search.ranking import has_hybrid
from tests.conftest import paper, run
from tests.forking import Command
from tests.oracle import blocked, contents, leftovers
from tests.secured import SecuredNode

pytestmark = pytest.mark.usefixtures("known_models")

QUICK = {"gate": GateOptions(skip=True), "gentle": False}
NEURAL = "opensearch-neural-search"
FILTER = "--where", "year>=2001"


class Place:
    """A collection name of a test's own on a secured server, and the administrator's way to it."""

    def __init__(self, node: SecuredNode, name: str) -> None:
        self.node, self.name, self.env = node, name, node.as_user("admin")
        self.client: OpenSearch = connect(node.access("admin"))

    def open(self) -> Collection:
        """The collection as a new process would see it; the environment says where."""
        return Collection(self.name)

    def run(self, *arguments: str) -> str:
        """Run a command; it must succeed."""
        done = run(*arguments, "--collection", self.name, env=self.env)
        assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def spawn(self, *arguments: str, **more: str) -> subprocess.Popen:
        """Start a command in a process of its own."""
        env = {**os.environ, **self.env, **more}
        return Command(*arguments, "--collection", self.name, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def written(self, pattern: str) -> int:
        """How many writes the indexes of a pattern have taken."""
        found = self.node.request("GET", f"/{pattern}/_stats/indexing?expand_wildcards=all")[1]
        return int(found["_all"]["primaries"].get("indexing", {}).get("index_total", 0))


@pytest.fixture
def place_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[SecuredNode], Place]]:
    """Make a place on a server; what stands there is deleted afterwards."""
    made: list[Place] = []

    def make(node: SecuredNode) -> Place:
        for name, value in node.as_user("admin").items():
            monkeypatch.setenv(name, value)
        made.append(Place(node, f"t{uuid.uuid4().hex[:10]}"))
        return made[-1]

    yield make
    for place in made:
        for row in place.node.request("GET", f"/_cat/indices/{place.name}*?format=json&expand_wildcards=all")[1]:
            place.node.request("DELETE", f"/{row['index']}")


class Bypass:
    """A program that knows nothing of osembed: it writes and deletes through the alias, and keeps what was acknowledged."""

    def __init__(self, place: Place) -> None:
        self._place, self._stop, self._thread = place, threading.Event(), threading.Thread(target=self._work, daemon=True)
        self.kept: dict[str, str | None] = {}
        self.faults: list[str] = []

    def __enter__(self) -> Bypass:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _work(self) -> None:
        number = 0
        while not self._stop.wait(0.2):
            number += 1
            key, mark = f"x{number % 40}", f"mark{number}"
            path = f"/{self._place.name}/_doc/{key}"
            if number % 5 == 0:
                status, answer = self._place.node.request("DELETE", path)
                mark = None
            else:
                status, answer = self._place.node.request(
                    "PUT", path, {"title": f"X {key}", "body": f"{mark} in the water", "paper_id": key}
                )
            if status in (200, 201) or (mark is None and status == 404):
                self.kept[key] = mark
            elif status != 403:  # the fence of a swap
                self.faults.append(f"{path}: {status} {answer}")

    def lost(self) -> list[str]:
        """What was acknowledged and is not there, or was deleted and is."""
        client, name = self._place.client, self._place.name
        client.indices.refresh(index=name)
        hits = client.search(index=name, body={"size": 1000, "query": {"prefix": {"paper_id": "x"}}}, search_pipeline="_none")["hits"][
            "hits"
        ]
        found = {hit["_id"]: hit["_source"]["body"].split()[0] for hit in hits}
        return [f"{key}: {found.get(key)}, not {mark}" for key, mark in self.kept.items() if found.get(key) != mark]


def records(count: int) -> list[dict]:
    return [paper(number, 160, year=2000 + number) for number in range(count)]


def bash(line: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line], env={**os.environ, **more}, capture_output=True, text=True, timeout=120)


def check_searches(place: Place) -> None:
    """Every mode finds the paper on every level; a server that cannot fuse is named once, to whoever asked for its fusion."""
    collection = place.open()
    native = has_hybrid(place.client, collection.server)
    assert native == (place.node.version == "3.6.0")
    assert not collection.search("species 3").notices
    for level in ("papers", "chunks", "both"):
        for mode in MODES:
            result = collection.search("study of species 3", mode=mode, level=level, where=("year>=2001",))
            assert result.found == 5, (mode, level)
            assert result.hits[0].passages
            assert mode == "vector" or result.hits[0].id == "p3"
            said = mode == "hybrid" and level == "papers" and not native
            assert [place.node.version in notice for notice in result.notices] == [True] * said
    way = SearchOptions(level="papers")
    judged = Judged({"q": "species 3"}, {"q": {"p3": 1}})
    assert len(evaluate(collection._searcher, place.name, judged, [way]).notices) == (not native)


def check_printed(place: Place) -> None:
    """The printed line, run by bash as it is, finds the same papers with the right password only, and says what this server does not do."""
    printed = run("search", "species '3'", "--print-request", "--level", "papers", *FILTER, "--collection", place.name, env=place.env)
    line = printed.stdout.splitlines()[-1]
    assert line.startswith("curl ")
    assert place.env["OSEMBED_PASSWORD"] not in printed.stdout + printed.stderr
    assert (f"OpenSearch {place.node.version}" in printed.stderr) == (place.node.version != "3.6.0")
    done = bash(line)
    assert done.returncode == 0, done.stderr + done.stdout
    assert {hit["_id"] for hit in json.loads(done.stdout)["hits"]["hits"]} == {f"p{number}" for number in range(1, 6)}
    refused = bash(line, OSEMBED_PASSWORD="wrong")
    assert refused.returncode != 0
    assert "401" in refused.stderr
    assert bash(line.replace(" --cacert ", " --capath ")).returncode != 0  # nobody else vouches for this server
    collection, modes = place.open(), dict.fromkeys(MODES, "knn")
    modes |= {"lexical": "multi_match", "hybrid": "hybrid" if place.node.version == "3.6.0" else "bool"}
    for mode, kind in modes.items():
        request = collection.request("species '3'", mode=mode, level="chunks", weights=(0.3, 0.7))
        assert list(request["body"]["query"]) == [kind]
        hits = json.loads(bash(request["curl"]).stdout)["hits"]["hits"]
        assert {hit["_id"].split("#")[0] for hit in hits} == {f"p{number}" for number in range(6)}, mode
        assert mode == "vector" or hits[0]["_id"].startswith("p3#")


def check_migration(place: Place, models) -> None:
    """There under a writer that bypasses osembed, and back: every acknowledged write is there, on both sides."""
    before = contents(place.client, place.name)
    with Bypass(place) as writer:
        assert place.open().migrate(str(models.mirror), **QUICK).phase == "swapped"
        assert place.open().rollback(**QUICK).phase == "returned"
    assert not writer.faults
    assert len(writer.kept) > 5
    assert writer.lost() == []
    assert {target.meta.model for target in indexes.resolve(place.client, place.name).values()} == {"tiny-bert"}
    after = contents(place.client, place.name)
    assert {key: doc for key, doc in after.items() if "/x" not in key} == before
    assert not blocked(place.client, place.name)
    place.open().migration().abort()
    assert leftovers(place.client, place.name) == set()


def journey(place: Place, shards: int, models, write) -> None:
    """The whole way; each step asserts what it promises."""
    file = write(records(6))
    place.run("ingest", file, "--model", str(models.bert), "--shards", str(shards))
    assert f'"{shards}"' in json.dumps(place.node.request("GET", f"/{place.name}/_settings/index.number_of_shards")[1])
    check_searches(place)
    check_printed(place)
    place.run("verify", "--full")
    check_migration(place, models)
    assert "1 deleted, 1 not found" in place.run("delete", "p1", "nobody")
    place.run("verify", "--repair")
    found = contents(place.client, place.name)
    assert {key.split("#")[0] for key in found if key.startswith("chunks/p")} == {f"chunks/p{number}" for number in (0, 2, 3, 4, 5)}
    assert "papers/p1" not in found
    assert not [check for check in place.open().doctor() if check.verdict in ("problem", "mended")]


@pytest.mark.parametrize("shards", [1, 3])
def test_a_journey(shards, secured, place_on, models, write):
    """The newest server, with one primary shard and with three."""
    journey(place_on(secured), shards, models, write)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_journey_on_older_servers(shards, secured_old, place_on, models, write):
    """3.4.0 without hybrid queries, and 2.19.1, do everything that the newest does."""
    journey(place_on(secured_old), shards, models, write)


def kill_when(place: Place, process: subprocess.Popen, pattern: str, writes: int) -> None:
    """Kill -9 the server once indexes have taken so many writes, while the process still works."""
    ends = time.monotonic() + 120
    while place.written(pattern) < writes:
        assert time.monotonic() < ends, "nothing is written"
        assert process.poll() is None, process.communicate()[0].decode()
        time.sleep(0.02)
    place.node.kill()
    assert process.poll() is None, "the process had ended before the server was killed"


def outlive_kills(place: Place, models, write) -> None:
    """Kill -9 the server in an ingest, which waits, and in a migration, which gives up and is run again: nothing is lost."""
    file = write(records(300))
    process = place.spawn("ingest", file, "--model", str(models.bert), OSEMBED_PATIENCE_SECONDS="900")
    kill_when(place, process, f"{place.name}-*", 50)
    place.node.start()
    said = process.communicate(timeout=600)[0].decode()
    assert process.returncode == 0, said
    before = contents(place.client, place.name)
    assert {key for key in before if key.startswith("papers/")} == {f"papers/p{number}" for number in range(300)}
    assert "300 unchanged" in place.run("ingest", file)
    process = place.spawn("migrate", "--model", str(models.mirror), "--no-gate", OSEMBED_PATIENCE_SECONDS="1", OSEMBED_RETRY_SECONDS="1")
    kill_when(place, process, f"{place.name}-*-g2", 20)
    said = process.communicate(timeout=120)[0].decode()
    assert process.returncode == 1, said
    place.node.start()
    place.run("migrate", "--model", str(models.mirror), "--no-gate")
    after = contents(place.client, place.name)
    assert {key: doc[:2] for key, doc in after.items()} == {key: doc[:2] for key, doc in before.items()}
    assert {doc[2] for doc in after.values()} == {
        target.meta.identity.hash for target in indexes.resolve(place.client, place.name).values()
    }
    place.run("verify", "--full")


@pytest.mark.servers
def test_kill_9_of_the_server(secured, place_on, models, write):
    """The newest server is killed in an ingest and in a migration."""
    outlive_kills(place_on(secured), models, write)


def test_kill_9_of_an_older_server(secured_old, place_on, models, write):
    """Older servers are killed in an ingest and in a migration."""
    outlive_kills(place_on(secured_old), models, write)


def plain_search(place: Place) -> int:
    """The status of another program's search, which names no pipeline."""
    return place.node.request("GET", f"/{place.name}/_search?q=study")[0]


def default_pipelines(place: Place) -> set[str | None]:
    found = place.node.request("GET", f"/{place.name},{place.name}-chunks/_settings?flat_settings=true")[1]
    return {index["settings"].get("index.search.default_pipeline") for index in found.values()}


def check_without_plugin(place: Place, models) -> None:
    """Indexes name a pipeline that the server cannot build: osembed reads all the same, and doctor mends it for other programs."""
    assert plain_search(place) == 400
    collection = place.open()
    for level in ("both", "papers", "chunks"):
        assert collection.search("study of species 3", level=level).hits[0].passages
    assert len(collection.status()) == 2
    assert json.loads(bash(collection.request("species 3", level="papers")["curl"]).stdout)["hits"]["hits"]
    assert collection.delete("p5") == {"p5": True}
    assert collection.migrate(str(models.mirror), **QUICK).phase == "swapped"
    assert default_pipelines(place) == {None}
    assert collection.rollback(**QUICK).phase == "returned"
    assert default_pipelines(place) == {PIPELINE}
    mended = [check for check in place.open().doctor() if check.verdict == "mended"]
    assert ["every search by other programs failed" in check.found for check in mended] == [True, True]
    assert default_pipelines(place) == {None}
    assert plain_search(place) == 200


def test_indexes_that_name_a_pipeline_which_the_server_cannot_have(secured_old, place_on, models, write, small):
    """As after an upgrade in place that lost neural-search (B4)."""
    place = place_on(secured_old)
    if has_hybrid(place.client, replace(place.open().server, version=(3, 5, 0))):
        pytest.skip(f"{secured_old.version} has neural-search")
    place.open().ingest(write(records(6)), small)
    assert default_pipelines(place) == {None}
    place.node.request("PUT", f"/{place.name},{place.name}-chunks/_settings", {"index.search.default_pipeline": PIPELINE})
    check_without_plugin(place, models)
    assert place.open().ingest(write([paper(7)], "more.jsonl")).indexed == 1


@pytest.mark.servers
def test_neural_search_goes_and_comes_back(secured, place_on, models, write, small):
    """The plugin is taken from the server and given back: the collection works before, without and afterwards (B4)."""
    place = place_on(secured)
    place.open().ingest(write(records(6)), small)
    assert default_pipelines(place) == {PIPELINE}
    secured.kill()
    secured.start(without=NEURAL)
    try:
        check_without_plugin(place, models)
    finally:
        secured.kill()
        secured.start()
    told: list[str] = []
    assert Collection(place.name, report=told.append).ingest(write([paper(7)], "more.jsonl")).indexed == 1
    assert len([text for text in told if PIPELINE in text]) == 2
    assert default_pipelines(place) == {PIPELINE}
    assert plain_search(place) == 200


def test_an_operators_pipeline_stays(secured, place_on, write, small, models):
    """`_none` and pipelines of others are choices: ingest, migrate and doctor leave them; one that is missing is named."""
    place = place_on(secured)
    collection = place.open()
    collection.ingest(write(records(3)), small)
    for chosen in ("_none", "somebody-elses"):
        place.node.request("PUT", f"/{place.name},{place.name}-chunks/_settings", {"index.search.default_pipeline": chosen})
        place.open().ingest(write([paper(chosen)], f"{chosen}.jsonl"))
        problems = [check.found for check in place.open().doctor() if check.verdict in ("problem", "mended")]
        assert ["somebody-elses, which does not exist" in found for found in problems] == [True] * (2 if chosen != "_none" else 0)
        assert default_pipelines(place) == {chosen}
    assert collection.migrate(str(models.mirror), **QUICK).phase == "swapped"
    assert default_pipelines(place) == {"somebody-elses"}


def test_the_curl_line_is_safe(secured, tmp_path):
    """Quotes, dollars and spaces in texts and paths stay what they are; the password is named, not written, or read from its file."""
    access = replace(secured.access("reader"), ca_cert=str(tmp_path / "it's a $CA.pem"))
    line = curl_line(access, "/p/_search", """{"a": "it's $HOME `id` \\\\"}""", {"OSEMBED_USER": "reader"})
    words = shlex.split(line.replace('"$OSEMBED_USER:$OSEMBED_PASSWORD"', "USER"))
    assert words[words.index("--cacert") + 1] == access.ca_cert
    assert words[-1] == """{"a": "it's $HOME `id` \\\\"}"""
    assert words[words.index("-u") + 1] == "USER"
    assert access.password not in line
    file = tmp_path / "pass word"
    file.write_text(access.password + "\n")
    variables = {"OSEMBED_USER": "reader", "OSEMBED_PASSWORD_FILE": str(file), "OSEMBED_PASSWORD": ""}
    line = curl_line(secured.access("reader"), "/_plugins/_security/authinfo", "{}", variables).replace("-d '{}'", "-X GET")
    done = bash(line, **variables)
    assert json.loads(done.stdout)["user_name"] == "reader", done.stderr
    insecure = curl_line(replace(access, insecure=True), "/", "{}", {})
    assert "--insecure" in insecure
    assert "--cacert" not in insecure


def test_a_request_of_a_user_in_the_url(secured, place_on, write, small, monkeypatch):
    """User and password stood in the URL: the line names the variables, and it is said that they have to be set."""
    place = place_on(secured)
    place.open().ingest(write(records(3)), small)
    password = place.env["OSEMBED_PASSWORD"]
    for name in ("OSEMBED_USER", "OSEMBED_PASSWORD"):
        monkeypatch.delenv(name)
    url = secured.url.replace("https://", f"https://admin:{password}@")
    request = Collection(place.name, url).request("study", mode="lexical")
    assert ["set OSEMBED_USER and OSEMBED_PASSWORD" in notice for notice in request["notices"]] == [True]
    assert password not in request["curl"]
    assert bash(request["curl"]).returncode != 0
    assert bash(request["curl"], OSEMBED_USER="admin", OSEMBED_PASSWORD=password).returncode == 0


def test_a_password_that_is_wrong_is_said(secured, place_on, monkeypatch):
    """Every command of a journey says so, and none shows it."""
    place = place_on(secured)
    monkeypatch.setenv("OSEMBED_PASSWORD", "wrong-secret")
    for act in (lambda: place.open().search("x"), lambda: place.open().request("x"), lambda: place.open().doctor()):
        with pytest.raises(OsembedError, match="refuses the password of user 'admin'") as caught:
            act()
        assert "wrong-secret" not in str(caught.value)
