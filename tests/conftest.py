"""One real OpenSearch for the whole session, fresh collections per test, real models: small random ones and all-MiniLM-L6-v2."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from benchmarks.common import find_data

from osembed.collection import Collection
from osembed.ingest.spec import CollectionSpec
from osembed.opensearch import node
from osembed.opensearch.client import Access, OpenSearch, Server, connect, handshake
from tests import tiny
from tests.forking import Command
from tests.proxy import FaultProxy
from tests.secured import SecuredNode

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
NOBODY = 65534
TEXT = "Cells divide and grow in warm water while light falls on the leaves of small green plants near the river. "


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what a run does not ask for: exhaustive tests, each with a shorter twin that always runs, and older servers."""
    for item in items:
        if item.get_closest_marker("slow") and not os.environ.get("OSEMBED_SLOW"):
            item.add_marker(pytest.mark.skip(reason="exhaustive: OSEMBED_SLOW=1 scripts/test -m slow"))
        if item.get_closest_marker("servers") and "servers" not in config.option.markexpr:
            item.add_marker(pytest.mark.skip(reason="older secured servers: scripts/test -m servers"))


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder of the test session's own; the cache of downloads is the user's."""
    folder = tmp_path_factory.mktemp("home")
    os.environ["OSEMBED_HOME"] = str(folder)
    os.environ.setdefault("OSEMBED_RETRY_SECONDS", "5")
    os.environ.setdefault("OSEMBED_PATIENCE_SECONDS", "120")
    os.environ["OSEMBED_NODE_HEAP"] = "768m"
    os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")  # half the work to start a server
    signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background, programs they start would ignore it
    yield folder
    node.stop()


@pytest.fixture(scope="session")
def papers_folder() -> Path:
    """Real full-text papers, kept outside the repository."""
    data = find_data()
    if data is None:
        pytest.skip("no real papers here: OSEMBED_DATA names a folder with fulltext/")
    return data / "fulltext"


@pytest.fixture(scope="session")
def url(home: Path) -> str:
    """The server under test: OSEMBED_URL if set, else the embedded node. If it cannot start, the tests fail."""
    return os.environ.get("OSEMBED_URL") or node.ensure()


@pytest.fixture(scope="session")
def client(url: str) -> OpenSearch:
    return connect(Access.from_environment(url))


@pytest.fixture(scope="session")
def server(client: OpenSearch, url: str) -> Server:
    return handshake(client, url)


@pytest.fixture(scope="session")
def secured(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredNode]:
    """A secured server of the embedded node's version. If it cannot start, the tests fail."""
    with SecuredNode("3.6.0", tmp_path_factory.mktemp("secured")) as node:
        yield node


@pytest.fixture(scope="session", params=[pytest.param(version, marks=pytest.mark.servers) for version in ("3.4.0", "2.19.1")])
def secured_old(request: pytest.FixtureRequest, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredNode]:
    """Older secured servers: 3.4.0 cannot fuse hybrid queries, 2.19.1 is another major version. They mark their tests `servers`."""
    with SecuredNode(request.param, tmp_path_factory.mktemp("secured")) as node:
        yield node


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tiny.Models:
    """Small random-weight models of each family, made once."""
    return tiny.make_all(tmp_path_factory.mktemp("models"))


@pytest.fixture
def known_models(models: tiny.Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process of the test can find the small models by the hash of their weights."""
    monkeypatch.setenv("OSEMBED_MODELS", str(models.bert.parent))


@pytest.fixture
def name(client: OpenSearch) -> Iterator[str]:
    """A collection name that no other test uses; what stands under it is deleted afterwards."""
    name = f"t{uuid.uuid4().hex[:10]}"
    yield name
    for index in client.indices.get(index=f"{name}*", params={"expand_wildcards": "all"}):
        client.indices.delete(index=index)


@pytest.fixture
def small(models: tiny.Models) -> CollectionSpec:
    """The spec for a collection embedded with the small BERT model."""
    return CollectionSpec(paper_model=str(models.bert), chunk_model=str(models.bert))


@pytest.fixture
def collection(name: str, url: str) -> Collection:
    return Collection(name, url)


@pytest.fixture
def proxy(url: str) -> Iterator[FaultProxy]:
    """A proxy in front of the server, without faults until a test adds some."""
    with FaultProxy(url) as running:
        yield running


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write records as a JSONL file and return its path."""
    import orjson

    def write(records: list[dict], file: str = "papers.jsonl") -> str:
        path = tmp_path / file
        path.write_bytes(b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records))
        return str(path)

    return write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of 20 papers, t0.txt … t19.txt."""
    from tests.folders import place

    root = tmp_path / "papers"
    root.mkdir()
    for number in range(20):
        place(root, number)
    return root


@contextmanager
def as_nobody() -> Iterator[None]:
    """Run as a user without rights where the tests run as root."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def paper(number: int | str, words: int = 120, **fields: object) -> dict:
    """A record whose text differs from that of every other number."""
    text = (f"Study {number} of species {number}. " + TEXT * (words // 20 + 1)).split()[:words]
    return {"id": f"p{number}", "title": f"Paper {number}", "text": " ".join(text), **fields}


def run(*arguments: str, env: dict[str, str] | None = None, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """Run the osembed command in a process of its own."""
    streams = {"stdin": subprocess.DEVNULL if stdin is None else subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Command(*arguments, env={**os.environ, **(env or {})}, **streams) as process:
        try:
            out, err = process.communicate(stdin, timeout=240)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out.decode(), err.decode())


def dump(client: OpenSearch, name: str) -> dict[str, dict]:
    """All documents of a collection by id, without the time of their writing: what must be equal after a kill."""
    found = {}
    for alias in (name, f"{name}-chunks"):
        client.indices.refresh(index=alias)
        hits = client.search(index=alias, body={"size": 5000, "query": {"match_all": {}}})["hits"]["hits"]
        for hit in hits:
            source = {key: value for key, value in hit["_source"].items() if key not in ("ingested_at", "source")}
            found[f"{alias}/{hit['_id']}"] = source
    return found
