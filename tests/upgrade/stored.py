"""What a cluster stores of some collections, as the plain requests that make it anew: method, path, body.

Two things differ on every node and are left open: an index's UUID stands as {uuid:INDEX}, this machine's name as {host}. Sequence numbers
come out the same, since each index has one shard and gets its operations in their order: a number that no document has any more is used up
by the deletion of a document that is not there. Versions are given as external ones, which OpenSearch stores as it does its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from opensearchpy import OpenSearch
from opensearchpy.exceptions import NotFoundError

from osembed.errors import MissingError

JOURNAL, PIPELINE = "osembed-journal", "/_search/pipeline/osembed-hybrid-v1"
SHARED = (PIPELINE, f"/{JOURNAL}")  # by all collections of a cluster
OF_COLLECTION = ("clients", "collection", "gate", "migration", "report")  # kinds of journal entries, by what follows the colon
OF_INDEX = ("index", "repair")
ELSEWHERE, DEAD_PID = "elsewhere.example", 2**22 + 1  # no process of Linux or macOS has this number
_OF_THE_SERVER = ("uuid", "creation_date", "provided_name", "version.", "blocks.", "knn.derived_source.", "merge.", "replication.")
Request = dict[str, Any]


def read_stored(client: OpenSearch, collections: Sequence[str], local: Sequence[str] = ()) -> list[Request]:
    """Return the requests that make anew what is stored of some collections, in the order in which they are to be sent.

    Args:
        client: the connection.
        collections: their names.
        local: those whose dead processes shall have run on the machine of whoever sends the requests; the others ran elsewhere.
    """
    [pipeline] = client.transport.perform_request("GET", PIPELINE).values()
    journal = client.indices.get(index=JOURNAL, params={"flat_settings": "true"})[JOURNAL]
    found = [_request("PUT", PIPELINE, pipeline), _request("PUT", f"/{JOURNAL}", _creation(journal))]
    uuids: dict[str, str] = {}
    for collection in collections:
        for index, entry in sorted(find_indexes(client, collection).items()):
            uuids[index] = entry["settings"]["index.uuid"]
            found += _index_requests(client, index, entry)
    for collection in collections:
        host = "{host}" if collection in local else ELSEWHERE
        found += [_entry(key, _nameless(source, host), uuids) for key, source in _entries(client, _keys(collection, uuids))]
    return found + [_entry(key, _rounded(source), uuids) for key, source in _witnesses(client, uuids)]


def find_indexes(client: OpenSearch, collection: str) -> dict[str, Any]:
    """Return a collection's indexes of all generations: name → aliases, mappings, flat settings."""
    wanted = {"expand_wildcards": "all", "flat_settings": "true"}
    return dict(client.indices.get(index=f"{collection}-*", params=wanted))


def _index_requests(client: OpenSearch, index: str, entry: dict[str, Any]) -> Iterator[Request]:
    """Yield an index's creation, its documents and holes, its refresh if it has been refreshed, its write block if there is one."""
    client.indices.refresh(index=index)
    [shard] = client.indices.stats(index=index, params={"level": "shards"})["indices"][index]["shards"].values()
    highest = max(copy["seq_no"]["max_seq_no"] for copy in shard)
    yield _request("PUT", f"/{index}", _creation(entry))
    if highest >= 0:
        yield _request("POST", "/_bulk", list(_operations(index, _documents(client, index), highest)))
    if entry["settings"].get("index.refresh_interval") != "-1":
        yield _request("POST", f"/{index}/_refresh", None)
    if entry["settings"].get("index.blocks.write") == "true":
        yield _request("PUT", f"/{index}/_block/write", None)


def _creation(entry: dict[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in entry["settings"].items() if not name.removeprefix("index.").startswith(_OF_THE_SERVER)}
    return {"settings": settings, "mappings": _neutral(entry["mappings"]), "aliases": entry["aliases"]}


def _neutral(described: dict[str, Any]) -> dict[str, Any]:
    """Return what holds a description under `_meta` or `meta` without the folder in which the model lay."""
    if "provenance" in described:
        path = PurePath("/models") / str(described["provenance"]["model"])
        return {**described, "provenance": {**described["provenance"], "path": str(path)}}
    return {key: _neutral(value) if isinstance(value, dict) else value for key, value in described.items()}


def _documents(client: OpenSearch, index: str) -> dict[int, dict[str, Any]]:
    """Return an index's documents by sequence number."""
    body = {"size": 1000, "seq_no_primary_term": True, "version": True, "query": {"match_all": {}}}
    hits = client.search(index=index, body=body, params={"search_pipeline": "_none"})["hits"]["hits"]
    assert all(hit["_primary_term"] == 1 for hit in hits), "a fresh index begins with term 1: record on a node that was never restarted"
    return {hit["_seq_no"]: hit for hit in hits}


def _operations(index: str, documents: dict[int, dict[str, Any]], highest: int) -> Iterator[dict[str, Any]]:
    for number in range(highest + 1):
        hit = documents.get(number)
        if hit is None:
            yield {"delete": {"_index": index, "_id": "hole"}}
            continue
        yield {"index": {"_index": index, "_id": hit["_id"], "version": hit["_version"], "version_type": "external"}}
        yield _rounded(hit["_source"])


def _keys(collection: str, uuids: dict[str, str]) -> list[str]:
    mine = [uuid for index, uuid in uuids.items() if index.startswith(f"{collection}-")]
    return [*(f"{kind}:{collection}" for kind in OF_COLLECTION), *(f"{kind}:{uuid}" for kind in OF_INDEX for uuid in mine)]


def _entries(client: OpenSearch, keys: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for key in keys:
        try:
            yield key, client.get(index=JOURNAL, id=key)["_source"]
        except (NotFoundError, MissingError):
            continue


def _witnesses(client: OpenSearch, indexes: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the witness vectors of the models that indexes are named after, by half of their identities."""
    client.indices.refresh(index=JOURNAL)
    body = {"size": 1000, "query": {"term": {"kind": "witness"}}, "sort": "_doc"}
    hits = client.search(index=JOURNAL, body=body)["hits"]["hits"]
    for hit in sorted(hits, key=lambda hit: str(hit["_id"])):
        if any(f"-{hit['_id'].partition(':')[2][:8]}-" in index for index in indexes):
            yield hit["_id"], hit["_source"]


def _entry(key: str, source: dict[str, Any], uuids: dict[str, str]) -> Request:
    """Return the request that writes a journal entry, every UUID in its key and its state left open."""
    names = {uuid: f"{{uuid:{index}}}" for index, uuid in uuids.items()}
    kind, _, name = key.partition(":")
    return _request("PUT", f"/{JOURNAL}/_doc/{kind}:{names.get(name, quote(name))}", _named(_neutral(source), names))


def _named(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _named(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_named(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


def _nameless(value: Any, host: str) -> Any:
    """Return a state in which every process is dead, and ran on `host`."""
    if isinstance(value, list):
        return [_nameless(inner, host) for inner in value]
    if not isinstance(value, dict):
        return value
    told = {key: _nameless(inner, host) for key, inner in value.items()}
    return {**told, "host": host, "pid": DEAD_PID} if {"beat", "host", "pid"} <= told.keys() else told


def _rounded(value: Any) -> Any:
    """Return a document with its numbers, which are vectors for the most part, cut to what a cosine of 0.999 needs and more."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value


def _request(method: str, path: str, body: Any) -> Request:
    return {"method": method, "path": path, "body": body}
