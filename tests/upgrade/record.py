"""Record what the version at hand stores: a live collection, migrations in four places, a first load, each left by a process that died.

    export OSEMBED_HOME=$(mktemp -d); osembed node start           # an empty node, never restarted
    PYTHONPATH=src:. python -m tests.upgrade.record http://127.0.0.1:19200

It uses the commands of the shell only, and so runs at any commit: put that commit's src first in PYTHONPATH. What was recorded once is not
recorded again when formats change: the file is what later versions have to go on from. A new version's formats get a file of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
from opensearchpy import OpenSearch

from tests.proxy import Fault, FaultProxy, Request
from tests.upgrade.half import make_half
from tests.upgrade.replay import COLLECTIONS, LOCAL, forget, read_papers, replay, write_requests
from tests.upgrade.stored import JOURNAL, read_stored

_WINDOWS = ("--chunk-words", "60", "--chunk-overlap", "10")
# A few papers make several windows. (Names of the commit that recorded; where they are others now, look for the sizes of windows.)
_SMALL = "from osembed import ingest; from osembed.migrate import copy; ingest._WINDOW_PAPERS = 2; copy.PAGE.update(papers=2, chunks=3); "


class Recorder:
    """Brings collections into their states, by commands of the shell on one server."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._folder, self._half = url, folder, make_half(folder)
        self._papers = {paper["_id"]: paper for paper in read_papers()}
        self._env = {**os.environ, "OSEMBED_MODELS": str(folder)}
        self._rewritten = {"kelp-urchin": self._papers["reef-sound"]["text"]}
        self.client = OpenSearch([url])

    def live(self) -> None:
        """Both levels of one model, with updates, deletes, a repair and a verification behind them."""
        longer = self._papers["ant-homing"]["text"] + self._papers["bee-waggle"]["text"]
        self._ingest("up-live", *self._first(7), changed={"bee-waggle": longer})
        self._ingest("up-live", *self._first(6))
        self._run("delete", "squid-camouflage", *self._on("up-live"))
        body = {"title": "A note by others", "body": "Written past osembed, without a vector: ants, bees and turtles find their way home."}
        self.client.index(index="up-live", id="note", body=body, refresh=True)
        self._run("verify", "--repair", *self._on("up-live"))

    def half(self) -> None:
        """A migration killed while it copied chunks, a write and a delete since, and a reader that announced itself."""
        self._ingest("up-half", *self._first(5), more=_WINDOWS)
        self._kill(self._migration("up-half", "--no-gate"), _counted(2, b'"_index":"staging-up-half-chunks-'))
        self._ingest("up-half", "kelp-urchin", "squid-camouflage", changed=self._rewritten)
        self._run("delete", "ant-homing", *self._on("up-half"))
        reader = f"import osembed, time; osembed.Collection('up-half', {self._url!r}).search('ants'); time.sleep(60)"
        process = subprocess.Popen([sys.executable, "-c", reader], env=self._env)
        while not self.client.exists(index=JOURNAL, id="clients:up-half"):
            time.sleep(0.5)
        process.kill()
        process.wait()

    def swapped(self) -> None:
        """A migration that the gate judged, swapped, with writes and a delete since."""
        self._ingest("up-swapped", *self._first(5), more=_WINDOWS)
        self._run(*self._migration("up-swapped", "--override", "a recording"))
        self._ingest("up-swapped", "kelp-urchin", "teen-sleep", changed=self._rewritten)
        self._run("delete", "ant-homing", *self._on("up-swapped"))

    def fenced(self) -> None:
        """A migration killed when its fence stood and its swap was not sent."""
        self._ingest("up-fenced", *self._first(4), more=_WINDOWS)
        self._kill(self._migration("up-fenced", "--no-gate"), lambda request: "_block/write" in request.path)

    def loading(self) -> None:
        """A first load killed when two papers were committed and the chunks of two more were written."""
        self._kill(self._ingestion("up-loading", *self._first(5), more=_WINDOWS), _counted(2, b'{"create":{'), "lost")

    def _first(self, number: int) -> list[str]:
        return list(self._papers)[:number]

    def _ingest(self, collection: str, *ids: str, changed: dict[str, str] | None = None, more: Sequence[str] = ()) -> None:
        self._run(*self._ingestion(collection, *ids, changed=changed, more=more))

    def _ingestion(self, collection: str, *ids: str, changed: dict[str, str] | None = None, more: Sequence[str] = ()) -> list[str]:
        texts = changed or {}
        papers = [{**self._papers[key], "text": texts.get(key, self._papers[key]["text"])} for key in ids]
        (self._folder / "papers.jsonl").write_bytes(b"\n".join(map(orjson.dumps, papers)))
        return ["ingest", "papers.jsonl", *more, *self._on(collection)]

    def _migration(self, collection: str, *more: str) -> list[str]:
        return ["migrate", "--model", str(self._half), *more, *self._on(collection)]

    def _on(self, collection: str) -> list[str]:
        return ["--collection", collection, "--url", self._url]

    def _run(self, *arguments: str) -> None:
        print("osembed", *arguments, flush=True)
        subprocess.run(_command("", arguments), env=self._env, cwd=self._folder, check=True)

    def _kill(self, arguments: list[str], strikes: Callable[[Request], bool], kind: str = "unanswered") -> None:
        """Run a command in small windows, and kill it -9 at the first request that strikes: before it arrives ("lost") or after."""
        print("osembed", *arguments, "(killed)", flush=True)
        with FaultProxy(self._url) as proxy:
            through = [proxy.url if argument == self._url else argument for argument in arguments]
            process = subprocess.Popen(_command(_SMALL, through), env=self._env, cwd=self._folder)
            fault = Fault(kind, before=process.kill) if kind == "lost" else Fault(kind, after=process.kill)
            proxy.rules.append(lambda request: fault if strikes(request) else None)
            process.wait()
            assert proxy.fired, "it ended before it could be killed"


def _command(prelude: str, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-c", f"{prelude}from osembed.cli.main import main; main()", *arguments]


def _counted(number: int, mark: bytes) -> Callable[[Request], bool]:
    """Return what strikes at the bulk request of this number whose body holds the mark."""
    seen = 0

    def strikes(request: Request) -> bool:
        nonlocal seen
        seen += "_bulk" in request.path and mark in request.body
        return seen >= number

    return strikes


def main() -> None:
    """Record, then send what was recorded to the same node and compare what it stores with what it stored before."""
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(sys.argv[1], Path(folder))
        client = recorder.client
        assert not client.indices.exists(index=JOURNAL), "record on an empty node"
        for step in (recorder.live, recorder.half, recorder.swapped, recorder.fenced, recorder.loading):
            step()
    requests = read_stored(client, COLLECTIONS, LOCAL)
    kept = Counter(request["path"].rpartition("/")[2].partition(":")[0] for request in requests if "/_doc/" in request["path"])
    client.indices.refresh(index=JOURNAL)
    there = client.search(index=JOURNAL, body={"size": 1000})["hits"]["hits"]
    assert kept == Counter(hit["_source"]["kind"] for hit in there), "the journal holds something that would not be recorded"
    write_requests(requests)
    forget(client, COLLECTIONS)
    replay(client, requests)
    again = read_stored(client, COLLECTIONS, LOCAL)
    assert again == requests, [(one["path"], other["path"]) for one, other in zip(again, requests, strict=False) if one != other]
    print(f"{len(requests)} requests recorded; replayed they come out the same")


if __name__ == "__main__":
    main()
