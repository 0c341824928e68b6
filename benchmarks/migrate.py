"""A migration beside plain ingest, beside searches, under writers, killed, and at the gate: the figures of docs/performance.md.

python benchmarks/migrate.py [speed] [gentle] [fences] [memory] [killed] [gate]      all of them without a name; about 40 minutes
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import orjson
from common import RESULTS, ROOT, data_folder, drop, quantile, questions, read_papers, save

from osembed import Collection, choose_models
from osembed.migrate.direction import Progress
from osembed.migrate.proof.verdict import Gate, GateOptions
from osembed.models.registry import open_model

sys.path.insert(0, str(ROOT))
from tests import tiny
from tests.oracle import Log, Oracle, second_process

UNJUDGED = GateOptions(skip=True)
FULL_SPEED = {"gate": UNJUDGED, "gentle": False}
PAPERS = 36
MODEL = "all-MiniLM-L6-v2"


def main() -> None:
    parts = {part.__name__: part for part in (speed, gentle, fences, memory, killed, gate)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        own = open_model(MODEL).folder
        tiny.mirror(own, folder / "mirror")
        tiny.halve(own, folder / "halved")
        os.environ["OSEMBED_MODELS"] = scratch
        kept = RESULTS / "migrate.json"
        figures = json.loads(kept.read_text()) if kept.exists() else {}
        for name in sys.argv[1:] or list(parts):
            started = time.perf_counter()
            figures[name] = parts[name](folder)
            print(f"{name} ({time.perf_counter() - started:.0f} s): {json.dumps(figures[name], indent=1)}", flush=True)
            save("migrate", {key: value for key, value in figures.items() if key != "machine"})


def speed(folder: Path) -> dict:
    """The same texts through a plain ingest and through a migration at full speed, in turns."""
    file = papers(folder, PAPERS)
    rates: dict[str, list[float]] = {"ingest": [], "copy": [], "whole": []}
    for turn in range(4):
        collection = fresh(f"bench-speed{turn}")
        began = time.perf_counter()
        collection.ingest(file, choose_models(MODEL))
        took = time.perf_counter() - began
        documents = sum(row.documents for row in collection.status())
        watched = Watch()
        began = time.perf_counter()
        result = collection.migrate(str(folder / "mirror"), progress=watched, **FULL_SPEED)
        assert result.phase == "swapped", result.refused
        whole = time.perf_counter() - began
        drop(collection)
        if turn:  # the first turn warms up
            rates["ingest"].append(documents / took)
            rates["copy"].append(documents / watched.copied_s)
            rates["whole"].append(documents / whole)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "documents": documents,
        "documents_per_s": {name: round(value, 1) for name, value in middle.items()},
        "copy_share": round(statistics.median(a / b for a, b in zip(rates["copy"], rates["ingest"], strict=True)), 3),
        "whole_share": round(statistics.median(a / b for a, b in zip(rates["whole"], rates["ingest"], strict=True)), 3),
    }


def gentle(folder: Path) -> dict:
    """Searches of another process while nothing else happens, while a gentle migration runs, and while one at full speed runs."""
    collection = fresh("bench-gentle")
    collection.ingest(papers(folder, 2 * PAPERS), choose_models(MODEL))
    documents = sum(row.documents for row in collection.status())
    latency: dict[str, list[float]] = {"idle": [], "gentle": [], "full speed": []}
    rates: dict[str, float] = {}
    with searching(collection.name) as searches:
        for way in ("gentle", "full speed"):
            searches.rest(20)
            latency["idle"] += searches.within(lambda: time.sleep(25))[0]
            process = migrate(collection.name, str(folder / "mirror"), gentle=way == "gentle", swap=False)
            wait_copying(collection, process)
            began, before = time.perf_counter(), collection.migration().state.progress.get("done", 0)
            latency[way] += searches.within(lambda: time.sleep(40))[0]
            progress = collection.migration().state.progress
            assert progress["phase"] == "copying", "the migration ended before its time was up: measure with more papers"
            rates[way] = (progress["done"] - before) / (time.perf_counter() - began)
            process.terminate()
            process.wait(60)
            collection.migration().abort()
    drop(collection)
    figures = {
        way: {"p50_ms": quantile(values, 50), "p99_ms": quantile(values, 99), "searches": len(values)} for way, values in latency.items()
    }
    return {
        "documents": documents,
        "latency": figures,
        "p99_ratio": round(figures["gentle"]["p99_ms"] / figures["idle"]["p99_ms"], 2),
        "p50_ratio": round(figures["gentle"]["p50_ms"] / figures["idle"]["p50_ms"], 2),
        "documents_per_s": {way: round(rate, 1) for way, rate in rates.items()},
    }


def fences(folder: Path) -> dict:
    """Twenty swaps, there and back, under writers of both kinds; every acknowledged operation is looked for at the end."""
    models = tiny.make_all(folder / "tiny")
    os.environ["OSEMBED_MODELS"] = f"{folder}{os.pathsep}{models.bert.parent}"
    name = fresh("bench-fences").name
    oracle = Oracle(str(Collection(name).server.url), name, crowded=True)
    oracle.prepare(choose_models(str(models.bert)), papers=1000)
    collection, times, tries, there = Collection(name), [], [], models.mirror
    oracle.logs.append(in_bulk := Log())
    ends = time.monotonic() + float(os.environ.get("BENCH_FENCES_S", "600"))
    with second_process(oracle.url, name, in_bulk, "in bulk"), oracle.running():
        while len(times) < 20 or time.monotonic() < ends:
            for move in (lambda: collection.migrate(str(there), **FULL_SPEED), lambda: collection.rollback(**FULL_SPEED)):
                result = move()
                assert result.fence_s is not None, result
                times.append(result.fence_s * 1000)
                tries.append(result.fences)
            collection.migration().abort()
            print(f"{len(times)} swaps, fences up to {max(times):.0f} ms", flush=True)
    oracle.reckon()
    drop(collection)
    return {
        "swaps": len(times),
        "fence_p50_ms": quantile(times, 50),
        "fence_max_ms": round(max(times), 1),
        "given_up": sum(tries) - len(tries),
        "acknowledged_operations": oracle.acknowledged,
        "lost": 0,
        "searches": oracle.searches,
        "failed_library_requests": 0,
    }


def memory(folder: Path) -> dict:
    """Peak memory of the migrating process for one and for three times the papers."""
    peaks = {}
    for times in (1, 3):
        collection = fresh(f"bench-memory{times}")
        collection.ingest(papers(folder, PAPERS, times), choose_models(MODEL))
        process = migrate(collection.name, str(folder / "mirror"), gentle=False, swap=True)
        _, status, usage = os.wait4(process.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        peaks[times] = {"documents": sum(row.documents for row in collection.status()), "peak_mb": round(usage.ru_maxrss / 1024)}
        drop(collection)
    return {"runs": peaks, "ratio": round(peaks[3]["peak_mb"] / peaks[1]["peak_mb"], 3)}


def killed(folder: Path) -> dict:
    """Kill -9 in the middle of copying, run again: how many documents were embedded twice?"""
    counts = []
    for turn in range(3):
        collection = fresh(f"bench-killed{turn}")
        collection.ingest(papers(folder, PAPERS // 2), choose_models(MODEL))
        documents = sum(row.documents for row in collection.status())
        process = migrate(collection.name, str(folder / "mirror"), gentle=False, swap=False)
        wait_copying(collection, process)
        time.sleep(2 + 2 * turn)
        process.kill()
        process.wait()
        state = collection.migration().state
        done = sum(embedded(collection, move.green) for move in state.moves.values())
        result = collection.migrate(str(folder / "mirror"), swap=False, **FULL_SPEED)
        assert result.phase == "ready", result
        counts.append({"documents": documents, "embedded_before": done, "embedded_again": done + result.copied.embedded - documents})
        drop(collection)
    return {"kills": counts, "window": {"papers": 128, "chunks": 256}}


def gate(folder: Path) -> dict:
    """SciFact, judged: from a model without the upper half of its layers to the whole one, and the other way round."""
    data = data_folder() / "scifact"
    collection = fresh("bench-gate")
    collection.ingest(data / "corpus.jsonl", choose_models(str(folder / "halved")), min_words=0)
    rules = GateOptions(qrels=str(data), max_drop={"ndcg@10": 0.01})
    better = collection.migrate(MODEL, gate=rules, gentle=False)
    assert better.phase == "swapped", better.refused
    collection.migration().finish(0)
    worse = collection.migrate(str(folder / "halved"), gate=rules, gentle=False)
    assert worse.refused.startswith("gate"), worse
    assert collection.status()[0].model == MODEL
    drop(collection)
    return {name: summary(result.gate) for name, result in (("better", better), ("worse", worse))}


def summary(judged: Gate | None) -> dict:
    """Return what a judgment says, without its list of queries."""
    assert judged is not None
    return {**asdict(judged), "worst": [], "passed": judged.passed}


class Watch:
    """Notes when the first copying pass ended."""

    def __init__(self) -> None:
        self.began, self.copied_s = 0.0, 0.0

    def __call__(self, progress: Progress) -> None:
        """Take in where the migration is."""
        now = time.perf_counter()
        self.began = self.began or now - progress.done / max(progress.rate, 1e-9)
        if progress.phase == "copying":
            self.copied_s = now - self.began


class searching:  # noqa: N801 - reads as a phrase
    """Searches from a process of its own, all the time; `within` returns the latencies of the searches during a block."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> searching:
        program = "import sys; sys.path.insert(0, 'benchmarks'); import migrate; migrate.search_forever(sys.argv[1])"
        self._process = subprocess.Popen([sys.executable, "-c", program, self._name], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self._seen: list[tuple[float, float]] = []
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def rest(self, seconds: float) -> None:
        """Let caches warm up and machines cool down."""
        time.sleep(seconds)

    def within(self, block: Callable[[], object]) -> tuple[list[float], object]:
        """Return the latencies in milliseconds of the searches that ended while `block` ran, and what it returned."""
        began = time.time()
        result = block()
        ended = time.time()
        return [took for at, took in self._seen if began <= at <= ended], result

    def _read(self) -> None:
        for line in self._process.stdout or ():
            at, took = line.split()
            self._seen.append((float(at), float(took)))


def search_forever(name: str) -> None:
    """Print the time and the latency of one search after another, at most 20 a second."""
    collection = Collection(name)
    while True:
        for text in questions():
            began = time.perf_counter()
            collection.search(text, passages=0)
            print(time.time(), (time.perf_counter() - began) * 1000, flush=True)
            time.sleep(0.05)
            collection._searcher._vectors.clear()  # a remembered query would cost nothing


def migrate(name: str, model: str, *, gentle: bool, swap: bool) -> subprocess.Popen:
    """Start `osembed migrate` in a process of its own."""
    options = ["--gentle" if gentle else "--full-speed", "--no-gate", *([] if swap else ["--no-swap"])]
    return subprocess.Popen(
        [Path(sys.executable).parent / "osembed", "migrate", "--model", model, "--collection", name, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_copying(collection: Collection, process: subprocess.Popen) -> None:
    """Wait until the first windows of a migration are copied."""
    while not ((state := collection.migration().state) and state.phase == "copy" and state.progress.get("done", 0) > 0):
        assert process.poll() is None, "the migration ended before it copied anything"
        time.sleep(0.1)


def embedded(collection: Collection, index: str) -> int:
    """Count the documents of an index that have a vector."""
    collection.client.indices.refresh(index=index)
    return int(collection.client.count(index=index, body={"query": {"exists": {"field": "identity"}}})["count"])


def papers(folder: Path, count: int, times: int = 1) -> str:
    """Write the first papers, `times` over under other ids and with other words at their start; return the file."""
    path = folder / f"papers-{count}-{times}.jsonl"
    with path.open("wb") as file:
        for copy in range(times):
            for key, title, text in islice(read_papers(), count):
                record = {"id": f"{key}-{copy}", "title": f"{title} {copy}", "text": text}
                file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
    return str(path)


def fresh(name: str) -> Collection:
    """Return a collection under which nothing stands."""
    collection = Collection(name)
    drop(collection)
    return collection


if __name__ == "__main__":
    main()
