"""Texts in, vectors out: osembed beside SentenceTransformer.encode, in turns, each in a process of its own that stays alive.

python benchmarks/embed.py      about 10 minutes
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
import torch
from common import data_folder, read_papers, save

from osembed.embed.load import has_bf16, load_encoder
from osembed.evaluate import metrics
from osembed.evaluate.judged import read_judged
from osembed.models.identity import row_cosines
from osembed.models.registry import open_model
from osembed.models.spec import Model
from osembed.papers.paper import Paper
from osembed.passages.chunk import ChunkRule, cut_papers
from osembed.passages.tokens import Tokeniser

MODEL = "all-MiniLM-L6-v2"
ROUNDS = 5
WAYS = {
    "SentenceTransformer, defaults (fp32, batches of 32)": ("library", "float32"),
    "SentenceTransformer, bf16": ("library", "bfloat16"),
    "osembed, fp32": ("osembed", "fp32"),
    "osembed, defaults": ("osembed", "auto"),
}
BASE, BEST, _, OURS = WAYS


def main() -> None:
    texts = {"chunks of full papers": chunks(256), "abstracts": abstracts(256), "titles": titles(1000)}
    workers = {name: Worker(kind, precision) for name, (kind, precision) in WAYS.items()}
    times = {what: in_turns(workers, batch, ROUNDS) for what, batch in texts.items()}
    rates = {what: {name: len(texts[what]) / statistics.median(row) for name, row in rows.items()} for what, rows in times.items()}
    ratios = {
        what: {"to defaults": ratio(rows[BASE], rows[OURS]), "to bf16": ratio(rows[BEST], rows[OURS])} for what, rows in times.items()
    }
    compared = (chunks(700) + abstracts(300))[:1000]
    vectors = {name: worker.vectors(compared) for name, worker in workers.items()}
    near = row_cosines(vectors[OURS], vectors[BASE])
    quality = {name: ndcg(workers[name].vectors) for name in ("osembed, fp32", OURS)}
    limit, best = gemm_limit(), min(times["chunks of full papers"][OURS])
    gemm = {"gflops": round(limit), "share": round(work_of(texts["chunks of full papers"], open_model(MODEL)) / best / limit / 1e9, 3)}
    figures = {
        "texts": {what: len(batch) for what, batch in texts.items()},
        "rounds": ROUNDS,
        "texts_per_s": {what: {name: round(rate, 1) for name, rate in row.items()} for what, row in rates.items()},
        "ratio": ratios,
        "gemm": gemm,
        "cosine_to_library": {"texts": len(compared), "min": round(float(near.min()), 5), "mean": round(float(near.mean()), 5)},
        "scifact_ndcg@10": {name: round(value, 4) for name, value in quality.items()},
    }
    for worker in workers.values():
        worker.close()
    print(json.dumps(figures, indent=1))
    save("embed", figures)


def in_turns(workers: dict[str, Worker], texts: list[str], rounds: int) -> dict[str, list[float]]:
    """Return the seconds that each worker took for the texts in each round, after one round to warm up: kernels are chosen, graphs captured."""
    for worker in workers.values():
        worker.encode(texts)
    times: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            times[name].append(worker.encode(texts)[1])
    return times


def ratio(slow: list[float], fast: list[float]) -> float:
    """Return how many times as fast the second is: the median over rounds of the ratio within a round."""
    return round(statistics.median(a / b for a, b in zip(slow, fast, strict=True)), 2)


class Worker:
    """An encoder in a process of its own."""

    def __init__(self, kind: str, precision: str, model: str = MODEL, device: str = "cpu") -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, kind, precision, model, device), daemon=True)
        self._process.start()

    def encode(self, texts: list[str]) -> tuple[np.ndarray, float]:
        """Return the vectors of texts and the seconds that took, measured inside."""
        self._pipe.send(texts)
        return self._pipe.recv()

    def vectors(self, texts: list[str]) -> np.ndarray:
        """Return the vectors of texts."""
        return self.encode(texts)[0]

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join(20)


def work(pipe: Connection, kind: str, precision: str, model: str, device: str) -> None:
    load = library_encoder if kind == "library" else own_encoder
    encode = load(precision, open_model(model), device)
    while (texts := pipe.recv()) is not None:
        began = time.perf_counter()
        vectors = encode(texts)
        pipe.send((vectors, time.perf_counter() - began))


def library_encoder(precision: str, model: Model, device: str) -> Callable[[list[str]], np.ndarray]:
    from sentence_transformers import SentenceTransformer

    transformer = SentenceTransformer(str(model.folder), device=device, local_files_only=True).to(getattr(torch, precision))
    transformer.max_seq_length = model.spec.max_length
    return lambda texts: np.asarray(transformer.encode(texts, convert_to_tensor=True).float().cpu().numpy())


def own_encoder(precision: str, model: Model, device: str) -> Callable[[list[str]], np.ndarray]:
    return load_encoder(model, device=device, precision=precision).encode


def chunks(count: int) -> list[str]:
    """Return passages of full papers as an ingest embeds them: cut to what the model sees, with their titles."""
    model = open_model(MODEL)
    tokeniser, found = Tokeniser(model), []
    for key, title, body in read_papers(7):
        paper = Paper(key, title, "", body, {}, "", {})
        [(own, _)] = cut_papers([paper], ChunkRule(), model.spec, tokeniser)
        found += [model.spec.passage(title, chunk.text) for chunk in own]
    return found[:: max(1, len(found) // count)][:count]


def abstracts(count: int) -> list[str]:
    """Return titles with abstracts."""
    lines = (data_folder() / "scifact" / "corpus.jsonl").read_text().splitlines()
    return [f"{record['title']} {record['text']}" for record in map(json.loads, lines[:: len(lines) // count])][:count]


def titles(count: int) -> list[str]:
    """Return titles: short texts, like queries."""
    lines = (data_folder() / "scifact" / "corpus.jsonl").read_text().splitlines()
    return [str(json.loads(line)["title"]) for line in lines[:count]]


def ndcg(encode: Callable[[list[str]], np.ndarray], queries: Callable[[list[str]], np.ndarray] | None = None) -> float:
    """Return the mean nDCG@10 of exact search over SciFact; without `queries`, they are embedded by osembed in full precision."""
    folder = data_folder() / "scifact"
    records = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    documents = encode([f"{record['title']} {record['text']}" for record in records])
    judged = read_judged(folder)
    asked = (queries or own_encoder("fp32", open_model(MODEL), "cpu"))(list(judged.queries.values()))
    scores = asked @ documents.T
    best = np.argsort(-scores, axis=1)[:, :10]
    ids = [str(record["_id"]) for record in records]
    return statistics.mean(
        metrics.ndcg([ids[place] for place in row], judged.judgments[query]) for row, query in zip(best, judged.queries, strict=True)
    )


def work_of(texts: list[str], model: Model) -> float:
    """Return the arithmetic of a forward over texts: 2 operations per weight and token, and the two products of attention."""
    config, tokens = model.config, Tokeniser(model).tokenise(texts)
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    lengths = np.array([len(ids) for ids in tokens.ids], dtype=np.float64)
    return float(layers * (2 * (4 * width**2 + 2 * width * inner) * lengths + 4 * width * lengths**2).sum())


def gemm_limit() -> float:
    """Return the most GFLOP/s that this machine's matrix product reaches, in the precision that osembed chooses."""
    dtype = torch.bfloat16 if has_bf16() else torch.float32
    left, right = torch.randn(2048, 1536).to(dtype), torch.randn(1536, 1536).to(dtype)
    best = 0.0
    for _ in range(60):
        began = time.perf_counter()
        left @ right
        best = max(best, 2 * 2048 * 1536 * 1536 / (time.perf_counter() - began) / 1e9)
    return best


if __name__ == "__main__":
    main()
