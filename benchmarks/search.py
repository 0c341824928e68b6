"""Hybrid search beside the bare OpenSearch request, interleaved; and the command line from the shell.

python benchmarks/ingest.py && python benchmarks/search.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from common import quantile, questions, save

from osembed import Collection
from osembed.embed.protocol import Encoder
from osembed.search import bodies
from osembed.search.options import SearchOptions

ROUNDS = 10
THREADS = 16
COLLECTION = "bench-1x"


def main() -> None:
    collection = Collection(COLLECTION)
    chunks = collection.status()[1].documents
    asked = questions(6)
    searcher = collection._searcher
    target = searcher.targets()["chunks"]
    encoder = searcher._encoders.of(target.meta.stored_model)

    def bare(text: str) -> None:
        """One native hybrid request with the vector at hand, ten hits with their text: what any client has to send at least."""
        body = bodies.hybrid(text, vectors[text], 200, [], bodies.pipeline("min_max", (0.5, 0.5)))
        collection.client.search(index=target.index, body={**body, "size": 10, "_source": ["paper_id", "title", "text"]})

    vectors = {text: encoder.encode([text])[0] for text in asked}
    ways: dict[str, Callable[[str], object]] = {
        "bare native hybrid request": bare,
        "query embedding between requests": lambda text: encoder.encode([text]),
        "osembed search, one level": lambda text: collection.search(text, level="chunks", passages=0),
        "osembed search, default": lambda text: collection.search(text, passages=0),
        "osembed search, default, passages and highlights": lambda text: collection.search(text),
        "osembed ranking, default": lambda text: searcher.rank(text, SearchOptions()),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for text in asked:
            for name, way in ways.items():
                searcher._vectors.clear()  # a remembered query would cost nothing
                took = timed(way, text)
                if number:  # the first round warms up
                    times[name].append(took)
    embedding = ways["query embedding between requests"]
    times["query embedding, one after another"] = [timed(embedding, text) for text in asked * ROUNDS]
    figures = {name: {"p50_ms": quantile(values, 50), "p99_ms": quantile(values, 99)} for name, values in times.items()}
    least = figures["bare native hybrid request"]["p50_ms"] + figures["query embedding between requests"]["p50_ms"]
    ratio = round(figures["osembed search, default"]["p50_ms"] / least, 3)
    together = crowd(encoder, asked)
    for name, values in figures.items():
        print(f"{name:50} p50 {values['p50_ms']:6.1f} ms   p99 {values['p99_ms']:6.1f} ms")
    shell = {
        "osembed --help": shell_seconds(["--help"]),
        "osembed search": shell_seconds(["search", asked[0], "--collection", COLLECTION]),
    }
    for name, seconds in shell.items():
        print(f"{name:50} {seconds:.2f} s (median of 5, from the shell)")
    print(f"search, default, to bare request and one query embedding: {ratio}; {THREADS} threads: {together}")
    kept = {"latency": figures, "to_bare_and_embedding": ratio, "threads": THREADS, "queries_per_s": together, "shell_s": shell}
    save("search", {"chunks": chunks, "requests": len(asked) * ROUNDS, **kept})


def timed(way: Callable[[str], object], text: str) -> float:
    """Return how many milliseconds something took."""
    started = time.perf_counter()
    way(text)
    return (time.perf_counter() - started) * 1000


def crowd(encoder: Encoder, asked: list[str]) -> dict[str, float]:
    """Return how many queries a second many threads embed: each for itself, and gathered; medians of turns."""
    ways: dict[str, Callable[[str], object]] = {"each for itself": lambda text: encoder.encode([text]), "gathered": encoder.encode_query}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(5):
            for name, way in ways.items():
                began = time.perf_counter()
                list(pool.map(way, asked * 10))
                rates[name].append(len(asked) * 10 / (time.perf_counter() - began))
    return {name: round(statistics.median(values), 1) for name, values in rates.items()}


def shell_seconds(arguments: list[str]) -> float:
    program = [sys.executable, "-c", "from osembed.cli.main import main; main()", *arguments]
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run(program, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return round(statistics.median(times), 2)


if __name__ == "__main__":
    main()
