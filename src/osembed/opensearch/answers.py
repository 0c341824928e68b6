"""Check that responses are complete. Pure functions: a response goes in; the requested data comes out, or an error says what is missing.

Missing proof is a failure: a response without `_shards`, `timed_out` or `acknowledged` raises, so no request may filter these keys away. A part
that was refused raises AuthError, and a part that is unavailable raises UnsettledError. Neither is ever read as "it does not exist".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from osembed.errors import ClusterError, MissingError, RefusedError, UnsettledError
from osembed.opensearch.refusals import explain_failure

Answer = dict[str, Any]


def whole(answer: Answer, where: str, *, copies: bool = False) -> Answer:
    """Return the response of a broadcast (`_refresh`, `_stats`, `_forcemerge`) in which no shard failed.

    Args:
        answer: the response.
        where: the index, for the message.
        copies: whether every shard must have answered as well. True for searches, whose `total` counts each shard once. In a broadcast
            `total` includes unassigned replicas.

    Raises UnsettledError, or AuthError if a shard refused the request.
    """
    if not isinstance(answer, dict):
        raise UnsettledError(f"The response about {where} is not the requested kind.")
    shards = answer.get("_shards")
    if not isinstance(shards, Mapping) or not {"total", "successful", "failed"} <= shards.keys():
        raise UnsettledError(f"The response about {where} does not say whether all shards took part.")
    failures = shards.get("failures") or []
    if shards["failed"] or failures:
        reason = failures[0].get("reason", {}) if failures else {}
        raise explain_failure(reason, where, f"{shards['failed']} of {shards['total']} shards of {where} failed")
    if not shards["total"]:  # a security plugin that leaves out forbidden indexes answers for no shard at all
        raise UnsettledError(f"The server answered for no shard of {where}.", "This user may not see it, or its shards are unavailable.")
    if copies and shards["successful"] < shards["total"]:  # unassigned shards are neither successful nor failed
        raise UnsettledError(f"{shards['total'] - shards['successful']} of {shards['total']} shards of {where} did not answer.")
    return answer


def found(answer: Answer, where: str) -> Answer:
    """Return the response of a search in which all shards took part in time. Raises UnsettledError or AuthError."""
    answer = whole(answer, where, copies=True)
    if answer.get("timed_out") is not False:
        raise UnsettledError(f"The search of {where} timed out, or its response does not say that it did not.")
    if not isinstance(answer.get("hits"), Mapping) or "hits" not in answer["hits"]:
        raise UnsettledError(f"The search of {where} returned no list of hits.")
    return answer


def of_shards(answer: Answer, where: str, shards: int) -> Answer:
    """Return the response if the search ran on exactly this many shards; 0 skips the check. Raises UnsettledError.

    A security plugin may silently leave out a forbidden index and answer for the others.
    """
    if shards and answer["_shards"]["total"] != shards:
        raise UnsettledError(f"The server answered for {answer['_shards']['total']} of the {shards} shards of {where}.")
    return answer


def total(answer: Answer, where: str) -> int:
    """Return the exact number of hits of a search with `track_total_hits`. Raises UnsettledError if it is a lower bound."""
    said = answer["hits"].get("total")
    if not isinstance(said, Mapping) or said.get("relation") != "eq":
        raise UnsettledError(f"The search of {where} does not say exactly how many hits there are.")
    return int(said["value"])


def parts(answer: Any, wheres: Sequence[str]) -> list[Answer]:
    """Return the responses of an `_msearch`, all complete. Otherwise raises the error that the first bad one would raise alone."""
    responses = answer.get("responses") if isinstance(answer, dict) else None
    if not isinstance(responses, list) or len(responses) != len(wheres):
        raise UnsettledError(f"{len(wheres)} searches of {', '.join(dict.fromkeys(wheres))} returned {len(responses or [])} responses.")
    for response, where in zip(responses, wheres, strict=True):
        if "error" in response:
            raise explain_failure(response["error"], where, f"The search of {where} failed", status=int(response.get("status", 500)))
        found(response, where)
    return responses


def documents(answer: Any, index: str, keys: Sequence[str]) -> list[Answer]:
    """Return the documents that an `_mget` found. Each item must say whether it was found.

    Raises AuthError for a refused item, MissingError if the index is gone, UnsettledError if a part is unavailable.
    """
    items = answer.get("docs") if isinstance(answer, dict) else None
    # Items come in the order of the request; anything else is a response to another request.
    if not isinstance(items, list) or [item.get("_id") for item in items] != list(keys):
        raise UnsettledError(f"{len(items or [])} items from {index} do not match the {len(keys)} requested documents.")
    there = []
    for item in items:
        if "error" in item:
            raise explain_failure(item["error"], index, f"{item['_id']} of {index} cannot be read")
        if item.get("found") not in (True, False):
            raise UnsettledError(f"{index} does not say whether it has {item['_id']}.")
        if item["found"]:
            there.append(item)
    return there


def document(answer: Any, index: str, key: str) -> Answer | None:
    """Return the document from a `GET _doc`; None if the server says that it does not exist."""
    if not isinstance(answer, dict) or answer.get("found") not in (True, False):
        raise UnsettledError(f"{index} does not say whether it has {key}.")
    if not answer["found"]:
        return None
    if not {"_source", "_seq_no", "_primary_term"} <= answer.keys():
        raise UnsettledError(f"{key} of {index} was returned without its content or its version.")
    return answer


def absent(error: MissingError) -> bool:
    """Return whether a 404 means that the index or document does not exist, and not that some other program answered the request."""
    detail = error.detail if isinstance(error.detail, Mapping) else {}
    return error.kind == "index_not_found_exception" or detail.get("found") is False


def buckets(aggregation: Any, where: str) -> list[Answer]:
    """Return all buckets of an aggregation. Raises UnsettledError if the server dropped some or may have miscounted."""
    if not isinstance(aggregation, Mapping) or not isinstance(aggregation.get("buckets"), list):
        raise UnsettledError(f"The figures of {where} were returned without buckets.")
    if aggregation.get("sum_other_doc_count") or aggregation.get("doc_count_error_upper_bound"):
        raise UnsettledError(f"The counts of {where} leave out {aggregation.get('sum_other_doc_count', 'some')} documents.")
    return list(aggregation["buckets"])


def counted(answer: Answer, where: str) -> Answer:
    """Return the response of a search with aggregations. Raises UnsettledError if it has none."""
    if not isinstance(answer.get("aggregations"), dict):
        raise UnsettledError(f"The search of {where} returned no aggregations.")
    return answer


def top_buckets(aggregation: Any, where: str) -> tuple[list[Answer], int, int]:
    """Return the most frequent values, the count of all others, and by how much a count may be too low at most.

    Raises UnsettledError if the response does not state what it leaves out, or how exact it is.
    """
    if not isinstance(aggregation, Mapping) or not isinstance(aggregation.get("buckets"), list):
        raise UnsettledError(f"The figures of {where} were returned without buckets.")
    other, error = aggregation.get("sum_other_doc_count"), aggregation.get("doc_count_error_upper_bound")
    if not isinstance(other, int) or not isinstance(error, int) or error < 0:
        raise UnsettledError(f"The counts of {where} do not say what they leave out.")
    return list(aggregation["buckets"]), other, error


def bucket_count(aggregation: Any, where: str) -> int:
    """Return the document count of an aggregation with a single bucket. Raises UnsettledError if there is none."""
    if not isinstance(aggregation, Mapping) or not isinstance(aggregation.get("doc_count"), int):
        raise UnsettledError(f"The aggregation of {where} has no count.")
    return int(aggregation["doc_count"])


def nodes(answer: Any) -> Answer:
    """Return the nodes from a `_nodes` response in which all nodes took part. Raises UnsettledError."""
    said = answer.get("_nodes") if isinstance(answer, dict) else None
    if not isinstance(said, Mapping) or said.get("failed") != 0 or not answer.get("nodes"):
        raise UnsettledError(f"{(said or {}).get('failed', 'Some')} nodes of the cluster do not answer.", "Their data is unknown.")
    return dict(answer["nodes"])


def acknowledged(answer: Any, what: str) -> Answer:
    """Return the response of a change that all nodes know of. Otherwise raises UnsettledError: read the state to find out what happened."""
    if not isinstance(answer, dict) or answer.get("acknowledged") is not True:
        raise UnsettledError(f"{what} was not acknowledged.", "It may or may not have happened.")
    return answer


def blocked(answer: Any, indexes: Sequence[str]) -> None:
    """Raise UnsettledError or AuthError unless a response of `_block/write` says that each index and each of its shards is blocked."""
    said = {entry.get("name"): entry for entry in answer.get("indices", [])} if isinstance(answer, dict) else {}
    for index in indexes:
        entry = said.get(index, {})
        failures = [failure for shard in entry.get("failed_shards", []) for failure in shard.get("failures", [])]
        if entry.get("blocked") is not True or failures:
            reason = failures[0].get("reason", {}) if failures else entry.get("exception", {})
            raise explain_failure(reason, index, f"{index} is not blocked on every shard")
    acknowledged(answer, f"The write block of {', '.join(indexes)}")
    if answer.get("shards_acknowledged") is not True:
        raise UnsettledError(f"Not every shard of {', '.join(indexes)} is blocked.", "Some writes may still get through.")


def written(answer: Any, index: str, key: str) -> Answer:
    """Return the response of a single write that the primary has applied. Raises UnsettledError."""
    if not isinstance(answer, dict) or answer.get("result") not in ("created", "updated", "deleted", "noop"):
        raise UnsettledError(f"{index} does not say that it has written {key}.", "It may or may not have happened.")
    return answer


def named(answer: Any, index: str) -> Any:
    """Return the entry of one index in a response keyed by index. Raises MissingError if it has none: the index is gone or hidden."""
    if not isinstance(answer, dict) or index not in answer:
        raise MissingError(f"The server's response does not include {index}.", "It is gone, or this user may not see it.", status=404)
    return answer[index]


def refused_part(answer: Any) -> Any:
    """Return the first refusal by the security plugin in a response, at any depth; None if there is none."""
    if isinstance(answer, Mapping):
        if answer.get("type") == "security_exception":
            return answer
        answer = list(answer.values())
    if isinstance(answer, list):
        return next((found for part in answer if (found := refused_part(part)) is not None), None)
    return None


def status_of(error: ClusterError) -> int:
    """Return the HTTP status of an error; 0 if it has none."""
    return error.status if isinstance(error, RefusedError) else 0
