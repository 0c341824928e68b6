"""A real node whose data lies on a small file system of its own, which can be filled for real and emptied again."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from osembed.opensearch.client import Access, OpenSearch, connect
from osembed.opensearch.node.install import installed_home
from osembed.opensearch.node.java import find_java
from osembed.opensearch.node.launch import launch_node, log_of
from osembed.paths import cache_folder
from tests.cluster import free_ports

MB = 2**20
_UNMOUNT_S = 30


class SmallDisk:
    """A file system of some megabytes: ext4 in a loop-mounted file, else a tmpfs. Skips the test where neither may be mounted."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.path, self._image, self._size = folder / "disk", folder / "disk.img", megabytes
        self._ballast = self.path / "ballast"

    def __enter__(self) -> SmallDisk:
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(self._size * MB)
        made = _done("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(self._image))
        refused = made or _done("mount", "-o", "loop", str(self._image), str(self.path))
        if refused:
            refused = _done("mount", "-t", "tmpfs", "-o", f"size={self._size}m", "tmpfs", str(self.path))
        if refused:
            pytest.skip(f"no small file system can be mounted here: {refused}")
        return self

    def __exit__(self, *_: object) -> None:
        ends = time.monotonic() + _UNMOUNT_S
        while (refused := _done("umount", str(self.path))) and time.monotonic() < ends:
            time.sleep(0.2)
        if refused:
            _done("umount", "--lazy", str(self.path))
        self._image.unlink()

    @property
    def free(self) -> int:
        """Bytes that are free."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, leave: int) -> None:
        """Fill it with ballast until no more than so many bytes are free."""
        with self._ballast.open("ab") as ballast, suppress(OSError):
            while self.free > leave:
                ballast.write(bytes(min(MB, max(4096, self.free - leave))))
                ballast.flush()

    def make_room(self) -> None:
        """Take the ballast away."""
        self._ballast.unlink(missing_ok=True)


class SmallNode:
    """A node of the test's own, which can be stopped and started again. Its settings are given, its data may lie on a small disk."""

    def __init__(self, folder: Path, data: Path | None = None, heap: str = "512m", **settings: Any) -> None:
        self._folder, self._heap = folder, heap
        http, transport = free_ports(2)
        own = {"http.port": http, "transport.port": transport, "discovery.type": "single-node", "node.name": "small"}
        self._settings = {**own, "cluster.name": f"osembed-test-{transport}", **settings}
        if data:
            self._settings["path.data"] = str(data / "data")
        self._process: psutil.Popen | None = None
        self.url = f"http://127.0.0.1:{http}"

    def __enter__(self) -> SmallNode:
        self._folder.mkdir(exist_ok=True)
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it with the data that it has; return when it answers."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OSEMBED_NODE_HEAP", self._heap)
            self._process = launch_node(installed_home(cache_folder()), find_java(), self._folder, self._settings)
        ends = time.monotonic() + 300
        while time.monotonic() < ends and self._process.is_running():
            with suppress(Exception):
                if self.client.cluster.health(wait_for_status="yellow", timeout=5)["status"] in ("green", "yellow"):
                    return
            time.sleep(0.3)
        raise AssertionError(f"the node did not start: {log_of(self._folder).read_text()[-2000:]}")

    def stop(self) -> None:
        """End it."""
        if self._process:
            with suppress(psutil.NoSuchProcess):
                self._process.terminate()
            try:
                self._process.wait(20)
            except psutil.TimeoutExpired:
                self._process.kill()
                self._process.wait(20)

    def set(self, **settings: Any) -> None:
        """Change cluster settings; None restores the default."""
        self.client.cluster.put_settings(body={"persistent": settings})

    @property
    def client(self) -> OpenSearch:
        return connect(Access.from_environment(self.url))


def _done(*command: str) -> str:
    """Run a command; return "" when it succeeded, else what it said."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.decode(errors="replace").strip() or f"exit {done.returncode}"
