"""What the benchmark programs share: where the data is, what the machine is, where results go."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from osembed import Collection

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def data_folder() -> Path:
    """Return the folder of real collections: OSEMBED_DATA, else ../shared/data, else shared/data; ends the program where there is none."""
    candidates = [Path(os.environ["OSEMBED_DATA"])] if "OSEMBED_DATA" in os.environ else [ROOT.parent / "shared/data", ROOT / "shared/data"]
    for folder in candidates:
        if folder.is_dir():
            return folder
    sys.exit("No collections to measure on: set OSEMBED_DATA to a folder with fulltext/, scifact/, cranfield/ and cystic-fibrosis/.")


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
