"""list, count, show, export and completion on a real server."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import osembed
from osembed.collection import Collection
from osembed.errors import CollectionError, DroppedError, InputError, NoPaperError
from osembed.migrate.proof.verdict import GateOptions
from osembed.opensearch import export as exports
from osembed.opensearch.collections import CollectionInfo
from osembed.opensearch.coordination.journal import Journal
from osembed.opensearch.coordination.registration import collection_key
from tests.conftest import EXAMPLES, ROOT, paper, run
from tests.forking import command
from tests.killing import spawn
from tests.proxy import Fault

UNJUDGED = {"gate": GateOptions(skip=True), "gentle": False}


@pytest.fixture
def filled(collection: Collection, small, write) -> Collection:
    """Eight papers, one of them short, with metadata of several kinds."""
    records = [paper(n, 120, year=2000 + n, venue={"name": "Nature" if n % 2 else "eLife"}) for n in range(7)]
    records.append({"id": "short", "title": "A note", "text": "few words", "when": "2015-03", "tags": ["x", 2]})
    collection.ingest(write(records), small, min_words=1)
    return collection


def listed(name: str, url: str) -> CollectionInfo | None:
    return next((one for one in osembed.collections(url) if one.name == name), None)


def lines(collection: Collection, **options) -> list[bytes]:
    """What an export writes."""
    out = io.BytesIO()
    collection.export(out, **options)
    return out.getvalue().splitlines(keepends=True)


class AtFirst(io.BytesIO):
    """A file at whose first write something happens."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._acts = [act]

    def write(self, data) -> int:
        while self._acts:
            self._acts.pop()()
        return super().write(data)


def test_collections_are_listed_with_their_state(filled, name, url, models, small, write, client):
    """Two collections, one of them migrating, then migrated; a first load; a drop that was interrupted; an alias that points nowhere."""
    other = Collection(f"{name}-other", url)
    other.ingest(write([paper(1)], "other.jsonl"), small)
    assert listed(name, url).state == listed(other.name, url).state == "live"
    one = listed(name, url)
    assert (one.papers, one.chunks, one.models) == (8, filled.status()[1].documents, {"papers": "tiny-bert", "chunks": "tiny-bert"})
    assert one.megabytes is not None
    filled.migrate(str(models.mirror), swap=False, **UNJUDGED)
    assert listed(name, url).state == "migrating"
    filled.swap(**UNJUDGED)
    assert (listed(name, url).state, listed(name, url).models["papers"]) == ("migrated", "tiny-mirror")
    shown = run("list", "--url", url)
    assert re.search(rf"{name} +8 .* tiny-mirror +migrated", shown.stdout), shown.stdout
    assert {name, other.name} <= {row["name"] for row in json.loads(run("list", "--url", url, "--json").stdout)}

    papers = other.status()[0].index
    client.indices.put_mapping(index=papers, body={"_meta": {}})
    assert listed(other.name, url).state == "live"  # the journal knows it by its UUID
    client.indices.delete_alias(index=papers, name=other.name)
    assert listed(other.name, url).state == "contradictory"
    client.indices.delete_alias(index=f"{other.name}-chunks-*", name=f"{other.name}-chunks")
    assert listed(other.name, url).state == "loading"  # the journal's plan of its first load stands
    Journal(client).change(collection_key(other.name), lambda state: {**state, "dropped": {"uuids": []}})
    assert listed(other.name, url).state == "half dropped"
    other.drop()
    assert listed(other.name, url) is None


def test_a_missing_collection_names_those_there_are(filled, name, url):
    """In every command that needs one, and in Python."""
    missed = name[:-1]
    for words in (["search", "x"], ["count"], ["show", "x"], ["export", "x.jsonl"], ["status"], ["delete", "x"]):
        done = run(*words, "--collection", missed, "--url", url)
        assert (done.returncode, f"Use --collection {name}," in done.stderr) == (1, True), done.stderr
    with pytest.raises(CollectionError, match=f"Existing collections: .*{name}"):
        Collection(missed, url).count()


def test_papers_are_counted(filled, name, url):
    """Exactly, by any filter; an unknown field is refused."""
    assert filled.count() == 8
    assert filled.count("year>=2005") == filled.count(("year>=2005", "venue.name=Nature|eLife")) == 2
    assert filled.count(["venue.name=Nature", "year<2004"]) == 2
    assert run("count", "--collection", name, "--url", url, "--where", "year<2002").stdout == "2\n"
    assert json.loads(run("count", "--collection", name, "--url", url, "--json").stdout)["papers"] == 8
    with pytest.raises(InputError, match="Did you mean year"):
        filled.count("yaer=2000")


def test_a_paper_is_shown_as_it_is_stored(filled, name, url, client):
    """Text, chunks, metadata, model, versions; what is stale is said. A missing id is named with those like it, the others are shown."""
    one = filled.get("p3")
    assert (one.id, one.title, one.meta, one.word_count) == ("p3", "Paper 3", {"year": 2003, "venue.name": "Nature"}, 120)
    assert one.source == "papers.jsonl:4"
    assert one.models == {"papers": "tiny-bert", "chunks": "tiny-bert"}
    assert one.is_complete
    assert len(one.chunks) == one.chunk_count > 0
    assert [one.body[chunk.start_char : chunk.end_char] for chunk in one.chunks] == [chunk.text for chunk in one.chunks]
    assert one.version == 1
    client.update(index=name, id="p3", body={"doc": {"input_hash": "x"}})
    again = filled.get("p3")
    assert (again.version, again.is_complete, again.seq_no > one.seq_no) == (2, False, True)
    with pytest.raises(NoPaperError, match="Similar ids: short"):
        filled.get("shor")
    shown = run("show", "p3", "P33", "p4", "--collection", name, "--url", url)
    assert shown.returncode == 1
    assert "There is no paper 'P33'" in shown.stderr
    assert "Similar ids: p3" in shown.stderr
    assert "incomplete: see `osembed verify`" in shown.stdout
    assert "Paper 4" in shown.stdout
    papers = json.loads(run("show", "p3", "short", "--collection", name, "--url", url, "--json").stdout)
    assert [one["id"] for one in papers] == ["p3", "short"]


def test_the_examples_come_back_byte_by_byte(name, url, models, tmp_path):
    """Export, ingest in place: all unchanged. Into an empty collection with default options, export: the same file."""
    there, where = ["--url", url, "--model", str(models.bert)], ["--url", url]
    first, second = str(tmp_path / "first.jsonl"), str(tmp_path / "second.jsonl.gz")
    assert run("ingest", str(EXAMPLES), "--collection", name, *there).returncode == 0
    done = run("export", first, "--collection", name, *where)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "45 papers" in done.stderr
    again = json.loads(run("ingest", first, "--collection", name, "--json", *where).stdout)
    assert (again["unchanged"], again["indexed"]) == (45, 0)
    assert run("ingest", first, "--collection", f"{name}-b", *there).returncode == 0
    assert json.loads(run("export", second, "--collection", f"{name}-b", "--json", *where).stdout)["papers"] == 45
    import gzip

    assert gzip.decompress(Path(second).read_bytes()) == Path(first).read_bytes()
    assert [json.loads(line)["id"] for line in Path(first).read_text().splitlines()] == sorted(
        json.loads(line)["_id"] for line in (EXAMPLES / "corpus.jsonl").read_text().splitlines()
    )
    printed = run("export", "--collection", name, "--where", "year>=2016", *where)
    assert 0 < len(printed.stdout.splitlines()) < 45
    assert {json.loads(line)["meta"]["year"] >= 2016 for line in printed.stdout.splitlines()} == {True}
    assert run("export", "--json", "--collection", name, *where).returncode == 2


def test_short_papers_odd_values_and_lost_metadata_come_back(name, url, small, write, tmp_path):
    """Papers under the word limit, dotted names, values that fit a field's type by luck: the same collection comes out, in any order."""
    odd = [
        {"id": "z", "title": "Z", "text": "one two", "venue": "Nature", "when": "unknown", "a.b": 1, "c": {"d": {"e": [1.0, 2]}}},
        {"id": "a", "title": "A", "abstract": "Ab", "text": "three", "venue": 7, "when": "2015-03", "c": {"d": {"e": "misfit"}}},
        {"id": "m  n", "title": "only a title", "authors": [{"name": "X", "orcid": "1"}, {"name": "Y"}], "big": 2**63, "ok": False},
    ]
    first, second = Collection(name, url), Collection(f"{name}-b", url)
    source = write(odd)
    first.ingest(source, small, min_words=0)
    out = str(tmp_path / "out.jsonl")
    first.export(out)
    assert first.ingest(out).unchanged == 3
    assert second.ingest(out, small).indexed == 3
    assert lines(second) == lines(first)
    assert second.ingest(source, min_words=0).unchanged == 3  # the first input is known as what it was
    assert second.count("venue=7") == second.count("when=2015-03") == second.count("c.d.e>=2") == 1


def test_what_other_programs_wrote_is_exported(collection, name, client, small, url, write, tmp_path):
    """Without paper_id and hashes, with metadata as objects, with fields of their own; one that shares an id is left out, and named."""
    collection.ingest(write([paper(n) for n in range(4)]), replace(small, shards=2))
    client.indices.put_mapping(index=name, body={"properties": {"doi": {"type": "keyword"}}})
    client.index(index=name, id="odd  id", body={"title": "By hand", "body": "words", "meta": {"a": {"b": 1}}, "doi": "10/x"})
    client.index(index=name, id="bare", body={"meta": {"year": 1}})
    shard = {key: client.search_shards(index=name, routing=key)["shards"][0][0]["shard"] for key in ("p1", *"abcdefgh")}
    elsewhere = next(key for key in shard if shard[key] != shard["p1"])
    client.index(index=name, id="p1", routing=elsewhere, body={"title": "Another", "body": "copy"}, refresh=True)
    out = tmp_path / "out.jsonl"
    done = collection.export(out)
    found = {line["id"]: line for line in map(json.loads, out.read_text().splitlines())}
    assert found["odd  id"] == {
        "id": "odd  id",
        "title": "By hand",
        "abstract": "",
        "body": "words",
        "meta": {"a": {"b": 1}},
        "doi": "10/x",
        "osembed_export": {},
    }
    assert found["p1"]["title"] == "Paper 1"
    assert (done.papers, done.unfit, list(done.left_out)) == (6, {"bare": "no text"}, ["p1"])
    assert done.papers == len(found)
    copy = Collection(f"{name}-b", url)
    assert copy.ingest(out, small).indexed == 5
    assert copy.get("odd  id").meta == {"a.b": 1, "doi": "10/x"}


def test_an_export_reads_on_through_a_swap(filled, models, monkeypatch):
    """What was live at its start is read to the end; what changes meanwhile is counted, each paper is whole."""
    monkeypatch.setattr(exports, "_READ", 2)
    before = lines(filled)
    out = AtFirst(lambda: filled.migrate(str(models.mirror), **UNJUDGED))
    done = filled.export(out)
    assert filled.status()[0].model == "tiny-mirror"
    assert out.getvalue().splitlines(keepends=True) == before == lines(filled)
    assert (done.papers, done.changed, done.added, done.deleted) == (8, 0, 0, 0)


def test_changes_meanwhile_are_counted(filled, write, monkeypatch):
    """A paper that changes, one that goes, one that comes."""
    monkeypatch.setattr(exports, "_READ", 2)

    def change() -> None:
        filled.ingest(write([paper(6, 130), paper(9)], "more.jsonl"))
        filled.delete("p5")

    out = AtFirst(change)
    done = filled.export(out)
    assert (done.papers, done.changed, done.added, done.deleted) == (7, 1, 1, 1)
    found = {line["id"]: line for line in map(json.loads, out.getvalue().splitlines())}
    assert len(found["p6"]["body"].split()) == 130


@pytest.mark.parametrize(("end", "error"), [("delete", CollectionError), ("drop", DroppedError), ("anew", CollectionError)])
def test_an_index_that_vanishes_leaves_no_shorter_file(end, error, filled, client, monkeypatch, tmp_path):
    """The export fails; the file that was there stays as it was."""
    monkeypatch.setattr(exports, "_READ", 2)
    out = tmp_path / "out.jsonl"
    filled.export(out)
    before, index = out.read_bytes(), filled.status()[0].index

    def vanish(*_: object) -> None:
        if not client.indices.exists(index=index):
            return
        if end == "drop":
            filled.drop()
            return
        client.indices.delete(index=index)
        if end == "anew":
            client.index(index=index, id="p9", body={"title": "x"}, refresh=True)

    with pytest.raises(error):
        filled.export(out, progress=vanish)
    assert out.read_bytes() == before
    assert list(tmp_path.glob("*out.jsonl*")) == [out]
    assert not list(tmp_path.glob(".osembed*"))


def test_a_failed_export_to_standard_output_says_so(filled, name, proxy, client):
    """It cannot be undone: exit code 1, and a word that it is not the whole."""
    index = filled.status()[0].index
    proxy.once("_mget", Fault(before=lambda: client.indices.delete(index=index)))
    done = run("export", "--collection", name, "--url", proxy.url)
    assert done.returncode == 1
    assert "incomplete" in done.stderr
    assert "is gone" in done.stderr


def test_a_killed_export_leaves_no_file(filled, name, proxy, tmp_path):
    """Killed before its last answer: under the file's name stands what was there before, nothing."""
    process: list[subprocess.Popen] = []
    proxy.once("_mget", Fault("unanswered", after=lambda: process[0].kill()))
    out = tmp_path / "out.jsonl"
    process.append(spawn("export", str(out), "--collection", name, "--url", proxy.url))
    assert process[0].wait(60) == -9
    assert not out.exists()
    assert run("export", str(out), "--collection", name, "--url", proxy.url).returncode == 0
    assert len(out.read_text().splitlines()) == 8


def test_the_readmes_searches_work_after_the_demo(url, client):
    """As they stand: the demo's collection is the one that they name."""
    demo = (ROOT / "scripts" / "demo").read_text()
    filled = re.search(r"osembed (ingest .*)", demo)[1].split()
    assert run(*filled, "--url", url).returncode == 0
    try:
        shown = re.findall(r"^osembed ((?:search|similar|count|show|export) .*?)(?:  .*)?$", (ROOT / "README.md").read_text(), re.MULTILINE)
        assert len(shown) >= 6
        for line in shown:
            words = shlex.split(line)
            done = run(*words, "--url", url) if words[0] != "export" else run("export", "--url", url, *words[2:])
            assert done.returncode == 0, (line, done.stderr)
            assert "Nothing found" not in done.stdout, line
    finally:
        Collection("examples", url).drop()


def test_a_shell_is_told_commands_and_options():
    """By the variable that the printed scripts set; without heavy imports, in a moment. Files stay files."""
    for shell in ("bash", "zsh", "fish"):
        script = run("completion", shell)
        assert script.returncode == 0
        assert "_OSEMBED_COMPLETE" in script.stdout
    for words, wanted in (
        ("osembed mi", "migrate"),
        ("osembed export --wh", "--where"),
        ("osembed migrate ro", "rollback"),
        ("osembed ingest ", "file"),
    ):
        env = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1), "_OSEMBED_COMPLETE": "bash_complete"}
        assert wanted in run(env=env).stdout, words
    heavy = "sorted(set(sys.modules) & {'torch', 'opensearchpy', 'numpy'})"
    program = f"import sys; from osembed.cli.main import _run\ntry: _run()\nfinally: print({heavy})"
    env = {**os.environ, "COMP_WORDS": "osembed ", "COMP_CWORD": "1", "_OSEMBED_COMPLETE": "bash_complete"}
    began = time.monotonic()
    done = subprocess.run([*command()[:2], program], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().endswith("[]"), done.stderr
    assert time.monotonic() - began < 5
