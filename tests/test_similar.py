"""The nearest papers of a paper, of a text and of a file, with their passages."""

from __future__ import annotations

import numpy as np
import pytest

from osembed.collection import Collection
from osembed.errors import InputError, ModelError
from osembed.ingest.spec import CollectionSpec
from osembed.passages.passage import paper_passage
from osembed.search.similar import read_text
from tests.conftest import paper


@pytest.fixture(scope="module")
def near(url, client, models):
    """Thirty papers of several chunks each."""
    collection = Collection("similar-papers", url)
    spec = CollectionSpec(paper_model=str(models.bert), chunk_model=str(models.bert), chunk_words=25, chunk_overlap=0)
    collection.ingest((paper(n, year=2000 + n) for n in range(30)), spec)
    yield collection
    for index in client.indices.get(index="similar-papers*", params={"expand_wildcards": "all"}):
        client.indices.delete(index=index)


def test_hits_show_their_best_passages(near):
    """Each paper's nearest chunk comes first; as many as asked for, or none."""
    result = near.similar("p3", size=4, passages=2)
    assert all(1 <= len(hit.passages) <= 2 for hit in result)
    assert "p3" not in {hit.id for hit in result}
    assert not any(hit.passages for hit in near.similar("p3", passages=0))
    chunks = {hit["_id"]: hit["_source"]["embedding"] for hit in _documents(near, "similar-papers-chunks")}
    [seed] = [hit["_source"]["embedding"] for hit in _documents(near, "similar-papers") if hit["_id"] == "p3"]
    for hit in result:
        scores = {key: float(np.dot(_vector(seed), _vector(chunks[key]))) for key in chunks if key.startswith(f"{hit.id}#")}
        assert hit.passages[0].chunk_index == int(max(scores, key=scores.get).split("#")[1])


def test_a_text_is_embedded_as_a_passage(near):
    """The very words of a stored paper are nearest to that paper, with its own vector; not those of a query."""
    body = paper(7)["text"]
    encoder = near._query_encoders.of(near._searcher.targets()["papers"].meta.stored_model)
    vector = encoder.encode([paper_passage(encoder.model.spec, "", "", body).text])[0]
    [plain] = near.client.search(
        index="similar-papers", body={"size": 1, "query": {"knn": {"embedding": {"vector": vector.tolist(), "k": 1}}}}
    )["hits"]["hits"]
    result = near.similar(text=body, size=1)
    assert (result[0].id, result[0].score) == (plain["_id"], pytest.approx(plain["_score"], rel=1e-4))
    assert result[0].passages


def test_a_file_is_read_as_a_paper_would_be(near, tmp_path):
    """Its first line is the title, so the file of a stored paper finds that paper first, with a score of the same vector."""
    record = paper(7)
    file = tmp_path / "draft.md"
    file.write_text(f"# {record['title']}\n\n{record['text']}")
    result = near.similar(file=file, size=3, where="year>=2005", fields="year")
    assert result[0].id == "p7"
    assert result[0].meta == {"year": 2007}
    assert result[0].score == max(hit.score for hit in result)


def test_long_texts_are_cut_and_that_is_said(near):
    """What the model does not see is not compared, and the answer says so."""
    [notice] = near.similar(text="cells divide " * 5000).notices
    assert "the rest was not compared" in notice
    assert near.similar(text="cells divide").notices == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "Exactly one of"),
        ({"paper_id": "p1", "text": "x"}, "Exactly one of"),
        ({"text": " \x00"}, "text is empty"),
        ({"text": 5}, "text: 5 is not a text"),
        ({"file": "/nowhere/at-all.txt"}, "cannot be read as text"),
        ({"text": "x", "size": 0}, "size: 0 is not a whole number"),
        ({"text": "x", "fields": "yaer"}, "Did you mean year"),
        ({"paper_id": "nobody"}, "no paper 'nobody'"),
    ],
)
def test_what_cannot_be_compared_is_refused(near, given, message):
    """By name, and before anything is embedded."""
    with pytest.raises(InputError, match=message):
        near.similar(**given)


def test_files_that_are_no_text(tmp_path):
    """Bytes that are no UTF-8 are refused; a large file is read as far as a model could see."""
    file = tmp_path / "x.pdf"
    file.write_bytes(b"%PDF \xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_text(file)
    file.write_bytes("ü".encode() * 2**20)
    title, _ = read_text(file)
    assert len(title) == 2**19
    file.write_bytes("Títle\nbody".encode("utf-16"))
    assert read_text(file) == ("Títle", "body")


def test_levels_with_two_models_each_compare_with_their_own(name, url, models):
    """Passages of a text come from the chunks' model, those of a stored paper from shared words; no vector meets another's space."""
    collection = Collection(name, url)
    collection.ingest((paper(n, words=200) for n in range(3)), CollectionSpec(paper_model=str(models.bert), chunk_model=str(models.mpnet)))
    assert all(hit.passages for hit in collection.similar("p1"))
    assert all(hit.passages for hit in collection.similar(text=paper(1)["text"]))


def test_without_the_model_a_text_cannot_be_compared(name, url, small, monkeypatch):
    """A stored paper has its vector; a text needs the model, and words alone are not taken for it."""
    collection = Collection(name, url)
    collection.ingest([paper(1), paper(2)], small)
    other = Collection(name, url)
    monkeypatch.setattr("osembed.embed.encoders.find_model", lambda *_: None)
    assert [hit.id for hit in other.similar("p1")] == ["p2"]
    with pytest.raises(ModelError, match="not on this machine"):
        other.similar(text="cells")


def _documents(collection, index):
    return collection.client.search(index=index, body={"size": 1000, "query": {"match_all": {}}})["hits"]["hits"]


def _vector(stored):
    import base64

    return np.frombuffer(base64.b64decode(stored), "<f4") if isinstance(stored, str) else np.asarray(stored, np.float32)
