"""Every request that reads: sent, judged by `answers`, and asked again while the answer is partial.

Nothing outside this module, `changes` and the bulk loop calls the client. What these functions return is whole: all shards, all items, in time.
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
_MGET = 500
_MOST = 10_000  # hits of one search
NO_PIPELINE = "_none"  # an index's default pipeline may be one that the server does not have (any more): every search would fail
OLDEST_HYBRID = (3, 5, 0)  # the first server whose hybrid queries drop no top documents
NEURAL_SEARCH = "opensearch-neural-search"  # the plugin that has hybrid queries and normalises their scores
_FLOOD = "12"  # the number of the block that a full disk sets
T = TypeVar("T")
Body = Mapping[str, Any]
Key = tuple[str, str | None]


def search(client: OpenSearch, index: str, body: Body, preference: str | None = PRIMARY) -> Answer:
    """Search one index, on its primaries unless said otherwise. Raises UnsettledError for anything but a whole answer."""
    params = {"allow_partial_search_results": "false", "search_pipeline": NO_PIPELINE}
    if preference:
        params["preference"] = preference
    send = lambda: answers.found(client.search(index=index, body=dict(body), params=dict(params)), index)  # noqa: E731
    return retry_read(lambda: _there(client, index, send))


def search_shard(client: OpenSearch, index: str, shard: int, body: Body) -> Answer:
    """Search one shard's primary. A shard that never held a document has no hits and no buckets."""
    try:
        return search(client, index, body, f"_shards:{shard}|_primary")
    except RefusedError as error:
        if "No mapping found for [_seq_no]" in str(error.detail):
            return {"hits": {"hits": []}, "aggregations": {"keys": {"buckets": []}, "none": {"doc_count": 0}}}
        raise


def search_several(client: OpenSearch, requests: Sequence[tuple[str, Body]]) -> list[list[dict[str, Any]]]:
    """Send several searches in one `_msearch`; return the hits of each. Raises what the first failing one would raise alone.

    Not asked again here: the searcher resolves the collection anew before it tries again.
    """
    found = retry_read(lambda: _several(client, [(index, {}, body) for index, body in requests]), 0)
    return [answer["hits"]["hits"] for answer in found]


def search_across(client: OpenSearch, requests: Sequence[tuple[str, int, Body]]) -> list[list[dict[str, Any]]]:
    """Send searches that each run over several indexes; return the hits of each.

    Words weigh alike in all indexes: their frequencies are counted over all shards first. Not asked again here, like `search_several`.

    Args:
        client: the connection.
        requests: the indexes joined by commas, how many shards they have in all, and the search.
    """
    found = retry_read(lambda: _several(client, [(where, _across(body), body) for where, _, body in requests]), 0)
    return [answers.of_shards(answer, where, shards)["hits"]["hits"] for answer, (where, shards, _) in zip(found, requests, strict=True)]


def _across(body: Body) -> Body:
    return {} if "knn" in body.get("query", {}) else {"search_type": "dfs_query_then_fetch"}


def aggregate(client: OpenSearch, index: str, body: Body, shards: int = 0) -> Answer:
    """Send one search, over one index or several, for its figures; return the whole answer.

    Args:
        client: the connection.
        index: one, or several joined by commas.
        body: what is asked.
        shards: how many they have in all; 0 where that is not known, of one index.
    """
    return retry_read(lambda: answers.of_shards(answers.counted(_several(client, [(index, {}, body)])[0], index), index, shards))


def count_shards(client: OpenSearch, shards: Sequence[tuple[str, int]]) -> list[int]:
    """Count the visible documents of several (index, shard) primaries in one request.

    Asks for a profile, which the security plugin refuses (AuthError) wherever document-level security is on, even while it hides nothing.
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
    """Count an index's visible documents on its primaries, or on one shard's."""
    body: dict[str, Any] = {"size": 0, "track_total_hits": True, **({"query": dict(query)} if query else {})}
    return answers.total(search(client, index, body, PRIMARY if shard is None else f"_shards:{shard}|_primary"), index)


def documents(
    client: OpenSearch, index: str, keys: Sequence[Key], fields: Sequence[str] | None = None, *, excluded: Sequence[str] = ()
) -> list[Answer]:
    """Read documents by (id, routing) in real time; missing ones are left out.

    Args:
        client, index: where.
        keys: what to read.
        fields: of `_source`; None for all.
        excluded: fields that are left out.
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
    """Send a read; "no such index" of a node that lags behind, after a restart or an election, is not believed while the manager has it."""
    try:
        return send()
    except MissingError as error:
        if indexes(client, [index], "*.settings.index.uuid"):
            raise UnsettledError(f"A node does not know {index} yet, though the cluster has it.") from error
        raise


def copies(client: OpenSearch, index: str, ids: Sequence[str], fields: Sequence[str] | None = None) -> dict[str, list[Answer]]:
    """Read documents by id in real time, wherever their writers routed them; missing ones are left out.

    A routing decides about the shard, and one id may stand on several: the first copy is the one that a read without routing finds. A
    document that was routed elsewhere is found once it is visible: refresh before.
    """
    wanted = [(key, None) for key in ids] + [(key, routing) for key, routing in _routed(client, index, ids) if routing is not None]
    return _grouped(documents(client, index, wanted, fields))


def anywhere(client: OpenSearch, index: str, ids: Sequence[str], fields: Sequence[str] | None = None) -> dict[str, Answer]:
    """Read one copy of each document as `copies` does; only those that are not where their id says cost a search."""
    found = {document["_id"]: document for document in documents(client, index, [(key, None) for key in ids], fields)}
    missing = [key for key in ids if key not in found]
    elsewhere = _grouped(documents(client, index, _routed(client, index, missing), fields)) if missing else {}
    return {**found, **{key: same[0] for key, same in elsewhere.items()}}


def _routed(client: OpenSearch, index: str, ids: Sequence[str]) -> list[Key]:
    """Return (id, routing) of the visible documents of these ids that have a routing of their own."""
    found: list[Key] = []
    for start in range(0, len(ids), _MGET):
        only = [{"ids": {"values": list(ids[start : start + _MGET])}}, {"exists": {"field": "_routing"}}]
        answer = search(client, index, {"size": _MOST, "track_total_hits": True, "_source": False, "query": {"bool": {"filter": only}}})
        if answers.total(answer, index) > len(answer["hits"]["hits"]):
            raise UnsettledError(f"More than {_MOST:,} routed documents of {index} share {_MGET} ids.")
        found += pages(answer["hits"]["hits"])
    return found


def _grouped(found: Sequence[Answer]) -> dict[str, list[Answer]]:
    """Gather documents by id; one that was read twice, since both of its routings lead to its shard, counts once."""
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
    """Read one document in real time; None where the index or the document is not there."""
    try:
        return retry_read(lambda: answers.document(client.get(index=index, id=key), index, key))
    except MissingError as error:
        if answers.absent(error):
            return None
        raise UnsettledError(f"The server answers 404 about {key} of {index}, but not that it is missing.") from error


def indexes(client: OpenSearch, names: Sequence[str], only: str = "", *, flat: bool = False) -> dict[str, Any]:
    """Return index → description of those names, indexes or aliases, that are there.

    A name that is forbidden is AuthError, also where the server is told to leave out what it forbids.

    Args:
        client: the connection.
        names: of indexes and aliases, no patterns.
        only: filter path of what is needed, such as `*.aliases`.
        flat: whether settings come as flat names.
    """
    if not names:
        return {}
    params = {"ignore_unavailable": "true", "expand_wildcards": "none", **({"filter_path": only} if only else {})}
    if flat:
        params["flat_settings"] = "true"
    found = retry_read(lambda: client.indices.get(index=",".join(names), params=dict(params)))
    return dict(found or {})


def matching(client: OpenSearch, pattern: str, only: str = "") -> dict[str, Any]:
    """Return index → description of all indexes and aliases, hidden ones too, that match a pattern and that this user may see.

    Several names and patterns are joined by commas; names that are not there are left out.
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
    """Return `_stats` of one index, whole: {"primaries", "total", "shards"}. Raises MissingError, UnsettledError."""
    return stats_of(client, [index], metric, level)[index]


def stats_of(client: OpenSearch, names: Sequence[str], metric: str, level: str = "indices") -> dict[str, Answer]:
    """Return `_stats` of several indexes, whole, by index. Raises MissingError, UnsettledError."""
    where = ",".join(names)
    path = f"/{quote(where)}/_stats/{metric}?level={level}&expand_wildcards=all"
    found = retry_read(lambda: answers.whole(client.transport.perform_request("GET", path), where))
    return {name: dict(answers.named(found.get("indices"), name)) for name in names}


def primary_terms(client: OpenSearch, index: str) -> dict[int, int]:
    """Return each shard's primary term: it grows with every failover. Raises MissingError."""
    path = f"/_cluster/state/metadata/{quote(index)}?filter_path=metadata.indices.*.primary_terms"
    found = retry_read(lambda: client.transport.perform_request("GET", path))
    terms = answers.named(found.get("metadata", {}).get("indices"), index)["primary_terms"]
    return {int(shard): int(term) for shard, term in terms.items()}


def state_mappings(client: OpenSearch, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return index → mapping as the cluster state has it, hidden fields included. Raises MissingError."""
    path = f"/_cluster/state/metadata/{quote(','.join(names))}?filter_path=metadata.indices.*.mappings"
    found = retry_read(lambda: client.transport.perform_request("GET", path)).get("metadata", {}).get("indices")
    mappings = {name: answers.named(found, name).get("mappings", {}) for name in names}
    return {name: dict(mapping.get("_doc", mapping)) for name, mapping in mappings.items()}


def write_blocks(client: OpenSearch, names: Sequence[str]) -> dict[str, list[str]]:
    """Return index → its write blocks in words, of those that have one; not that of a full disk, which the server lifts by itself.

    From the cluster state, not the settings: a block that was not completed stands there only, and no setting lifts it. The server lists the
    blocks of all indexes, whichever are asked for; only the routing table is that of those that the names stand for.
    """
    path = f"/_cluster/state/blocks,routing_table/{quote(','.join(names))}?ignore_unavailable=true&expand_wildcards=all"
    found = retry_read(lambda: _state(client.transport.perform_request("GET", path)))
    meant, blocked = found["routing_table"]["indices"], found["blocks"].get("indices", {})
    held: dict[str, list[str]] = {}
    for index in sorted(meant.keys() & blocked.keys()):
        blocks = blocked[index]
        said = [block["description"] for number, block in blocks.items() if number != _FLOOD and "write" in block.get("levels", [])]
        if said:
            held[index] = said
    return held


def cluster_nodes(client: OpenSearch, metric: str) -> dict[str, Any]:
    """Return node id → its statistics (fs, jvm, …), of all nodes. Raises UnsettledError where one does not answer."""
    return dict(retry_read(lambda: answers.nodes(client.nodes.stats(metric=metric))))


def plugins(client: OpenSearch) -> set[str]:
    """Return the names of the plugins that every node has."""
    found = retry_read(lambda: answers.nodes(client.nodes.info(metric="plugins")))
    return set.intersection(*({plugin["name"] for plugin in node.get("plugins", [])} for node in found.values()))


def data_nodes(client: OpenSearch) -> int:
    """Return how many nodes hold data."""
    found = retry_read(lambda: client.cluster.health())
    if not isinstance(found.get("number_of_data_nodes"), int) or found.get("timed_out") is not False:
        raise UnsettledError("The server does not say how many data nodes it has.")
    return int(found["number_of_data_nodes"])


def server_clock(client: OpenSearch) -> int:
    """Return the server's time in seconds: clocks of different clients are never compared."""
    return int(retry_read(lambda: client.transport.perform_request("GET", "/_cat/health?format=json&h=epoch"))[0]["epoch"])


def pipeline(client: OpenSearch, name: str) -> Answer | None:
    """Return a search pipeline; None where the server says that there is none."""
    try:
        found = retry_read(lambda: client.transport.perform_request("GET", f"/_search/pipeline/{quote(name)}"))
    except MissingError as error:
        if isinstance(error.detail, Mapping):  # OpenSearch answers {}; a page of something in between does not
            return None
        raise
    return dict(answers.named(found, name))


def plugin_answer(client: OpenSearch, path: str) -> Answer | None:
    """Ask a plugin; None where it is not installed. Raises AuthError where this user may not ask."""
    try:
        found = retry_read(lambda: client.transport.perform_request("GET", path))
    except RefusedError as error:
        if error.status in (400, 404, 405):  # no handler for this path
            return None
        raise
    return dict(found) if isinstance(found, Mapping) else None


def pages(hits: Sequence[Answer]) -> Iterator[tuple[str, str | None]]:
    """Yield (id, routing) of hits."""
    for hit in hits:
        yield hit["_id"], hit.get("_routing")


def _state(answer: Any) -> Answer:
    if not isinstance(answer, dict) or not {"blocks", "routing_table"} <= answer.keys():
        raise UnsettledError("The server does not say which indexes are blocked.")
    return dict(answer)
