"""Fetch what a page shows: its papers with their best passages, or the ranked chunks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from osembed.opensearch.target import Target, Targets
from osembed.search import bodies
from osembed.search.options import SearchOptions, SimilarOptions
from osembed.search.projection import Projection
from osembed.search.ranking import Ranked, Ranker
from osembed.search.results import Hit, Passage


def fetch_page(
    ranker: Ranker, text: str, page: Sequence[Ranked], targets: Targets, options: SearchOptions | SimilarOptions, shown: Projection
) -> tuple[Hit, ...]:
    """Return a page of hits, fetched in one request.

    Args:
        ranker: sends the requests.
        text: the query; its words are highlighted.
        page: the ranked papers. Papers deleted since then are left out.
        targets: the indexes to read.
        options: the number of passages, or chunks only.
        shown: the fields to return.
    """
    if not page:
        return ()
    papers, chunks = targets["papers"], targets["chunks"]
    best = {ranked.id: ranked.chunk for ranked in page}
    requests = [(member, bodies.papers_page(text, ids, shown.source)) for member, ids in _by_owner(papers, best)]
    count = len(requests)
    chunks_only = isinstance(options, SearchOptions) and options.hits == "chunks"
    if chunks_only:
        ranked_chunks = [ranked.chunk for ranked in page if ranked.chunk]
        requests += [(member, bodies.chunks_page(text, ids)) for member, ids in _by_owner(chunks, ranked_chunks)]
    elif options.passages:
        requests += [_passages_request(text, chunks, key, chunk, options.passages) for key, chunk in best.items()]
    found = ranker.legs(requests)
    stored = _keyed(papers, found[:count])
    if chunks_only:
        pieces: dict[str, tuple[Passage, ...]] = {key: (_passage(hit),) for key, hit in _keyed(chunks, found[count:]).items()}
        passages = [pieces.get(ranked.chunk or "", ()) for ranked in page]
    else:
        groups = dict(zip(best, map(_passages, found[count:]), strict=True)) if options.passages else {}
        passages = [groups.get(ranked.id, ()) for ranked in page]
    there = [(ranked, seen) for ranked, seen in zip(page, passages, strict=True) if ranked.id in stored]
    return tuple(_hit(ranked, papers.owner(ranked.id)[0], stored[ranked.id], seen, shown) for ranked, seen in there)


def _by_owner(target: Target, keys: Iterable[str]) -> list[tuple[Target, list[str]]]:
    """Return the ids of hits grouped by the index that holds them."""
    held: dict[str, tuple[Target, list[str]]] = {}
    for key in keys:
        owner, document = target.owner(key)
        held.setdefault(owner.index, (owner, []))[1].append(document)
    return list(held.values())


def _passages_request(text: str, target: Target, key: str, chunk: str | None, count: int) -> tuple[Target, bodies.Body]:
    owner, paper = target.owner(key)
    return owner, bodies.passages_page(text, paper, target.owner(chunk)[1] if chunk else None, count)


def _keyed(target: Target, found: Iterable[Sequence[Mapping[str, Any]]]) -> dict[str, Mapping[str, Any]]:
    return {target.key(hit["_index"], hit["_id"]): hit for hits in found for hit in hits}


def _passages(hits: Sequence[Mapping[str, Any]]) -> tuple[Passage, ...]:
    """Return a paper's passages. A paper found by its title alone shows its beginning and no random passage."""
    return tuple(_passage(hit) for place, hit in enumerate(hits) if place == 0 or hit["_score"] > 0)


def _passage(hit: Mapping[str, Any]) -> Passage:
    source = hit["_source"]
    highlight = " … ".join(hit.get("highlight", {}).get("text", []))
    return Passage(source["chunk_index"], source["start_char"], source["end_char"], source["text"], highlight)


def _hit(ranked: Ranked, owner: Target, stored: Mapping[str, Any], passages: tuple[Passage, ...], shown: Projection) -> Hit:
    source = stored["_source"]
    return Hit(
        id=stored["_id"],
        score=ranked.score,
        title=source.get("title", ""),
        highlight=" … ".join(stored.get("highlight", {}).get("title", [])),
        meta=shown.meta(source.get("meta", {})),
        source=source.get("source", ""),
        word_count=int(source.get("word_count", 0)),
        passages=passages,
        explain=ranked.explain,
        collection=owner.meta.collection,
        texts=shown.texts(source),
    )
