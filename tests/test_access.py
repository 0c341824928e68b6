"""How a server is reached: URLs, password files, CA files, TLS, and what is said when one of them is wrong (F19, F20)."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
import trustme
import urllib3

from osembed.collection import Collection
from osembed.errors import AuthError, ClusterError, InputError
from osembed.opensearch.bulk import BulkLoop
from osembed.opensearch.client import Access, connect
from osembed.opensearch.operation import delete
from osembed.opensearch.tls import Seen, explain_connection, explain_tls
from tests.conftest import NOBODY, as_nobody, paper
from tests.proxy import Fault, FaultProxy

SECRET = "hunter2"


class Port:
    """A plain socket server on this machine: `handle` gets each connection and its number, from 1."""

    def __init__(self, handle: Callable[[socket.socket, int], None], family: int = socket.AF_INET) -> None:
        self._handle, self.connections = handle, 0
        self._listener = socket.socket(family)
        self._listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        self._listener.listen()
        self.number = self._listener.getsockname()[1]

    def __enter__(self) -> Port:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection, suppress(OSError):
            connection.settimeout(60)
            self._handle(connection, number)


def relay(connection: socket.socket, target: str) -> None:
    """Pass bytes on to a server and back until one side closes."""
    parts = urlsplit(target)
    with socket.create_connection((parts.hostname, parts.port)) as upstream:

        def back() -> None:
            with suppress(OSError):
                while data := upstream.recv(65536):
                    connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)

        threading.Thread(target=back, daemon=True).start()
        while data := connection.recv(65536):
            upstream.sendall(data)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority, tmp_path) -> str:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


@pytest.fixture
def issue(authority) -> Callable[..., ssl.SSLContext]:
    """Make the TLS context of a server whose certificate the authority signed."""

    def issue(*names: str, **settings: object) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names or ("127.0.0.1",), **settings).configure_cert(context)
        return context

    return issue


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """No credentials and no trust of the machine that runs the tests."""
    for name in ("OSEMBED_USER", "OSEMBED_PASSWORD", "OSEMBED_PASSWORD_FILE", "OSEMBED_CA_CERT", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def secured(url, issue, ca_file, monkeypatch):
    """The real server behind TLS and a password."""
    with FaultProxy(url, tls=issue(), password=f"reader:{SECRET}") as running:
        monkeypatch.setenv("OSEMBED_USER", "reader")
        monkeypatch.setenv("OSEMBED_PASSWORD", SECRET)
        yield running


@pytest.fixture
def secret_file(tmp_path, monkeypatch):
    """A password file of mode 600 that the environment names."""
    path = tmp_path / "secret file"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    monkeypatch.setenv("OSEMBED_USER", "reader")
    monkeypatch.setenv("OSEMBED_PASSWORD_FILE", str(path))
    return path


def password_given() -> str:
    return Access.from_environment("https://search.example.org").password


def info(access: Access) -> dict:
    return connect(access).info()


# URLs


@pytest.mark.parametrize(
    ("given", "plain", "host", "port"),
    [
        ("https://search.example.org", "https://search.example.org", "search.example.org", 443),
        ("https://search.example.org:9200/", "https://search.example.org:9200", "search.example.org", 9200),
        ("http://localhost", "http://localhost:9200", "localhost", 9200),
        ("HTTPS://Search.Example.org", "https://search.example.org", "search.example.org", 443),
        (" https://search.example.org\n", "https://search.example.org", "search.example.org", 443),
        ("http://[::1]:9201/", "http://[::1]:9201", "::1", 9201),
        ("https://me:pw@[2001:db8::7]/es//", "https://[2001:db8::7]/es", "2001:db8::7", 443),
        ("https://gate.example.org/search/es/", "https://gate.example.org/search/es", "gate.example.org", 443),
        ("https://my_server", "https://my_server", "my_server", 443),
    ],
)
def test_urls_have_one_form(given, plain, host, port):
    """Every way to write a server's URL comes to one, with the port that will be used."""
    access = Access(given)
    assert (access.url, access.host, access.port) == (plain, host, port)
    connection = connect(access if access.password or not access.user else Access(plain)).transport.connection_pool.connections[0]
    assert (connection.hostname, connection.port) == (host, port)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("localhost:9200", "'localhost:9200' is not a server URL"),
        (f"me:{SECRET}@search.example.org:9200", "'search.example.org:9200' is not a server URL"),
        (f"//me:{SECRET}@search.example.org", "'search.example.org' is not a server URL"),
        ("ftp://search.example.org", "is not a server URL"),
        ("http://[::1]x:9200", "is not a server URL"),
        ("http://ａ.example", "is not a server URL"),
        (None, "url: None is not a text"),
        ("https://", "is not a server URL"),
        ("http://::1:9200", r"http://\[::1\]:9200"),
        (f"https://me:{SECRET}@[::1", "is not a server URL"),
        ("https://search.example.org:99999", "port of https://search.example.org is not a number from 1 to 65535"),
        ("https://search.example.org:0", "not a number from 1 to 65535"),
        (f"https://me:{SECRET}@search.example.org:x", "port of https://search.example.org is not a number"),
        (f"https://me:{SECRET}", "port of https://me is not a number"),
        (f"https://me:{SECRET}@search.example.org/?token={SECRET}", "https://search.example.org/ has a query"),
        ("https://search.example.org/#top", "a query or a fragment"),
        ("https://search.example.org?", "a query or a fragment"),
        (f"https://me:12/{SECRET}@search.example.org", "%2F"),
        (f"https://me:12#{SECRET}@search.example.org", "%23"),
        (f"https://me:12?{SECRET}@search.example.org", "%3F"),
        ("https://one.example.org,two.example.org", "does not name one host"),
        ("https://search example.org", "does not name one host"),
        ("https://search.example.org/a b", "contains a space"),
    ],
)
def test_urls_that_cannot_be_used(given, message):
    """Refused as input, with what to write instead, and with nothing shown that may be a secret."""
    with pytest.raises(InputError, match=message) as caught:
        Access.from_environment(given)
    assert SECRET not in str(caught.value)


def test_a_server_by_ipv6_address(url):
    """A bracketed address works like any other."""
    try:
        port = Port(lambda connection, _: relay(connection, url), socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with port:
        assert "version" in info(Access(f"http://[::1]:{port.number}/"))
        assert Access(f"http://[::1]:{port.number}").local


def test_a_server_behind_a_path(url):
    """The path of the URL stands before that of each request, with or without a slash at its end."""
    with FaultProxy(url, prefix="/search/es") as gateway:
        for end in ("", "/", "//"):
            assert "version" in info(Access(gateway.url + end))
        assert {request.path for request in gateway.seen} == {"/search/es/"}


def test_proxies_of_the_environment_are_not_used(url, monkeypatch):
    """HTTP_PROXY is meant for the way out; a server on this machine is spoken to directly."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert "version" in info(Access(url))


# User and password


def test_credentials_stay_secret():
    """Taken out of URLs, in no repr, not sent over plain http to others."""
    access = Access.from_environment(f"https://me:{SECRET}%20x@search.example.org:9200/")
    assert (access.url, access.user, access.password) == ("https://search.example.org:9200", "me", f"{SECRET} x")
    assert SECRET not in repr(access)
    with pytest.raises(InputError, match="plain http"):
        connect(Access.from_environment(f"http://me:{SECRET}@search.example.org"))


def test_a_password_belongs_to_its_user(monkeypatch):
    """The password in a URL is not sent in the name of OSEMBED_USER."""
    monkeypatch.setenv("OSEMBED_USER", "somebody")
    access = Access.from_environment(f"https://me:{SECRET}@search.example.org")
    assert (access.user, access.password) == ("somebody", "")


@pytest.mark.parametrize(
    ("user", "password", "message"),
    [
        ("reader", "", "'reader' has no password.*OSEMBED_PASSWORD_FILE"),
        ("", SECRET, "no user name.*OSEMBED_USER"),
        ("read:er", SECRET, "has a colon"),
    ],
)
def test_credentials_that_are_incomplete(secured, ca_file, monkeypatch, user, password, message):
    """Said at once; the server sees nothing."""
    monkeypatch.setenv("OSEMBED_USER", user)
    monkeypatch.setenv("OSEMBED_PASSWORD", password)
    with pytest.raises(InputError, match=message) as caught:
        Collection("c", secured.url, ca_cert=ca_file).doctor()
    assert SECRET not in str(caught.value)


def test_tls_and_password(secured, ca_file):
    """With the right authority and password everything works."""
    assert Collection("c", secured.url, ca_cert=ca_file).server.version >= (2, 0, 0)
    assert len(secured.seen) >= 1


def test_wrong_password(secured, ca_file, monkeypatch):
    """Refused at once, naming the user and the variables, never the password."""
    monkeypatch.setenv("OSEMBED_PASSWORD", f"wrong-{SECRET}")
    with pytest.raises(AuthError, match="password of user 'reader'.*OSEMBED_PASSWORD") as caught:
        Collection("c", secured.url, ca_cert=ca_file).doctor()
    assert SECRET not in str(caught.value)
    assert len(secured.seen) == 0


def test_no_password_where_one_is_needed(secured, ca_file, monkeypatch):
    """A server that asks for one is told apart from one that refuses it."""
    monkeypatch.delenv("OSEMBED_USER")
    monkeypatch.delenv("OSEMBED_PASSWORD")
    with pytest.raises(AuthError, match="asks for a user name and password.*OSEMBED_USER"):
        Collection("c", secured.url, ca_cert=ca_file).doctor()


@pytest.mark.parametrize("password", ["pässwörd", "пароль 密码", "a:b@c/d?e#f%"])
def test_passwords_of_any_alphabet(url, password):
    """Sent in UTF-8, as OpenSearch reads them."""
    with FaultProxy(url, password=f"käthe:{password}") as proxy:
        assert "version" in info(Access(proxy.url, "käthe", password))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602, 0o622, 0o660, 0o666])
def test_password_files_are_private(secret_file, mode):
    """Whoever can read one knows the password, whoever can write one chooses it: both are refused."""
    secret_file.chmod(mode)
    with pytest.raises(InputError, match=f"by others .mode {mode:04o}.*chmod 600 '{secret_file}'"):
        password_given()
    secret_file.chmod(0o600)
    assert password_given() == SECRET


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"hunter2", "hunter2"),
        (b"hunter2\n", "hunter2"),
        (b"hunter2\r\n", "hunter2"),
        (b"\xef\xbb\xbfhunter2\n\n", "hunter2"),
        (b" two words \n", " two words "),
        ("пароль\n".encode(), "пароль"),
    ],
)
def test_password_files_hold_one_line(secret_file, content, password):
    """The line end that editors add is not part of the password; spaces are."""
    secret_file.write_bytes(content)
    assert password_given() == password


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff\xfeh\x00u\x00", "is not UTF-8"),
        (bytes(range(128, 256)), "is not UTF-8"),
        (b"hunter2\nhunter3\n", "more than one line"),
        (b"hunter2\rhunter3", "more than one line"),
        (b"hunt\x00er2", "control characters"),
        (b"hunter2" * 1000, "longer than 4096"),
    ],
)
def test_password_files_that_hold_no_password(secret_file, content, message):
    """Binary, empty or of several lines: said, and its content is not shown."""
    secret_file.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        password_given()
    assert SECRET not in str(caught.value)


def test_password_files_that_cannot_be_read(secret_file, tmp_path, monkeypatch):
    """A missing file, a folder, one without the right to read it."""
    secret_file.chmod(0)
    with as_nobody(), pytest.raises(InputError, match="cannot be read .Permission denied"):
        password_given()
    for path, message in ((tmp_path / "missing", "does not exist"), (tmp_path, "is a folder")):
        monkeypatch.setenv("OSEMBED_PASSWORD_FILE", str(path))
        with pytest.raises(InputError, match=message):
            password_given()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_password_files_of_other_users(secret_file):
    """Another user's file is that user's choice of password."""
    os.chown(secret_file, NOBODY, NOBODY)
    with pytest.raises(InputError, match="belongs to another user .number 65534"):
        password_given()


def test_a_password_that_changes_during_an_ingest(url, name, small, write, tmp_path, monkeypatch):
    """The next request is refused and the command ends, naming the user; run again with the new password it does what is left."""
    monkeypatch.setenv("OSEMBED_USER", "loader")
    monkeypatch.setenv("OSEMBED_PASSWORD", "first")
    papers = write([paper(number) for number in range(60)])
    with FaultProxy(url, password="loader:first") as proxy:

        def rotate() -> None:
            proxy.password = "loader:second"

        proxy.once("_bulk", Fault(after=rotate))
        with pytest.raises(AuthError, match="password of user 'loader'"):
            Collection(name, proxy.url).ingest(papers, small)
        assert proxy.fired == 1
        monkeypatch.setenv("OSEMBED_PASSWORD", "second")
        collection = Collection(name, proxy.url)
        collection.ingest(papers, small)
        assert collection.status()[0].documents == 60


# CA files


def unusable(authority: trustme.CA) -> dict[str, tuple[bytes, str]]:
    pem = authority.cert_pem.bytes()
    return {
        "empty": (b"", "is empty"),
        "blank": (b"\n\n", "is empty"),
        "text": (b"hello\n", "is not a PEM file"),
        "utf-16": (pem.decode().encode("utf-16"), "is not a PEM file"),
        "der": (ssl.PEM_cert_to_DER_cert(pem.decode()), "is binary, not PEM.*openssl x509 -inform der"),
        "key": (authority.private_key_pem.bytes(), "no certificate, but: .*private key"),
        "cut": (pem[:200], "cut off"),
        "second-cut": (pem + pem[:200], "cut off"),
        "damaged": (pem[:100] + b"!" + pem[101:], "cannot be understood"),
    }


@pytest.mark.parametrize("case", ["empty", "blank", "text", "utf-16", "der", "key", "cut", "second-cut", "damaged"])
def test_ca_files_without_a_usable_certificate(authority, tmp_path, case):
    """What is wrong with the file is said before anything is sent, not as a fault of the server's certificate."""
    content, message = unusable(authority)[case]
    (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(InputError, match=message):
        connect(Access("https://127.0.0.1:9", ca_cert=str(tmp_path / "ca.pem")))


def test_ca_files_that_cannot_be_read(ca_file, tmp_path):
    """A missing file, a folder, one without the right to read it."""
    os.chmod(ca_file, 0)
    with as_nobody(), pytest.raises(InputError, match="cannot be read .Permission denied"):
        connect(Access("https://127.0.0.1:9", ca_cert=ca_file))
    for path, message in ((tmp_path / "missing", "does not exist"), (tmp_path, "is a folder.*must be a PEM file")):
        with pytest.raises(InputError, match=message):
            connect(Access("https://127.0.0.1:9", ca_cert=str(path)))


@pytest.mark.parametrize("order", ["alone", "with others", "with its key", "with text"])
def test_ca_files_of_several_parts(secured, authority, ca_file, order):
    """One file may hold several authorities, a key, and text around them."""
    pem, other = authority.cert_pem.bytes(), trustme.CA().cert_pem.bytes()
    content = {
        "alone": pem.replace(b"\n", b"\r\n"),
        "with others": other + pem,
        "with its key": authority.private_key_pem.bytes() + pem,
        "with text": "# Autorität für Suche\n".encode() + pem + b"\nthe end\n",
    }[order]
    with open(ca_file, "wb") as file:
        file.write(content)
    assert Collection("c", secured.url, ca_cert=ca_file).server.version >= (2, 0, 0)


def test_authorities_of_the_system(secured, ca_file, tmp_path, monkeypatch):
    """Without --ca-cert those are trusted that SSL_CERT_FILE and SSL_CERT_DIR name, as by any OpenSSL program."""
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match="unknown authority"):
        Collection("c", secured.url).doctor()
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)
    assert Collection("c", secured.url).server.version >= (2, 0, 0)


# TLS


def test_an_unknown_authority(secured, tmp_path):
    """Verification is on by default; what helps is the authority's file, and which one did not help is said."""
    with pytest.raises(ClusterError, match="signed by an unknown authority.*--ca-cert"):
        Collection("c", secured.url).doctor()
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    with pytest.raises(ClusterError, match="not signed by an authority in .*other.pem"):
        Collection("c", secured.url, ca_cert=str(tmp_path / "other.pem")).doctor()
    assert len(secured.seen) == 0


def test_verification_can_be_left_out_on_this_machine_only(secured):
    """--insecure is refused for other machines; here it works without a warning from libraries."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert Collection("c", secured.url, insecure=True).server.version >= (2, 0, 0)
    assert not [str(warning.message) for warning in warned if "HTTPS" in str(warning.message)]
    with pytest.raises(InputError, match="--insecure was given for search.example.org"):
        Collection("c", "https://search.example.org", insecure=True).doctor()


def test_a_certificate_of_another_name(url, issue, ca_file):
    """Both names are said; the authority is not blamed."""
    with FaultProxy(url, tls=issue("search.example.org", "10.0.0.1")) as proxy:
        for asked in (proxy.url, proxy.url.replace("127.0.0.1", "localhost")):
            host = urlsplit(asked).hostname
            with pytest.raises(ClusterError, match=f"is for search.example.org, 10.0.0.1, not for {host}") as caught:
                Collection("c", asked, ca_cert=ca_file).doctor()
            assert "--ca-cert" not in str(caught.value)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [(-9, -3, "expired on {end}.*here it is {now}"), (3, 9, "not valid before {start}.*here it is {now}")],
    ids=["expired", "not-yet"],
)
def test_a_certificate_out_of_its_time(url, issue, ca_file, start, end, message):
    """Its dates and this machine's clock are said: one of them is wrong."""
    now = datetime.now(UTC)
    times = {"start": now + timedelta(days=start), "end": now + timedelta(days=end), "now": now}
    days = {name: f"{moment:%Y-%m-%d}" for name, moment in times.items()}
    context = issue("127.0.0.1", not_before=times["start"], not_after=times["end"])
    with FaultProxy(url, tls=context) as proxy, pytest.raises(ClusterError, match=message.format(**days)) as caught:
        Collection("c", proxy.url, ca_cert=ca_file).doctor()
    assert "--ca-cert" not in str(caught.value)


def test_an_authority_out_of_its_time():
    """Where the server's own certificate is in time, the expired one is its authority's."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = 10, "certificate has expired"
    seen = Seen({"notBefore": "Jan  1 00:00:00 2020 GMT", "notAfter": "Jan  1 00:00:00 2030 GMT"}, at=datetime(2026, 5, 1, tzinfo=UTC))
    assert "An authority's certificate behind that of https://h expired." in str(explain_tls(error, Access("https://h"), seen))


def test_a_fault_of_a_certificate_that_has_no_words_here():
    """Any other fault is said in OpenSSL's words, and the authority's file is not offered as a cure."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = 66, "EE certificate key too weak"
    message = str(explain_tls(error, Access("https://h"), Seen()))
    assert "EE certificate key too weak. " in message
    assert "--ca-cert" not in message


def test_https_to_a_plain_port(url):
    """A real OpenSearch without TLS."""
    with pytest.raises(ClusterError, match=f"answers in plain http, not TLS. Use {url}"):
        Collection("c", url.replace("http:", "https:")).doctor()


def test_https_to_a_plain_port_of_another_machine():
    """With a password plain http is no way out, so it is not offered."""
    error = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    message = str(explain_tls(error, Access("https://h", "me", "pw"), Seen(answers_http=True)))
    assert "Use http:" not in message
    assert "Turn on TLS" in message


def test_https_to_a_plain_port_that_waits():
    """A server that waits for the end of what it takes for a request line: said after the time-out, not as a slow server."""

    def wait(connection: socket.socket, _: int) -> None:
        if connection.recv(4) == b"HEAD":
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        while connection.recv(4096):
            pass

    with Port(wait) as port:
        pool = urllib3.HTTPSConnectionPool("127.0.0.1", port.number, timeout=0.3, retries=False)
        with pytest.raises(urllib3.exceptions.ReadTimeoutError) as caught:
            pool.urlopen("GET", "/")
        assert "answers in plain http" in str(explain_connection(caught.value, Access(f"https://127.0.0.1:{port.number}")))


def test_a_slow_server_is_not_a_tls_fault(url, issue, ca_file):
    """An answer that does not come in time, over TLS that works, is left to be explained otherwise."""
    with FaultProxy(url, tls=issue()) as proxy:
        proxy.once("/", Fault(before=lambda: threading.Event().wait(2)))
        pool = urllib3.HTTPSConnectionPool("127.0.0.1", urlsplit(proxy.url).port, timeout=0.3, retries=False, ca_certs=ca_file)
        with pytest.raises(urllib3.exceptions.ReadTimeoutError) as caught:
            pool.urlopen("GET", "/")
        assert explain_connection(caught.value, Access(proxy.url, ca_cert=ca_file)) is None


def test_a_server_that_has_shown_its_certificate_and_hangs_up_is_asked_again(secured, ca_file, monkeypatch):
    """As OpenSearch does while it takes in new roles, for longer than a mistyped address is tried."""
    monkeypatch.setenv("OSEMBED_CA_CERT", ca_file)
    began = time.monotonic()
    secured.rules.append(lambda _: Fault("lost") if time.monotonic() - began < 2.5 else None)
    Collection("c", secured.url).server  # noqa: B018 - it shakes hands
    assert time.monotonic() - began >= 2.5


def test_a_port_of_something_else():
    """Neither TLS nor http."""
    with Port(lambda connection, _: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")) as port:
        with pytest.raises(ClusterError, match=f"https://127.0.0.1:{port.number} does not speak TLS. Check the port"):
            Collection("c", f"https://127.0.0.1:{port.number}").doctor()
        with pytest.raises(ClusterError, match=f"http://127.0.0.1:{port.number} cannot be reached: SSH-2.0"):
            Collection("c", f"http://127.0.0.1:{port.number}").doctor()


def test_http_to_a_tls_port_that_hangs_up(secured, monkeypatch):
    """What OpenSearch with the security plugin does."""
    monkeypatch.delenv("OSEMBED_USER")
    monkeypatch.delenv("OSEMBED_PASSWORD")
    with pytest.raises(ClusterError, match=f"expects TLS, not plain http. Use {secured.url}"):
        Collection("c", secured.url.replace("https:", "http:")).doctor()


def test_http_to_a_tls_port_that_answers_rubbish(issue):
    """A TLS alert is no answer in http; what it means is seen by speaking TLS."""

    def alert(connection: socket.socket, _: int) -> None:
        if connection.recv(1, socket.MSG_PEEK) == b"\x16":
            issue().wrap_socket(connection, server_side=True).close()
        else:
            connection.recv(65536)
            connection.sendall(b"\x15\x03\x03\x00\x02\x02\x46")

    with Port(alert) as port, pytest.raises(ClusterError, match=f"expects TLS, not plain http. Use https://127.0.0.1:{port.number}"):
        Collection("c", f"http://127.0.0.1:{port.number}").doctor()


@pytest.mark.parametrize(
    "page", [b"<title>400 The plain HTTP request was sent to HTTPS port</title>", b"Client sent an HTTP request to an HTTPS server.\n"]
)
def test_http_to_a_tls_port_of_a_gateway(proxy, page):
    """nginx and Go answer 400 in plain http; other 400s are left alone."""
    proxy.once("/", Fault("answer", 400, page, "text/html"))
    with pytest.raises(ClusterError, match="expects TLS, not plain http"):
        info(Access(proxy.url))


def test_a_redirect_is_not_followed(proxy):
    """A gateway that sends its visitors to https: said; the password goes nowhere else."""
    proxy.once("/", Fault("answer", 301, b"<h1>Moved</h1>", "text/html"))
    with pytest.raises(ClusterError, match="answers 301: it points to another URL, perhaps https.*not followed"):
        info(Access(proxy.url))


def test_a_server_of_old_tls(url, issue, ca_file):
    """TLS 1.1 is not accepted, and the certificate has nothing to do with it."""
    context = issue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with FaultProxy(url, tls=context) as proxy, pytest.raises(ClusterError, match=r"no safe TLS version .1\.2 or 1\.3"):
        Collection("c", proxy.url, ca_cert=ca_file).doctor()


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_server_that_wants_a_client_certificate(url, issue, authority, ca_file, version):
    """Said, with the server's setting that would help."""
    context = issue()
    context.verify_mode, context.maximum_version = ssl.CERT_REQUIRED, ssl.TLSVersion[version]
    authority.configure_trust(context)
    with FaultProxy(url, tls=context) as proxy, pytest.raises(ClusterError, match="client certificate.*clientauth_mode"):
        Collection("c", proxy.url, ca_cert=ca_file).doctor()


def test_a_tls_connection_that_is_cut_off_is_made_again(url, issue, ca_file):
    """A handshake that ends in the middle (a server restarts, a gateway sheds load) is tried again, unlike a faulty certificate."""

    def cut_first(connection: socket.socket, number: int) -> None:
        if number == 1:
            connection.recv(65536)
        else:
            relay(connection, proxy.url)

    with FaultProxy(url, tls=issue()) as proxy, Port(cut_first) as port:
        assert "version" in info(Access(f"https://127.0.0.1:{port.number}", ca_cert=ca_file))
        assert port.connections == 2


def test_a_certificate_that_changes_during_a_load(url, issue, ca_file, name):
    """Writes are not sent on to a server that can no longer prove who it is, and nobody waits for it (F20)."""
    context = issue()
    with FaultProxy(url, tls=context) as proxy:
        proxy.once("_bulk", Fault("unanswered", after=lambda: trustme.CA().issue_cert("127.0.0.1").configure_cert(context)))
        loop = BulkLoop(connect(Access(proxy.url, ca_cert=ca_file)), patience_s=20)
        with pytest.raises(ClusterError, match="not signed by an authority in"):
            loop.send([delete(f"{name}-w", "1", (0, 1))])
        loop.close()
        assert len([request for request in proxy.seen if "_bulk" in request.path]) == 1


def test_a_handshake_that_always_ends_in_the_middle():
    """Given up after a second, as for any server that never answered."""
    with Port(lambda connection, _: connection.recv(65536) and None) as port:
        with pytest.raises(ClusterError, match="broke off the TLS handshake"):
            Collection("c", f"https://127.0.0.1:{port.number}").doctor()
        assert port.connections > 1


def test_what_cannot_be_reached_is_named():
    """The address and what the system said, not a tower of library errors."""
    with pytest.raises(ClusterError, match=r"^http://127.0.0.1:9 cannot be reached: Connection refused\. Check"):
        info(Access("http://127.0.0.1:9"))
    with pytest.raises(ClusterError, match="https://no-such-host.invalid cannot be reached: .*[Nn]ame"):
        info(Access("https://no-such-host.invalid"))
