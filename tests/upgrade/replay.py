"""Send the recorded requests to a node: it then holds what an earlier version stored. And take all of it away again."""

from __future__ import annotations

import gzip
import json
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from opensearchpy import OpenSearch
from opensearchpy.exceptions import NotFoundError

from osembed.errors import MissingError
from tests.upgrade.stored import JOURNAL, OF_COLLECTION, OF_INDEX, SHARED, Request, find_indexes

COLLECTIONS = ("up-live", "up-half", "up-swapped", "up-fenced", "up-loading")
LOCAL = ("up-fenced",)  # its dead process ran on the machine of whoever goes on: nobody waits for it
FILE = Path(__file__).with_name("requests.jsonl.gz")
PAPERS = Path(__file__).with_name("papers.jsonl")
_OPEN = re.compile(r"\{(uuid:[^{}]+|host)\}")


def read_papers() -> list[dict[str, Any]]:
    """Return the papers that were ingested, in the order in which they were."""
    return [json.loads(line) for line in PAPERS.read_text(encoding="utf-8").splitlines()]


def read_requests() -> list[Request]:
    """Return the recorded requests."""
    with gzip.open(FILE, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write_requests(requests: Sequence[Request]) -> None:
    """Write the recorded requests, the same bytes for the same requests."""
    lines = "".join(json.dumps(request, ensure_ascii=False) + "\n" for request in requests)
    FILE.write_bytes(gzip.compress(lines.encode(), mtime=0))


def replay(client: OpenSearch, requests: Sequence[Request]) -> None:
    """Send requests in their order. Raises AssertionError where an operation gets another sequence number than it had."""
    uuids: dict[str, str] = {}
    for request in requests:
        path, body = _filled(client, request["path"], uuids), request["body"]
        if path in SHARED and _is_there(client, path):
            continue
        if path == "/_bulk":
            answer = client.bulk(body="".join(json.dumps(line) + "\n" for line in body))
            numbers = [next(iter(item.values())).get("_seq_no") for item in answer["items"]]
            assert numbers == list(range(len(numbers))), f"{body[0]}: {numbers}"
        else:
            text = None if body is None else _filled(client, json.dumps(body), uuids)
            client.transport.perform_request(request["method"], path, body=text)


def forget(client: OpenSearch, collections: Sequence[str]) -> None:
    """Delete collections: their indexes, and what the journal knows of them."""
    for collection in collections:
        keys = [f"{kind}:{collection}" for kind in OF_COLLECTION]
        for index, entry in find_indexes(client, collection).items():
            keys += [f"{kind}:{entry['settings']['index.uuid']}" for kind in OF_INDEX]
            client.indices.delete(index=index)
        for key in keys:
            with suppress(NotFoundError, MissingError):
                client.delete(index=JOURNAL, id=key)


def _is_there(client: OpenSearch, path: str) -> bool:
    try:
        client.transport.perform_request("GET", path)
    except (NotFoundError, MissingError):
        return False
    return True


def _filled(client: OpenSearch, text: str, uuids: dict[str, str]) -> str:
    """Put this machine's name and the new indexes' UUIDs where a text leaves them open."""

    def fill(found: re.Match[str]) -> str:
        name = found[1].removeprefix("uuid:")
        if found[1] == "host":
            return socket.gethostname()
        if name not in uuids:
            settings: dict[str, Any] = client.indices.get_settings(index=name)[name]["settings"]
            uuids[name] = settings["index"]["uuid"]
        return uuids[name]

    return _OPEN.sub(fill, text)
