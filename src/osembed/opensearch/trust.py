"""The authorities that a TLS connection trusts: those in one file, or those of the system and certifi."""

from __future__ import annotations

import os
import re
import shlex
import ssl
import warnings
from pathlib import Path

import certifi

from osembed.errors import InputError
from osembed.opensearch.access import Access

_CERTIFICATE = re.compile(rb"-----BEGIN ((?:TRUSTED |X509 )?CERTIFICATE)-----.*?-----END \1-----", re.DOTALL)
_CERTIFICATE_START = re.compile(rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----")
_OTHER_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_ASK = "Ask for the certificate of the authority that signed the server's, as a PEM file."


def trusted_context(access: Access) -> ssl.SSLContext | None:
    """Return the context for a TLS connection, or None for plain http. Raises InputError for a faulty CA file in both cases."""
    authorities = read_authorities(access.ca_cert) if access.ca_cert else ""
    if not access.encrypted:
        return None
    context = ssl.create_default_context(cadata=authorities or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    if access.insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        warnings.filterwarnings("ignore", "Unverified HTTPS request")  # the user asked for it
    elif not authorities and not (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
        context.load_verify_locations(certifi.where())  # many Python installations do not find the system's authorities
    return context


def read_authorities(name: str) -> str:
    """Return the certificates in a PEM file as text. Raises InputError that says what is wrong with the file."""
    path = Path(name)
    content = _content(path)
    if not content.strip():
        raise _unusable(path, "is empty", _ASK)
    blocks = [match[0] for match in _CERTIFICATE.finditer(content)]
    if len(blocks) != len(_CERTIFICATE_START.findall(content)):
        raise _unusable(path, "holds a certificate that is cut off", "Copy the file again.")
    if not blocks:
        raise _without_certificates(path, content)
    return _loadable(path, b"\n".join(blocks))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise _unusable(path, "does not exist", "Check --ca-cert (OSEMBED_CA_CERT).") from error
    except IsADirectoryError as error:
        raise _unusable(
            path, "is a folder", "--ca-cert (OSEMBED_CA_CERT) must be a PEM file, which may hold several certificates."
        ) from error
    except OSError as error:
        raise _unusable(path, f"cannot be read ({error.strerror})", "Check the path and its permissions.") from error


def _without_certificates(path: Path, content: bytes) -> InputError:
    """Return the error that says what a file holds instead of certificates."""
    other = _OTHER_BLOCK.search(content)
    if other:
        return _unusable(path, f"holds no certificate, but: {other[1].decode().lower()}", _ASK)
    if content.startswith(b"\x30"):  # a DER sequence: a certificate or a key store
        return _unusable(path, "is binary, not PEM", f"Try: openssl x509 -inform der -in {shlex.quote(str(path))} -out ca.pem")
    return _unusable(path, "is not a PEM file", _ASK)


def _loadable(path: Path, blocks: bytes) -> str:
    try:
        certificates = blocks.decode("ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificates)
    except (UnicodeDecodeError, ssl.SSLError) as error:
        raise _unusable(path, "holds a certificate that cannot be understood", "Copy the file again.") from error
    return certificates


def _unusable(path: Path, found: str, hint: str) -> InputError:
    return InputError(f"The CA file {path} {found}.", "It cannot be used to verify a server's certificate.", hint)
