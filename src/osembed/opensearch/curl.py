"""A request as one shell line that can be run directly, takes credentials from variables, and fails visibly. Pure functions."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from osembed.opensearch.access import Access

_BY_FILE = '"$OSEMBED_USER:$(cat "$OSEMBED_PASSWORD_FILE")"'
_BY_VARIABLE = '"$OSEMBED_USER:$OSEMBED_PASSWORD"'


def curl_line(access: Access, path: str, body: str, variables: Mapping[str, str] = os.environ) -> str:
    """Return the curl command that posts a JSON body as this user. It shows an error response and then exits with a non-zero code.

    Args:
        access: how to reach the server; the password is not in the line.
        path: the path of the request, with parameters.
        body: the JSON body.
        variables: the environment, which decides where the line takes the password from.
    """
    words = ["curl", "--fail-with-body", "-sS", shlex.quote(access.url + path), *_trust(access)]
    if access.user:
        words += ["-u", _BY_FILE if _from_file(variables) else _BY_VARIABLE]
    return " ".join([*words, "-H", "'content-type: application/json'", "-d", shlex.quote(body)])


def unset_variables(access: Access, variables: Mapping[str, str] = os.environ) -> list[str]:
    """Return the variables that the line needs and that are not set, or differ because user and password were given in the URL."""
    if not access.user:
        return []
    missing = [] if variables.get("OSEMBED_USER") == access.user else ["OSEMBED_USER"]
    return missing if _from_file(variables) or variables.get("OSEMBED_PASSWORD") == access.password else [*missing, "OSEMBED_PASSWORD"]


def _trust(access: Access) -> list[str]:
    if not access.encrypted:
        return []
    if access.insecure:
        return ["--insecure"]
    return ["--cacert", shlex.quote(str(Path(access.ca_cert).absolute()))] if access.ca_cert else []


def _from_file(variables: Mapping[str, str]) -> bool:
    return not variables.get("OSEMBED_PASSWORD") and bool(variables.get("OSEMBED_PASSWORD_FILE"))
