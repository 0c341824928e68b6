"""A GPU beside SentenceTransformer in fp16: mpnet-base (random weights: speed does not depend on them) and all-MiniLM-L6-v2.

python benchmarks/gpu.py          on a machine with a GPU; about 5 minutes
python benchmarks/gpu.py cpu      the same program over a handful of texts on the CPU: shows that it runs, measures nothing
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import read_papers, save
from embed import Worker, chunks, in_turns, ratio, work_of

from osembed.models.folder import read_model
from osembed.models.identity import row_cosines
from osembed.models.registry import open_model
from osembed.models.spec import Model

PEAK = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "A10G": 70, "RTX 4090": 165, "RTX 3090": 71}  # dense fp16 TFLOP/s
ROUNDS = 5


def main(device: str) -> None:
    real = device == "cuda"
    if real and not torch.cuda.is_available():
        sys.exit("No GPU here. `python benchmarks/gpu.py cpu` shows that the program runs.")
    with tempfile.TemporaryDirectory() as scratch:
        models = {"mpnet-base": random_mpnet(Path(scratch)), "all-MiniLM-L6-v2": open_model("all-MiniLM-L6-v2")}
        figures: dict = {"gpu": torch.cuda.get_device_name() if real else "none", "rounds": ROUNDS, "models": {}}
        if real:
            figures["gemm_tflops"] = round(gemm_tflops(), 1)
        for name, model in models.items():
            count = (8192 if name == "mpnet-base" else 32768) if real else 6
            figures["models"][name] = measure(model, device, texts_of(count, model.spec.max_length), ROUNDS if real else 1)
            print(f"{name}: {json.dumps(figures['models'][name], indent=1)}", flush=True)
        peak = next((tflops for part, tflops in PEAK.items() if part in figures["gpu"]), None)
        for row in figures["models"].values():
            row["share_of_peak"] = {way: round(rate / peak, 3) if peak else None for way, rate in row["tflops"].items()}
    print(json.dumps(figures, indent=1))
    if real:
        save("gpu", figures)


def texts_of(count: int, length: int) -> dict[str, list[str]]:
    """Return texts that fill the model, and texts of all lengths."""
    bodies = [body.split() for _, _, body in read_papers()]
    starts = np.random.default_rng(5).integers(0, 3000, count)
    full = [" ".join(bodies[place % len(bodies)][start : start + length]) for place, start in enumerate(starts)]
    sizes = np.random.default_rng(6).integers(10, length, count)
    mixed = [" ".join(text.split()[: max(8, size * 2 // 3)]) for text, size in zip(full, sizes, strict=True)]
    fitted = chunks(min(count, 3000))
    return {"full": full, "mixed": mixed, "chunks as osembed cuts them": (fitted * (count // len(fitted) + 1))[:count]}


def measure(model: Model, device: str, texts: dict[str, list[str]], rounds: int) -> dict:
    """Return rates over texts in → vectors on the host, both ways in turns, and how far the vectors are from full precision."""
    half = "fp16" if device == "cuda" else "fp32"
    ways = {
        "SentenceTransformer": Worker("library", "float16" if device == "cuda" else "float32", str(model.folder), device),
        "osembed": Worker("osembed", half, str(model.folder), device),
    }
    exact = Worker("library", "float32", str(model.folder), device)
    row: dict = {"texts_per_s": {}, "ratio": {}, "tflops": {}, "cosine_to_fp32": {}}
    for what, batch in texts.items():
        times = in_turns(ways, batch, rounds)
        row["texts_per_s"][what] = {way: round(len(batch) / statistics.median(took)) for way, took in times.items()}
        theirs, ours = times.values()
        row["ratio"][what] = ratio(theirs, ours)
        row["tflops"][what] = round(work_of(batch, model) / statistics.median(ours) / 1e12, 1)
        sample = batch[:256]
        row["cosine_to_fp32"][what] = round(float(row_cosines(ways["osembed"].vectors(sample), exact.vectors(sample)).min()), 5)
    for worker in (*ways.values(), exact):
        worker.close()
    return row


def random_mpnet(folder: Path) -> Model:
    """Make mpnet-base with random weights of the usual scale and the vocabulary of all-MiniLM-L6-v2."""
    from transformers import MPNetConfig, MPNetModel

    torch.manual_seed(1)
    own, target = open_model("all-MiniLM-L6-v2").folder, folder / "mpnet-base"
    shutil.copytree(own, target)
    for file in target.glob("*.safetensors"):
        file.unlink()
    MPNetModel(MPNetConfig()).save_pretrained(target)
    (target / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 768, "pooling_mode_mean_tokens": True}))
    (target / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 512, "do_lower_case": False}))
    return read_model(target)


def gemm_tflops() -> float:
    """Return the most TFLOP/s that this GPU's matrix product reaches in fp16 at an encoder's sizes."""
    left, right = torch.randn(65536, 768, device="cuda").half(), torch.randn(768, 3072, device="cuda").half()
    best = 0.0
    for _ in range(50):
        torch.cuda.synchronize()
        began = time.perf_counter()
        left @ right
        torch.cuda.synchronize()
        best = max(best, 2 * 65536 * 768 * 3072 / (time.perf_counter() - began) / 1e12)
    return best


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "cuda")
