"""Ingest full-text papers once, three and ten times under other ids: rates, stages, memory, what the server keeps; then once more unchanged.

python benchmarks/ingest.py            about 10 minutes; each run in a process of its own, on the embedded node (or OSEMBED_URL)
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import drop, read_papers, save
from opensearchpy import OpenSearch, helpers

from osembed import Collection
from osembed.opensearch import operation
from osembed.opensearch.bulk import BulkLoop

SHARE = 3  # every third paper of the collection
COPIES = (1, 3, 10)
SENT = 5000
# Runs one ingest and reports its summary with the process's own peak memory and CPU time.
RUN = """
import dataclasses, json, resource, sys
from osembed import Collection
summary = Collection(sys.argv[1]).ingest([sys.argv[2]])
figures = dataclasses.asdict(summary)
used = resource.getrusage(resource.RUSAGE_SELF)
figures["peak_mb"], figures["cpu_s"] = round(used.ru_maxrss / 1024), round(used.ru_utime + used.ru_stime, 1)
print(json.dumps(figures, default=dict))
"""


def main() -> None:
    papers = list(read_papers(SHARE))
    figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        for copies in COPIES:
            file = Path(scratch) / f"{copies}.jsonl"
            write(file, papers, copies)
            drop(Collection(f"bench-{copies}x"))
            figures[f"{copies}x"] = {**measure(f"bench-{copies}x", file), "server": kept(f"bench-{copies}x")}
            show(f"{copies}x", figures[f"{copies}x"])
            if copies > 1:
                drop(Collection(f"bench-{copies}x"))
        figures["unchanged"] = measure("bench-1x", Path(scratch) / "1.jsonl")
        show("unchanged", figures["unchanged"])
    carried = transport()
    print(f"client's CPU seconds per 1,000 documents sent: {carried}")
    save("ingest", {"papers": len(papers), "runs": figures, "cpu_s_per_1000": carried})


def transport() -> dict[str, float]:
    """Return the CPU seconds that a client needs to write 1,000 chunks with their vectors, by osembed's bulk loop and by the client's helper."""
    collection = Collection("bench-transport")
    client, vectors = collection.client, np.random.default_rng(3).normal(size=(SENT, 384)).astype(np.float32)
    field = {"type": "knn_vector", "dimension": 384, "method": {"name": "hnsw", "engine": "lucene", "space_type": "innerproduct"}}
    body = {"settings": {"index": {"knn": True, "number_of_replicas": 0}}, "mappings": {"properties": {"embedding": field}}}
    documents = [{"text": f"{number} " + "measured in water " * 60, "embedding": vector} for number, vector in enumerate(vectors)]
    spent: dict[str, list[float]] = {"osembed": [], "opensearch-py's helper": []}
    for turn in range(4):
        for way, times in spent.items():
            drop(collection)
            client.indices.create(index="bench-transport-1", body={**body, "aliases": {"bench-transport": {}}})
            began = time.process_time()
            if way == "osembed":
                loop = BulkLoop(client)
                loop.send(operation.put("bench-transport", str(number), document) for number, document in enumerate(documents))
                loop.close()
            else:
                rows = ({**document, "embedding": document["embedding"].tolist()} for document in documents)
                plain = OpenSearch(str(collection.server.url))
                helpers.bulk(plain, ({"_index": "bench-transport", "_id": n, "_source": row} for n, row in enumerate(rows)))
            if turn:  # the first warms up
                times.append(time.process_time() - began)
    drop(collection)
    return {way: round(statistics.median(times) / SENT * 1000, 4) for way, times in spent.items()}


def kept(collection: str) -> dict:
    """Return what the server keeps of a collection after merging: bytes of vectors and of their graphs, for how many vectors."""
    client, targets = Collection(collection).client, Collection(collection)._searcher.targets()
    indexes = [target.index for target in targets.values()]
    client.indices.forcemerge(index=indexes, max_num_segments=1, request_timeout=1200)
    client.indices.refresh(index=indexes)
    stats = client.indices.stats(index=indexes, metric="segments", params={"include_segment_file_sizes": "true"})["_all"]["primaries"]
    files = {name: part["size_in_bytes"] for name, part in stats["segments"]["file_sizes"].items()}
    return {
        "vectors": client.count(index=indexes)["count"],
        "dimension": targets["chunks"].meta.identity.dimension,
        "vector_bytes": files.get("vec", 0),
        "graph_bytes": files.get("vex", 0),
    }


def write(file: Path, papers: list[tuple[str, str, str]], copies: int) -> None:
    """Write the papers as JSON lines, each copy under its own ids."""
    with file.open("w") as lines:
        for copy in range(copies):
            for key, title, body in papers:
                text = body if copy == 0 else f"Copy {copy}. {body}"
                lines.write(json.dumps({"id": f"{key}-{copy}", "title": title, "text": text}) + "\n")


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
