"""Why no TLS connection came about, in words that lead on.

`explain_connection` looks at the server once more, without credentials, since an error says what failed but not what is there: which
names a certificate carries, when it is valid, whether the port speaks TLS at all. `explain_tls` turns both into a message.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import BadStatusLine
from typing import Any, TypeVar

from osembed.errors import ClusterError
from osembed.opensearch.access import Access
from osembed.opensearch.trust import trusted_context

T = TypeVar("T")

_PATIENCE_S = 3
_NO_TIME_CHECK = 0x200000  # OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python has no name for
_SOMEBODY_ELSE = "The connection could be to somebody else."
# OpenSSL's X509_V_ERR_*, by meaning
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_AUTHORITY = (2, 7, 18, 19, 20, 21)
_OTHER_NAME = (62, 64)
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
_OLD_TLS = ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE", "WRONG_SSL_VERSION")
_WANTS_CERTIFICATE = ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_HANDSHAKE_FAILURE")
_HTTPS_COMPLAINTS = ("sent to HTTPS port", "HTTP request to an HTTPS server", "plain HTTP to an SSL-enabled server port")


@dataclass(frozen=True)
class Seen:
    """What a second look at the server showed: its certificate as ssl's `getpeercert` gives it, and whether it answers plain http."""

    certificate: Mapping[str, Any] = field(default_factory=dict)
    answers_http: bool = False
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


def explain_connection(error: object, access: Access) -> ClusterError | None:
    """Explain why a connection failed, where TLS is the reason; None where it is not."""
    cause = root_cause(error)
    if access.encrypted:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return explain_tls(cause, access, Seen(certificate=_presented_certificate(access)))
        if isinstance(cause, ssl.SSLError) or (isinstance(cause, TimeoutError) and "handshake" in str(cause)):
            return explain_tls(cause, access, Seen(answers_http=_answers_http(access)))
    elif isinstance(cause, ConnectionError | BadStatusLine) and not isinstance(cause, ConnectionRefusedError) and _speaks_tls(access):
        return expects_https(access)
    return None


def explain_certificate(error: object, access: Access) -> ClusterError | None:
    """Explain a certificate that is not accepted; None for every other failure, which may pass."""
    return explain_connection(error, access) if isinstance(root_cause(error), ssl.SSLCertVerificationError) else None


def explain_tls(error: Exception, access: Access, seen: Seen) -> ClusterError:
    """Explain why a TLS connection was not made, from the error and what else was seen of the server."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_verification(error, access, seen)
    reason = getattr(error, "reason", None) or str(error)
    if seen.answers_http:
        exposed = access.password and not access.local
        hint = "Turn TLS on there, or name its TLS port." if exposed else f"Use http{access.url.removeprefix('https')}."
        return ClusterError(f"{access.url} answers in plain http, not TLS.", "", hint)
    if reason in _OLD_TLS:
        return ClusterError(f"{access.url} offers no TLS version that is safe: 1.2 or 1.3.", "", "Turn TLS 1.2 or 1.3 on in the server.")
    if reason in _WANTS_CERTIFICATE:
        return ClusterError(
            f"{access.url} ended the TLS handshake.",
            "It wants a client certificate, which osembed does not have, or ciphers that are not accepted here.",
            "Let the server take passwords without client certificates (clientauth_mode: OPTIONAL).",
        )
    if reason in _NO_TLS:
        return ClusterError(f"{access.url} does not speak TLS.", "", "Check the port.")
    if isinstance(error, TimeoutError | ssl.SSLEOFError):
        return ClusterError(f"{access.url} broke the TLS handshake off.", "", "Check that the port is one for TLS; see the server's log.")
    return ClusterError(f"The TLS connection to {access.url} failed: {str(reason).lower().replace('_', ' ')}.", "", "See the server's log.")


def explain_answer(status: object, text: str, access: Access) -> ClusterError | None:
    """Explain an answer that comes from something in front of the server: its port expects TLS, or the server is elsewhere."""
    if status == 400 and any(complaint in text for complaint in _HTTPS_COMPLAINTS):
        return expects_https(access)
    if status in (301, 302, 303, 307, 308):
        elsewhere = "another URL" if access.encrypted else "another URL, perhaps https"
        return ClusterError(
            f"{access.url} answers {status}: it points to {elsewhere}.",
            "Redirects are not followed: the password is for this server only.",
            "Name the URL where the server is (--url or OSEMBED_URL).",
        )
    return None


def expects_https(access: Access) -> ClusterError:
    """Say that a port was spoken to in plain http and expects TLS."""
    return ClusterError(f"{access.url} expects TLS, not plain http.", "", f"Use https{access.url.removeprefix('http')}.")


def root_cause(error: object) -> object:
    """Return the innermost exception: urllib3 wraps the one of the socket in its arguments, or raises its own from it."""
    while isinstance(error, BaseException):
        inner = next((argument for argument in reversed(error.args) if isinstance(argument, BaseException)), error.__cause__)
        if inner is None:
            break
        error = inner
    return error


def cause_text(error: object) -> str:
    """Return what the innermost exception says, in one line: "Connection refused" instead of a tower of wrappers."""
    cause = root_cause(error)
    return " ".join(str(getattr(cause, "strerror", None) or cause or type(cause).__name__).split())[:200]


def _explain_verification(error: ssl.SSLCertVerificationError, access: Access, seen: Seen) -> ClusterError:
    if error.verify_code in _UNKNOWN_AUTHORITY:
        if access.ca_cert:
            found, hint = (
                f"is not signed by an authority in {access.ca_cert}",
                "Name the file of the authority that signed it: --ca-cert FILE.",
            )
        else:
            found, hint = "is signed by an unknown authority", "Name that authority's file: --ca-cert FILE or OSEMBED_CA_CERT."
        return ClusterError(f"The certificate of {access.url} {found}.", _SOMEBODY_ELSE, hint)
    if error.verify_code in _OTHER_NAME:
        return _explain_name(access, seen)
    if error.verify_code in (_NOT_YET_VALID, _EXPIRED):
        return _explain_dates(error.verify_code, access, seen)
    return ClusterError(
        f"The certificate of {access.url} is not accepted: {error.verify_message.rstrip('.')}.", _SOMEBODY_ELSE, "Have it issued anew."
    )


def _explain_name(access: Access, seen: Seen) -> ClusterError:
    """Say which host was asked for, and which ones the certificate is for."""
    names = [value for kind, value in seen.certificate.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    if names:
        found = f"is for {listed}, not for {access.host}"
        hint = f"Use a name of the certificate in the URL, or have it issued for {access.host}, too."
    else:
        found, hint = f"is not for {access.host}", f"Have it issued for {access.host} (as subjectAltName)."
    return ClusterError(f"The certificate of {access.url} {found}.", _SOMEBODY_ELSE, hint)


def _explain_dates(code: int, access: Access, seen: Seen) -> ClusterError:
    """Say when the certificate is valid and what time it is here; where its own dates are right, those of its authority are not."""
    start, end = (_moment(seen.certificate.get(key)) for key in ("notBefore", "notAfter"))
    hint = f"Have it issued anew, or set the clock right: here it is {_written(seen.at)}."
    found = f"The certificate of {access.url}"
    if start and end and start <= seen.at <= end:
        found, hint = (
            f"An authority's certificate behind that of {access.url}",
            f"Have the authority renewed. Here it is {_written(seen.at)}.",
        )
    if code == _EXPIRED:
        when = f" on {_written(end)}" if end and end < seen.at else ""
        return ClusterError(f"{found} expired{when}.", _SOMEBODY_ELSE, hint)
    when = f" before {_written(start)}" if start and start > seen.at else " yet"
    return ClusterError(f"{found} is not valid{when}.", _SOMEBODY_ELSE, hint)


def _moment(text: str | None) -> datetime | None:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC) if text else None


def _written(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else "an unknown time"


def _presented_certificate(access: Access) -> Mapping[str, Any]:
    """Return the certificate if a trusted authority signed it, whatever its names and dates; nothing else of it could be believed."""

    def look(plain: socket.socket) -> Mapping[str, Any]:
        context = trusted_context(access) or ssl.create_default_context()
        context.check_hostname = False
        context.verify_flags |= ssl.VerifyFlags(_NO_TIME_CHECK)
        with context.wrap_socket(plain, server_hostname=access.host) as secure:
            return secure.getpeercert() or {}

    return _look(access, look) or {}


def _answers_http(access: Access) -> bool:
    def look(plain: socket.socket) -> bool:
        plain.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
        return plain.recv(5) == b"HTTP/"

    return bool(_look(access, look))


def _speaks_tls(access: Access) -> bool:
    def look(plain: socket.socket) -> bool:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(plain, server_hostname=access.host):
            return True

    return bool(_look(access, look))


def _look(access: Access, look: Callable[[socket.socket], T]) -> T | None:
    """Connect to the server, send no credentials, and look; None where even that fails."""
    try:
        with socket.create_connection((access.host, access.port), timeout=_PATIENCE_S) as plain:
            return look(plain)
    except OSError:  # TLS errors are among them
        return None
