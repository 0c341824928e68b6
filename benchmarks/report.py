"""Write docs/performance.md from the results of the other programs.

python benchmarks/report.py
"""

from __future__ import annotations

import json

from common import RESULTS, ROOT

HEAD = """# Speed and memory

Written by `benchmarks/report.py` from `benchmarks/results/`; do not edit. Measure again: `python benchmarks/ingest.py`, `search.py`,
`migrate.py`, `report.py` with the project's environment and `OSEMBED_DATA` naming the collections.
"""


def main() -> None:
    ingest, search, migrate = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("ingest", "search", "migrate"))
    facts = ingest["machine"]
    text = [HEAD, f"\nMachine: {facts['cores']} cores of {facts['cpu']} ({', '.join(facts['instructions'])}), {facts['memory_gb']} GB; "]
    text.append(f"torch {facts['torch']}, OpenSearch 3.6.0 on the same cores (embedded node). Shared and noisy: read ratios, not digits.\n")
    text.append(ingest_part(ingest))
    text.append(search_part(search))
    text.append(migrate_part(migrate))
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


def migrate_part(figures: dict) -> str:
    speed, gentle, fences, memory = (figures[name] for name in ("speed", "gentle", "fences", "memory"))
    rates, latency = speed["documents_per_s"], gentle["latency"]
    again = ", ".join(f"{kill['embedded_again']} of {kill['embedded_before']} done" for kill in figures["killed"]["kills"])
    lines = ["\n## Migration, all-MiniLM-L6-v2 to its mirror image (the same cost), both levels\n"]
    lines.append(
        f"Full speed: {rates['copy']:.0f} documents/s copied, against {rates['ingest']:.0f} of plain ingest of the same texts in turns: "
        f"{speed['copy_share']:.2f} of it; {speed['whole_share']:.2f} with plan, verification and swap ({speed['documents']:,} documents).\n"
    )
    lines += ["| searches of another process meanwhile | p50 | p99 | searches | documents/s copied |", "|---|---|---|---|---|"]
    for way, row in latency.items():
        rate = gentle["documents_per_s"].get(way)
        lines.append(f"| {way} | {row['p50_ms']:.1f} ms | {row['p99_ms']:.1f} ms | {row['searches']} | {f'{rate:.0f}' if rate else ''} |")
    lines.append(f"\n`--gentle` against idle, in the same run: p50 {gentle['p50_ratio']:.2f} times, p99 {gentle['p99_ratio']:.2f} times.\n")
    lines.append(
        f"{fences['swaps']} swaps and rollbacks under writers (library, by-passing, 250 a second in bulk): "
        f"fence p50 {fences['fence_p50_ms']:.0f} ms, longest {fences['fence_max_ms']:.0f} ms; "
        f"{fences['given_up']} fences given up and tried again. "
        f"{fences['acknowledged_operations']:,} acknowledged operations looked for at the end: {fences['lost']} lost. "
        f"{fences['searches']:,} searches, all in the right space; "
        f"{fences['failed_library_requests']} failed library requests.\n"
    )
    runs = ", ".join(f"{run['peak_mb']:,} MB for {run['documents']:,} documents" for run in memory["runs"].values())
    lines.append(f"Peak memory of the migrating process: {runs} ({memory['ratio']:.2f} times). ")
    lines.append(f"Killed while copying and run again, embedded twice: {again}.\n")
    lines.append("| SciFact, 300 judged queries, hybrid | nDCG@10 before | after | difference, lower 95 % bound | p | the gate |")
    lines.append("|---|---|---|---|---|---|")
    for name, way in (("better", "half the layers → all-MiniLM-L6-v2"), ("worse", "all-MiniLM-L6-v2 → half the layers")):
        judged = figures["gate"][name]
        ndcg = next(row for row in judged["metrics"] if row["name"] == "ndcg@10")
        scores = f"{ndcg['blue']:.3f} | {ndcg['green']:.3f} | {ndcg['difference']:+.3f}, {ndcg['lower']:+.3f}"
        lines.append(f"| {way} | {scores} | {ndcg['p']:.4f} | {judged['verdict']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
