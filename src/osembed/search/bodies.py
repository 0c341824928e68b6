"""Build request bodies from queries. Pure functions; query text is only ever a value, never syntax."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osembed.limits import Fusion
from osembed.papers.levels import Level
from osembed.search.fusion import RANK_CONSTANT

Body = dict[str, Any]
# One field with the whole text beats best_fields over its parts; the title adds a little weight (docs/quality.md).
LEXICAL_FIELDS = ["content", "title^0.3"]
MAX_WORDS = 400  # each word makes two clauses, one per field; the server refuses queries of more than 1024 clauses
# An upper bound on the words that the server's analyzers produce: they cut at 255 characters and split unspaced scripts by character.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\U0010ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]{{1,255}}")
MARK = ("<em>", "</em>")
PASSAGE_FIELDS = ["text", "chunk_index", "start_char", "end_char", "paper_id"]
_FRAGMENT = 260


def lexical(text: str) -> Body:
    """Return the lexical query over one level."""
    return {"multi_match": {"query": first_words(text)[0], "type": "most_fields", "fields": LEXICAL_FIELDS}}


def first_words(text: str) -> tuple[str, bool]:
    """Return the first MAX_WORDS distinct words of a text, and whether there are more."""
    taken: list[str] = []
    room = MAX_WORDS
    for word in dict.fromkeys(text.split()):
        ends = [match.end() for match in islice(_WORD.finditer(word), room + 1)]
        if len(ends) > room:
            return " ".join([*taken, word[: ends[room - 1]]] if room else taken), True
        taken.append(word)
        room -= len(ends)
    return " ".join(taken), False


def nearest(vector: NDArray[np.float32], depth: int, filters: Sequence[Body]) -> Body:
    """Return the k-NN query over one level, filtered before the search."""
    inside: Body = {"vector": vector.tolist(), "k": depth}
    if filters:
        inside["filter"] = {"bool": {"filter": list(filters)}}
    return {"knn": {"embedding": inside}}


def filtered(query: Body, filters: Sequence[Body]) -> Body:
    """Return a query restricted by filters that do not change its scores."""
    return {"bool": {"must": [query], "filter": list(filters)}} if filters else query


def any_of(ids: Sequence[str]) -> Body:
    """Return the query for documents of one index by id."""
    return {"ids": {"values": list(ids)}}


def any_in(documents: Mapping[str, Sequence[str]]) -> Body:
    """Return the query for documents of several indexes: index → ids."""
    if len(documents) == 1:
        return any_of(next(iter(documents.values())))
    each = [{"bool": {"filter": [{"term": {"_index": index}}, any_of(ids)]}} for index, ids in documents.items()]
    return {"bool": {"should": each, "minimum_should_match": 1}} if each else {"match_none": {}}


def leg(query: Body, depth: int) -> Body:
    """Return the request for one leg: ids and scores only."""
    return {"query": query, "size": depth, "_source": False, "track_total_hits": False}


def sorted_leg(query: Body, sort: Sequence[Body], depth: int, *, collapse: bool = False) -> Body:
    """Return the request for the first hits in an order other than by score. With `collapse`, each paper is represented by its best chunk.

    All chunks of a paper share its metadata and id, so the order of papers does not depend on which chunk represents them.
    """
    body = {**leg(query, depth), "sort": [*sort, {"_score": {"order": "desc"}}], "track_scores": True}
    return {**body, "collapse": {"field": "paper_id"}} if collapse else body


def lean(body: Body) -> Body:
    """Return a request whose hits carry their ids as doc values and load no stored fields."""
    return {**body, "stored_fields": "_none_", "docvalue_fields": ["paper_id", "chunk_index"]}


def hybrid(
    text: str,
    vector: NDArray[np.float32],
    depth: int,
    filters: Sequence[Body],
    pipeline: Body,
    *,
    explain: bool = False,
) -> Body:
    """Return a native hybrid request over one level. `pagination_depth` affects the ranking, so it is the same for every page."""
    query: Body = {"queries": [lexical(text), nearest(vector, depth, [])], "pagination_depth": depth}
    if filters:
        query["filter"] = {"bool": {"filter": list(filters)}}
    body = {
        "query": {"hybrid": query},
        "size": 2 * depth,
        "_source": False,
        "track_total_hits": False,
        "search_pipeline": pipeline,
    }
    return {**body, "explain": True} if explain else body


def pipeline(fusion: Fusion, weights: Sequence[float], *, explain: bool = False) -> Body:
    """Return the inline search pipeline for a fusion. Weights are sent as floats, because the server answers 500 to integers."""
    shares = {"weights": [float(weight) / sum(weights) for weight in weights]}
    if fusion == "rrf":
        combination = {"technique": "rrf", "rank_constant": RANK_CONSTANT, "parameters": shares}
        phase: Body = {"score-ranker-processor": {"combination": combination}}
    else:
        phase = {
            "normalization-processor": {
                "normalization": {"technique": fusion},
                "combination": {"technique": "arithmetic_mean", "parameters": shares},
            }
        }
    body: Body = {"phase_results_processors": [phase]}
    if explain:
        body["response_processors"] = [{"hybrid_score_explanation": {}}]
    return body


def summed(text: str, vector: NDArray[np.float32], depth: int, filters: Sequence[Body], weights: Sequence[float]) -> Body:
    """Return one `bool` query for servers without hybrid queries. It matches what either leg finds and adds the raw scores.

    Unequal weights become boosts. The two scores have different scales, so the boosts are not shares of the result.
    """
    words, meaning = lexical(text), nearest(vector, depth, filters)
    if weights[0] != weights[1]:
        words["multi_match"]["boost"], meaning["knn"]["embedding"]["boost"] = map(float, weights)
    return {"bool": {"should": [words, meaning], "filter": list(filters), "minimum_should_match": 1}}


def papers_page(text: str, ids: Sequence[str], source: Sequence[str]) -> Body:
    """Return the request that fetches the papers on a page, with highlighted titles."""
    return {
        "query": {"bool": {"filter": [{"ids": {"values": list(ids)}}], "should": [lexical(text)] if text else []}},
        "size": len(ids),
        "_source": list(source),
        "highlight": _highlight("title", fragments=0),
        "track_total_hits": False,
    }


def passages_page(text: str, paper_id: str, best: str | None, count: int) -> Body:
    """Return the request that fetches a paper's best passages: the nearest chunk first, then those that share the most words.

    There is one request per paper. `collapse` with `inner_hits` would do the same on the server, but it always uses the index's default
    search pipeline, whatever the request says, and that pipeline may be missing.
    """
    should: list[Body] = [{"constant_score": {"filter": {"ids": {"values": [best]}}, "boost": 10_000}}] if best else []
    if text:
        should.append(lexical(text))
    return {
        "query": {"bool": {"filter": [{"term": {"paper_id": paper_id}}], "should": should}},
        "size": count,
        "_source": PASSAGE_FIELDS,
        "highlight": _highlight("text", fragments=2),
        "track_total_hits": False,
    }


def chunks_page(text: str, chunk_ids: Sequence[str]) -> Body:
    """Return the request that fetches chunks by id, with highlighted words."""
    return {
        "query": {"bool": {"filter": [{"ids": {"values": list(chunk_ids)}}], "should": [lexical(text)] if text else []}},
        "size": len(chunk_ids),
        "_source": PASSAGE_FIELDS,
        "highlight": _highlight("text", fragments=2),
        "track_total_hits": False,
    }


def level_of_leg(level: str, kind: str) -> Level:
    """Return the level on which a leg runs. By default words are searched in whole papers and meaning in passages."""
    if level == "both":
        return "papers" if kind == "lexical" else "chunks"
    return "papers" if level == "papers" else "chunks"


def _highlight(field: str, fragments: int) -> Body:
    """Return the highlight settings. The text is HTML-escaped, so the marks are its only tags."""
    return {
        "encoder": "html",
        "pre_tags": [MARK[0]],
        "post_tags": [MARK[1]],
        "require_field_match": False,
        "fields": {field: {"number_of_fragments": fragments, "fragment_size": _FRAGMENT, "no_match_size": _FRAGMENT}},
    }
