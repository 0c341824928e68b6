"""A search as a request that other programs can send to this server, with notices about where its ranking differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from osembed.opensearch import reads
from osembed.opensearch.client import Access
from osembed.opensearch.curl import curl_line, unset_variables
from osembed.opensearch.schema import alias_name
from osembed.opensearch.target import Target, Targets
from osembed.papers.levels import Level
from osembed.search import bodies, filters
from osembed.search.options import DEPTHS
from osembed.search.ranking import Question
from osembed.search.refine import plan_refinement, request_parts

_SHOWN: dict[Level, list[str]] = {"papers": ["title", "meta"], "chunks": ["paper_id", "title", "text", "meta"]}


@dataclass(frozen=True)
class Request:
    """A search request for other programs.

    Attributes:
        alias: the alias to send it to.
        body: the request body, including the query's vector if it has one.
        curl: the same request as one shell line.
        notices: sentences to read before using it.
    """

    alias: str
    body: dict[str, Any]
    curl: str
    notices: tuple[str, ...] = ()


def make_request(question: Question, targets: Targets, access: Access, lack: str = "", notices: Sequence[str] = ()) -> Request:
    """Return the request for a question on one level. A request with a vector also filters by identity, so that after a model change it
    finds nothing instead of nonsense.

    Args:
        question: the question, with its vector unless it is lexical.
        targets: the collection's indexes.
        access: how to reach the server.
        lack: why native hybrid queries are not used; "" if they are.
        notices: further notices about the question, put first.
    """
    options, wanted = question.options, plan_refinement(question.options, targets)
    level = bodies.level_of_leg(options.level, "lexical" if question.mode == "lexical" else "vector")
    page = {"size": options.size, "from": (options.page - 1) * options.size, "_source": wanted.shown.paths or _SHOWN[level]}
    body = {**_ask(question, targets[level], level, not lack), **page, **request_parts(question, wanted, level)}
    if level == "chunks":
        body["collapse"] = {"field": "paper_id"}
    body = orjson.loads(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))
    alias = alias_name(targets[level].meta.collection, level)
    curl = curl_line(access, f"/{alias}/_search", orjson.dumps(body).decode())
    return Request(alias, body, curl, (*notices, *_notices(question, access, lack)))


def _ask(question: Question, target: Target, level: Level, native: bool) -> bodies.Body:
    """Return the query and its search pipeline. Only native hybrid queries need one; the index's default pipeline may be missing."""
    options = question.options
    where = filters.filter_clauses(question.where, target.meta_types, level)
    if question.vector is None:
        return {"query": bodies.filtered(bodies.lexical(question.text), where), "search_pipeline": reads.NO_PIPELINE}
    where = [*where, {"term": {"identity": target.meta.identity.hash}}]
    depth = DEPTHS[0]
    if question.mode == "vector":
        return {"query": bodies.nearest(question.vector, depth, where), "search_pipeline": reads.NO_PIPELINE}
    if native:
        return bodies.hybrid(question.text, question.vector, depth, where, bodies.pipeline(options.fusion, options.weights))
    return {"query": bodies.summed(question.text, question.vector, depth, where, options.weights), "search_pipeline": reads.NO_PIPELINE}


def _notices(question: Question, access: Access, lack: str) -> list[str]:
    notices = []
    if lack:
        notices.append(
            f"{lack}. This is a `bool` query instead: it adds the scores of words and meaning without normalising them, so it ranks "
            "differently. osembed itself combines both rankings on the client."
        )
    if question.mode == "hybrid" and question.options.level == "both":
        notices.append(
            "The default ranking combines two indexes on the client. This is the request for chunks; --level papers prints the other one."
        )
    unset = unset_variables(access)
    if unset:
        notices.append(f"The curl line reads user and password from the environment: set {' and '.join(unset)}.")
    return notices
