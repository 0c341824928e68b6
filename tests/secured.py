"""Real secured OpenSearch servers, TLS, users and roles included, for the tests: `with SecuredNode("3.6.0", folder) as node`."""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import ssl
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import bcrypt
import psutil
import trustme
from cryptography.hazmat.primitives import serialization

from osembed.opensearch import permissions
from osembed.opensearch.client import Access
from osembed.opensearch.node.launch import launch_node, log_of
from osembed.opensearch.permissions import ROLES
from tests.cluster import free_ports
from tests.secured_home import home_without, secured_home
from tests.secured_java import java_options, secured_java

COLLECTION = "papers"  # that the users reader, writer and migrator may use from the start
JOURNAL = "osembed-journal"
_START_SECONDS = 600  # a few where the machine is free
_API = "/_plugins/_security/api"


def role_spec(name: str, collection: str, without: str | permissions.Grant | None = None, **limits: Any) -> dict[str, Any]:
    """Return a role for the security plugin: `reader`, `writer` or `migrator` of a collection.

    Args:
        name: reader, writer or migrator.
        collection: whose indexes it covers.
        without: an action that is left out, wherever it stands, or (scope, action) for one place; it must be one of the role's.
        limits: what the role sees of the collection: `dls` (a query), `fls` or `masked_fields` (lists of fields).
    """
    needs = permissions.NEEDS[name]  # type: ignore[index]
    gone = [(scope, action) for scope, actions in needs.items() for action in actions if without in (action, (scope, action))]
    assert without is None or gone, f"{name} has no {without}"
    left = {scope: tuple(action for action in actions if (scope, action) not in gone) for scope, actions in needs.items()}
    spec = permissions.spec_of(left, collection)
    spec["index_permissions"][0] |= limits
    return spec


class SecuredNode:
    """One secured server with the users admin, reader, writer, migrator and stranger, who has no role.

    Attributes:
        url: https, on 127.0.0.1.
        ca: the file of the authority that signed the server's certificate.
        admin: the administrator's password.
    """

    def __init__(self, version: str, folder: Path) -> None:
        self.version, self._folder = version, folder
        self._port = free_ports(1)[0]
        self._passwords = {user: secrets.token_urlsafe(18) for user in ("admin", *ROLES, "stranger")}
        self.url, self.admin = f"https://127.0.0.1:{self._port}", self._passwords["admin"]
        self.ca = folder / "ca.pem"
        self._process: psutil.Popen | None = None

    def __enter__(self) -> SecuredNode:
        self._write_certificates()
        self._write_users()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, without: str = "") -> None:
        """Start the server, or start it again with its data and on its port; return when it answers the administrator.

        Args:
            without: a plugin that it lacks this time.
        """
        home = home_without(self.version, without) if without else secured_home(self.version)
        options = java_options(self.version, home)
        self._process = launch_node(home, secured_java(self.version), self._folder, self._settings(), files=self._files, options=options)
        try:
            self._wait_ready()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill -9 the server."""
        if self._process:
            with suppress(psutil.NoSuchProcess):
                self._process.kill()
            self._process.wait(20)

    def as_user(self, name: str) -> dict[str, str]:
        """Return the environment in which a program is this user."""
        password = self._passwords[name]
        return {"OSEMBED_URL": self.url, "OSEMBED_USER": name, "OSEMBED_PASSWORD": password, "OSEMBED_CA_CERT": str(self.ca)}

    def access(self, name: str) -> Access:
        """Return how this user reaches the server."""
        return Access(self.url, name, self._passwords[name], str(self.ca))

    def set_role(self, name: str, spec: dict[str, Any]) -> None:
        """Create or replace a role."""
        self._put(f"{_API}/roles/{name}", spec)

    def set_user(self, name: str, roles: list[str]) -> None:
        """Create a user or replace a user's roles; return when they are in force."""
        password = self._passwords.setdefault(name, secrets.token_urlsafe(18))
        self._put(f"{_API}/internalusers/{name}", {"password": password, "opendistro_security_roles": roles})
        ends = time.monotonic() + 20
        while sorted(self.request("GET", "/_plugins/_security/authinfo", user=name)[1]["roles"]) != sorted(roles):
            assert time.monotonic() < ends, f"the roles of {name} are not in force"
            time.sleep(0.1)

    def grant(self, role: str, collection: str, without: str | permissions.Grant | None = None, **limits: Any) -> str:
        """Let a user have a role of a collection, maybe without one action or with limits of `role_spec`; return the user's name."""
        name = f"{collection}-{role}"
        self.set_role(name, role_spec(role, collection, without, **limits))
        self.set_user(name, [name])
        return name

    def set_forbidden_filter(self, on: bool, empty: bool = False) -> None:
        """Choose what a search of several indexes does with those that are forbidden: leave them out (on), or fail.

        With `empty`, a search of which nothing is left finds nothing; otherwise it fails.
        """
        dynamic = self.request("GET", f"{_API}/securityconfig")[1]["config"]["dynamic"]
        dynamic |= {"do_not_fail_on_forbidden": on, "do_not_fail_on_forbidden_empty": empty}
        self._put(f"{_API}/securityconfig/config", {"dynamic": dynamic})

    def request(self, method: str, path: str, body: Any = None, user: str = "admin") -> tuple[int, Any]:
        """Send a request; return the status and the answer, parsed where it is JSON. A text is sent as lines of JSON."""
        lines = isinstance(body, str)
        data = body.encode() if lines else json.dumps(body).encode() if body is not None else None
        credentials = base64.b64encode(f"{user}:{self._passwords[user]}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}", "Content-Type": "application/x-ndjson" if lines else "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        context = ssl.create_default_context(cafile=str(self.ca))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        for left in reversed(range(10)):
            try:
                with opener.open(request, timeout=60) as answer:
                    return answer.status, _parsed(answer.read())
            except urllib.error.HTTPError as error:
                return error.code, _parsed(error.read())
            except (urllib.error.URLError, http.client.RemoteDisconnected) as error:  # while the server takes in new certificates or roles
                sent = isinstance(error, http.client.RemoteDisconnected) and method == "POST"
                if sent or not left:
                    raise
                time.sleep(0.5)
        raise AssertionError("unreachable")

    @property
    def _files(self) -> Path:
        return self._folder / "files"

    def _put(self, path: str, body: Any) -> None:
        status, answer = self.request("PUT", path, body)
        assert status in (200, 201), f"{path}: {status} {answer}"

    def _write_certificates(self) -> None:
        """Let a new authority sign the server's certificate."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca))
        signed = authority.issue_cert("localhost", "127.0.0.1", common_name="node", organization_name="osembed")
        self._files.mkdir(mode=0o700)
        (self._files / "ca.pem").write_bytes(authority.cert_pem.bytes())
        (self._files / "node.pem").write_bytes(b"".join(part.bytes() for part in signed.cert_chain_pems))
        key = serialization.load_pem_private_key(signed.private_key_pem.bytes(), password=None)
        # The security plugin reads PKCS #8 only; trustme writes another format.
        as_pkcs8 = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self._files / "node-key.pem").write_bytes(as_pkcs8)

    def _write_users(self) -> None:
        """Write what the server fills its security index from when it starts for the first time."""
        users = {
            name: {
                "hash": bcrypt.hashpw(password.encode(), bcrypt.gensalt(8)).decode().replace("$2b$", "$2y$", 1),
                "opendistro_security_roles": ["all_access"] if name == "admin" else [name] if name in ROLES else [],
            }
            for name, password in self._passwords.items()
        }
        config = self._files / "opensearch-security"
        config.mkdir()
        for kind, file, entries in (
            ("internalusers", "internal_users", users),
            ("roles", "roles", {name: role_spec(name, COLLECTION) for name in ROLES}),
            ("rolesmapping", "roles_mapping", {}),
        ):
            (config / f"{file}.yml").write_text(json.dumps({"_meta": {"type": kind, "config_version": 2}, **entries}))

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "cluster.name": "osembed-secured",
            "node.name": "secured",
            "http.port": self._port,
            "transport.port": 0,
            "discovery.type": "single-node",
            "plugins.security.ssl.http.enabled": True,
            "plugins.security.ssl.transport.enforce_hostname_verification": False,
            "plugins.security.nodes_dn": ["CN=node,*"],
            "plugins.security.allow_default_init_securityindex": True,
            "plugins.security.audit.type": "noop",
            "plugins.security.restapi.roles_enabled": ["all_access"],
            "plugins.security.unsupported.restapi.allow_securityconfig_modification": True,
        }
        for layer in ("http", "transport"):
            prefix = f"plugins.security.ssl.{layer}.pem"
            settings |= {
                f"{prefix}cert_filepath": "node.pem",
                f"{prefix}key_filepath": "node-key.pem",
                f"{prefix}trustedcas_filepath": "ca.pem",
            }
        return settings

    def _wait_ready(self) -> None:
        """Wait until the server has filled its security index, before which it answers 503, and knows the administrator."""
        ends = time.monotonic() + _START_SECONDS
        while time.monotonic() < ends:
            assert self._process is not None
            assert self._process.poll() is None, self._did_not_start("its process ended")
            assert "Cannot apply default config" not in log_of(self._folder).read_text(), self._did_not_start("no security index")
            with suppress(OSError):
                status, answer = self.request("GET", "/_cluster/health?wait_for_status=yellow&timeout=5s")
                if status == 200 and not answer["timed_out"]:
                    return
                assert status in (200, 503), self._did_not_start(f"it answers {status} {answer}")
            time.sleep(0.3)
        raise AssertionError(self._did_not_start(f"it was not ready within {_START_SECONDS} s"))

    def _did_not_start(self, reason: str) -> str:
        lines = [line for line in log_of(self._folder).read_text().splitlines() if "Exception" in line or "rror" in line]
        return f"OpenSearch {self.version} did not start: {reason}. Its log says: {lines[-20:]}"


def _parsed(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except ValueError:
        return answer.decode(errors="replace")
