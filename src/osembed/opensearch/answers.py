"""What an answer proves. Pure: an answer goes in, what was asked for comes out, or an error that says what is missing.

A missing proof is a failure: an answer without `_shards`, `timed_out` or `acknowledged` raises, so no request may filter them away. A part of
an answer that was refused is AuthError, one that is away is UnsettledError; neither is ever read as "there is none".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from osembed.errors import ClusterError, MissingError, RefusedError, UnsettledError
from osembed.opensearch.refusals import explain_failure

Answer = dict[str, Any]


def whole(answer: Answer, where: str, *, copies: bool = False) -> Answer:
    """Return the answer of a broadcast (`_refresh`, `_stats`, `_forcemerge`) in which no shard failed.

    Args:
        answer: as the server gave it.
        where: the index, for the message.
        copies: whether every shard must have answered, too (searches: `total` counts each shard once; a broadcast also counts replicas
            that are not assigned).

    Raises UnsettledError, or AuthError where the shard's failure is a refusal.
    """
    if not isinstance(answer, dict):
        raise UnsettledError(f"The answer about {where} is not what was asked for.")
    shards = answer.get("_shards")
    if not isinstance(shards, Mapping) or not {"total", "successful", "failed"} <= shards.keys():
        raise UnsettledError(f"The answer about {where} does not say whether all shards took part.")
    failures = shards.get("failures") or []
    if shards["failed"] or failures:
        reason = failures[0].get("reason", {}) if failures else {}
        raise explain_failure(reason, where, f"{shards['failed']} of {shards['total']} shards of {where} failed")
    if not shards["total"]:  # a security plugin that leaves out what it forbids answers for no shard at all
        raise UnsettledError(f"The server answered for no shard of {where}.", "This user may not see it, or its shards are away.")
    if copies and shards["successful"] < shards["total"]:
        raise UnsettledError(f"{shards['total'] - shards['successful']} of {shards['total']} shards of {where} did not answer.")
    return answer


def found(answer: Answer, where: str) -> Answer:
    """Return the answer of a search that all shards took part in, in time. Raises UnsettledError or AuthError."""
    answer = whole(answer, where, copies=True)
    if answer.get("timed_out") is not False:
        raise UnsettledError(f"The search of {where} timed out, or does not say that it did not.")
    if not isinstance(answer.get("hits"), Mapping) or "hits" not in answer["hits"]:
        raise UnsettledError(f"The search of {where} came back without hits.")
    return answer


def of_shards(answer: Answer, where: str, shards: int) -> Answer:
    """Return the answer of a search that ran over so many shards; 0 proves nothing.

    A security plugin may leave out an index that it forbids, and answer for the others as if they were all.
    """
    if shards and answer["_shards"]["total"] != shards:
        raise UnsettledError(f"The server answered for {answer['_shards']['total']} of the {shards} shards of {where}.")
    return answer


def total(answer: Answer, where: str) -> int:
    """Return the exact number of hits of a search with `track_total_hits`. Raises UnsettledError where it is a lower bound."""
    said = answer["hits"].get("total")
    if not isinstance(said, Mapping) or said.get("relation") != "eq":
        raise UnsettledError(f"The search of {where} does not say exactly how many hits there are.")
    return int(said["value"])


def parts(answer: Any, wheres: Sequence[str]) -> list[Answer]:
    """Return the answers of an `_msearch`, each whole. Raises for the first that is not, as it would have failed alone."""
    responses = answer.get("responses") if isinstance(answer, dict) else None
    if not isinstance(responses, list) or len(responses) != len(wheres):
        raise UnsettledError(f"{len(responses or [])} answers came back to {len(wheres)} searches of {', '.join(dict.fromkeys(wheres))}.")
    for response, where in zip(responses, wheres, strict=True):
        if "error" in response:
            raise explain_failure(response["error"], where, f"The search of {where} failed", status=int(response.get("status", 500)))
        found(response, where)
    return responses


def documents(answer: Any, index: str, keys: Sequence[str]) -> list[Answer]:
    """Return those documents of an `_mget` that are there; an item must say that it is found, or that it is not.

    Raises AuthError for a refused item, MissingError where the index is gone, UnsettledError for whatever is away.
    """
    items = answer.get("docs") if isinstance(answer, dict) else None
    if not isinstance(items, list) or [item.get("_id") for item in items] != list(keys):
        raise UnsettledError(f"{len(items or [])} answers about {index} do not match the {len(keys)} documents that were asked for.")
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
    """Return a document of a `GET _doc`, None where the server says that it has none."""
    if not isinstance(answer, dict) or answer.get("found") not in (True, False):
        raise UnsettledError(f"{index} does not say whether it has {key}.")
    if not answer["found"]:
        return None
    if not {"_source", "_seq_no", "_primary_term"} <= answer.keys():
        raise UnsettledError(f"{key} of {index} came back without its content or its version.")
    return answer


def absent(error: MissingError) -> bool:
    """Whether a 404 says that the index or the document is not there, rather than that the request found nobody to answer it."""
    detail = error.detail if isinstance(error.detail, Mapping) else {}
    return error.kind == "index_not_found_exception" or detail.get("found") is False


def buckets(aggregation: Any, where: str) -> list[Answer]:
    """Return all buckets of an aggregation. Raises UnsettledError where the server dropped some or may have miscounted."""
    if not isinstance(aggregation, Mapping) or not isinstance(aggregation.get("buckets"), list):
        raise UnsettledError(f"The figures of {where} came back without their groups.")
    if aggregation.get("sum_other_doc_count") or aggregation.get("doc_count_error_upper_bound"):
        raise UnsettledError(f"The figures of {where} leave out {aggregation.get('sum_other_doc_count', 'some')} documents.")
    return list(aggregation["buckets"])


def counted(answer: Answer, where: str) -> Answer:
    """Return the answer of a search for figures that has them. Raises UnsettledError where it has none."""
    if not isinstance(answer.get("aggregations"), dict):
        raise UnsettledError(f"The search of {where} came back without its figures.")
    return answer


def top_buckets(aggregation: Any, where: str) -> tuple[list[Answer], int, int]:
    """Return the most frequent values, the count of all others, and by how much a figure may be too small at most.

    Raises UnsettledError where the answer does not say how much it leaves out, or how exact it is.
    """
    if not isinstance(aggregation, Mapping) or not isinstance(aggregation.get("buckets"), list):
        raise UnsettledError(f"The figures of {where} came back without their groups.")
    other, error = aggregation.get("sum_other_doc_count"), aggregation.get("doc_count_error_upper_bound")
    if not isinstance(other, int) or not isinstance(error, int) or error < 0:
        raise UnsettledError(f"The figures of {where} do not say what they leave out.")
    return list(aggregation["buckets"]), other, error


def bucket_count(aggregation: Any, where: str) -> int:
    """Return how many documents an aggregation of one group counts. Raises UnsettledError where it does not say."""
    if not isinstance(aggregation, Mapping) or not isinstance(aggregation.get("doc_count"), int):
        raise UnsettledError(f"The figures of {where} came back without a count.")
    return int(aggregation["doc_count"])


def nodes(answer: Any) -> Answer:
    """Return the nodes of a `_nodes` answer that all nodes took part in. Raises UnsettledError."""
    said = answer.get("_nodes") if isinstance(answer, dict) else None
    if not isinstance(said, Mapping) or said.get("failed") != 0 or not answer.get("nodes"):
        raise UnsettledError(f"{(said or {}).get('failed', 'Some')} nodes of the cluster do not answer.", "What they hold is unknown.")
    return dict(answer["nodes"])


def acknowledged(answer: Any, what: str) -> Answer:
    """Return the answer of a change that every node knows of. Raises UnsettledError where that is in doubt: then read what happened."""
    if not isinstance(answer, dict) or answer.get("acknowledged") is not True:
        raise UnsettledError(f"{what} was not acknowledged.", "It may or may not have happened.")
    return answer


def blocked(answer: Any, indexes: Sequence[str]) -> None:
    """Accept the answer of `_block/write` only where each index and each of its shards is blocked. Raises UnsettledError or AuthError."""
    said = {entry.get("name"): entry for entry in answer.get("indices", [])} if isinstance(answer, dict) else {}
    for index in indexes:
        entry = said.get(index, {})
        failures = [failure for shard in entry.get("failed_shards", []) for failure in shard.get("failures", [])]
        if entry.get("blocked") is not True or failures:
            reason = failures[0].get("reason", {}) if failures else entry.get("exception", {})
            raise explain_failure(reason, index, f"{index} is not blocked on every shard")
    acknowledged(answer, f"The write block of {', '.join(indexes)}")
    if answer.get("shards_acknowledged") is not True:
        raise UnsettledError(f"Not every shard of {', '.join(indexes)} is blocked.", "Writes may still reach it.")


def written(answer: Any, index: str, key: str) -> Answer:
    """Return the answer of a single write that the primary has taken. Raises UnsettledError."""
    if not isinstance(answer, dict) or answer.get("result") not in ("created", "updated", "deleted", "noop"):
        raise UnsettledError(f"{index} does not say that it has written {key}.", "It may or may not have happened.")
    return answer


def named(answer: Any, index: str) -> Any:
    """Return what an answer that is keyed by index says of one. Raises MissingError where it says nothing: the index is gone, or hidden."""
    if not isinstance(answer, dict) or index not in answer:
        raise MissingError(f"The server says nothing of {index}.", "It is gone, or this user may not see it.", status=404)
    return answer[index]


def refused_part(answer: Any) -> Any:
    """Return the first failure in an answer that is a refusal by the security plugin, however deep it stands; None for none."""
    if isinstance(answer, Mapping):
        if answer.get("type") == "security_exception":
            return answer
        answer = list(answer.values())
    if isinstance(answer, list):
        return next((found for part in answer if (found := refused_part(part)) is not None), None)
    return None


def status_of(error: ClusterError) -> int:
    """Return the HTTP status of a refusal; 0 for an error that has none."""
    return error.status if isinstance(error, RefusedError) else 0
