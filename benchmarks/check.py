"""Refuse a loss of speed: ratios to what osembed replaces, measured in turns on the examples, each against about half of what it usually is.

python benchmarks/check.py      under a minute; a part of scripts/test
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from common import ROOT
from embed import Worker

from osembed.embed.load import has_bf16
from osembed.models.registry import open_model
from osembed.opensearch import operation
from osembed.papers.paper import to_paper
from osembed.papers.readers.reader import Reader
from osembed.papers.records import Record
from osembed.passages.chunk import ChunkRule, cut_papers
from osembed.passages.tokens import Tokeniser

ROUNDS = 5


def main() -> None:
    model = open_model("all-MiniLM-L6-v2")
    tokeniser = Tokeniser(model)
    papers = [to_paper(record, {}, 0) for record in Reader([str(ROOT / "examples")]) if isinstance(record, Record)]
    cuts = cut_papers(papers, ChunkRule(), model.spec, tokeniser)
    passages = [model.spec.passage(paper.title, chunk.text) for paper, (chunks, _) in zip(papers, cuts, strict=True) for chunk in chunks]
    texts = (passages * 5)[:64]
    found = {
        "embedding, to SentenceTransformer's defaults": (embedding(texts), 2.0 if has_bf16() else 0.8),
        "tokenising, to the tokenizers library": (tokenising(tokeniser, passages * 20), 2.0),
        "serialising, to json and lists": (serialising(passages), 5.0),
    }
    for name, (ratio, least) in found.items():
        print(f"{name}: {ratio:.1f} times as fast (at least {least:.1f})")
    if any(ratio < least for ratio, least in found.values()):
        sys.exit("Slower than it was: measure with the programs under benchmarks/, then mend it or say why.")


def embedding(texts: list[str]) -> float:
    theirs, ours = Worker("library", "float32"), Worker("osembed", "auto")
    ratio = in_turns(lambda: theirs.encode(texts), lambda: ours.encode(texts))
    theirs.close()
    ours.close()
    return ratio


def tokenising(tokeniser: Tokeniser, texts: list[str]) -> float:
    library = tokeniser._tokenizer
    return in_turns(lambda: [encoding.ids for encoding in library.encode_batch_fast(texts)], lambda: tokeniser.tokenise(texts))


def serialising(texts: list[str]) -> float:
    vectors = np.random.default_rng(1).normal(size=(len(texts), 384)).astype(np.float32)
    documents = [{"text": text, "embedding": vector} for text, vector in zip(texts, vectors, strict=True)]

    def plain() -> None:
        for document in documents:
            json.dumps({**document, "embedding": document["embedding"].tolist()}).encode()

    return in_turns(plain, lambda: [operation.put("alias", "id", document) for document in documents])


def in_turns(theirs: Callable[[], object], ours: Callable[[], object]) -> float:
    """Return how many times as fast the second is: the median over rounds, the first of which warms up."""
    ratios = []
    for turn in range(ROUNDS + 1):
        times = []
        for way in (theirs, ours):
            began = time.perf_counter()
            way()
            times.append(time.perf_counter() - began)
        if turn:
            ratios.append(times[0] / times[1])
    return statistics.median(ratios)


if __name__ == "__main__":
    main()
