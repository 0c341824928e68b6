"""How a server is reached: its URL, who asks, and what is trusted. Everything that can be refused is refused before anything is sent."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from osembed.address import is_loopback, parse_address
from osembed.errors import AuthError, InputError
from osembed.opensearch.password_file import read_password

_HTTPS_PORT = 443


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

    def __post_init__(self) -> None:
        address = parse_address(self.url)
        user = self.user or address.user
        # A password in the URL belongs to the user there: it is never sent in the name of another.
        password = self.password or (address.password if user == address.user else "")
        for name, value in (("url", address.url), ("user", user), ("password", password)):
            object.__setattr__(self, name, value)

    @classmethod
    def from_environment(cls, url: str, *, ca_cert: str = "", insecure: bool = False) -> Access:
        """Complete a URL with the credentials of the environment."""
        file = os.environ.get("OSEMBED_PASSWORD_FILE", "")
        password = os.environ.get("OSEMBED_PASSWORD") or (read_password(file) if file else "")
        return cls(url, os.environ.get("OSEMBED_USER", ""), password, ca_cert or os.environ.get("OSEMBED_CA_CERT", ""), insecure)

    @property
    def host(self) -> str:
        """The host name or address, an IPv6 address without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port, written or not."""
        return urlsplit(self.url).port or _HTTPS_PORT  # that of http is always written

    @property
    def encrypted(self) -> bool:
        """Whether the connection is https."""
        return self.url.startswith("https:")

    @property
    def local(self) -> bool:
        """Whether the server is on this machine."""
        return is_loopback(self.host)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that say who asks. In UTF-8, as OpenSearch reads them; opensearch-py's own way knows Latin-1 only."""
        if not self.user:
            return {}
        return {"authorization": "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()}


def check_access(access: Access) -> None:
    """Refuse credentials that are incomplete or would be exposed. Nothing is sent for that."""
    if access.user and not access.password:
        raise InputError(f"The user '{access.user}' has no password.", "", "Set OSEMBED_PASSWORD or OSEMBED_PASSWORD_FILE.")
    if access.password and not access.user:
        raise InputError("There is a password, but no user name.", "", "Set OSEMBED_USER.")
    if ":" in access.user:
        raise InputError(f"The user name '{access.user}' has a colon.", "HTTP ends the name there.", "Use another user (OSEMBED_USER).")
    if access.password and not access.encrypted and not access.local:
        raise InputError(
            f"{access.url} is plain http to another machine.",
            "The password could be read by everybody on the way.",
            "Use https.",
        )
    if access.insecure and not access.local:
        raise InputError(
            f"--insecure was given for {access.host}.",
            "Without certificate verification anybody in between could read and change everything.",
            "Name the certificate authority instead: --ca-cert FILE.",
        )


def unauthorized_error(access: Access) -> AuthError:
    """Say who was refused by a 401, or that nobody asked."""
    found = f"The server refuses the password of user '{access.user}'." if access.user else "The server asks for a user name and password."
    return AuthError(found, "", "Set OSEMBED_USER and OSEMBED_PASSWORD (or OSEMBED_PASSWORD_FILE).")
