"""What stored state looks like, without what differs between one collection and the next."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from tests.upgrade.stored import Request

_USERS = re.compile(r" document meta\.| mappings\.properties\.meta\.properties\.")  # metadata: the papers decide which there is


def shape(requests: Sequence[Request], collections: Sequence[str]) -> set[str]:
    """Return a line for each name that is stored: of indexes, aliases, settings and mappings with their values, of fields, of journal entries.

    Args:
        requests: as `read_stored` returns them.
        collections: names of collections, which the lines leave out as they do identities, tokens and numbers.
    """
    lines = {line for request in requests for line in _lines(request["path"], request["body"]) if not _USERS.search(line)}
    return {_general(line, collections) for line in lines}


def _lines(path: str, body: Any) -> Iterator[str]:
    if path == "/_bulk":
        index = next(iter(body[0].values()))["_index"]
        documents = [line for line in body if not {"index", "delete"} & line.keys()]
        yield from (f"{index} document {name}" for document in documents for name, _ in _paths(document))
    elif "/_doc/" in path:
        yield from (f"{path.rpartition('/')[2]} {name}" for name, _ in _paths(body))
    elif body is not None:
        for name, value in _paths(body):
            yield f"{path} {name}" if name.startswith("mappings._meta.") else f"{path} {name}: {value}"


def _paths(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of all that a JSON value holds; the items of a list share its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _paths(inner, prefix)
    else:
        yield prefix, value


def _general(line: str, collections: Sequence[str]) -> str:
    for name in collections:
        line = line.replace(name, "NAME")
    line = re.sub(r"-[0-9a-f]{8}-g", "-IDENTITY-g", re.sub(r"[0-9a-f]{16}", "TOKEN", line))
    return re.sub(r"\d+", "N", line)
