"""A small HTTP proxy between a real client and a real server that makes real faults: lost connections, cut answers, error answers.

A rule looks at each request and returns None (pass it on) or a Fault. Optionally the proxy speaks TLS and checks a password, as a secured
server would, and takes a path prefix away, as a gateway would.
"""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Request:
    """One request as the proxy sees it; `number` counts from 1."""

    number: int
    method: str
    path: str
    body: bytes


@dataclass(frozen=True)
class Fault:
    """What happens to a request.

    Attributes:
        kind: "lost" (never reaches the server), "unanswered" (applied, then the connection is lost), "cut" (applied, half an answer),
            "answer" (never reaches the server, `status` and `body` come back), "rewrite" (applied, `rewrite` changes the answer).
        translate: changes the request's body on its way to the server.
        before, after: called before the request is sent on, and after the server applied it.
    """

    kind: str = "pass"
    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    rewrite: Callable[[bytes], bytes] = field(default=lambda body: body)
    translate: Callable[[bytes], bytes] = field(default=lambda body: body)
    before: Callable[[], None] = field(default=lambda: None)
    after: Callable[[], None] = field(default=lambda: None)


_OWN_HEADERS = ("host", "connection", "authorization", "content-length")
Rule = Callable[[Request], Fault | None]


class FaultProxy:
    """Runs in a thread on 127.0.0.1; `url` is where clients go, `seen` what passed, `fired` how many faults were made.

    `password` ("user:password") may be changed while it runs.
    """

    def __init__(self, upstream: str, *, tls: ssl.SSLContext | None = None, password: str | None = None, prefix: str = "") -> None:
        self.rules: list[Rule] = []
        self.seen: list[Request] = []
        self.fired = 0
        self.password = password
        self._upstream, self._lock, self._prefix = urlsplit(upstream), threading.Lock(), prefix
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}{prefix}"

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def once(self, path: str, fault: Fault, *, times: int = 1) -> None:
        """Make a fault of the next request (or the next few) whose path contains `path`."""
        left = [times]

        def rule(request: Request) -> Fault | None:
            if path not in request.path or not left[0]:
                return None
            left[0] -= 1
            return fault

        self.rules.append(rule)

    def note(self, request_line: tuple[str, str], body: bytes) -> tuple[Request, Fault]:
        """Count a request and find its fault."""
        with self._lock:
            request = Request(len(self.seen) + 1, *request_line, body)
            self.seen.append(request)
            for rule in self.rules:
                fault = rule(request)
                if fault:
                    self.fired += 1
                    return request, fault
        return request, Fault()

    def forward(self, request: Request, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, str]:
        """Send a request on with this body and return status, body and content type."""
        connection = http.client.HTTPConnection(self._upstream.hostname or "", self._upstream.port, timeout=120)
        passed = {key: value for key, value in headers.items() if key.lower() not in _OWN_HEADERS}
        connection.request(request.method, request.path.removeprefix(self._prefix), body or None, passed)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content, answer.headers.get("content-type", "application/json")

    def allows(self, authorization: str | None) -> bool:
        """Whether the password is right, where one is asked for."""
        if self.password is None:
            return True
        return authorization == "Basic " + base64.b64encode(self.password.encode()).decode()

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - self is the handler's below
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # headers and body are sent apart: each answer would wait 40 ms

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if not proxy.allows(self.headers.get("authorization")):
                    self.answer(401, b"Unauthorized", "text/plain")
                    return
                request, fault = proxy.note((self.command, self.path), body)
                fault.before()
                if fault.kind == "lost":
                    self.hang_up()
                    return
                if fault.kind == "answer":
                    self.answer(fault.status, fault.body, fault.content_type)
                    return
                try:
                    status, content, kind = proxy.forward(request, fault.translate(body), dict(self.headers.items()))
                except ConnectionRefusedError:  # the server is gone, and so is the connection to it
                    self.hang_up()
                    return
                fault.after()
                if fault.kind == "unanswered":
                    self.hang_up()
                elif fault.kind == "cut":
                    self.answer(status, content, kind, cut=True)
                else:
                    self.answer(status, fault.rewrite(content), kind)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_any  # noqa: N815

            def answer(self, status: int, body: bytes, kind: str, cut: bool = False) -> None:
                try:
                    self.send_response(status)
                    self.send_header("content-type", kind)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(body[: len(body) // 2] if cut else body)
                except (BrokenPipeError, ConnectionResetError):
                    pass
                if cut:
                    self.hang_up()

            def hang_up(self) -> None:
                self.close_connection = True
                with suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
