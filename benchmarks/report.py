"""Write docs/performance.md from the results of the other programs.

python benchmarks/report.py
"""

from __future__ import annotations

import json

from common import RESULTS, ROOT

HEAD = """# Speed and memory

Written by `benchmarks/report.py` from `benchmarks/results/`; do not edit. Measure again: `python benchmarks/ingest.py`, `search.py`, `report.py`
with the project's environment and `OSEMBED_DATA` naming the collections.
"""


def main() -> None:
    ingest, search = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("ingest", "search"))
    facts = ingest["machine"]
    text = [HEAD, f"\nMachine: {facts['cores']} cores of {facts['cpu']} ({', '.join(facts['instructions'])}), {facts['memory_gb']} GB; "]
    text.append(f"torch {facts['torch']}, OpenSearch 3.6.0 on the same cores (embedded node). Shared and noisy: read ratios, not digits.\n")
    text.append(ingest_part(ingest))
    text.append(search_part(search))
    (ROOT / "docs" / "performance.md").write_text("".join(text))


def ingest_part(figures: dict) -> str:
    lines = [f"\n## Ingest: {figures['papers']} full papers (median 6,200 words), all-MiniLM-L6-v2, both levels\n"]
    lines.append(
        "| run | papers | chunks | papers/s | tokens/s | forward | tokenise | serialise | waiting for the server | peak memory of the client |"
    )
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for name, run in figures["runs"].items():
        shares = " | ".join(f"{run['shares'].get(stage, 0):.1%}" for stage in ("forward", "tokenise", "serialise", "server"))
        rates = f"{run['papers_per_s']:.2f} | {run['tokens_per_s']:,}"
        lines.append(f"| {name} | {run['read']} | {run['chunks']:,} | {rates} | {shares} | {run['peak_mb']:,} MB |")
    lines.append("\nShares are of wall time; stages overlap, so they sum to more than one. *Unchanged* is the first input once more: ")
    lines.append(f"{figures['runs']['unchanged']['seconds']['wall']:.1f} s. Three times the papers under other ids: ")
    lines.append(f"{figures['memory_ratio']:.2f} times the peak memory.\n")
    return "\n".join(lines[:-3]) + "\n" + "".join(lines[-3:])


def search_part(figures: dict) -> str:
    lines = [f"\n## Search over {figures['chunks']:,} chunks, {figures['requests']} requests each, interleaved\n"]
    lines += ["| what | p50 | p99 |", "|---|---|---|"]
    lines += [f"| {name} | {row['p50_ms']:.1f} ms | {row['p99_ms']:.1f} ms |" for name, row in figures["latency"].items()]
    shell = ", ".join(f"`{name}` {seconds:.2f} s" for name, seconds in figures["shell_s"].items())
    lines.append(f"\nFrom the shell, against a warm node, median of 5: {shell}.\n")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
