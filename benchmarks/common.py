"""What the benchmark programs share: where the data is, what the machine is, where results go."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from osembed import Collection

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def find_data() -> Path | None:
    """Return the folder of real collections, kept outside the repository: OSEMBED_DATA, else ../shared/data, else shared/data."""
    candidates = [Path(os.environ["OSEMBED_DATA"])] if "OSEMBED_DATA" in os.environ else [ROOT.parent / "shared/data", ROOT / "shared/data"]
    return next((folder for folder in candidates if (folder / "fulltext").is_dir()), None)


def data_folder() -> Path:
    """Return the folder of real collections; ends the program where there is none."""
    return find_data() or sys.exit(
        "No collections to measure on: set OSEMBED_DATA to a folder with fulltext/, scifact/, cranfield/ and cystic-fibrosis/."
    )


def read_papers(step: int = 1) -> Iterator[tuple[str, str, str]]:
    """Yield id, title and body of every `step`-th full paper."""
    for source in sorted((data_folder() / "fulltext").glob("*.txt"))[::step]:
        title, _, body = source.read_text().partition("\n")
        yield source.stem, title, body


def questions(step: int = 1) -> list[str]:
    """Return the beginnings of titles, as somebody would search for them."""
    return [title[:120] for _, title, _ in read_papers(step)]


def machine() -> dict[str, Any]:
    """Return hardware and versions, as every result states them."""
    flags, model = "", platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith("flags")), "")
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "instructions": [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags.split()],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "tokenizers", "opensearch-py", "osembed")},
    }


def drop(collection: Collection) -> None:
    """Delete what stands under a collection's name."""
    for index in collection.client.indices.get(index=f"{collection.name}*", params={"expand_wildcards": "all"}):
        collection.client.indices.delete(index=index)


def quantile(values: list[float], percent: int) -> float:
    """Return a percentile of two or more values, rounded."""
    return round(statistics.quantiles(values, n=100)[percent - 1], 2)


def save(name: str, figures: dict[str, Any]) -> None:
    """Write a result beside the others, with the machine it was measured on."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **figures}, indent=1) + "\n")
    print(f"written to {path.relative_to(ROOT)}")
