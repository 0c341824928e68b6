"""How to reach a server: URL, credentials and trusted authorities. Everything that can be refused is refused before anything is sent."""

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
    """How to reach a server. `repr` does not show the password.

    Attributes:
        url: http or https; a user and password in it are moved to the fields below.
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
        # A password in the URL belongs to the user in the URL: never send it for another user.
        password = self.password or (address.password if user == address.user else "")
        for name, value in (("url", address.url), ("user", user), ("password", password)):
            object.__setattr__(self, name, value)

    @classmethod
    def from_environment(cls, url: str, *, ca_cert: str = "", insecure: bool = False) -> Access:
        """Return the access to a URL with the credentials from the environment."""
        file = os.environ.get("OSEMBED_PASSWORD_FILE", "")
        password = os.environ.get("OSEMBED_PASSWORD") or (read_password(file) if file else "")
        return cls(url, os.environ.get("OSEMBED_USER", ""), password, ca_cert or os.environ.get("OSEMBED_CA_CERT", ""), insecure)

    @property
    def host(self) -> str:
        """The host name or address; an IPv6 address is without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port, whether or not the URL states it."""
        return urlsplit(self.url).port or _HTTPS_PORT  # `parse_address` always adds the port of http

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
        """The authorization header. It is UTF-8, as OpenSearch expects; opensearch-py itself supports Latin-1 only."""
        if not self.user:
            return {}
        return {"authorization": "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()}


def check_access(access: Access) -> None:
    """Raise InputError for credentials that are incomplete or would be exposed. Sends nothing."""
    if access.user and not access.password:
        raise InputError(f"The user '{access.user}' has no password.", "", "Set OSEMBED_PASSWORD or OSEMBED_PASSWORD_FILE.")
    if access.password and not access.user:
        raise InputError("There is a password but no user name.", "", "Set OSEMBED_USER.")
    if ":" in access.user:
        raise InputError(
            f"The user name '{access.user}' has a colon.", "In HTTP a colon ends the name.", "Use another user (OSEMBED_USER)."
        )
    if access.password and not access.encrypted and not access.local:
        raise InputError(
            f"{access.url} is plain http to another machine.",
            "Anybody on the network could read the password.",
            "Use https.",
        )
    if access.insecure and not access.local:
        raise InputError(
            f"--insecure was given for {access.host}.",
            "Without certificate verification, anybody on the network could read and change everything.",
            "Specify the certificate authority instead: --ca-cert FILE.",
        )


def unauthorized_error(access: Access) -> AuthError:
    """Return the error for a 401: the refused user, or that credentials are needed."""
    found = f"The server refuses the password of user '{access.user}'." if access.user else "The server asks for a user name and password."
    return AuthError(found, "", "Set OSEMBED_USER and OSEMBED_PASSWORD (or OSEMBED_PASSWORD_FILE).")
