"""Start, find and stop this user's embedded node.

Only the process table and an HTTP response tell whether a node is running; `node.json` only says where to look first. So a killed node, a
stale file or a reused process id does no harm. A file lock makes two commands that start together share one node.
"""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from filelock import FileLock, Timeout

from osembed.errors import BusyError, NodeError
from osembed.opensearch.node.install import CLUSTER_NAME, VERSION, check_space, installed_home
from osembed.opensearch.node.java import find_java
from osembed.opensearch.node.launch import config_of, launch_node, log_of
from osembed.opensearch.patience import Report
from osembed.paths import cache_folder, data_folder

_FIRST_PORT = 19200
_START_SECONDS = 300  # a busy machine takes minutes; a process that ends is noticed immediately
_STOP_SECONDS = 30
_PORT_TRIES = 3
_FREE_MB = 700

_LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never use a proxy for 127.0.0.1


@dataclass(frozen=True)
class Status:
    """The state of the embedded node. `url` is None unless it answers; `pid` is None if there is no process."""

    running: bool
    url: str | None
    pid: int | None
    version: str
    data: str
    log: str


def ensure(report: Report = lambda _: None) -> str:
    """Return the URL of the running node; install and start it first if needed. Raises NodeError, BusyError."""
    url = _answering_url()
    return url or start(report).url or ""


def status() -> Status:
    """Return the state of the node. Changes nothing."""
    process, url = _find_process(), _answering_url()
    return Status(url is not None, url, process.pid if process else None, VERSION, str(_folder() / "data"), str(_log()))


def start(report: Report = lambda _: None) -> Status:
    """Start the node unless it is running. Returns its state when it is ready.

    Raises NodeError if it cannot be installed or started, BusyError if another process has been starting it for too long.
    """
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "node.lock", timeout=_START_SECONDS + 60):
            if not _answering_url():
                _start_locked(report)
    except Timeout as error:
        raise BusyError(
            "Another osembed command has been starting the embedded OpenSearch for minutes.",
            "Two nodes cannot share one data folder.",
            "Look at `osembed node logs`, end that command, then try again.",
        ) from error
    return status()


def stop() -> bool:
    """Stop the node and wait until it has ended. Returns False if it was not running."""
    process = _find_process()
    if process is None:
        return False
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(_STOP_SECONDS)
    return True


def logs(lines: int = 50) -> list[str]:
    """Return the last lines of the node's log."""
    if not _log().exists():
        return []
    return _log().read_text(errors="replace").splitlines()[-lines:]


def _folder() -> Path:
    return data_folder() / "node"


def _log() -> Path:
    return log_of(_folder())


def _start_locked(report: Report) -> None:
    home = _installed(report)
    java = find_java()
    process = _find_process()
    if process is not None:  # an earlier command was killed while its node was starting: wait for that node
        _wait_ready(process, _saved().get("url", ""), report)
        return
    why = f"OpenSearch needs at least {_FREE_MB} MB to start; on a full disk it accepts no writes."
    check_space(_folder(), _FREE_MB, why, "OSEMBED_HOME")
    for attempt in range(_PORT_TRIES):
        port = _free_port(_saved().get("port", _FIRST_PORT) if attempt == 0 else 0)
        process = launch_node(home, java, _folder(), _settings(port))
        url = f"http://127.0.0.1:{port}"
        _save({"pid": process.pid, "port": port, "url": url, "java": str(java.binary)})
        report(f"Starting OpenSearch {VERSION} on {url} (Java {java.version})…")
        if _wait_ready(process, url, report):
            return
    raise _did_not_start("its port was taken at each attempt")


def _installed(report: Report) -> Path:
    """Return the distribution's folder. If it must be installed first, report that, because it takes a while."""
    if not (cache_folder() / f"opensearch-{VERSION}").is_dir():
        report(f"Installing OpenSearch {VERSION} (180 MB, once)…")
    return installed_home(cache_folder())


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise NodeError("No port is free on 127.0.0.1.", "OpenSearch cannot listen.", "Close some programs and try again.")


def _settings(port: int) -> dict[str, Any]:
    return {
        "cluster.name": CLUSTER_NAME,
        "node.name": "osembed",
        "http.port": port,
        "transport.port": 0,
        "discovery.type": "single-node",
    }


def _wait_ready(process: psutil.Process, url: str, report: Report) -> bool:
    """Wait until the node is ready. Returns False if it ended because its port was taken; raises NodeError if it fails otherwise."""
    started, told = time.monotonic(), False
    while time.monotonic() - started < _START_SECONDS:
        if _listens(process, url) and _is_ready(url):
            return True
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            if any("BindHttpException" in line or "Address already in use" in line for line in logs(200)):
                return False
            raise _did_not_start("its process ended")
        if not told and time.monotonic() - started > 20:
            report("Still starting; `osembed node logs` shows OpenSearch's log.")
            told = True
        time.sleep(0.1)
    raise _did_not_start(f"it did not answer within {_START_SECONDS} s")


def _listens(process: psutil.Process, url: str) -> bool:
    """Return whether this process listens on the port. The node of another data folder may have been faster and answer instead."""
    try:
        return any(held.status == psutil.CONN_LISTEN and held.laddr.port == urlsplit(url).port for held in process.net_connections("inet"))
    except psutil.AccessDenied:
        return True
    except psutil.Error:
        return False


def _did_not_start(reason: str) -> NodeError:
    lines = logs(200)
    said = lines if len(lines) < 10 else [line for line in lines if "Exception" in line or "ERROR" in line or "rror:" in line]
    tail = " | ".join(line.strip()[:200] for line in said[-4:])
    return NodeError(
        f"The embedded OpenSearch did not start: {reason}.",
        f"Its log says: {tail or 'nothing of note'}.",
        f"Read {_log()}, or use a running server with --url or OSEMBED_URL.",
    )


def _is_ready(url: str) -> bool:
    root = _get(url)
    if not root or root.get("cluster_name") != CLUSTER_NAME:
        return False
    health = _get(f"{url}/_cluster/health?wait_for_status=yellow&timeout=10s")
    return bool(health) and health.get("status") in ("yellow", "green")


def _answering_url() -> str | None:
    url = str(_saved().get("url", ""))
    process = _find_process() if url else None
    return url if process and _is_ready(url) else None


def _get(url: str) -> dict[str, Any]:
    try:
        with _LOOPBACK.open(url, timeout=15) as answer:
            return dict(json.load(answer))
    except (OSError, urllib.error.URLError, ValueError):
        return {}


def _find_process() -> psutil.Process | None:
    """Return the node process of this data folder, by the saved id or from the process table; None if there is none."""
    saved = _saved().get("pid")
    if saved and psutil.pid_exists(saved) and _is_node(psutil.Process(saved)):
        return psutil.Process(saved)
    return next((process for process in psutil.process_iter() if _is_node(process)), None)


def _is_node(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and f"-Dopensearch.path.conf={config_of(_folder())}" in process.cmdline()
    except psutil.Error:
        return False


def _saved() -> dict[str, Any]:
    try:
        return dict(json.loads((_folder() / "node.json").read_text()))
    except (OSError, ValueError):
        return {}


def _save(state: dict[str, Any]) -> None:
    draft = _folder() / "node.json.new"
    draft.write_text(json.dumps(state))
    draft.replace(_folder() / "node.json")
