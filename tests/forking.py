"""Start the osembed command as a fork of a process that has its libraries loaded.

A real process with a pid, signals and an exit status of its own, but without the four seconds in which torch is imported. What depends on
the start of the interpreter (its variables, its flags, what it imports) is tested on processes that start from nothing: `command()`.

`OSEMBED_TESTS_FORK=0` starts every process from nothing.
"""

from __future__ import annotations

import atexit
import gc
import inspect
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

_AT_START = ("PYTHON", "LC_", "LANG", "OMP_", "MKL_", "OPENBLAS_", "ONEDNN_", "KMP_", "LD_", "TORCH", "TOKENIZERS_", "CUDA_", "MALLOC_")
_LENGTH = 8  # bytes in front of a message
_PAUSE_S = 0.01


class Parent:
    """The process that forks: one per test process, started at the first need."""

    def __init__(self) -> None:
        self._lock, self._here = threading.Lock(), None
        self._process: subprocess.Popen | None = None

    def ask(self, question: Mapping[str, Any], files: tuple[int, ...] = ()) -> Any:
        """Send a question, with open files; return the answer."""
        with self._lock:
            if self._here is None:
                self._start()
            _send(self._here, question, files)
            return _receive(self._here)[0]

    def _start(self) -> None:
        self._here, there = socket.socketpair()
        line = [sys.executable, "-m", "tests.forking", str(there.fileno())]
        self._process = subprocess.Popen(line, pass_fds=[there.fileno()], cwd=Path(__file__).parent.parent, stdin=subprocess.DEVNULL)
        there.close()
        atexit.register(self._here.close)


_PARENT = Parent()


class Command(subprocess.Popen):
    """An osembed command in a process of its own, forked where that makes no difference."""

    def __init__(self, *arguments: str, env: Mapping[str, str] | None = None, **more: Any) -> None:
        env = dict(os.environ if env is None else env)
        self._forked = sys.platform == "linux" and os.environ.get("OSEMBED_TESTS_FORK") != "0" and _of_start(env) == _of_start(os.environ)
        super().__init__(command(*arguments), env=env, **more)

    def _execute_child(self, *args: Any) -> None:
        if not self._forked:
            super()._execute_child(*args)
            return
        given = inspect.signature(super()._execute_child).bind(*args).arguments
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        streams = [given[end] if given[end] != -1 else number for number, end in enumerate(("p2cread", "c2pwrite", "errwrite"))]
        cwd = os.fspath(given["cwd"] or os.getcwd())
        try:
            self.pid = _PARENT.ask({"arguments": given["args"][3:], "env": dict(given["env"]), "cwd": cwd}, tuple(streams))
            self._child_created = True
        finally:
            self._close_pipe_fds(*(given[end] for end in pipes))

    def _internal_poll(self, *args: Any, **more: Any) -> int | None:
        if not self._forked:
            return super()._internal_poll(*args, **more)
        with self._waitpid_lock:
            if self.returncode is None:
                pid, status = self._try_wait(os.WNOHANG)
                if pid == self.pid:
                    self._handle_exitstatus(status)
        return self.returncode

    def _try_wait(self, flags: int) -> tuple[int, int]:
        if not self._forked:
            return super()._try_wait(flags)
        while True:
            pid, status = _PARENT.ask({"wait": self.pid})
            if pid or flags & os.WNOHANG:
                return pid, status
            threading.Event().wait(_PAUSE_S)


def command(*arguments: str) -> list[str]:
    """Return the command line of osembed in this environment."""
    return [sys.executable, "-c", "from osembed.cli.main import main; main()", *arguments]


def _of_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_AT_START)}


def _send(end: socket.socket, message: Any, files: tuple[int, ...] = ()) -> None:
    body = orjson.dumps(message)
    length = len(body).to_bytes(_LENGTH, "big")
    if files:
        socket.send_fds(end, [length], files)
    else:
        end.sendall(length)
    end.sendall(body)


def _receive(end: socket.socket) -> tuple[Any, list[int]]:
    """Return a message and the files that came with it; None at the end."""
    length, files, *_ = socket.recv_fds(end, _LENGTH, 3)
    if not length:
        return None, []
    wanted, body = int.from_bytes(length, "big"), b""
    while len(body) < wanted:
        body += end.recv(wanted - len(body))
    return orjson.loads(body), files


def _serve(end: socket.socket) -> list[str] | None:
    """Fork for each command; return its arguments in the child, None in the parent once nobody asks any more."""
    while True:
        question, files = _receive(end)
        if question is None:
            return None
        if "wait" in question:
            _send(end, os.waitpid(question["wait"], os.WNOHANG))
            continue
        pid = os.fork()
        if not pid:
            end.close()
            _become(question, files)
            return list(question["arguments"])
        for file in files:
            os.close(file)
        _send(end, pid)


def _become(question: Mapping[str, Any], files: list[int]) -> None:
    """Make of a fork what a process is that has just started."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        stream = open(number, mode, closefd=False)  # noqa: SIM115 - as long as the process lives
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.stderr.reconfigure(line_buffering=True, errors="backslashreplace")
    os.environ.clear()
    os.environ.update(question["env"])
    os.chdir(question["cwd"])
    sys.argv = ["-c", *question["arguments"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _run() -> None:
    """Run the command and end, without half a second of taking torch apart."""
    from osembed.cli.main import main

    code = 1
    try:
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(code)


def _load() -> None:
    """Load what a command that embeds loads."""
    import importlib
    import pkgutil

    import osembed

    for found in pkgutil.walk_packages(osembed.__path__, "osembed."):
        importlib.import_module(found.name)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _load()
    gc.collect()
    gc.freeze()  # what forks share is neither looked at nor written to by their collector
    arguments = _serve(socket.socket(fileno=int(sys.argv[1])))
    if arguments is not None:
        _run()
