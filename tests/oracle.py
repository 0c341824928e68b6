"""The judge of migrations: writers, readers and watchers that never pause, a log of all that was acknowledged, and a reckoning at the end.

Writers own their ids, so the last acknowledged operation on each id is known. Readers ask for sentinel papers in the very words of their
passages: under the right model the score is that of a vector with itself, under the mirror model it is the opposite. Watchers sample the
aliases every few milliseconds. Run as a program, it is the second process: it prints its log at the end.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from osembed.collection import Collection
from osembed.embed.encoders import Encoders
from osembed.errors import OsembedError, RefusedError
from osembed.opensearch import indexes
from osembed.opensearch.client import Access, OpenSearch, connect
from osembed.passages.passage import stored_passage

WORDS = [
    "cell",
    "river",
    "leaf",
    "stone",
    "light",
    "wave",
    "field",
    "seed",
    "storm",
    "glass",
    "iron",
    "moss",
    "bird",
    "fish",
    "salt",
    "wind",
]
_SCRATCH = tempfile.TemporaryDirectory(prefix="osembed-oracle-")
RIGHT = 1.99  # 1 + the inner product of a vector with itself


def sentinel(number: int) -> dict[str, Any]:
    """A paper that readers look for; nobody changes it."""
    mark = " ".join(WORDS[(number * 5 + step * (number + 1)) % len(WORDS)] for step in range(9))
    return {"id": f"s{number}", "title": f"Sentinel {number} {mark}", "text": f"{mark}. " * 8}


def body_text(mark: str) -> str:
    """A text that says which write it comes from."""
    chooser = random.Random(mark)
    return f"{mark}. " + " ".join(chooser.choice(WORDS) for _ in range(30)) + "."


@dataclass
class Log:
    """What one writer had acknowledged: id → (how, content mark or None for deleted), and how many operations that took."""

    last: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    operations: int = 0
    failed: list[str] = field(default_factory=list)

    def note(self, paper_id: str, how: str, mark: str | None) -> None:
        self.last[paper_id] = (how, mark)
        self.operations += 1


class Oracle:
    """Everything that happens to a collection besides the migration."""

    def __init__(
        self, url: str, name: str, *, outside: bool = True, library: bool = True, refreshing: bool = True, crowded: bool = False
    ) -> None:
        self.url, self.name, self._refreshing = url, name, refreshing
        self._crowded = crowded  # so many alike that another may be as near as the sentinel: only the space is judged
        self._client = connect(Access.from_environment(url))
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._kinds: list[Callable[[], None]] = [self._search, self._watch]
        if library:
            self._kinds.append(self._write_by_library)
        if outside:
            self._kinds.append(self._write_around)
        self.logs: list[Log] = []
        self.searches, self.samples = 0, 0
        self.faults: list[str] = []
        self.models: set[str] = set()

    def prepare(self, spec: Any, papers: int = 100) -> None:
        """Fill the collection before anything moves."""
        records = [sentinel(number) for number in range(4)]
        records += [{"id": f"b{number}", "title": f"Base {number}", "text": body_text(f"base{number}")} for number in range(papers)]
        Collection(self.name, self.url).ingest(_file(records, f"{self.name}-base"), spec, min_words=0)

    @contextmanager
    def running(self) -> Iterator[Oracle]:
        """Let everybody work until the block ends."""
        for kind in self._kinds:
            thread = threading.Thread(target=self._guard, args=(kind,), daemon=True)
            thread.start()
            self._threads.append(thread)
        try:
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(60)

    def reckon(self, encoders: Encoders | None = None) -> None:
        """Compare the collection with the logs. Raises AssertionError with what is wrong."""
        assert not self.faults, self.faults[:5]
        problems = list(self.problems(encoders or Encoders("cpu", "fp32")))
        assert not problems, problems[:8]

    def problems(self, encoders: Encoders) -> Iterator[str]:
        """Yield every difference between what was acknowledged and what a full scan finds."""
        targets = indexes.resolve(self._client, self.name)
        assert targets is not None
        for target in targets.values():
            self._client.indices.refresh(index=target.index)
        papers, chunks = (dict(everything(self._client, targets[level].index)) for level in ("papers", "chunks"))
        for log in self.logs:
            yield from log.failed
            for paper_id, (how, mark) in log.last.items():
                found = papers.get(paper_id)
                if mark is None:
                    if found is not None:
                        yield f"{paper_id} was deleted ({how}) and is back"
                    if how == "library" and any(key.startswith(f"{paper_id}#") for key in chunks):
                        yield f"{paper_id} was deleted and its chunks are there"
                elif found is None:
                    yield f"{paper_id} is lost ({how}, {mark})"
                elif mark not in found.get("body", ""):
                    yield f"{paper_id} holds {found.get('body', '')[:30]!r}, not {mark} ({how})"
                elif how == "library":
                    own = [doc for key, doc in chunks.items() if key.startswith(f"{paper_id}#")]
                    if len(own) != found["chunk_count"] or any(doc["input_hash"] != found["input_hash"] for doc in own):
                        yield f"{paper_id} and its {len(own)} chunks do not agree"
        for level, docs in (("papers", papers), ("chunks", chunks)):
            encoder = encoders.of(targets[level].meta.stored_model)
            with_vector = [(key, doc) for key, doc in docs.items() if doc.get("embedding") and not key.startswith("x")]
            fresh = encoder.encode([stored_passage(encoder.model.spec, level, doc).text for _, doc in with_vector])
            for (key, doc), vector in zip(with_vector, fresh, strict=True):
                if float(np.dot(doc["embedding"], vector)) < 0.99:
                    yield f"{level}/{key} has a vector of another model or text"

    @property
    def acknowledged(self) -> int:
        """How many operations were acknowledged."""
        return sum(log.operations for log in self.logs)

    def _guard(self, kind: Callable[[], None]) -> None:
        try:
            kind()
        except Exception as error:  # a thread's error must reach the reckoning
            self.faults.append(f"{kind.__name__}: {type(error).__name__}: {error}")

    def _write_by_library(self) -> None:
        """Ingest and delete through the library; nothing may fail."""
        self._write_library(Log(), "w")

    def _write_library(self, log: Log, prefix: str) -> None:
        self.logs.append(log)
        collection, chooser, round_ = Collection(self.name, self.url), random.Random(prefix), 0
        while not self._stop.is_set():
            round_ += 1
            ids = [f"{prefix}{chooser.randrange(30)}" for _ in range(3)]
            if round_ % 4 == 0:
                collection.delete(ids[:1])
                log.note(ids[0], "library", None)
                continue
            records = {key: {"id": key, "title": f"Paper {key}", "text": body_text(f"{key}v{round_}")} for key in ids}
            collection.ingest(_file(list(records.values()), f"{self.name}-{prefix}"), min_words=0)
            for key in records:
                log.note(key, "library", f"{key}v{round_}")

    def _write_around(self) -> None:
        """Write to the alias as programs do that know nothing of osembed; a refusal is no acknowledgement, and they try again."""
        log, chooser, round_ = Log(), random.Random(5), 0
        self.logs.append(log)
        client, alias = connect(Access.from_environment(self.url)), self.name
        while not self._stop.is_set():
            round_ += 1
            key, mark = f"x{chooser.randrange(60) if self._refreshing else round_}", f"around{round_}"
            text = body_text(mark)
            if self._refreshing and round_ % 25 == 0:  # once and for good: nobody writes these again
                key = f"b{round_ // 25}"
            try:
                match round_ % 10 if self._refreshing else 9:
                    case 0:
                        self._delete_around(client, alias, key)
                        log.note(key, "around", None)
                    case 1 if log.last.get(key, ("", None))[1]:
                        client.update(index=alias, id=key, body={"doc": {"body": text}})
                        log.note(key, "around", mark)
                    case 2:
                        self._by_query(client, alias, key, f"{mark}q", log)
                    case 3:
                        client.indices.refresh(index=alias)
                        done = client.delete_by_query(index=alias, body={"query": {"ids": {"values": [key]}}}, conflicts="proceed")
                        if not done["failures"] and not done["version_conflicts"]:
                            log.note(key, "around", None)
                    case _:
                        client.index(index=alias, id=key, body={"title": f"X {key}", "body": text, "paper_id": key})
                        log.note(key, "around", mark)
            except RefusedError as error:
                if error.status not in (403, 404, 409):
                    log.failed.append(f"around: {error.status} {error.found}")

    def _write_in_bulk(self, log: Log) -> None:
        """Rewrite some thousand documents again and again, some 250 a second; what the fence refuses is not acknowledged."""
        round_ = 0
        client = connect(Access.from_environment(self.url))
        while not self._stop.wait(0.4):
            round_ += 1
            keys = [f"xb{(round_ * 150 + step) % 3000}" for step in range(150)]
            marks = dict.fromkeys(keys, f"bulk{round_}")
            documents = ({"title": f"X {key}", "body": body_text(marks[key]), "paper_id": key} for key in keys)
            lines = [part for key, doc in zip(keys, documents, strict=True) for part in ({"index": {"_id": key}}, doc)]
            body = b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines)
            for item in client.bulk(index=self.name, body=body)["items"]:
                done = item["index"]
                if done["status"] < 300:
                    log.note(done["_id"], "around", marks[done["_id"]])
                elif done["status"] not in (403, 404):
                    log.failed.append(f"in bulk: {done}")

    def _delete_around(self, client: OpenSearch, alias: str, key: str) -> None:
        # A plain delete on an alias that is being moved could land on a fenced index: then it is refused and not acknowledged.
        with suppress(RefusedError):
            client.get(index=alias, id=key, _source=False)
        try:
            client.delete(index=alias, id=key)
        except RefusedError as error:
            if error.status != 404:
                raise

    def _by_query(self, client: OpenSearch, alias: str, key: str, mark: str, log: Log) -> None:
        client.indices.refresh(index=alias)
        script = {"source": "ctx._source.body = params.text", "params": {"text": body_text(mark)}}
        done = client.update_by_query(index=alias, body={"query": {"ids": {"values": [key]}}, "script": script}, conflicts="proceed")
        if done["updated"] == 1 and not done["failures"]:
            log.note(key, "around", mark)

    def _search(self) -> None:
        """Look for the sentinels; each search must find its own, in the right space."""
        collection, number = Collection(self.name, self.url), 0
        while not self._stop.is_set():
            number = (number + 1) % 4
            wanted = sentinel(number)
            for level in ("papers", "chunks"):
                self._search_one(collection, wanted, level)

    def _search_one(self, collection: Collection, wanted: dict[str, Any], level: str) -> None:
        text = f"{wanted['title']} {wanted['text'].strip()}"
        try:
            result = collection.search(text, mode="vector", level=level, size=3, passages=0)
        except OsembedError as error:
            self.faults.append(f"a search failed: {error}")
            return
        self.searches += 1
        self.models.update(result.models.values())
        astray = not self._crowded and result.hits and result.hits[0].id != wanted["id"]
        if not result.hits or astray or result.hits[0].score < RIGHT or result.degraded:
            best = (result.hits[0].id, round(result.hits[0].score, 3)) if result.hits else None
            self.faults.append(f"searching {wanted['id']} ({level}) found {best}, degraded {result.degraded}")

    def _watch(self) -> None:
        """Sample the aliases: each on exactly one index, always."""
        client, names = connect(Access.from_environment(self.url)), (self.name, f"{self.name}-chunks")
        while not self._stop.is_set():
            found = client.indices.get_alias(name=",".join(names))
            for name in names:
                holders = [index for index, info in found.items() if name in info["aliases"]]
                if len(holders) != 1:
                    self.faults.append(f"{name} is on {holders}")
            self.samples += 1
            time.sleep(0.005)


def everything(client: OpenSearch, index: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every document of an index."""
    last = -1
    while True:
        body = {"size": 2000, "query": {"range": {"_seq_no": {"gt": last}}}, "sort": [{"_seq_no": "asc"}], "seq_no_primary_term": True}
        hits = client.search(index=index, body=body)["hits"]["hits"]
        if not hits:
            return
        for hit in hits:
            yield hit["_id"], hit["_source"]
        last = hits[-1]["_seq_no"]


@contextmanager
def second_process(url: str, name: str, log: Log, kind: str = "library") -> Iterator[None]:
    """A process of its own that was there before the migration and is never restarted; its log is added at the end.

    It reads and writes by the "library", or writes past it "in bulk".
    """
    arguments, root = [sys.executable, "-m", "tests.oracle", url, name, kind], Path(__file__).parent.parent
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n", "the second process could not begin"
    try:
        yield
    finally:
        process.stdin.write("stop\n")
        process.stdin.close()
        lines = process.stdout.read().splitlines()
        process.wait(60)
        found = json.loads(lines[-1])
        log.last = {key: (how, mark) for key, (how, mark) in found["last"].items()}
        log.operations, log.failed = found["operations"], found["failed"]


def _main() -> None:
    oracle = Oracle(sys.argv[1], sys.argv[2], outside=False, library=False)
    log = Log()
    in_bulk = sys.argv[3] == "in bulk"
    oracle._kinds = [lambda: oracle._write_in_bulk(log)] if in_bulk else [oracle._search, lambda: oracle._write_library(log, "v")]
    with oracle.running():
        deadline = time.monotonic() + 60
        while not (log.operations and (oracle.searches or in_bulk)) and not oracle.faults and time.monotonic() < deadline:
            time.sleep(0.05)
        print(oracle.faults or "ready", flush=True)
        sys.stdin.readline()
    failed = [*log.failed, *oracle.faults]
    print(json.dumps({"last": log.last, "operations": log.operations, "failed": failed, "searches": oracle.searches}), flush=True)


def _file(records: list[dict[str, Any]], stem: str) -> str:
    path = Path(_SCRATCH.name) / f"{stem}.jsonl"
    path.write_bytes(b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records))
    return str(path)


def contents(client, name: str) -> dict[str, tuple]:
    """Every document of a collection: id → its words and model."""
    found = {}
    for level, target in indexes.resolve(client, name).items():
        client.indices.refresh(index=target.index)
        for key, doc in everything(client, target.index):
            found[f"{level}/{key}"] = (
                doc.get("title"),
                doc.get("body") or doc.get("text"),
                doc.get("identity"),
                bool(doc.get("embedding")),
            )
    return found


def leftovers(client, name: str) -> set[str]:
    """The indexes and aliases of a collection, but for the published ones and their private aliases."""
    found = client.indices.get(index=f"{name}*", params={"expand_wildcards": "all"})
    published = {target.index for target in indexes.resolve(client, name).values()}
    usual = {name, f"{name}-chunks", *(f"{index}-w" for index in published)}
    return {index for index in found if index not in published} | {
        alias for info in found.values() for alias in info["aliases"] if alias not in usual
    }


def blocked(client, name: str) -> list[str]:
    settings = client.indices.get_settings(index=f"{name},{name}-chunks")
    return [index for index, info in settings.items() if info["settings"]["index"].get("blocks")]


if __name__ == "__main__":
    _main()
