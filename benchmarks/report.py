"""Write docs/performance.md, its plot and the table of docs/scale.md from the results of the other programs.

python benchmarks/report.py        the plot needs matplotlib: pip install -e '.[bench]'
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from common import RESULTS, ROOT

from osembed.opensearch.schema import read_mapping

HEAD = """# Speed and memory

Written by `benchmarks/report.py` from `benchmarks/results/`; do not edit. To measure again, set `OSEMBED_DATA` to
the folder of the collections and run `python benchmarks/embed.py`, `int8.py`, `compare.py`, `ingest.py`, `search.py`, `migrate.py`, then
`report.py`; with a GPU also `gpu.py`. `benchmarks/check.py`, which is part of `scripts/test`, fails if a ratio drops to half.
"""
SCALE = "<!-- measured -->"


def main() -> None:
    names = ("embed", "int8", "compare", "ingest", "search", "migrate")
    embed, int8, compare, ingest, search, migrate = (json.loads((RESULTS / f"{name}.json").read_text()) for name in names)
    facts = ingest["machine"]
    text = [HEAD, f"\nMachine: {facts['cores']} cores of {facts['cpu']} ({', '.join(facts['instructions'])}), {facts['memory_gb']} GB; "]
    text.append(
        f"torch {facts['torch']}, OpenSearch 3.6.0 on the same cores (embedded node). The machine is shared and noisy: compare ratios, "
        "not absolute numbers.\n"
    )
    text += [compare_part(compare), embed_part(embed), int8_part(int8), ingest_part(ingest), search_part(search), migrate_part(migrate)]
    (ROOT / "docs" / "performance.md").write_text("".join(text))
    plot(compare, embed)
    page = ROOT / "docs" / "scale.md"
    before, _, after = page.read_text().split(SCALE)
    page.write_text(f"{before}{SCALE}\n{scale_part(ingest)}\n{SCALE}{after}")


def table(*rows: Iterable[object]) -> str:
    """Return a Markdown table; the first row is its head."""
    head, *others = ([str(cell) for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *others)) + "\n"


def compare_part(figures: dict) -> str:
    head = ("documents/s", "tokens/s", "CPU seconds", "peak memory", "osembed is")
    tables = []
    for what, part in figures["inputs"].items():
        rows = [
            (
                name,
                f"{row['documents_per_s']:.1f}",
                f"{row['tokens_per_s']:,}",
                f"{row['cpu_s']:.1f}",
                f"{row['peak_mb']:,} MB",
                "" if name == "osembed ingest" else f"{row['osembed_is']:.2f} times as fast",
            )
            for name, row in part["runs"].items()
        ]
        tables.append(table((f"{part['documents']:,} {what}, {part['tokens']:,} tokens", *head), *rows))
    versions = "; ".join(f"{kind}: {text}" for kind, text in figures["versions"].items())
    return f"""
## From a file to a searchable index, all-MiniLM-L6-v2

The same texts are loaded into the same embedded node until all are searchable, by each program with its model loaded; medians of
{figures["rounds"]} rounds in turns. *Tuned*: the model in bf16, all texts in one call, one bulk load. All programs embed the same tokens: the
abstracts are those of SciFact that fit the model; for full papers, the other programs get osembed's chunks, cut beforehand.
osembed writes two indexes (papers and chunks), the others write one.

{chr(10).join(tables)}
![documents and chunks per second](performance.svg)

{versions}.
"""


def embed_part(figures: dict) -> str:
    rates, ratios, texts = figures["texts_per_s"], figures["ratio"], figures["texts"]
    rows = [(way, *(f"{rates[what][way]:,.1f}" for what in texts)) for way in next(iter(rates.values()))]
    for base, words in (("to defaults", "osembed to SentenceTransformer's defaults"), ("to bf16", "osembed to its bf16")):
        rows.append((f"**{words}**", *(f"**{ratios[what][base]:.2f} times**" for what in texts)))
    cosine, gemm = figures["cosine_to_library"], figures["gemm"]
    ndcg = ", ".join(f"{name} {value:.4f}" for name, value in figures["scifact_ndcg@10"].items())
    return f"""
## Texts in, vectors out, all-MiniLM-L6-v2

Each encoder runs in a process that stays alive, in turns; medians of {figures["rounds"]} rounds, in texts/s.

{table(("", *(f"{count:,} {what}" for what, count in texts.items())), *rows)}
On chunks osembed reaches {gemm["share"]:.0%} of this machine's measured matrix product ({gemm["gflops"]:,} GFLOP/s in the
precision it chose). Its vectors against the library's in fp32, {cosine["texts"]:,} texts: cosine {cosine["min"]:.5f} at least.
nDCG@10 on SciFact by exact search: {ndcg}.
"""


def int8_part(figures: dict) -> str:
    texts, cosine = figures["texts"], figures["cosine"]
    rows = [
        (cpu, *(f"{row['own_per_s']:,.1f} → {row['int8_per_s']:,.1f}: **{row['ratio']:.2f} times**" for row in found.values()))
        for cpu, found in figures["cpus"].items()
    ]
    ndcg = ", ".join(f"{name} {value:.4f}" for name, value in figures["scifact_ndcg@10"].items())
    return f"""
## In int8, through OpenVINO

`osembed models quantise` on passages of full papers (not of the collections used to evaluate), compared with osembed's own forward pass in its
default precision; texts/s, in turns, medians of {figures["rounds"]} rounds. Older CPUs are simulated by limiting oneDNN, which both use, to
their instructions. On CPUs with bf16, int8 is not faster. Vectors to fp32: cosine {cosine["mean"]:.4f} on average, {cosine["min"]:.4f} at
least; nDCG@10 on SciFact by exact search: {ndcg}.

{table(("CPU", *(f"{count:,} {what}" for what, count in texts.items())), *rows)}"""


def ingest_part(figures: dict) -> str:
    stages = ("forward", "tokenise", "serialise", "server")
    head = ("run", "papers", "chunks", "chunks/s", "tokens/s", *stages[:3], "waiting for the server", "CPU", "peak memory of the client")
    runs = figures["runs"]
    rows = [
        (
            name,
            run["read"],
            f"{run['chunks']:,}",
            f"{run['chunks'] / run['seconds']['wall']:.1f}",
            f"{run['tokens_per_s']:,}",
            *(f"{run['shares'].get(stage, 0):.1%}" for stage in stages),
            f"{run['cpu_s']:,.0f} s of {run['seconds']['wall']:,.0f} s",
            f"{run['peak_mb']:,} MB",
        )
        for name, run in runs.items()
    ]
    once, most = runs["1x"], runs["10x"]
    spent = ", ".join(f"{way} {seconds:.3f}" for way, seconds in figures["cpu_s_per_1000"].items())
    return f"""
## Ingest: {figures["papers"]} full papers (median 6,200 words), all-MiniLM-L6-v2, both levels

The papers once, three and ten times under different ids. Shares are of wall time; stages overlap, so they sum to more than one.
*Unchanged* is the first input again: {runs["unchanged"]["seconds"]["wall"]:.1f} s. Ten times the papers take
{most["peak_mb"] / once["peak_mb"]:.2f} times the peak memory, at {most["tokens_per_s"] / once["tokens_per_s"]:.2f} times the rate.

{table(head, *rows)}
CPU seconds of the client for 1,000 chunks with their vectors, from documents to acknowledged writes: {spent}.
"""


def scale_part(figures: dict) -> str:
    head = ("run", "documents", "tokens/s", "client's peak memory", "vectors / formula", "graph / formula")
    rows, neighbours = [], read_mapping("profiles.json")["lucene"]["method"]["parameters"]["m"]
    for name, run in figures["runs"].items():
        if "server" in run:
            kept, count = run["server"], run["server"]["vectors"]
            vectors, graph = kept["vector_bytes"] / (4 * kept["dimension"] * count), kept["graph_bytes"] / (8 * neighbours * count)
            rows.append((name, f"{count:,}", f"{run['tokens_per_s']:,}", f"{run['peak_mb']:,} MB", f"{vectors:.3f}", f"{graph:.2f}"))
    return table(head, *rows)


def plot(compare: dict, embed: dict) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "osembed", "svg.fonttype": "none"})
    from matplotlib import pyplot

    papers = compare["inputs"]["chunks of full papers"]["runs"]
    bars = {name: row["documents_per_s"] for name, row in papers.items()}
    texts = embed["texts_per_s"]["chunks of full papers"]
    figure, panes = pyplot.subplots(1, 2, figsize=(11, 3.2), layout="constrained")
    for pane, values, title in zip(
        panes, (bars, texts), ("chunks of full papers/s, from file to index", "chunks of full papers/s, embedded only"), strict=True
    ):
        colours = ["#1f6f8b" if name.startswith("osembed") else "#b8c4cc" for name in values]
        drawn = pane.barh(list(values), list(values.values()), color=colours)
        pane.bar_label(drawn, fmt="%.0f", padding=3)
        pane.invert_yaxis()
        pane.spines[["top", "right"]].set_visible(False)
        pane.set_title(title, fontsize=10, loc="left")
    figure.savefig(ROOT / "docs" / "performance.svg", metadata={"Date": None})


def search_part(figures: dict) -> str:
    lines = [f"\n## Search over {figures['chunks']:,} chunks, {figures['requests']} requests each, interleaved\n"]
    rows = [(name, f"{row['p50_ms']:.1f} ms", f"{row['p99_ms']:.1f} ms") for name, row in figures["latency"].items()]
    lines.append(table(("what", "p50", "p99"), *rows))
    together = ", ".join(f"{name} {rate:,.0f}" for name, rate in figures["queries_per_s"].items())
    lines.append(
        f"The default search takes {figures['to_bare_and_embedding']:.2f} times the bare request and one query embedding (p50). "
        f"Queries embedded per second with {figures['threads']} threads: {together}.\n"
    )
    shell = ", ".join(f"`{name}` {seconds:.2f} s" for name, seconds in figures["shell_s"].items())
    lines.append(f"From the shell, against a warm node, median of 5: {shell}.\n")
    return "\n".join(lines)


def migrate_part(figures: dict) -> str:
    speed, gentle, fences, memory = (figures[name] for name in ("speed", "gentle", "fences", "memory"))
    rates, latency = speed["documents_per_s"], gentle["latency"]
    again = ", ".join(f"{kill['embedded_again']} of {kill['embedded_before']} done" for kill in figures["killed"]["kills"])
    lines = ["\n## Migration, all-MiniLM-L6-v2 to its mirror image (the same cost), both levels\n"]
    lines.append(
        f"Full speed: {rates['copy']:.0f} documents/s copied, compared with {rates['ingest']:.0f} in a plain ingest of the same texts, "
        f"in turns: {speed['copy_share']:.2f} times; {speed['whole_share']:.2f} times with plan, verification and swap "
        f"({speed['documents']:,} documents).\n"
    )
    copied = gentle["documents_per_s"]
    rows = [
        (way, f"{row['p50_ms']:.1f} ms", f"{row['p99_ms']:.1f} ms", row["searches"], f"{copied[way]:.0f}" if way in copied else "")
        for way, row in latency.items()
    ]
    lines.append(table(("searches by another process at the same time", "p50", "p99", "searches", "documents/s copied"), *rows))
    lines.append(
        f"`--gentle` compared with idle, in the same run: p50 {gentle['p50_ratio']:.2f} times, p99 {gentle['p99_ratio']:.2f} times.\n"
    )
    lines.append(
        f"{fences['swaps']} swaps and rollbacks with concurrent writers (osembed, programs that bypass it, 250 documents a second in bulk): "
        f"fence p50 {fences['fence_p50_ms']:.0f} ms, longest {fences['fence_max_ms']:.0f} ms; "
        f"{fences['given_up']} swaps postponed and tried again. "
        f"{fences['acknowledged_operations']:,} acknowledged operations checked at the end: {fences['lost']} lost. "
        f"{fences['searches']:,} searches, all in the right vector space; "
        f"{fences['failed_library_requests']} failed requests by osembed.\n"
    )
    runs = ", ".join(f"{run['peak_mb']:,} MB for {run['documents']:,} documents" for run in memory["runs"].values())
    lines.append(f"Peak memory of the migrating process: {runs} ({memory['ratio']:.2f} times). ")
    lines.append(f"Documents embedded twice after a kill during the copy and a second run: {again}.\n")
    rows = []
    for name, way in (("better", "half the layers → all-MiniLM-L6-v2"), ("worse", "all-MiniLM-L6-v2 → half the layers")):
        judged = figures["gate"][name]
        ndcg = next(row for row in judged["metrics"] if row["name"] == "ndcg@10")
        change = f"{ndcg['difference']:+.3f}, {ndcg['lower']:+.3f}"
        rows.append((way, f"{ndcg['blue']:.3f}", f"{ndcg['green']:.3f}", change, f"{ndcg['p']:.4f}", judged["verdict"]))
    head = ("SciFact, 300 judged queries, hybrid", "nDCG@10 before", "after", "difference, lower 95 % bound", "p", "the gate")
    lines.append(table(head, *rows))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
