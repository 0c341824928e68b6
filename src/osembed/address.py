"""Parse a server's URL, and show one without its secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import SplitResult, unquote, urlsplit

from osembed.errors import InputError
from osembed.limits import checked_value

_EXAMPLE = "Write it like https://search.example.org:9200 or http://[::1]:9200."
_HTTP_PORT = 9200  # the default of OpenSearch clients; for https it is the standard 443
_HOST_NAME = re.compile(r"[\w-]+(\.[\w-]+)*\.?")


@dataclass(frozen=True)
class Address:
    """A URL without secrets, and the user name and password that were in it."""

    url: str
    user: str = ""
    password: str = field(default="", repr=False)


def parse_address(url: str) -> Address:
    """Parse a URL. Raises InputError, without secrets in the message, unless it names exactly one server."""
    from urllib3.util import parse_url  # imported late, because it takes longer than everything else here

    text = checked_value("url", url, str).strip()
    try:
        parts = urlsplit(text)
        fault = _fault(text, parts)
        if not fault:
            parse_url(text)  # the parser of the connection, which is stricter about brackets and non-ASCII names
    except ValueError:
        fault = (f"'{shown_url(text)}' is not a server URL.", _EXAMPLE)
    if fault:
        raise InputError(fault[0], "", fault[1])
    return Address(_plain(parts), unquote(parts.username or ""), unquote(parts.password or ""))


def shown_url(url: str) -> str:
    """Return a URL, even a malformed one, without its possible secrets: user, password, query and fragment."""
    without_user = re.sub(r"^([a-z][a-z0-9+.-]*://)?.*@", r"\1", url, flags=re.IGNORECASE | re.DOTALL)
    return re.split(r"[?#]", without_user)[0]


def is_loopback(host: str) -> bool:
    """Return whether a host name or address means this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _fault(text: str, parts: SplitResult) -> tuple[str, str] | None:
    """Return what is wrong with a URL and a hint; None if it is valid."""
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        return f"'{shown_url(text)}' is not a server URL.", _EXAMPLE
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return (
            "The server URL has an '@' after the host name.",
            "Set the password as OSEMBED_PASSWORD, or write / ? # in it as %2F %3F %23.",
        )
    if parts.query or parts.fragment or text.endswith(("?", "#")):
        return f"The server URL {shown_url(text)} has a query or a fragment.", "Leave out everything from the '?' or '#' on."
    if ":" not in host and not _HOST_NAME.fullmatch(host):
        return f"'{shown_url(text)}' does not name one host.", _EXAMPLE
    if re.search(r"\s", text):
        return f"'{shown_url(text)}' contains a space.", _EXAMPLE
    if not _has_valid_port(parts):
        return f"The port of {parts.scheme}://{_bracketed(host)} is not a number from 1 to 65535.", _EXAMPLE
    return None


def _has_valid_port(parts: SplitResult) -> bool:
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _plain(parts: SplitResult) -> str:
    """Return the normalised URL: without user and trailing slash, with the port for http."""
    port = parts.port or (_HTTP_PORT if parts.scheme == "http" else None)
    return f"{parts.scheme}://{_bracketed(parts.hostname or '')}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
