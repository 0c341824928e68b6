"""Ingest the full-text papers once, and three times under other ids: rates, stages, memory; then once more unchanged.

python benchmarks/ingest.py            each run in a process of its own, on the embedded node (or OSEMBED_URL)
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from common import data_folder, drop, save

from osembed import Collection

# Runs one ingest and reports its summary with the process's own peak memory.
RUN = """
import dataclasses, json, resource, sys
from osembed import Collection
summary = Collection(sys.argv[1]).ingest([sys.argv[2]])
figures = dataclasses.asdict(summary)
figures["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(json.dumps(figures, default=dict))
"""


def main() -> None:
    papers = sorted((data_folder() / "fulltext").glob("*.txt"))
    with tempfile.TemporaryDirectory() as scratch:
        once, thrice = Path(scratch) / "once.jsonl", Path(scratch) / "thrice.jsonl"
        write(once, papers, 1)
        write(thrice, papers, 3)
        figures = {}
        for name, file, collection in (("once", once, "bench-1x"), ("thrice", thrice, "bench-3x"), ("unchanged", once, "bench-1x")):
            if name != "unchanged":
                drop(Collection(collection))
            figures[name] = measure(collection, file)
            show(name, figures[name])
    ratio = figures["thrice"]["peak_mb"] / figures["once"]["peak_mb"]
    print(f"peak memory three times over once: {ratio:.3f}")
    save("ingest", {"papers": len(papers), "memory_ratio": round(ratio, 3), "runs": figures})


def write(file: Path, papers: list[Path], copies: int) -> None:
    """Write the papers as JSON lines, each copy under its own ids."""
    with file.open("w") as lines:
        for copy in range(copies):
            for paper in papers:
                title, _, body = paper.read_text().partition("\n")
                text = body if copy == 0 else f"Copy {copy}. {body}"
                lines.write(json.dumps({"id": f"{paper.stem}-{copy}", "title": title, "text": text}) + "\n")


def measure(collection: str, file: Path) -> dict:
    done = subprocess.run([sys.executable, "-c", RUN, collection, str(file)], capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    wall = figures["seconds"]["wall"]
    figures["papers_per_s"], figures["tokens_per_s"] = round(figures["read"] / wall, 2), round(figures["tokens"] / wall)
    figures["shares"] = {name: round(seconds / wall, 3) for name, seconds in figures["seconds"].items() if name != "wall"}
    return figures


def show(name: str, figures: dict) -> None:
    print(
        f"{name:10} {figures['read']:4} papers, {figures['chunks']:6} chunks, {figures['seconds']['wall']:6.1f} s, "
        f"{figures['papers_per_s']:6.2f} papers/s, {figures['tokens_per_s']:6} tokens/s, peak {figures['peak_mb']} MB, {figures['shares']}",
        flush=True,
    )


if __name__ == "__main__":
    main()
