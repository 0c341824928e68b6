"""The connection: retries of safe requests, and translation of errors. `opensearch.access` describes how to reach a server.

Requests to the bulk endpoint are passed through, because `bulk` has its own retry table. Everything else goes through `Transport`.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import RemoteDisconnected
from typing import Any

import opensearchpy
import orjson
from opensearchpy import OpenSearch as OpenSearch  # the only import of this type: other modules import it from here
from opensearchpy.exceptions import (
    AuthenticationException,
    ConnectionTimeout,
    SerializationError,
    SSLError,
    TransportError,
)
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from osembed.errors import ClusterError
from osembed.opensearch.access import Access as Access  # other modules import it from here
from osembed.opensearch.access import check_access, unauthorized_error
from osembed.opensearch.node import CLUSTER_NAME
from osembed.opensearch.patience import retry_seconds
from osembed.opensearch.refusals import explain_error
from osembed.opensearch.tls import cause_text, explain_answer, explain_connection, root_cause
from osembed.opensearch.trust import trusted_context

_TIMEOUT_S = 60
_SAFE_POSTS = ("_search", "_msearch", "_mget", "_count", "_refresh")
_SAFE_WRITE = "/osembed-journal/_doc/"  # conditional on the version that was read: a repeated write is a conflict, which is read again


@dataclass(frozen=True)
class Server:
    """A server's description of itself.

    Attributes:
        url: its address.
        version: of OpenSearch.
        embedded: whether it is osembed's own node.
    """

    url: str
    version: tuple[int, int, int]
    embedded: bool

    @property
    def version_text(self) -> str:
        """The version as people write it."""
        return ".".join(map(str, self.version))


class Transport(opensearchpy.Transport):
    """opensearch-py's transport, with jittered retries for requests that change nothing, and with translated errors.

    A server that has never answered is retried for one second only, so that a mistyped URL fails fast. A server that has shown a valid
    certificate is the right one and gets the full time.
    """

    answered = False
    access: Access

    def perform_request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        """Send a request. Errors of `_bulk` are not translated: the bulk loop handles them."""
        path = url.split("?")[0]
        send = super().perform_request
        if path.rsplit("/", 1)[-1] == "_bulk":
            return send(method, url, *args, **kwargs)
        safe = method in ("GET", "HEAD") or path.rsplit("/", 1)[-1] in _SAFE_POSTS or path.startswith(_SAFE_WRITE)
        try:
            if not safe:
                return send(method, url, *args, **kwargs)
            answer = _RETRYING.copy(stop=self._is_over)(send, method, url, *args, **kwargs)
            self.answered = True
            return answer
        except (TransportError, SerializationError) as error:
            raise _translate(error, path, self.access) from error

    def _is_over(self, state: RetryCallState) -> bool:
        """Return whether a request has been retried for long enough."""
        error = state.outcome.exception() if state.outcome else None
        met = self.answered or (self.access.encrypted and isinstance(root_cause(error), RemoteDisconnected))
        limit = retry_seconds() if met else min(1.0, retry_seconds())
        return (state.seconds_since_start or 0.0) >= limit


class Serializer(opensearchpy.serializer.JSONSerializer):
    """JSON with orjson."""

    def loads(self, s: Any) -> Any:
        """Parse a response."""
        return orjson.loads(s)

    def dumps(self, data: Any) -> Any:
        """Serialise a body; bytes and strings are passed on unchanged."""
        return data if isinstance(data, str | bytes) else orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)


def connect(access: Access) -> OpenSearch:
    """Return a client for a server. Nothing is sent yet. Raises InputError for credentials or a CA file that cannot be used."""
    check_access(access)
    logging.getLogger("opensearch").setLevel(logging.CRITICAL)  # it logs bodies and headers, with credentials
    client = OpenSearch(
        access.url,
        headers=access.headers,
        ssl_context=trusted_context(access),
        timeout=_TIMEOUT_S,
        max_retries=0,
        pool_maxsize=16,
        transport_class=Transport,
        serializer=Serializer(),
        deserializer_class=None,
        serializers={"application/json": Serializer()},
    )
    transport: Any = client.transport
    transport.access = access
    return client


def handshake(client: OpenSearch, url: str) -> Server:
    """Return the server's description of itself. Raises ClusterError if it is not OpenSearch."""
    info = client.info()
    version = info.get("version") if isinstance(info, Mapping) else None
    if not isinstance(version, Mapping) or "number" not in version:
        raise ClusterError(f"{url} answers, but not like OpenSearch.", "", "Check the URL; is there a login page in front of it?")
    if version.get("distribution") != "opensearch":
        raise ClusterError(
            f"{url} is Elasticsearch {version['number']}.",
            "osembed uses OpenSearch's k-NN and hybrid queries.",
            "Use an OpenSearch server, or leave out --url for the embedded node.",
        )
    return Server(url, _version(str(version["number"])), info.get("cluster_name") == CLUSTER_NAME)


def _translate(error: Exception, path: str, access: Access) -> ClusterError:
    """Return osembed's error for an error of opensearch-py. Outside the bulk loop no other code sees the original."""
    if isinstance(error, SerializationError):
        return ClusterError("The server answers, but not with JSON.", "It is not OpenSearch.", "Check --url.")
    if isinstance(error, opensearchpy.ConnectionError) and (explained := explain_connection(error, access)):
        return explained
    if isinstance(error, ConnectionTimeout):
        return ClusterError("The server did not answer in time.", "", "Check its load and log, then run the command again.")
    if isinstance(error, opensearchpy.ConnectionError):
        return ClusterError(
            f"{access.url} cannot be reached: {cause_text(error)}.",
            "",
            "Check --url (OSEMBED_URL) and that the server is running, or leave out --url for the embedded node.",
        )
    if isinstance(error, AuthenticationException):
        return unauthorized_error(access)
    assert isinstance(error, TransportError)
    if explained := explain_answer(int(error.status_code), str(error.error), access):
        return explained
    return explain_error(int(error.status_code), str(error.error), error.info, path)


def _may_pass(error: BaseException) -> bool:
    """Return whether a safe request may succeed at the next try after this error."""
    if isinstance(error, SSLError):
        return isinstance(root_cause(error), ssl.SSLEOFError)  # connection cut off; a bad certificate would stay bad
    if isinstance(error, opensearchpy.ConnectionError | SerializationError):
        return not isinstance(error, ConnectionTimeout)
    return isinstance(error, TransportError) and error.status_code in (429, 502, 503, 504)


_RETRYING = Retrying(
    retry=retry_if_exception(_may_pass),
    wait=wait_random_exponential(multiplier=0.1, max=3),
    reraise=True,
)


def _version(number: str) -> tuple[int, int, int]:
    major, minor, patch = [*re.findall(r"\d+", number), "0", "0", "0"][:3]
    return int(major), int(minor), int(patch)
