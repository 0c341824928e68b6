"""Explain why a TLS connection failed, with a hint that helps.

An error says what failed, but not the facts behind it: the names in the certificate, its dates, whether the port speaks TLS at all. So
`explain_connection` connects once more, without credentials, to find these out. `explain_tls` turns both into a message.
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
_NO_TIME_CHECK = 0x200000  # OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python does not export
_SOMEBODY_ELSE = "The connection could be to an impostor."
# OpenSSL's X509_V_ERR_* codes by meaning
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_AUTHORITY = (2, 7, 18, 19, 20, 21)
_OTHER_NAME = (62, 64)
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
_OLD_TLS = ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE", "WRONG_SSL_VERSION")
_WANTS_CERTIFICATE = ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_HANDSHAKE_FAILURE")
_HTTPS_COMPLAINTS = ("sent to HTTPS port", "HTTP request to an HTTPS server", "plain HTTP to an SSL-enabled server port")


@dataclass(frozen=True)
class Seen:
    """Facts from a second connection: the certificate in the form of ssl's `getpeercert`, and whether the server answers plain http."""

    certificate: Mapping[str, Any] = field(default_factory=dict)
    answers_http: bool = False
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


def explain_connection(error: object, access: Access) -> ClusterError | None:
    """Return why a connection failed, if TLS is the reason; else None."""
    cause = root_cause(error)
    if access.encrypted:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return explain_tls(cause, access, Seen(certificate=_presented_certificate(access)))
        # Not a bad certificate: the port may speak plain http.
        if isinstance(cause, ssl.SSLError) or (isinstance(cause, TimeoutError) and "handshake" in str(cause)):
            return explain_tls(cause, access, Seen(answers_http=_answers_http(access)))
    elif isinstance(cause, ConnectionError | BadStatusLine) and not isinstance(cause, ConnectionRefusedError) and _speaks_tls(access):
        return expects_https(access)
    return None


def explain_certificate(error: object, access: Access) -> ClusterError | None:
    """Return why a certificate is not accepted; None for every other failure, which may be temporary."""
    return explain_connection(error, access) if isinstance(root_cause(error), ssl.SSLCertVerificationError) else None


def explain_tls(error: Exception, access: Access, seen: Seen) -> ClusterError:
    """Return why a TLS connection failed, from the error and the facts of the second connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_verification(error, access, seen)
    reason = getattr(error, "reason", None) or str(error)
    if seen.answers_http:
        exposed = access.password and not access.local
        hint = "Turn on TLS on the server, or use its TLS port." if exposed else f"Use http{access.url.removeprefix('https')}."
        return ClusterError(f"{access.url} answers in plain http, not TLS.", "", hint)
    if reason in _OLD_TLS:
        return ClusterError(f"{access.url} offers no safe TLS version (1.2 or 1.3).", "", "Enable TLS 1.2 or 1.3 on the server.")
    if reason in _WANTS_CERTIFICATE:
        return ClusterError(
            f"{access.url} ended the TLS handshake.",
            "It requires a client certificate, which osembed does not have, or ciphers that this machine does not accept.",
            "Let the server accept passwords without client certificates (clientauth_mode: OPTIONAL).",
        )
    if reason in _NO_TLS:
        return ClusterError(f"{access.url} does not speak TLS.", "", "Check the port.")
    if isinstance(error, TimeoutError | ssl.SSLEOFError):
        return ClusterError(f"{access.url} broke off the TLS handshake.", "", "Check that this is the TLS port; see the server's log.")
    return ClusterError(f"The TLS connection to {access.url} failed: {str(reason).lower().replace('_', ' ')}.", "", "See the server's log.")


def explain_answer(status: object, text: str, access: Access) -> ClusterError | None:
    """Return the error for a response that means that the port expects TLS or that the server is at another URL; else None."""
    if status == 400 and any(complaint in text for complaint in _HTTPS_COMPLAINTS):
        return expects_https(access)
    if status in (301, 302, 303, 307, 308):
        elsewhere = "another URL" if access.encrypted else "another URL, perhaps https"
        return ClusterError(
            f"{access.url} answers {status}: it points to {elsewhere}.",
            "Redirects are not followed, because the password is for this server only.",
            "Use the URL of the server itself (--url or OSEMBED_URL).",
        )
    return None


def expects_https(access: Access) -> ClusterError:
    """Return the error for plain http on a port that expects TLS."""
    return ClusterError(f"{access.url} expects TLS, not plain http.", "", f"Use https{access.url.removeprefix('http')}.")


def root_cause(error: object) -> object:
    """Return the innermost exception: urllib3 keeps the socket's exception in its arguments or as the cause."""
    while isinstance(error, BaseException):
        inner = next((argument for argument in reversed(error.args) if isinstance(argument, BaseException)), error.__cause__)
        if inner is None:
            break
        error = inner
    return error


def cause_text(error: object) -> str:
    """Return the text of the innermost exception on one line, such as "Connection refused"."""
    cause = root_cause(error)
    return " ".join(str(getattr(cause, "strerror", None) or cause or type(cause).__name__).split())[:200]


def _explain_verification(error: ssl.SSLCertVerificationError, access: Access, seen: Seen) -> ClusterError:
    if error.verify_code in _UNKNOWN_AUTHORITY:
        if access.ca_cert:
            found, hint = (
                f"is not signed by an authority in {access.ca_cert}",
                "Use the file of the authority that signed it: --ca-cert FILE.",
            )
        else:
            found, hint = "is signed by an unknown authority", "Specify that authority's file: --ca-cert FILE or OSEMBED_CA_CERT."
        return ClusterError(f"The certificate of {access.url} {found}.", _SOMEBODY_ELSE, hint)
    if error.verify_code in _OTHER_NAME:
        return _explain_name(access, seen)
    if error.verify_code in (_NOT_YET_VALID, _EXPIRED):
        return _explain_dates(error.verify_code, access, seen)
    return ClusterError(
        f"The certificate of {access.url} is not accepted: {error.verify_message.rstrip('.')}.",
        _SOMEBODY_ELSE,
        "Get a new certificate issued.",
    )


def _explain_name(access: Access, seen: Seen) -> ClusterError:
    """Return the error that names the requested host and the hosts in the certificate."""
    names = [value for kind, value in seen.certificate.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    if names:
        found = f"is for {listed}, not for {access.host}"
        hint = f"Use one of these names in the URL, or get a certificate that includes {access.host}."
    else:
        found, hint = f"is not for {access.host}", f"Get a certificate for {access.host} (as subjectAltName)."
    return ClusterError(f"The certificate of {access.url} {found}.", _SOMEBODY_ELSE, hint)


def _explain_dates(code: int, access: Access, seen: Seen) -> ClusterError:
    """Return the error with the certificate's dates and the local time. If its own dates are valid, an authority's certificate is at fault."""
    start, end = (_moment(seen.certificate.get(key)) for key in ("notBefore", "notAfter"))
    hint = f"Get a new certificate, or correct this machine's clock: here it is {_written(seen.at)}."
    found = f"The certificate of {access.url}"
    if start and end and start <= seen.at <= end:
        found, hint = (
            f"An authority's certificate behind that of {access.url}",
            f"Renew the authority's certificate. Here it is {_written(seen.at)}.",
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
    """Return the certificate if a trusted authority signed it, whatever its names and dates; another one could not be trusted at all."""

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
    """Connect to the server without credentials and return the result of `look`; None if the connection fails."""
    try:
        with socket.create_connection((access.host, access.port), timeout=_PATIENCE_S) as plain:
            return look(plain)
    except OSError:  # includes TLS errors
        return None
