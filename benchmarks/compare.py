"""The same texts into the same node by osembed, a plain script, LangChain and Haystack: documents/s, tokens/s, CPU time, memory.

python benchmarks/compare.py      about 20 minutes; makes one environment each for LangChain and Haystack in the cache folder, once

Every run is a process of its own on an empty index; its clock starts when the model is loaded and stops when all documents are searchable. Two
inputs, so chosen that everybody embeds the same tokens: abstracts that the model sees whole, and full papers, which osembed cuts into chunks
within the measured time while the others get the very same chunks cut beforehand.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import venv
from itertools import islice
from pathlib import Path

from common import data_folder, drop, read_papers, save

from osembed import Collection
from osembed.models.registry import open_model
from osembed.papers.paper import Paper, clean_text
from osembed.passages.chunk import ChunkRule, cut_papers
from osembed.passages.tokens import Tokeniser
from osembed.paths import cache_folder

MODEL = "all-MiniLM-L6-v2"
ABSTRACTS, PAPERS = 700, 10
ROUNDS = 3
PACKAGES = {
    "langchain": ["langchain-community", "langchain-huggingface"],
    "haystack": ["haystack-ai", "opensearch-haystack", "sentence-transformers-haystack"],
}
NAMES = {
    ("own", "default"): "osembed ingest",
    ("script", "default"): "plain script",
    ("script", "tuned"): "plain script, tuned",
    ("langchain", "default"): "LangChain",
    ("langchain", "tuned"): "LangChain, tuned",
    ("haystack", "default"): "Haystack",
    ("haystack", "tuned"): "Haystack, tuned",
}

HEAD = """
import json, os, resource, sys, time
file, folder, url, index, tuned = *sys.argv[1:5], sys.argv[5] == "tuned"
records = [json.loads(line) for line in open(file)]
host, port = url.removeprefix("http://").split(":")

def report(began, cpu):
    wall = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"wall_s": wall, "cpu_s": time.process_time() - cpu, "peak_mb": used.ru_maxrss / 1024}))
"""

OWN = """
from osembed import Collection, choose_models
from osembed.models import open_model
collection = Collection(index, url)
collection._encoders.load(open_model("all-MiniLM-L6-v2"))
began, cpu = time.perf_counter(), time.process_time()
collection.ingest(file, choose_models("all-MiniLM-L6-v2"), min_words=0)
report(began, cpu)
"""

SCRIPT = """
import torch
from opensearchpy import OpenSearch, helpers
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(folder, device="cpu", local_files_only=True)
model.max_seq_length = 256
if tuned:
    model = model.to(torch.bfloat16)
client = OpenSearch(url, timeout=60)
method = {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"}
vector = {"type": "knn_vector", "dimension": 384, "method": method}
mapping = {"properties": {"vector": vector, "title": {"type": "text"}, "text": {"type": "text"}}}
began, cpu = time.perf_counter(), time.process_time()
client.indices.create(index=index, body={"settings": {"index": {"knn": True, "number_of_replicas": 0}}, "mappings": mapping})
texts = [f"{record['title']} {record['text']}" for record in records]
if tuned:
    vectors = model.encode(texts, batch_size=32, convert_to_tensor=True).float().numpy()
else:
    vectors = (model.encode(text) for text in texts)
actions = (
    {"_index": index, "_id": record["_id"], "title": record["title"], "text": record["text"], "vector": vector.tolist()}
    for record, vector in zip(records, vectors)
)
helpers.bulk(client, actions, refresh=False)
client.indices.refresh(index=index)
report(began, cpu)
"""

LANGCHAIN = """
import torch
from langchain_community.vectorstores import OpenSearchVectorSearch
from langchain_huggingface import HuggingFaceEmbeddings
options = {"device": "cpu", "local_files_only": True, **({"model_kwargs": {"dtype": torch.bfloat16}} if tuned else {})}
embeddings = HuggingFaceEmbeddings(model_name=folder, model_kwargs=options)
embeddings.embed_query("warm")
store = OpenSearchVectorSearch(url, index, embeddings, engine="lucene", bulk_size=100000)
began, cpu = time.perf_counter(), time.process_time()
texts = [f"{record['title']} {record['text']}" for record in records]
store.add_texts(texts, [{"title": record["title"]} for record in records], ids=[record["_id"] for record in records], engine="lucene")
report(began, cpu)
"""

HAYSTACK = """
import torch
from haystack import Document
from haystack_integrations.components.embedders.sentence_transformers import SentenceTransformersDocumentEmbedder
from haystack_integrations.document_stores.opensearch import OpenSearchDocumentStore
from haystack.document_stores.types import DuplicatePolicy
options = {"local_files_only": True, **({"dtype": torch.bfloat16} if tuned else {})}
embedder = SentenceTransformersDocumentEmbedder(model=folder, model_kwargs=options, progress_bar=False, meta_fields_to_embed=["title"])
embedder.warm_up()
method = {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"}
store = OpenSearchDocumentStore(hosts=url, index=index, embedding_dim=384, method=method)
began, cpu = time.perf_counter(), time.process_time()
documents = [Document(id=record["_id"], content=record["text"], meta={"title": record["title"]}) for record in records]
done = embedder.run(documents)["documents"]
store.write_documents(done, policy=DuplicatePolicy.OVERWRITE)
report(began, cpu)
"""

PROGRAMS = {"own": OWN, "script": SCRIPT, "langchain": LANGCHAIN, "haystack": HAYSTACK}


def main() -> None:
    url = Collection("bench").server.url
    pythons = {kind: environment(kind, PACKAGES[kind]) if kind in PACKAGES else Path(sys.executable) for kind in PROGRAMS}
    figures: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for what, (own, others) in {"abstracts": abstracts(), "chunks of full papers": full_papers()}.items():
            files = {"own": Path(scratch) / "own.jsonl", "others": Path(scratch) / "others.jsonl"}
            for file, records in zip(files.values(), (own, others), strict=True):
                file.write_text("".join(json.dumps(record) + "\n" for record in records))
            figures[what] = compare(what, url, pythons, files, others)
    print(json.dumps(figures, indent=1))
    save("compare", {"rounds": ROUNDS, "versions": versions(pythons), "inputs": figures})


def abstracts() -> tuple[list[dict], list[dict]]:
    """Return abstracts of SciFact that the model sees whole, for osembed and for the others: the same."""
    records = [json.loads(line) for line in (data_folder() / "scifact" / "corpus.jsonl").read_text().splitlines()]
    counts = Tokeniser(open_model(MODEL)).tokenise([f"{record['title']} {record['text']}" for record in records]).counts
    whole = [record for record, count in zip(records, counts, strict=True) if count <= 250][:ABSTRACTS]
    return whole, whole


def full_papers() -> tuple[list[dict], list[dict]]:
    """Return full papers for osembed, and the chunks that it cuts them into for the others."""
    model, papers = open_model(MODEL), []
    for key, title, body in islice(read_papers(247 // PAPERS), PAPERS):
        papers.append(Paper(key, clean_text(title).strip(), "", clean_text(body), {}, "", {}))
    cuts = cut_papers(papers, ChunkRule(), model.spec, Tokeniser(model))
    records = [{"_id": paper.id, "title": paper.title, "text": paper.body} for paper in papers]
    parts = [
        {"_id": f"{paper.id}#{number}", "title": paper.title, "text": chunk.text}
        for paper, (chunks, _) in zip(papers, cuts, strict=True)
        for number, chunk in enumerate(chunks)
    ]
    return records, parts


def compare(what: str, url: str, pythons: dict[str, Path], files: dict[str, Path], records: list[dict]) -> dict:
    """Return the figures of every program over one input."""
    runs: dict[str, list[dict]] = {name: [] for name in NAMES.values()}
    for turn in range(ROUNDS):
        for (kind, way), name in NAMES.items():
            file = files["own" if kind == "own" else "others"]
            runs[name].append(measure(pythons[kind], kind, way, file, url, len(records)))
            print(f"{what}, round {turn + 1}: {name}: {len(records) / runs[name][-1]['wall_s']:.1f} documents/s", flush=True)
    tokens = sum(map(len, Tokeniser(open_model(MODEL)).tokenise([f"{record['title']} {record['text']}" for record in records]).ids))
    ours = runs["osembed ingest"]
    rows = {
        name: {
            "documents_per_s": round(len(records) / statistics.median(run["wall_s"] for run in rows), 1),
            "tokens_per_s": round(tokens / statistics.median(run["wall_s"] for run in rows)),
            "cpu_s": round(statistics.median(run["cpu_s"] for run in rows), 1),
            "peak_mb": round(statistics.median(run["peak_mb"] for run in rows)),
            "osembed_is": round(statistics.median(theirs["wall_s"] / own["wall_s"] for theirs, own in zip(rows, ours, strict=True)), 2),
        }
        for name, rows in runs.items()
    }
    return {"documents": len(records), "tokens": tokens, "runs": rows}


def measure(python: Path, kind: str, way: str, file: Path, url: str, expected: int) -> dict:
    """Run one program on an empty index and return what it reports, once all documents are seen to be searchable."""
    index = f"bench-compare-{kind}-{way}"
    collection = Collection(index, url)
    drop(collection)
    given = [str(file), str(open_model(MODEL).folder), url, index, way]
    done = subprocess.run(
        [python, "-c", HEAD + PROGRAMS[kind], *given], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    if done.returncode:
        sys.exit(f"{kind} failed:\n{done.stderr[-3000:]}")
    count = collection.client.count(index=f"{index}-chunks" if kind == "own" else index)["count"]
    assert count == expected, f"{kind} indexed {count}, not {expected}"
    drop(collection)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def environment(kind: str, packages: list[str]) -> Path:
    """Return the Python of an environment with packages of its own, which takes torch and the like from this one."""
    folder = cache_folder() / "bench" / kind
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        site = next((folder / "lib").glob("python*")) / "site-packages"
        (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    return python


def versions(pythons: dict[str, Path]) -> dict[str, str]:
    """Return the versions of what osembed is compared with."""
    wanted = {"script": ["sentence-transformers", "opensearch-py"], **PACKAGES}
    ask = "import sys; from importlib.metadata import version; print(*(f'{name} {version(name)}' for name in sys.argv[1:]), sep=', ')"
    return {
        kind: subprocess.run([pythons[kind], "-c", ask, *names], capture_output=True, text=True, check=True).stdout.strip()
        for kind, names in wanted.items()
    }


if __name__ == "__main__":
    main()
