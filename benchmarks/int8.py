"""all-MiniLM-L6-v2 in int8 beside osembed's own forward: as this CPU is, and held to what older CPUs have.

python benchmarks/int8.py       about 8 minutes; needs OpenVINO: pip install -e '.[openvino]'
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from itertools import islice
from pathlib import Path

from common import read_papers, save
from embed import MODEL, Worker, abstracts, chunks, in_turns, ndcg, ratio, titles

from osembed.embed.load import has_bf16
from osembed.embed.quantise import quantise
from osembed.models.registry import open_model
from osembed.papers.paper import Paper

ROUNDS = 5
OWN = "bf16" if has_bf16() else "fp32"
# What oneDNN, which torch and OpenVINO both compute with, may use; the precision that osembed would choose there.
CPUS = {
    f"this CPU ({OWN})": ("DEFAULT", OWN),
    "held to AVX-512 with VNNI (fp32)": ("AVX512_CORE_VNNI", "fp32"),
    "held to AVX2 with VNNI (fp32)": ("AVX2_VNNI", "fp32"),
}


def main() -> None:
    texts = {"chunks of full papers": chunks(256), "abstracts": abstracts(256), "titles": titles(1000)}
    papers = (Paper(key, title, "", body, {}, "", {}) for key, title, body in islice(read_papers(5), 40))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "minilm-int8"
        made = quantise(open_model(MODEL), papers, folder)
        exact, small = Worker("osembed", "fp32"), Worker("osembed", "auto", str(folder))
        quality = {"fp32": ndcg(exact.vectors), "int8": ndcg(small.vectors, queries=small.vectors)}
        exact.close()
        small.close()
        cpus = {name: measure(isa, precision, str(folder), texts) for name, (isa, precision) in CPUS.items()}
    figures = {
        "texts": {what: len(batch) for what, batch in texts.items()},
        "rounds": ROUNDS,
        "cpus": cpus,
        "cosine": {"min": made.cosine_min, "mean": made.cosine_mean},
        "scifact_ndcg@10": {name: round(value, 4) for name, value in quality.items()},
    }
    print(json.dumps(figures, indent=1))
    save("int8", figures)


def measure(isa: str, precision: str, folder: str, texts: dict[str, list[str]]) -> dict:
    """Return texts/s of both, in turns, and how many times as fast int8 is."""
    os.environ["ONEDNN_MAX_CPU_ISA"] = isa
    workers, found = {"own": Worker("osembed", precision), "int8": Worker("osembed", "auto", folder)}, {}
    for what, batch in texts.items():
        times = in_turns(workers, batch, ROUNDS)
        rates = {f"{name}_per_s": round(len(batch) / statistics.median(took), 1) for name, took in times.items()}
        found[what] = {**rates, "ratio": ratio(times["own"], times["int8"])}
    for worker in workers.values():
        worker.close()
    return found


if __name__ == "__main__":
    main()
