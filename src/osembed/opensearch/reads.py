"""Every request that reads: it is sent, checked by `answers`, and retried while the response is partial.

Only this module, `changes` and the bulk loop call the client. The results are complete: all shards, all items, no timeout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import orjson

from osembed.errors import MissingError, RefusedError, UnsettledError
from osembed.opensearch import answers
from osembed.opensearch.answers import Answer
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.patience import retry_read

PRIMARY = "_primary"  # replicas may lag behind
_MGET = 500  # documents per request
_MOST = 10_000  # most hits that the server returns for one search
NO_PIPELINE = "_none"  # the index's default pipeline may be missing on the server, and then every search would fail
OLDEST_HYBRID = (3, 5, 0)  # earlier versions drop top documents of hybrid queries
NEURAL_SEARCH = "opensearch-neural-search"  # the plugin that provides hybrid queries and normalises their scores
_FLOOD = "12"  # the id of the block that the server sets when a disk is full
T = TypeVar("T")
Body = Mapping[str, Any]
Key = tuple[str, str | None]


def search(client: OpenSearch, index: str, body: Body, preference: str | None = PRIMARY) -> Answer:
    """Search one index, by default on its primaries. Raises UnsettledError unless the response is complete."""
    params = {"allow_partial_search_results": "false", "search_pipeline": NO_PIPELINE}
    if preference:
        params["preference"] = preference
    send = lambda: answers.found(client.search(index=index, body=dict(body), params=dict(params)), index)  # noqa: E731
    return retry_read(lambda: _there(client, index, send))


def search_shard(client: OpenSearch, index: str, shard: int, body: Body) -> Answer:
    """Search the primary of one shard. A shard that has never held a document returns no hits and no buckets."""
    try:
        return search(client, index, body, f"_shards:{shard}|_primary")
    except RefusedError as error:
        if "No mapping found for [_seq_no]" in str(error.detail):
            return {"hits": {"hits": []}, "aggregations": {"keys": {"buckets": []}, "none": {"doc_count": 0}}}
        raise


def search_several(client: OpenSearch, requests: Sequence[tuple[str, Body]]) -> list[list[dict[str, Any]]]:
    """Send several searches in one `_msearch`; return the hits of each. Raises the error of the first failed search.

    There is no retry here, because the searcher resolves the collection again before it retries.
    """
    found = retry_read(lambda: _several(client, [(index, {}, body) for index, body in requests]), 0)
    return [answer["hits"]["hits"] for answer in found]


def search_across(client: OpenSearch, requests: Sequence[tuple[str, int, Body]]) -> list[list[dict[str, Any]]]:
    """Send searches that each run over several indexes; return the hits of each.

    Word frequencies are first collected from all shards, so words have the same weight in all indexes. No retry, as in `search_several`.

    Args:
        client: the connection.
        requests: (indexes joined by commas, their total number of shards, search body).
    """
    found = retry_read(lambda: _several(client, [(where, _across(body), body) for where, _, body in requests]), 0)
    return [answers.of_shards(answer, where, shards)["hits"]["hits"] for answer, (where, shards, _) in zip(found, requests, strict=True)]


def _across(body: Body) -> Body:
    return {} if "knn" in body.get("query", {}) else {"search_type": "dfs_query_then_fetch"}


def aggregate(client: OpenSearch, index: str, body: Body, shards: int = 0) -> Answer:
    """Send one search with aggregations over one or more indexes; return the complete response.

    Args:
        client: the connection.
        index: one index, or several joined by commas.
        body: the search body.
        shards: their total number of shards; 0 skips the check (for a single index).
    """
    return retry_read(lambda: answers.of_shards(answers.counted(_several(client, [(index, {}, body)])[0], index), index, shards))


def count_shards(client: OpenSearch, shards: Sequence[tuple[str, int]]) -> list[int]:
    """Count the searchable documents on several primaries, given as (index, shard), in one request.

    The request asks for a profile. The security plugin refuses that (AuthError) if document-level security is active, even if it hides
    nothing.
    """
    body = {"size": 0, "track_total_hits": True, "profile": True}
    requests = [(index, {"preference": f"_shards:{shard}|_primary"}, body) for index, shard in shards]
    found = retry_read(lambda: _several(client, requests)) if requests else []
    return [answers.total(answer, index) for answer, (index, _) in zip(found, shards, strict=True)]


def _several(client: OpenSearch, requests: Sequence[tuple[str, Body, Body]]) -> list[Answer]:
    lines: list[Any] = []
    for index, header, body in requests:
        lines += [{"index": index, "allow_partial_search_results": False, **header}, {"search_pipeline": NO_PIPELINE, **body}]
    ndjson = b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY) for line in lines)
    return answers.parts(client.msearch(body=ndjson), [index for index, _, _ in requests])


def count(client: OpenSearch, index: str, query: Body | None = None, shard: int | None = None) -> int:
    """Count an index's searchable documents on its primaries, or on the primary of one shard."""
    body: dict[str, Any] = {"size": 0, "track_total_hits": True, **({"query": dict(query)} if query else {})}
    return answers.total(search(client, index, body, PRIMARY if shard is None else f"_shards:{shard}|_primary"), index)


def documents(
    client: OpenSearch, index: str, keys: Sequence[Key], fields: Sequence[str] | None = None, *, excluded: Sequence[str] = ()
) -> list[Answer]:
    """Read documents by (id, routing) in real time; missing ones are left out.

    Args:
        client, index: the connection and the index.
        keys: (id, routing) of the documents.
        fields: fields of `_source` to return; None for all.
        excluded: fields to leave out.
    """
    found: list[Answer] = []
    params = {name: ",".join(chosen) for name, chosen in (("_source_includes", fields), ("_source_excludes", excluded)) if chosen}
    for start in range(0, len(keys), _MGET):
        part = keys[start : start + _MGET]
        docs = [{"_id": key} if routing is None else {"_id": key, "routing": routing} for key, routing in part]
        ids = [key for key, _ in part]
        send = lambda docs=docs, ids=ids: answers.documents(client.mget(index=index, body={"docs": docs}, params=dict(params)), index, ids)  # noqa: E731
        found += retry_read(partial(_there, client, index, send))
    return found


def _there(client: OpenSearch, index: str, send: Callable[[], T]) -> T:
    """Send a read. If a node reports "no such index" while the cluster has the index, raise UnsettledError, which is retried.

    A node can lag behind after a restart or an election.
    """
    try:
        return send()
    except MissingError as error:
        if indexes(client, [index], "*.settings.index.uuid"):
            raise UnsettledError(f"A node does not know {index} yet, though the cluster has it.") from error
        raise


def copies(client: OpenSearch, index: str, ids: Sequence[str], fields: Sequence[str] | None = None) -> dict[str, list[Answer]]:
    """Read all copies of documents by id in real time, whatever their routing; missing ones are left out.

    Routing decides on the shard, so several shards may hold the same id. The first copy is the one that a read without routing finds. A
    document with its own routing is found only when it is searchable, so refresh first.
    """
    wanted = [(key, None) for key in ids] + [(key, routing) for key, routing in _routed(client, index, ids) if routing is not None]
    return _grouped(documents(client, index, wanted, fields))


def anywhere(client: OpenSearch, index: str, ids: Sequence[str], fields: Sequence[str] | None = None) -> dict[str, Answer]:
    """Read one copy of each document, as `copies` does. Only documents not found on their default shard cost a search."""
    found = {document["_id"]: document for document in documents(client, index, [(key, None) for key in ids], fields)}
    missing = [key for key in ids if key not in found]
    elsewhere = _grouped(documents(client, index, _routed(client, index, missing), fields)) if missing else {}
    return {**found, **{key: same[0] for key, same in elsewhere.items()}}


def _routed(client: OpenSearch, index: str, ids: Sequence[str]) -> list[Key]:
    """Return (id, routing) of the searchable documents with these ids that have their own routing."""
    found: list[Key] = []
    for start in range(0, len(ids), _MGET):
        only = [{"ids": {"values": list(ids[start : start + _MGET])}}, {"exists": {"field": "_routing"}}]
        answer = search(client, index, {"size": _MOST, "track_total_hits": True, "_source": False, "query": {"bool": {"filter": only}}})
        if answers.total(answer, index) > len(answer["hits"]["hits"]):
            raise UnsettledError(f"More than {_MOST:,} routed documents of {index} share {_MGET} ids.")
        found += pages(answer["hits"]["hits"])
    return found


def _grouped(found: Sequence[Answer]) -> dict[str, list[Answer]]:
    """Group documents by id. A document that was read twice, because both routings lead to its shard, counts once."""
    single = {(document["_id"], document.get("_routing")): document for document in found}
    groups: dict[str, list[Answer]] = {}
    for (key, _), document in single.items():
        groups.setdefault(key, []).append(document)
    return groups


def several_documents(client: OpenSearch, keys: Sequence[tuple[str, str, str | None]]) -> list[Answer]:
    """Read documents of several indexes by (index, id, routing) in real time, in one request; missing ones are left out."""
    docs = [{"_index": index, "_id": key, **({"routing": routing} if routing else {})} for index, key, routing in keys]
    where = ", ".join(dict.fromkeys(index for index, _, _ in keys))
    ids = [key for _, key, _ in keys]
    return retry_read(lambda: answers.documents(client.mget(body={"docs": docs}), where, ids)) if docs else []


def document(client: OpenSearch, index: str, key: str) -> Answer | None:
    """Read one document in real time; None if the index or the document does not exist."""
    try:
        return retry_read(lambda: answers.document(client.get(index=index, id=key), index, key))
    except MissingError as error:
        if answers.absent(error):
            return None
        raise UnsettledError(f"The server answers 404 for {key} of {index}, but does not say that it is missing.") from error


def indexes(client: OpenSearch, names: Sequence[str], only: str = "", *, flat: bool = False) -> dict[str, Any]:
    """Return index → description for those of the names (indexes or aliases) that exist.

    A forbidden name raises AuthError, even if the server is configured to leave out forbidden indexes.

    Args:
        client: the connection.
        names: names of indexes and aliases; no patterns.
        only: filter path of the needed parts, such as `*.aliases`.
        flat: whether settings have flat names.
    """
    if not names:
        return {}
    params = {"ignore_unavailable": "true", "expand_wildcards": "none", **({"filter_path": only} if only else {})}
    if flat:
        params["flat_settings"] = "true"
    found = retry_read(lambda: client.indices.get(index=",".join(names), params=dict(params)))
    return dict(found or {})


def matching(client: OpenSearch, pattern: str, only: str = "") -> dict[str, Any]:
    """Return index → description of all indexes, also hidden ones, that match a pattern by name or alias and that this user may see.

    Several names and patterns can be joined by commas. Names that do not exist are left out.
    """
    params = {
        "expand_wildcards": "all",
        "allow_no_indices": "true",
        "ignore_unavailable": "true",
        **({"filter_path": only} if only else {}),
    }
    return dict(retry_read(lambda: client.indices.get(index=pattern, params=dict(params))) or {})


def description(client: OpenSearch, index: str) -> dict[str, Any]:
    """Return one concrete index's mappings, aliases and (flat) settings. Raises MissingError."""
    return dict(answers.named(indexes(client, [index], flat=True), index))


def properties(client: OpenSearch, index: str) -> dict[str, Any]:
    """Return an index's mapped properties. Raises MissingError."""
    found = retry_read(lambda: client.indices.get_mapping(index=index))
    return dict(answers.named(found, index)["mappings"].get("properties", {}))


def stats(client: OpenSearch, index: str, metric: str, level: str = "indices") -> Answer:
    """Return the complete `_stats` of one index: {"primaries", "total", "shards"}. Raises MissingError, UnsettledError."""
    return stats_of(client, [index], metric, level)[index]


def stats_of(client: OpenSearch, names: Sequence[str], metric: str, level: str = "indices") -> dict[str, Answer]:
    """Return the complete `_stats` of several indexes, by index. Raises MissingError, UnsettledError."""
    where = ",".join(names)
    path = f"/{quote(where)}/_stats/{metric}?level={level}&expand_wildcards=all"
    found = retry_read(lambda: answers.whole(client.transport.perform_request("GET", path), where))
    return {name: dict(answers.named(found.get("indices"), name)) for name in names}


def primary_terms(client: OpenSearch, index: str) -> dict[int, int]:
    """Return each shard's primary term, which grows with every failover. Raises MissingError."""
    path = f"/_cluster/state/metadata/{quote(index)}?filter_path=metadata.indices.*.primary_terms"
    found = retry_read(lambda: client.transport.perform_request("GET", path))
    terms = answers.named(found.get("metadata", {}).get("indices"), index)["primary_terms"]
    return {int(shard): int(term) for shard, term in terms.items()}


def state_mappings(client: OpenSearch, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return index → mapping from the cluster state, with fields that field-level security hides. Raises MissingError."""
    path = f"/_cluster/state/metadata/{quote(','.join(names))}?filter_path=metadata.indices.*.mappings"
    found = retry_read(lambda: client.transport.perform_request("GET", path)).get("metadata", {}).get("indices")
    mappings = {name: answers.named(found, name).get("mappings", {}) for name in names}
    return {name: dict(mapping.get("_doc", mapping)) for name, mapping in mappings.items()}


def write_blocks(client: OpenSearch, names: Sequence[str]) -> dict[str, list[str]]:
    """Return index → descriptions of its write blocks, for indexes that have one. The block of a full disk is left out: the server lifts it.

    This reads the cluster state and not the settings, because an incomplete block appears only there. The response lists the blocks of all
    indexes in the cluster; only its routing table is limited to the requested names.
    """
    path = f"/_cluster/state/blocks,routing_table/{quote(','.join(names))}?ignore_unavailable=true&expand_wildcards=all"
    found = retry_read(lambda: _state(client.transport.perform_request("GET", path)))
    # Names may be aliases; the routing table has the indexes behind them.
    meant, blocked = found["routing_table"]["indices"], found["blocks"].get("indices", {})
    held: dict[str, list[str]] = {}
    for index in sorted(meant.keys() & blocked.keys()):
        blocks = blocked[index]
        said = [block["description"] for number, block in blocks.items() if number != _FLOOD and "write" in block.get("levels", [])]
        if said:
            held[index] = said
    return held


def cluster_nodes(client: OpenSearch, metric: str) -> dict[str, Any]:
    """Return node id → statistics (fs, jvm, …) of all nodes. Raises UnsettledError if a node does not answer."""
    return dict(retry_read(lambda: answers.nodes(client.nodes.stats(metric=metric))))


def plugins(client: OpenSearch) -> set[str]:
    """Return the names of the plugins that are installed on every node."""
    found = retry_read(lambda: answers.nodes(client.nodes.info(metric="plugins")))
    return set.intersection(*({plugin["name"] for plugin in node.get("plugins", [])} for node in found.values()))


def data_nodes(client: OpenSearch) -> int:
    """Return the number of data nodes."""
    found = retry_read(lambda: client.cluster.health())
    if not isinstance(found.get("number_of_data_nodes"), int) or found.get("timed_out") is not False:
        raise UnsettledError("The server does not say how many data nodes it has.")
    return int(found["number_of_data_nodes"])


def server_clock(client: OpenSearch) -> int:
    """Return the server's time in seconds since 1970. Clocks of different clients must never be compared."""
    return int(retry_read(lambda: client.transport.perform_request("GET", "/_cat/health?format=json&h=epoch"))[0]["epoch"])


def pipeline(client: OpenSearch, name: str) -> Answer | None:
    """Return a search pipeline; None if it does not exist."""
    try:
        found = retry_read(lambda: client.transport.perform_request("GET", f"/_search/pipeline/{quote(name)}"))
    except MissingError as error:
        if isinstance(error.detail, Mapping):  # OpenSearch answers {}; an error page of a proxy is not JSON
            return None
        raise
    return dict(answers.named(found, name))


def plugin_answer(client: OpenSearch, path: str) -> Answer | None:
    """Return a plugin's response; None if it is not installed. Raises AuthError if this user may not ask."""
    try:
        found = retry_read(lambda: client.transport.perform_request("GET", path))
    except RefusedError as error:
        if error.status in (400, 404, 405):  # no handler for this path
            return None
        raise
    return dict(found) if isinstance(found, Mapping) else None


def pages(hits: Sequence[Answer]) -> Iterator[tuple[str, str | None]]:
    """Yield the (id, routing) of hits."""
    for hit in hits:
        yield hit["_id"], hit.get("_routing")


def _state(answer: Any) -> Answer:
    if not isinstance(answer, dict) or not {"blocks", "routing_table"} <= answer.keys():
        raise UnsettledError("The server does not say which indexes are blocked.")
    return dict(answer)
