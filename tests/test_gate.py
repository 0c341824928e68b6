"""The gate cannot be fooled: what compares nothing passes nothing, no model is ever replaced by words, and evaluation is as strict."""

from __future__ import annotations

import json

import orjson
import pytest

from osembed.collection import Collection
from osembed.embed import encoders
from osembed.errors import InputError, ModelError
from osembed.evaluate import evaluation
from osembed.evaluate.judged import read_judged
from osembed.ingest.spec import CollectionSpec
from osembed.migrate.copy.copier import Copier
from osembed.migrate.proof.gate import judge_models
from osembed.migrate.proof.verdict import GateOptions
from osembed.search.options import SearchOptions
from osembed.search.searcher import Searcher
from tests.conftest import EXAMPLES, paper, run
from tests.killing import before_first

UNJUDGED = GateOptions(skip=True)
pytestmark = pytest.mark.usefixtures("known_models")


@pytest.fixture
def filled(collection, small) -> Collection:
    """The example papers, embedded with the small BERT model."""
    collection.ingest(str(EXAMPLES / "corpus.jsonl"), small)
    return collection


@pytest.fixture
def judgments(tmp_path):
    """Make a folder of judgments: title and first words of each example paper must find it."""

    def make(extra: tuple[str, ...] = ()) -> str:
        records = [json.loads(line) for line in (EXAMPLES / "corpus.jsonl").read_text().splitlines()]
        asked = {f"t{record['_id']}": (record["title"], record["_id"]) for record in records}
        asked |= {f"b{record['_id']}": (record["text"][:150], record["_id"]) for record in records}
        asked |= {f"x{key}": (f"Something about {key}", key) for key in extra}
        (tmp_path / "qrels").mkdir(exist_ok=True)
        lines = [orjson.dumps({"_id": key, "text": text}) for key, (text, _) in asked.items()]
        (tmp_path / "queries.jsonl").write_bytes(b"\n".join(lines))
        rows = [f"{key}\t{paper_id}\t1" for key, (_, paper_id) in asked.items()]
        (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(rows))
        return str(tmp_path)

    return make


def forget(monkeypatch, target) -> None:
    """Let this machine lack the model of an index."""
    genuine, weights = encoders.find_model, target.meta.identity.weights
    monkeypatch.setattr(encoders, "find_model", lambda wanted, name: None if wanted == weights else genuine(wanted, name))


def pinned(collection, targets) -> Searcher:
    return Searcher(collection.client, collection.server, collection.name, collection._query_encoders, resolve=lambda: targets)


def test_without_the_old_model_it_is_said_before_anything_is_copied(filled, name, url, models, judgments, monkeypatch):
    """The new model alone is measured and decides nothing; only a recorded override swaps."""
    forget(monkeypatch, filled._searcher.resolve()["chunks"])
    said: list[str] = []
    before: list[str] = []
    other = Collection(name, url, report=said.append)
    plan = other.migration().plan(CollectionSpec(paper_model=str(models.mirror), chunk_model=str(models.mirror)))
    assert any("The gate cannot compare" in text and "tiny-bert" in text for text in plan.warnings)
    before_first(monkeypatch, Copier, "_write", lambda: before.extend(said))
    done = other.migrate(str(models.mirror), gate=GateOptions(qrels=judgments()), gentle=False)
    assert any("exit code 4" in text for text in before)
    assert (done.phase, done.gate.verdict, done.gate.metrics) == ("gate", "inconclusive", [])
    assert "not on this machine" in done.refused
    assert 0 < done.gate.alone["recall@100"] <= 1
    swapped = other.swap(gate=GateOptions(override="the old model is lost"), gentle=False)
    assert (swapped.phase, swapped.gate.verdict) == ("swapped", "inconclusive")
    assert any("overridden: the old model is lost" in what for _, what in other.migration().state.history)


def test_the_new_model_is_never_replaced_by_words(filled, name, url, models, monkeypatch):
    """Queries that cannot be embedded are an error; both sides searched by words would be alike."""
    filled.migrate(str(models.mirror), swap=False, gate=UNJUDGED, gentle=False)
    monkeypatch.setattr(encoders, "find_model", lambda *_: None)
    with pytest.raises(ModelError, match="not on this machine"):
        judged(Collection(name, url))


def test_a_query_that_cannot_be_embedded_is_an_error(filled, models, monkeypatch):
    """No vector, no verdict: it is not counted as a query that finds nothing."""
    filled.migrate(str(models.mirror), swap=False, gate=UNJUDGED, gentle=False)
    encoder = filled._query_encoders.of(filled._searcher.resolve()["chunks"].meta.stored_model)
    genuine = encoder.encode_query
    monkeypatch.setattr(encoder, "encode_query", lambda text: genuine(text) * 0)
    with pytest.raises(ModelError, match="zero or not finite"):
        judged(filled)
    assert filled.search("species", mode="vector").degraded


def judged(collection, options=None):
    """Judge the migration of a collection that is ready, without swapping."""
    from osembed.opensearch import indexes

    state = collection.migration().state
    blue = indexes.resolve(collection.client, collection.name)
    green = indexes.resolve_indexes(collection.client, {level: move.green for level, move in state.moves.items()})
    return judge_models(
        collection.client,
        pinned(collection, blue),
        pinned(collection, {**blue, **green}),
        options or GateOptions(),
        moving=list(state.moves),
    )


def test_judged_papers_that_are_missing_decide_nothing(filled, models, judgments):
    """Complete judgments pass; one paper that the collection lacks is named; a collection that lacks all of them passes nothing."""
    filled.migrate(str(models.mirror), swap=False, gate=UNJUDGED, gentle=False)
    assert judged(filled, GateOptions(qrels=judgments())).verdict == "passed"
    gate = judged(filled, GateOptions(qrels=judgments(("nowhere",))))
    assert (gate.verdict, gate.queries, gate.passed) == ("inconclusive", 90, False)
    assert gate.reason.startswith("1 of 46 papers")
    filled.delete([f"{json.loads(line)['_id']}" for line in (EXAMPLES / "corpus.jsonl").read_text().splitlines()])
    none = judged(filled, GateOptions(qrels=judgments()))
    assert (none.verdict, none.queries) == ("inconclusive", 0)


def test_words_alone_judge_no_model(filled, models):
    """A lexical search finds the same with any model."""
    filled.migrate(str(models.mirror), swap=False, gate=UNJUDGED, gentle=False)
    gate = judged(filled, GateOptions(mode="lexical"))
    assert (gate.verdict, "use no model" in gate.reason) == ("inconclusive", True)


def test_indexes_that_answer_nothing_pass_nothing(filled, models, client):
    """Where both sides find nothing the difference is zero, which is no proof."""
    filled.migrate(str(models.mirror), swap=False, gate=UNJUDGED, gentle=False)
    for move in filled.migration().state.moves.values():
        for index in (move.blue, move.green):
            if "chunks" in index:
                client.delete_by_query(index=index, body={"query": {"match_all": {}}}, refresh=True)
    gate = judged(filled)
    assert (gate.verdict, "find nothing for" in gate.reason) == ("inconclusive", True)


def test_an_empty_collection_is_not_judged_in_silence(collection, small, write, models, url):
    """There is nothing to compare: exit code 4, unless the gate is left out, which is recorded."""
    collection.ingest(write([paper(1)]), small)
    collection.delete("p1")
    where = ["--model", str(models.mirror), "--collection", collection.name, "--url", url]
    refused = run("migrate", *where)
    assert (refused.returncode, "only 0 queries could be run" in refused.stdout) == (4, True), refused.stderr
    assert run("migrate", "--no-gate", *where).returncode == 0


def test_papers_without_chunks_are_no_known_items(filled, models, client):
    """Documents of other programs have no chunks to be found by: they would dilute a difference, and are not asked for."""
    for number in range(60):
        client.index(index=filled.name, id=f"own{number}", body={"title": f"A title of theirs {number}", "body": "By others."})
    client.indices.refresh(index=filled.name)
    filled.migrate(str(models.mirror), swap=False, gate=UNJUDGED, gentle=False)
    found = judged(filled).metrics[0]
    assert found.blue == pytest.approx(found.green)
    assert found.blue > 0


def test_where_only_papers_move_their_vectors_are_judged(filled, models):
    """Chunks, which answer searches, are the same on both sides: comparing them would pass any model."""
    done = filled.migrate(spec=CollectionSpec(paper_model=str(models.cls)), swap=False, gate=GateOptions(), gentle=False)
    assert done.gate.overlap < 1


def test_evaluation_leaves_out_what_it_cannot_measure(filled, name, url, monkeypatch):
    """Without the model only the rows by words are measured, and the others are named; one that was asked for is an error."""
    monkeypatch.setattr(encoders, "find_model", lambda *_: None)
    other = Collection(name, url)
    found = other.evaluate(EXAMPLES)
    assert {row.mode for row in found.rows} == {"lexical"}
    assert len(found.left_out) == sum(way.mode != "lexical" for way in evaluation.all_ways())
    assert "not on this machine" in found.left_out["both vector"]
    asked = read_judged(EXAMPLES)
    with pytest.raises(ModelError):
        evaluation.evaluate(other._searcher, name, asked, [SearchOptions(mode="vector")])


def test_an_empty_query_is_an_error(filled, judgments):
    """It would find nothing with any model."""
    folder = judgments()
    with open(f"{folder}/queries.jsonl", "ab") as file:
        file.write(b'\n{"_id": "empty", "text": "  "}')
    with open(f"{folder}/qrels/test.tsv", "a") as file:
        file.write("\nempty\tp1\t1")
    with pytest.raises(InputError, match="Query empty"):
        filled.evaluate(folder)
    with pytest.raises(InputError, match="query is empty"):
        filled._searcher.rank(" ", SearchOptions(mode="lexical"))
