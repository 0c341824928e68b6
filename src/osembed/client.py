"""The connection: credentials, certificates, retries of safe requests, and errors in osembed's own words.

The bulk endpoint is left alone: `bulk` has a retry table of its own. Everything else goes through `Transport`.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import opensearchpy
import orjson
from opensearchpy import OpenSearch as OpenSearch  # the one place: others import the type from here
from opensearchpy.exceptions import (
    AuthenticationException,
    ConnectionTimeout,
    SerializationError,
    SSLError,
    TransportError,
)
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from osembed.errors import AuthError, ClusterError, InputError
from osembed.node import CLUSTER_NAME
from osembed.opensearch.patience import retry_seconds
from osembed.opensearch.refusals import explain

_TIMEOUT_S = 60
_SAFE_POSTS = ("_search", "_msearch", "_mget", "_count", "_refresh")
_SAFE_WRITE = "/osembed-journal/_doc/"  # conditional on what was read: applied twice is a conflict, and then it is read again
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Access:
    """How to reach a server. The password is kept out of `repr`.

    Attributes:
        url: http or https; user and password in it are accepted and taken out.
        user, password: from OSEMBED_USER, and OSEMBED_PASSWORD or the file that OSEMBED_PASSWORD_FILE names.
        ca_cert: a PEM file of certificate authorities to trust.
        insecure: skip certificate verification; only for a server on this machine.
    """

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    ca_cert: str = ""
    insecure: bool = False

    @classmethod
    def from_environment(cls, url: str, *, ca_cert: str = "", insecure: bool = False) -> Access:
        """Complete a URL with the credentials of the environment."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"'{_plain(parts) or url}' is no server URL.", "", "Write it like https://search.example.org:9200.")
        user = os.environ.get("OSEMBED_USER") or unquote(parts.username or "")
        password = os.environ.get("OSEMBED_PASSWORD") or _password_file() or unquote(parts.password or "")
        ca_cert = ca_cert or os.environ.get("OSEMBED_CA_CERT", "")
        return cls(_plain(parts), user, password, ca_cert, insecure)


@dataclass(frozen=True)
class Server:
    """What a server says of itself."""

    url: str
    version: tuple[int, int, int]
    embedded: bool

    @property
    def version_text(self) -> str:
        """The version as people write it."""
        return ".".join(map(str, self.version))


class Transport(opensearchpy.Transport):
    """opensearch-py's transport with jittered retries for requests that change nothing, and errors translated once.

    A server that has never answered gets one second: a mistyped URL should not cost twenty.
    """

    answered = False

    def perform_request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        """Send a request; `_bulk` keeps its raw errors for the bulk loop."""
        path = url.split("?")[0]
        send = super().perform_request
        if path.rsplit("/", 1)[-1] == "_bulk":
            return send(method, url, *args, **kwargs)
        safe = method in ("GET", "HEAD") or path.rsplit("/", 1)[-1] in _SAFE_POSTS or path.startswith(_SAFE_WRITE)
        try:
            if not safe:
                return send(method, url, *args, **kwargs)
            limit = retry_seconds() if self.answered else min(1.0, retry_seconds())
            answer = _RETRYING.copy(stop=stop_after_delay(limit))(send, method, url, *args, **kwargs)
            self.answered = True
            return answer
        except (TransportError, SerializationError) as error:
            raise _translate(error, path) from error


class Serializer(opensearchpy.serializer.JSONSerializer):
    """JSON by orjson."""

    def loads(self, s: Any) -> Any:
        """Parse an answer."""
        return orjson.loads(s)

    def dumps(self, data: Any) -> Any:
        """Serialise a body; bytes and strings pass as they are."""
        return data if isinstance(data, str | bytes) else orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)


def connect(access: Access) -> OpenSearch:
    """Return a client for a server. Nothing is sent yet."""
    parts = urlsplit(access.url)
    local = parts.hostname in _LOOPBACK
    if access.password and parts.scheme == "http" and not local:
        raise InputError(
            f"{access.url} is plain http to another machine.",
            "The password would travel readable for everybody on the way.",
            "Use https.",
        )
    if access.insecure and not local:
        raise InputError(
            f"--insecure was given for {parts.hostname}.",
            "Without certificate verification anybody in between could read and change everything.",
            "Name the certificate authority instead: --ca-cert FILE.",
        )
    logging.getLogger("opensearch").setLevel(logging.CRITICAL)  # it logs bodies and headers
    return OpenSearch(
        access.url,
        http_auth=(access.user, access.password) if access.user else None,
        verify_certs=not access.insecure,
        ssl_show_warn=False,
        ca_certs=_readable(access.ca_cert) or None,
        timeout=_TIMEOUT_S,
        max_retries=0,
        pool_maxsize=16,
        transport_class=Transport,
        serializer=Serializer(),
        deserializer_class=None,
        serializers={"application/json": Serializer()},
    )


def handshake(client: OpenSearch, url: str) -> Server:
    """Ask a server who it is. Raises ClusterError where it is not an OpenSearch."""
    info = client.info()
    version = info.get("version") if isinstance(info, Mapping) else None
    if not isinstance(version, Mapping) or "number" not in version:
        raise ClusterError(f"{url} answers, but not as OpenSearch does.", "", "Check the URL; is a login page in between?")
    if version.get("distribution") != "opensearch":
        raise ClusterError(
            f"{url} is Elasticsearch {version['number']}.",
            "osembed uses OpenSearch's k-NN and hybrid queries.",
            "Name an OpenSearch server, or leave --url out for the embedded one.",
        )
    return Server(url, _version(str(version["number"])), info.get("cluster_name") == CLUSTER_NAME)


def _translate(error: Exception, path: str) -> ClusterError:
    """Turn an error of opensearch-py into osembed's; outside the bulk loop nobody meets another."""
    if isinstance(error, SerializationError):
        return ClusterError("The server answers, but not with JSON.", "It is not an OpenSearch.", "Check --url.")
    if isinstance(error, SSLError):
        return ClusterError(
            f"The server's certificate was not accepted: {error.info or error.error}.",
            "The connection could be to somebody else.",
            "Name the authority that signed it: --ca-cert FILE or OSEMBED_CA_CERT.",
        )
    if isinstance(error, ConnectionTimeout):
        return ClusterError("The server did not answer in time.", "", "Look at its load and log, then run the command again.")
    if isinstance(error, opensearchpy.ConnectionError):
        return ClusterError(
            f"The server cannot be reached: {str(error.info or error.error)[:200]}.",
            "",
            "Check --url (OSEMBED_URL) and that the server runs, or leave it out for the embedded node.",
        )
    if isinstance(error, AuthenticationException):
        return AuthError(
            "The server refuses the user name or password.",
            "",
            "Set OSEMBED_USER and OSEMBED_PASSWORD (or OSEMBED_PASSWORD_FILE).",
        )
    assert isinstance(error, TransportError)
    return explain(int(error.status_code), str(error.error), error.info, path)


def _may_pass(error: BaseException) -> bool:
    """Whether an error of a safe request may be gone at the next try."""
    if isinstance(error, SSLError | ConnectionTimeout):
        return False
    if isinstance(error, opensearchpy.ConnectionError | SerializationError):
        return True
    return isinstance(error, TransportError) and error.status_code in (429, 502, 503, 504)


_RETRYING = Retrying(
    retry=retry_if_exception(_may_pass),
    wait=wait_random_exponential(multiplier=0.1, max=3),
    reraise=True,
)


def _plain(parts: SplitResult) -> str:
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}" if host else ""


def _password_file() -> str:
    name = os.environ.get("OSEMBED_PASSWORD_FILE")
    if not name:
        return ""
    path = Path(_readable(name))
    if path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        raise InputError(f"{path} can be read by others.", "It holds a password.", f"Run: chmod 600 {path}")
    return path.read_text().strip()


def _readable(name: str) -> str:
    if name and not os.access(name, os.R_OK):
        raise InputError(f"{name} cannot be read.", "", "Check the path and its permissions.")
    return name


def _version(number: str) -> tuple[int, int, int]:
    major, minor, patch = [*re.findall(r"\d+", number), "0", "0", "0"][:3]
    return int(major), int(minor), int(patch)
