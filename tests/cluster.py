"""Three real nodes on this machine, each of which can be killed and started again."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from osembed.opensearch.node.install import installed_home
from osembed.opensearch.node.java import find_java
from osembed.opensearch.node.launch import launch_node
from osembed.paths import cache_folder

NAMES = ("one", "two", "three")


class Cluster:
    """Three nodes that may all hold data and lead. Clients talk to "three", which is never killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ports = free_ports(2 * len(NAMES))
        self._http, self._transport = dict(zip(NAMES, ports[:3], strict=True)), dict(zip(NAMES, ports[3:], strict=True))
        self._processes: dict[str, psutil.Popen] = {}
        self.url = f"http://127.0.0.1:{self._http['three']}"

    def __enter__(self) -> Cluster:
        for name in NAMES:
            self.start(name)
        self.wait_nodes(3)
        return self

    def __exit__(self, *_: object) -> None:
        for name in NAMES:
            self.kill(name)

    def start(self, name: str) -> None:
        """Start a node, or start it again with the data that it has."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        settings = {
            "cluster.name": f"osembed-test-{self._transport['one']}",
            "node.name": name,
            "http.port": self._http[name],
            "transport.port": self._transport[name],
            "discovery.seed_hosts": [f"127.0.0.1:{port}" for port in self._transport.values()],
            "cluster.initial_cluster_manager_nodes": list(NAMES),
        }
        self._processes[name] = launch_node(installed_home(cache_folder()), find_java(), folder, settings)

    def kill(self, name: str) -> None:
        """Kill -9 a node."""
        process = self._processes[name]
        with suppress(psutil.NoSuchProcess):
            process.kill()
        process.wait(20)

    def restart(self, name: str) -> None:
        """Kill a node and start it again with the data that it has."""
        self.kill(name)
        self.start(name)

    def wait_nodes(self, count: int, seconds: float = 400) -> None:
        """Wait until so many nodes form a cluster whose shards are all there.

        A node that came to lead may hold primary shards that take no operations (OpenSearch issue 19150); only its restart mends them.
        """
        began, restarted = time.monotonic(), False
        while (waited := time.monotonic() - began) < seconds:
            with suppress(OSError, ValueError):
                health = self.get("_cluster/health")
                if health["number_of_nodes"] == count and health["status"] == "green":
                    return
            if waited > seconds / 3 and not restarted:
                self.restart("three")
                restarted = True
            time.sleep(0.3)
        raise AssertionError(f"no green cluster of {count} nodes within {seconds} s: {self.get('_cat/shards?format=json')}")

    def leader(self) -> str:
        """Return the name of the elected cluster manager."""
        return str(self.get("_cat/cluster_manager?format=json")[0]["node"])

    def holder(self, index: str) -> str:
        """Return the name of the node that holds the primary of an index's first shard."""
        shards = self.get(f"_cat/shards/{index}?format=json&h=prirep,node,shard")
        return next(str(row["node"]) for row in shards if row["prirep"] == "p" and row["shard"] == "0")

    def get(self, path: str) -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.url}/{path}", timeout=10) as answer:
            return json.load(answer)


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
