"""Ingest on a real node: what is embedded, what is not, and that nothing is lost or mixed, whatever interrupts it."""

from __future__ import annotations

import json
import subprocess
import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import orjson
import pytest

from osembed.cli.output import print_json
from osembed.collection import Collection
from osembed.errors import BusyError, CollectionError, IdentityError, InputError, NoPapersError
from osembed.ingest.spec import CollectionSpec
from osembed.ingest.summary import Summary
from osembed.ingest.write import Writer
from osembed.models.folder import read_model
from osembed.models.identity import identify
from osembed.opensearch import indexes
from osembed.papers.metadata import OTHER_TYPE, OWN
from osembed.passages.passage import PassageText
from tests.conftest import EXAMPLES, TEXT, dump, paper
from tests.killing import kill_at, sample, spawn
from tests.proxy import Fault, FaultProxy


def ingest(collection: Collection, records: list[dict], write, spec: CollectionSpec | None = None, **options):
    return collection.ingest([write(records)], spec, **options)


def test_first_ingest_makes_a_searchable_pair(collection, client, small, write, models):
    """Papers and chunks, both aliases with a write index, private aliases, identity in _meta and on each document."""
    summary = ingest(collection, [paper(n, year=2000 + n) for n in range(5)], write, small)
    assert (summary.read, summary.indexed, summary.unchanged, summary.rejected) == (5, 5, 0, 0)
    assert summary.published
    identity = identify(read_model(models.bert)).hash
    papers, chunks = f"{collection.name}-{identity[:8]}-g1", f"{collection.name}-chunks-{identity[:8]}-g1"
    aliases = client.indices.get_alias(index=f"{papers},{chunks}")
    assert aliases[papers]["aliases"][collection.name] == {"is_write_index": True}
    assert set(aliases[chunks]["aliases"]) == {f"{collection.name}-chunks", f"{chunks}-w"}
    for document in dump(client, collection.name).values():
        assert document["identity"] == identity
        assert np.linalg.norm(document["embedding"]) == pytest.approx(1, abs=1e-3)
    settings = client.indices.get_settings(index=papers)[papers]["settings"]["index"]
    assert "refresh_interval" not in settings
    assert settings["search"]["default_pipeline"] == "osembed-hybrid-v1"


def test_what_is_embedded(collection, client, small, write, models):
    """The stored hash is that of the exact passage, title included, and the vector is that passage's."""
    from osembed.embed.load import load_encoder

    ingest(collection, [paper(1, abstract="An abstract of its own. " * 3)], write, small)
    documents = dump(client, collection.name)
    encoder = load_encoder(read_model(models.bert), device="cpu", precision="fp32")
    whole = documents[f"{collection.name}/p1"]
    assert whole["text_hash"] == PassageText(f"Paper 1 {whole['abstract']}").key
    chunk = documents[f"{collection.name}-chunks/p1#0"]
    passage = f"Paper 1 {chunk['text']}"
    assert chunk["text_hash"] == PassageText(passage).key
    assert float(np.dot(encoder.encode([passage])[0], chunk["embedding"])) > 0.999
    assert chunk["token_count"] == encoder.tokeniser.tokenise([passage]).counts[0]
    assert f"{whole['abstract']}\n\n{whole['body']}"[chunk["start_char"] : chunk["end_char"]] == chunk["text"]


def test_a_second_run_embeds_nothing(collection, client, small, write):
    """Unchanged papers cost a comparison; the summary adds up."""
    records = [paper(n) for n in range(8)]
    ingest(collection, records, write, small)
    before = dump(client, collection.name)
    again = ingest(collection, [*records, paper("short", 5)], write)
    assert (again.read, again.indexed, again.unchanged, again.rejected, again.embedded) == (9, 0, 8, 1, 0)
    assert dump(client, collection.name) == before


def test_a_corrected_year_embeds_nothing_and_is_searchable(collection, client, small, write):
    """Metadata is rewritten on both levels, vectors are kept as they are."""
    ingest(collection, [paper(1, 400, year=2014)], write, small)
    before = dump(client, collection.name)
    summary = ingest(collection, [paper(1, 400, year=2015)], write)
    assert (summary.indexed, summary.embedded) == (1, 0)
    after = dump(client, collection.name)
    assert {key: doc["embedding"] for key, doc in after.items()} == {key: doc["embedding"] for key, doc in before.items()}
    assert {doc["meta"]["year"] for doc in after.values()} == {2015}
    assert len(collection.search("study", where=("year=2015",)).hits) == 1
    assert not collection.search("study", where=("year=2014",)).hits


def test_only_what_changed_is_embedded(collection, client, small, write):
    """A sentence inserted in the middle moves chunks; those whose passage is the same keep their vectors."""
    sentences = [f"Sentence number {n} speaks of {TEXT.split()[n % 20]} and of matter {n}." for n in range(200)]
    first = ingest(collection, [{"id": "a", "title": "T", "text": " ".join(sentences)}], write, small)
    sentences[150] = "Something quite different stands here now, and it is new."
    second = ingest(collection, [{"id": "a", "title": "T", "text": " ".join(sentences)}], write)
    assert 0 < second.embedded < first.embedded / 2
    fresh = Collection(f"{collection.name}x", str(collection._url))
    ingest(fresh, [{"id": "a", "title": "T", "text": " ".join(sentences)}], write, small)
    expected = {key.split("/")[1]: doc["text_hash"] for key, doc in dump(client, fresh.name).items()}
    assert {key.split("/")[1]: doc["text_hash"] for key, doc in dump(client, collection.name).items()} == expected


def test_a_shortened_paper_loses_its_tail(collection, client, small, write):
    """Chunks beyond the new end are deleted; the count tells the truth."""
    ingest(collection, [paper(1, 900)], write, small)
    many = len(dump(client, collection.name))
    ingest(collection, [paper(1, 120)], write)
    documents = dump(client, collection.name)
    assert len(documents) < many
    count = documents[f"{collection.name}/p1"]["chunk_count"]
    assert {key for key in documents if "#" in key} == {f"{collection.name}-chunks/p1#{n}" for n in range(count)}


def test_delete_removes_papers_with_their_chunks(collection, client, small, write):
    """Both levels; what was not there is said."""
    ingest(collection, [paper(n, 300) for n in range(3)], write, small)
    assert collection.delete(["p1", "nobody"]) == {"p1": True, "nobody": False}
    assert {key.split("/")[1].split("#")[0] for key in dump(client, collection.name)} == {"p0", "p2"}
    assert collection.delete(["p1"]) == {"p1": False}


def test_an_interrupted_delete_is_completed(collection, client, small, write):
    """Chunks gone, paper still there: the next ingest restores it, the next delete ends it."""
    records = [paper(1, 300)]
    ingest(collection, records, write, small)
    whole = dump(client, collection.name)
    client.delete(index=f"{collection.name}-chunks", id="p1#0", refresh=True)
    assert ingest(collection, records, write).indexed == 1
    assert dump(client, collection.name) == whole
    client.delete(index=collection.name, id="p1", refresh=True)
    assert collection.delete(["p1"]) == {"p1": False}
    assert dump(client, collection.name) == {}


def test_rejected_records_can_be_fed_in_again(collection, small, write, tmp_path):
    """Dead letters hold the record and the reason, for their owner's eyes only; with a lower gate they go in."""
    letters = tmp_path / "dead.jsonl"
    summary = ingest(collection, [paper(1), paper(2, 20, year=1)], write, small, dead_letters=str(letters))
    assert dict(summary.reasons) == {"fewer than 100 words": 1}
    assert summary.dead_letters == str(letters)
    assert letters.stat().st_mode & 0o077 == 0
    assert orjson.loads(letters.read_bytes())["record"]["year"] == 1
    assert collection.ingest([str(letters)], min_words=10).indexed == 1


def test_duplicate_ids_the_last_wins(collection, client, small, write):
    """In one input and across files; counted (F42)."""
    summary = ingest(collection, [paper(1, title="first"), paper(2), paper(1, title="last")], write, small)
    assert (summary.read, summary.indexed, summary.rejected) == (3, 2, 1)
    files = [write([paper(3, title=title)], f"{title}.jsonl") for title in ("one", "two")]
    collection.ingest(files)
    documents = dump(client, collection.name)
    assert documents[f"{collection.name}/p1"]["title"] == "last"
    assert documents[f"{collection.name}/p3"]["title"] == "two"


def test_what_redone_papers_lose_is_counted_once(collection, small, write, monkeypatch):
    """A paper that somebody else changed meanwhile is done again; its losses are not lost twice."""
    genuine, refused = Writer._sort_out, []

    def conflict(self, outcome, papers, owner):
        failed = genuine(self, outcome, papers, owner)
        if not refused:
            refused.extend(papers)
            self.redo.papers.update(papers)
            return set(papers)
        return failed

    monkeypatch.setattr(Writer, "_sort_out", conflict)
    records = [paper(1, 900, year=2001), paper(2, 900, year="n/a")]
    summary = collection.ingest(write(records), replace(small, chunk_words=40, max_chunks=3))
    assert (summary.indexed, len(refused)) == (2, 2)
    assert summary.beyond == 2 * (900 - 112)
    assert {name: count for names in summary.dropped.values() for name, count in names.items()} == {"year": 1}


def test_conflicting_metadata_costs_the_field(collection, client, small, write):
    """2015 then "n/a", true then a word, a value then an object: papers stay, fields go, counted (F37)."""
    records = [
        paper(1, year=2015, open=True, venue="V", seen="2020-01-01"),
        paper(2, year="n/a", open="maybe", venue={"name": "V"}, seen="spring 2020"),
        paper(3, **{f"f{n}": n for n in range(250)}),
    ]
    summary = ingest(collection, records, write, small)
    assert (summary.indexed, summary.rejected) == (3, 0)
    assert summary.dropped[OTHER_TYPE] == {"year": 1, "open": 1, "seen": 1, "venue.name": 1}
    assert sum(summary.dropped[OWN].values()) == 200
    assert len(dump(client, collection.name)[f"{collection.name}/p3"]["meta"]) == 50
    again = ingest(collection, [paper(4, year=2016.5), paper(5, year="2017")], write)
    assert again.dropped == {OTHER_TYPE: {"year": 1}}
    assert len(collection.search("study", where=("year>2015",)).hits) == 1


def test_another_writers_mapping_is_respected(collection, client, small, write):
    """A field that somebody else mapped differently meanwhile costs the field."""
    ingest(collection, [paper(1)], write, small)
    client.indices.put_mapping(index=collection.name, body={"properties": {"meta": {"properties": {"odd": {"type": "boolean"}}}}})
    summary = ingest(collection, [paper(2, odd="text")], write)
    assert (summary.indexed, summary.dropped[OTHER_TYPE]["odd"]) == (1, 1)


def test_strange_texts_and_ids_go_in(collection, client, small, write):
    """Emoji, right-to-left, NUL, ids with every reserved character (F38, F42)."""
    ids = ["a/b?c#d,e*", "_under", "κλ#1", "👩‍🔬"]
    summary = ingest(collection, [paper(n) | {"id": key, "title": "שלום \x00 🧪"} for n, key in enumerate(ids)], write, small)
    assert summary.indexed == 4
    found = collection.search("study species", size=10, mode="lexical").hits
    assert {hit.id for hit in found} == set(ids)
    assert all(hit.passages for hit in found)


def test_a_title_alone_is_a_paper(collection, client, small, write):
    """A paper without text is found by its title; it has a vector and no chunks (F41)."""
    summary = ingest(collection, [{"id": "t", "title": "Only a title about ants"}, paper(1)], write, small, min_words=0)
    assert summary.indexed == 2
    assert dump(client, collection.name)[f"{collection.name}/t"]["chunk_count"] == 0
    assert collection.search("ants title", mode="lexical").hits[0].id == "t"
    assert ingest(collection, [{"id": "t", "title": "Only a title about ants"}], write, min_words=0).unchanged == 1


def test_vectors_that_are_not_finite_are_dead_letters(collection, small, write, monkeypatch):
    """A NaN costs its paper, is caught here and never reaches the server (F40)."""
    from osembed.embed.native.encoder import NativeEncoder

    real = NativeEncoder.embed

    def broken(self, tokens, *rest):
        vectors = real(self, tokens, *rest)
        for row, text in enumerate(tokens.texts):
            if "species 2." in text:
                vectors[row] = np.nan
        return vectors

    monkeypatch.setattr(NativeEncoder, "embed", broken)
    summary = ingest(collection, [paper(n) for n in range(4)], write, small)
    assert (summary.indexed, summary.rejected) == (3, 1)
    assert dict(summary.reasons) == {"its vector is zero or not finite": 1}


def test_truncation_is_audited(collection, small, write):
    """Fixed windows longer than the model sees: the unseen tokens are counted; so are words after the last chunk."""
    spec = replace(small, chunk_words=300, chunk_overlap=0, max_chunks=2)
    summary = ingest(collection, [paper(1, 900)], write, spec)
    assert summary.unseen > 300
    assert summary.beyond == 300


def test_a_contradicting_spec_is_refused(collection, small, write, models):
    """Another model, another rule: refused before anything is written, naming the difference."""
    ingest(collection, [paper(1)], write, small)
    with pytest.raises(IdentityError, match="tiny-mirror differs in weights"):
        ingest(collection, [paper(2)], write, CollectionSpec(chunk_model=str(models.mirror)))
    with pytest.raises(InputError, match="has chunks of windows that fit the model"):
        ingest(collection, [paper(2)], write, CollectionSpec(chunk_words=100))
    assert ingest(collection, [paper(2)], write, CollectionSpec(paper_model=str(models.bert))).indexed == 1


def test_two_levels_two_models(collection, client, write, models):
    """Papers and chunks may use different models; each document says which."""
    spec = CollectionSpec(paper_model=str(models.cls), chunk_model=str(models.mpnet))
    ingest(collection, [paper(n) for n in range(3)], write, spec)
    identities = {key.split("/")[0]: doc["identity"] for key, doc in dump(client, collection.name).items()}
    assert identities[collection.name] == identify(read_model(models.cls)).hash
    assert identities[f"{collection.name}-chunks"] == identify(read_model(models.mpnet)).hash
    assert collection.search("study of species 1").hits


def test_one_path_and_one_id_need_no_list(collection, small, write, tmp_path):
    """In a notebook people write one string, or a Path."""
    file = write([paper(1), paper(2)])
    assert collection.ingest(file, small).indexed == 2
    assert collection.ingest(tmp_path / "papers.jsonl").unchanged == 2
    assert collection.delete("p1") == {"p1": True}


def test_a_missing_model_creates_nothing(collection, client, write):
    """The model is looked for before any index is made (F9)."""
    from osembed.errors import ModelError

    with pytest.raises(ModelError):
        ingest(collection, [paper(1)], write, CollectionSpec(paper_model="./nowhere"))
    assert client.indices.get(index=f"{collection.name}*", params={"expand_wildcards": "all"}) == {}


def test_faiss_is_refused_by_the_embedded_node(collection, client, server, small, write):
    """Before anything is sent: the first faiss vector would end that node."""
    if not server.embedded:
        pytest.skip("the server under test is not the embedded node")
    with pytest.raises(InputError, match="has no native libraries"):
        ingest(collection, [paper(1)], write, replace(small, profile="faiss"))
    assert client.indices.get(index=f"{collection.name}*", params={"expand_wildcards": "all"}) == {}


def test_backends_must_reproduce_the_witness_vectors(collection, client, small, write, monkeypatch):
    """A backend that makes other vectors is not admitted to an existing collection."""
    from osembed.embed.native.encoder import NativeEncoder

    ingest(collection, [paper(1)], write, small)
    real = NativeEncoder.embed
    monkeypatch.setattr(NativeEncoder, "embed", lambda self, tokens, *rest: real(self, tokens, *rest)[:, ::-1])
    other = Collection(collection.name, collection._url)
    for _ in range(2):  # a second try in the same process is no way in
        with pytest.raises(IdentityError, match="witness vectors with cosine"):
            ingest(other, [paper(2)], write)


def test_a_long_run_of_faults_loses_nothing(proxy, client, name, small, write, url, monkeypatch):
    """Every third read or write is lost, unanswered or refused: the result equals that of an undisturbed run."""
    monkeypatch.setattr("osembed.ingest.intake._WINDOW_PAPERS", 4)
    kinds = [Fault("lost"), Fault("unanswered"), Fault("answer", 503, b"{}"), Fault("answer", 429, b'{"error": {"reason": "busy"}}')]

    risky: list[int] = []

    def rule(request):
        if not any(part in request.path for part in ("_bulk", "_mget", "_search")):
            return None
        risky.append(request.number)
        return kinds[len(risky) // 3 % 4] if len(risky) % 3 == 0 else None

    proxy.rules.append(rule)
    records = [paper(n, 250) for n in range(30)]
    summary = ingest(Collection(name, proxy.url), records, write, small)
    assert proxy.fired > 8
    assert summary.indexed + summary.unchanged == 30
    calm = Collection(f"{name}x", url)
    ingest(calm, records, write, small)
    assert _bare(dump(client, name)) == _bare(dump(client, calm.name))


def _bare(documents: dict[str, dict]) -> dict[str, dict]:
    """Documents by id and level, whatever their collection is called."""
    return {("chunk " if "#" in key else "paper ") + key.split("/", 1)[1]: doc for key, doc in documents.items()}


@pytest.mark.parametrize("fault", ["before", "applied"])
def test_killed_anywhere_and_run_again(fault, client, name, small, write, url):
    """First ingest and a change of it, killed -9 at sampled requests: run again, the end equals that without the kill."""
    _kill_test(fault, client, name, small, write, url, lambda total: sample(total, 6))


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["before", "applied"])
def test_killed_everywhere_and_run_again(fault, client, name, small, write, url):
    """The same at every request."""
    _kill_test(fault, client, name, small, write, url, lambda total: list(range(1, total + 1)))


def _kill_test(fault, client, name, small, write, url, choose):
    old, new = [paper(n, 200) for n in range(4)], [paper(0, 120), paper(1, 320), paper(2, 200, year=1), paper(4, 150)]
    reference = f"{name}ref"

    def kill(number: int, records: list[dict], victim: str) -> int:
        def arguments(at: str) -> list[str]:
            return ["ingest", write(records), "--collection", victim, "--url", at, "--model", str(small.paper_model)]

        return kill_at(number, fault, url, arguments)[0]

    for records in (old, new):
        ingest(Collection(reference, url), records, write, small)
    expected = _bare(dump(client, reference))
    total = kill(0, old, f"{name}count")
    assert total > 15
    for number in choose(total):
        victim = f"{name}k{number}"
        kill(number, old, victim)
        for records in (old, new):
            ingest(Collection(victim, url), records, write, small)
        assert _bare(dump(client, victim)) == expected, f"killed {fault} request {number}"
    # the same for a change of what is there
    for number in choose(total - 12):
        victim = f"{name}c{number}"
        ingest(Collection(victim, url), old, write, small)
        kill(number, new, victim)
        ingest(Collection(victim, url), new, write, small)
        assert _bare(dump(client, victim)) == expected, f"killed {fault} request {number} of a change"


def test_two_changes_at_once_end_in_one_state(client, name, small, write, url):
    """Two ingests of different versions of the same papers: each paper is wholly one or the other."""
    ingest(Collection(name, url), [paper(n, 200) for n in range(12)], write, small)
    versions = {
        "short": [paper(n, 110, version="short") for n in range(12)],
        "long": [paper(n, 600, version="long") for n in range(12)],
    }
    files = {key: write(records, f"{key}.jsonl") for key, records in versions.items()}
    for _ in range(3):
        threads = [threading.Thread(target=Collection(name, url).ingest, args=([file],)) for file in files.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    documents = dump(client, name)
    for n in range(12):
        whole = documents[f"{name}/p{n}"]
        chunks = [doc for key, doc in documents.items() if key.startswith(f"{name}-chunks/p{n}#")]
        assert len(chunks) == whole["chunk_count"]
        assert {chunk["input_hash"] for chunk in chunks} == {whole["input_hash"]}
        assert {chunk["meta"]["version"] for chunk in chunks} == {whole["meta"]["version"]}


def test_two_first_ingests_fill_one_generation(client, name, small, write, url):
    """Started together on nothing: one pair of indexes, published by whichever ends last, holding both."""
    files = [write([paper(f"{part}{n}", 200) for n in range(40)], f"{part}.jsonl") for part in "ab"]
    results: list = []
    threads = [threading.Thread(target=lambda file=file: results.append(Collection(name, url).ingest([file], small))) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert any(summary.published for summary in results)
    assert len(client.indices.get(index=f"{name}*", params={"expand_wildcards": "all"})) == 2
    assert len([key for key in dump(client, name) if "#" not in key]) == 80


def test_a_dead_loader_does_not_hold_up_the_publication(client, name, small, write, url):
    """A first ingest that was killed half-way: not searchable yet, said so; another input's ingest publishes what is there."""
    with FaultProxy(url) as proxy:
        process: list[subprocess.Popen] = []
        proxy.once("_bulk", Fault("unanswered", after=lambda: process[0].kill()))
        arguments = ["ingest", write([paper(1)]), "--collection", name, "--url", proxy.url, "--model", str(small.paper_model)]
        process.append(spawn(*arguments))
        process[0].wait(60)
        assert proxy.fired
    with pytest.raises(CollectionError, match="is still running or was interrupted"):
        Collection(name, url).search("x")
    assert ingest(Collection(name, url), [paper(2)], write, small).published
    assert Collection(name, url).search("study").found >= 1
    assert indexes.resolve(client, name) is not None


def test_a_first_load_with_another_model_is_refused(client, name, small, write, url, models):
    """While a first load is unfinished, another model is refused; after its indexes are deleted the name is free."""
    first = ["ingest", write([paper(1)]), "--collection", name, "--model", str(small.paper_model)]
    kill_at(22, "applied", url, lambda at: [*first, "--url", at])
    planned = client.indices.get(index=f"{name}*", params={"expand_wildcards": "all"})
    assert planned
    other = CollectionSpec(paper_model=str(models.mirror), chunk_model=str(models.mirror))
    with pytest.raises(IdentityError, match="first load"):
        ingest(Collection(name, url), [paper(1)], write, other)
    client.indices.delete(index=",".join(planned))
    assert ingest(Collection(name, url), [paper(1)], write, other).published


def test_a_write_block_is_waited_for(client, name, small, write, url):
    """An index that is fenced for a moment: the ingest waits, then everything is in."""
    collection = Collection(name, url)
    ingest(collection, [paper(0)], write, small)
    target = indexes.resolve(client, name)["papers"].index
    client.indices.put_settings(index=target, body={"index.blocks.write": True})
    timer = threading.Timer(2.0, lambda: client.indices.put_settings(index=target, body={"index.blocks.write": None}))
    timer.start()
    summary = ingest(collection, [paper(n) for n in range(5)], write)
    assert (summary.indexed, summary.unchanged, summary.rejected) == (4, 1, 0)


def test_a_write_block_that_stays_is_said(client, name, small, write, url, monkeypatch):
    """A read-only index ends the run with what to do; papers are not turned into dead letters."""
    monkeypatch.setattr("osembed.opensearch.coordination.fence._FOREIGN_S", 2.0)
    collection = Collection(name, url)
    ingest(collection, [paper(0)], write, small)
    target = indexes.resolve(client, name)["chunks"].index
    client.indices.put_settings(index=target, body={"index.blocks.write": True})
    with pytest.raises(BusyError, match="no swap is running"):
        ingest(collection, [paper(1)], write)
    client.indices.put_settings(index=target, body={"index.blocks.write": None})
    assert ingest(collection, [paper(1)], write).indexed == 1


def test_memory_is_bounded_by_windows(collection, small, write, monkeypatch):
    """Many papers pass in many windows; no window holds more than its share."""
    monkeypatch.setattr("osembed.ingest.intake._WINDOW_PAPERS", 10)
    steps: list[int] = []
    collection.ingest([write([paper(n) for n in range(45)])], small, lambda summary: steps.append(summary.indexed))
    assert len(steps) >= 5
    assert max(b - a for a, b in zip([0, *steps], steps, strict=False)) <= 10


def test_example_folder_and_jsonl_are_the_same_papers(collection, client, small):
    """examples/papers holds the texts of examples/corpus.jsonl, and ingesting the folder after the file finds the same text."""
    collection.ingest([str(EXAMPLES / "corpus.jsonl")], small)
    whole = {key.split("/")[1]: doc["text_hash"] for key, doc in dump(client, collection.name).items()}
    summary = collection.ingest([str(EXAMPLES / "papers")])
    assert (summary.read, summary.embedded) == (45, 0)
    assert {key.split("/")[1]: doc["text_hash"] for key, doc in dump(client, collection.name).items()} == whole


def test_duplicates_settle_in_one_state(collection, client, small, write, monkeypatch):
    """Windows apart, or in one: the last wins in every run, the second run writes nothing, each loser is counted once and named."""
    monkeypatch.setattr("osembed.ingest.intake._WINDOW_PAPERS", 2)
    records = [paper(1, title="first"), *(paper(n) for n in range(2, 7)), paper(1, title="second"), paper(7), paper(1, title="last")]
    first = ingest(collection, records, write, small)
    before = dump(client, collection.name)
    assert before[f"{collection.name}/p1"]["title"] == "last"
    assert (first.read, first.indexed, first.unchanged, first.rejected) == (9, 7, 0, 2)
    assert first.superseded == ["p1"]
    for _ in range(2):
        again = ingest(collection, records, write)
        assert (again.read, again.indexed, again.unchanged, again.rejected, again.embedded) == (9, 0, 7, 2, 0)
        assert dump(client, collection.name) == before
    swapped = ingest(collection, records[-1:] + records[1:-1] + records[:1], write)  # the input has changed: now the first is the last
    assert (swapped.indexed, swapped.unchanged, swapped.rejected) == (1, 6, 2)
    assert dump(client, collection.name)[f"{collection.name}/p1"]["title"] == "first"
    only = ingest(collection, records[6:7], write)  # its other records are gone, and so is what it waited for
    assert (only.indexed, only.rejected) == (1, 0)
    assert dump(client, collection.name)[f"{collection.name}/p1"]["title"] == "second"


def test_superseded_records_do_not_come_back(collection, client, small, write, tmp_path):
    """Their dead letters, fed in again unmended, stay dead letters: an old version must not win after all."""
    letters = str(tmp_path / "dead.jsonl")
    ingest(collection, [paper(1, title="old"), paper(1, title="new")], write, small, dead_letters=letters)
    assert orjson.loads((tmp_path / "dead.jsonl").read_bytes())["record"]["title"] == "old"
    with pytest.raises(NoPapersError, match="1 superseded"):
        collection.ingest([letters])
    assert dump(client, collection.name)[f"{collection.name}/p1"]["title"] == "new"


def test_nothing_is_created_for_an_input_without_papers(name, small, write, tmp_path):
    """A mistyped path, too short a paper: said before a server is even looked for."""
    unreachable = Collection(name, "http://127.0.0.1:9")
    with pytest.raises(InputError, match="There is no"):
        unreachable.ingest(tmp_path / "missing", small)
    with pytest.raises(NoPapersError, match="1 fewer than 100 words") as refused:
        ingest(unreachable, [paper(1, 5)], write, small)
    assert refused.value.exit_code == 1


def test_papers_stored_under_the_former_rule_are_named(collection, client, small, tmp_path):
    """CSV ids were numbers once: what is stored under 2101.0001 and is 2101.00010 now is named, with the way out."""
    text = paper(1)["text"]
    (tmp_path / "old.csv").write_text(f'id,title,text\nx2101.0001,Ants,"{text}"\n')
    collection.ingest(tmp_path / "old.csv", small)
    old = dump(client, collection.name)[f"{collection.name}/x2101.0001"]
    client.index(index=collection.name, id="2101.0001", body={**old, "paper_id": "2101.0001", "ingested_at": "2020-01-01"}, refresh=True)
    (tmp_path / "new.csv").write_text(f'id,title,text\n2101.00010,Ants,"{text}"\n0704.0010,Bees,"{text} bees"\n')
    summary = collection.ingest(tmp_path / "new.csv")
    assert (summary.indexed, summary.doubled, summary.doubled_count) == (2, {"2101.0001": "2101.00010"}, 1)
    collection.delete(list(summary.doubled))
    again = collection.ingest(tmp_path / "new.csv")
    assert (again.unchanged, again.doubled) == (2, {})


def test_progress_counts_what_is_settled(collection, small, write, monkeypatch):
    """Not what has been read ahead: half of the papers written is half of the bytes."""
    monkeypatch.setattr("osembed.ingest.intake._WINDOW_PAPERS", 5)
    steps: list[tuple[int, float]] = []
    collection.ingest([write([paper(n) for n in range(20)])], small, lambda summary: steps.append((summary.indexed, summary.done)))
    assert steps[-1] == (20, 1.0)
    for indexed, done in steps:
        assert done == pytest.approx(indexed / 20, abs=0.05)


def test_a_summary_with_rejections_is_json(capsys):
    summary = Summary("papers", reasons=Counter(["no text"]), dropped={"too deep": Counter(["a.b"])})
    print_json(summary)
    found = json.loads(capsys.readouterr().out)
    assert (found["reasons"], found["dropped"]) == ({"no text": 1}, {"too deep": {"a.b": 1}})
