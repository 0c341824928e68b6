"""The whole day of each role, step by step, in this process and as a user of the secured node: what the permission tests run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from osembed.arguments import choose_models
from osembed.collection import Collection
from osembed.ingest.spec import CollectionSpec
from osembed.migrate.proof.verdict import GateOptions
from tests.conftest import paper
from tests.secured import SecuredNode
from tests.tiny import Models

LEAVES = "p3"  # the paper that is deleted while the collection migrates
QUICK = {"gate": GateOptions(override="too few papers to judge by")}


@dataclass(frozen=True)
class Stage:
    """Where a journey happens: the secured node, the collection, models and a folder for files."""

    node: SecuredNode
    name: str
    models: Models
    folder: Path

    @property
    def small(self) -> CollectionSpec:
        """The spec for a collection embedded with the small BERT model."""
        return CollectionSpec(paper_model=str(self.models.bert), chunk_model=str(self.models.bert), chunk_words=40)

    def collection(self, user: str) -> Collection:
        """Open the collection as a user."""
        with environment(self.node.as_user(user)):
            opened = Collection(self.name)
            _ = opened.client
        return opened

    def write(self, file: str, records: list[dict[str, Any]]) -> str:
        """Write records as JSONL; return the path."""
        path = self.folder / file
        path.write_bytes(b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records))
        return str(path)

    def judged(self) -> Path:
        """Return a folder of judged queries about the papers."""
        (self.folder / "qrels").mkdir(exist_ok=True)
        (self.folder / "queries.jsonl").write_text('{"_id": "q1", "text": "study of species 1"}\n')
        (self.folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tp1\t1\n")
        return self.folder


Act = Callable[[Stage, Collection], Any]


@dataclass(frozen=True)
class Step:
    """One command of a journey, by its name on the command line."""

    name: str
    act: Act


def _first(stage: Stage, papers: Collection) -> Any:
    return papers.ingest(stage.write("first.jsonl", [paper(n, 150, year=2000 + n) for n in range(4)]), stage.small)


def _again(stage: Stage, papers: Collection) -> Any:
    done = papers.ingest(stage.write("first.jsonl", [paper(n, 150, year=2000 + n) for n in range(4)]))
    assert done.unchanged == 4
    return done


def _changed(stage: Stage, papers: Collection) -> Any:
    """A shorter text (chunks are deleted), a longer one, a field that is new, a paper that is new."""
    records = [paper(0, 110, year=2000), paper(1, 200, year=2001), paper(2, 150, venue="Nature"), paper(9, 120)]
    done = papers.ingest(stage.write("changed.jsonl", records))
    assert done.read == done.indexed + done.unchanged, done.reasons
    return done


def _prune(stage: Stage, papers: Collection) -> Any:
    papers.ingest(stage.write("pruned.jsonl", [paper(20)]))
    done = papers.ingest(stage.write("pruned.jsonl", []), prune=True, max_delete=1)
    assert done.pruned == 1
    return done


def _delete(_: Stage, papers: Collection) -> Any:
    return papers.delete(["p9", "nobody"])


def _search(_: Stage, papers: Collection) -> Any:
    for mode in ("hybrid", "lexical", "vector"):
        for level in (None, "papers", "chunks"):
            options = {"mode": mode, **({"level": level} if level else {})}
            assert papers.search("study of species", where=["year>=1990"], explain=True, **options).hits
    assert papers.search("study of species", fusion="rrf").hits
    return papers.request("study of species")


def _export(stage: Stage, papers: Collection) -> Any:
    done = papers.export(stage.folder / "export.jsonl")
    assert done.unproven  # a reader may not ask what it would take to prove it
    return done


READER = [
    Step("search", _search),
    Step("similar", lambda _, papers: papers.similar("p1")),
    Step("status", lambda _, papers: papers.status()),
    Step("migrate status", lambda _, papers: papers.migration().state),
    Step("count", lambda _, papers: papers.count("year>=1990")),
    Step("show", lambda _, papers: papers.get("p1")),
    Step("export", _export),
    Step("eval", lambda stage, papers: papers.evaluate(stage.judged())),
]
WRITER = [
    Step("ingest", _first),
    Step("ingest again", _again),
    Step("ingest changed", _changed),
    Step("ingest --prune", _prune),
    Step("delete", _delete),
]


def _migrate(stage: Stage, papers: Collection, **options: Any) -> Any:
    done = papers.migrate(str(stage.models.mirror), **{**QUICK, **options})
    assert not done.refused, done.refused
    return done


def _judged(stage: Stage) -> GateOptions:
    """Judge by queries, which are searched in hybrid mode."""
    return GateOptions(qrels=str(stage.judged()), override="too few papers to judge by")


def _leave(stage: Stage) -> Any:
    """Let a paper leave the collection during a migration, so that a delete has to be copied."""
    return stage.collection("admin").delete([LEAVES])


def _after(stage: Stage, papers: Collection) -> Any:
    """Go to a third generation and give it up."""
    papers.migration().run(choose_models(str(stage.models.bert)), _options(swap=False))
    return papers.migration().abort()


def _drop(_: Stage, papers: Collection) -> Any:
    done = papers.drop(papers.plan_drop())
    assert done.phase == "dropped"
    return done


def _options(**options: Any) -> Any:
    from osembed.migrate.options import MigrateOptions

    return MigrateOptions(**QUICK, **options)


MIGRATOR = [
    Step("migrate plan", lambda stage, papers: papers.migration().plan(choose_models(str(stage.models.mirror)))),
    Step("migrate", lambda stage, papers: _migrate(stage, papers, swap=False)),
    Step("migrate status", lambda stage, papers: (_leave(stage), papers.migration().state, papers.migration().report(), papers.status())),
    Step("migrate swap", lambda _, papers: papers.swap(**QUICK)),
    Step("migrate rollback", lambda _, papers: papers.rollback(**QUICK)),
    Step("migrate abort", lambda _, papers: papers.migration().abort()),
    Step("migrate again", lambda stage, papers: _migrate(stage, papers, gate=_judged(stage))),
    Step("verify", lambda _, papers: papers.verify()),
    Step("verify --repair", lambda _, papers: (papers.repair(), papers.verify())),
    Step("migrate finish", lambda _, papers: papers.migration().finish(0)),
    Step("migrate and abort", _after),
    Step("drop", _drop),
]
JOURNEYS = {"reader": READER, "writer": WRITER, "migrator": MIGRATOR}


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables of this process for a moment."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
