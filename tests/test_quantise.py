"""Models as OpenVINO graphs: the same vectors, int8 ones close to them, and a collection that moves to them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from osembed.arguments import choose_models
from osembed.embed.load import load_encoder
from osembed.embed.quantise import quantise, sample_passages
from osembed.embed.traced import graph_of, save_graph
from osembed.errors import IdentityError, InputError, ModelError
from osembed.models.folder import read_model
from osembed.models.identity import identify
from osembed.models.registry import open_model
from osembed.models.spec import GRAPH
from osembed.papers.paper import Paper
from tests.conftest import EXAMPLES, TEXT
from tests.forking import command

TEXTS = [
    " ".join((TEXT * 9).split()[start : start + length]) for start, length in enumerate((1, 2, 9, 14, 15, 16, 29, 30, 31, 45, 63, 80, 150))
]


@pytest.mark.parametrize("family", ["bert", "cls", "mpnet", "xlmr", "distil"])
def test_a_graph_makes_the_models_vectors(models, family, tmp_path):
    """Of every family, at any length and in any company; its identity is its own all the same."""
    model = read_model(getattr(models, family))
    save_graph(model, graph_of(model), tmp_path / "graph", {})
    made = read_model(tmp_path / "graph")
    encoder, exact = load_encoder(made, precision="fp32"), load_encoder(model, device="cpu", precision="fp32")
    assert encoder.backend == "OpenVINO fp32 on cpu"
    np.testing.assert_allclose(encoder.encode(TEXTS), exact.encode(TEXTS), atol=2e-5)
    np.testing.assert_allclose(encoder.encode_query(TEXTS[3]), exact.encode_query(TEXTS[3]), atol=2e-5)
    assert identify(model).difference(identify(made)).startswith("weights")


def test_a_graph_keeps_the_settings_of_its_model(models, tmp_path):
    """Also those that only osembed's registry knows, such as prompts and what stands between title and text."""
    stated = read_model(models.bert).spec
    spec = replace(stated, query_prompt="q: ", passage_prompt="p: ", separator="[SEP]", similarity="dot", normalize=False, max_length=40)
    model = read_model(models.bert, spec)
    save_graph(model, graph_of(model), tmp_path / "some" / "graph", {})
    made = read_model(tmp_path / "some" / "graph")
    assert made.spec == replace(spec, name="graph", assumed=())
    assert identify(model).difference(replace(identify(made), weights=model.weights_hash)) is None


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    """all-MiniLM-L6-v2 in int8, made by the command, and what the command said."""
    folder = tmp_path_factory.mktemp("int8") / "minilm-int8"
    done = subprocess.run(
        command("models", "quantise", "all-MiniLM-L6-v2", str(EXAMPLES), "--to", str(folder), "--json"), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_int8_vectors_are_close(int8):
    """At all lengths: OpenVINO's int8 has computed single lengths wrongly, with the rest of the graph in bf16."""
    folder, said = int8
    assert said["cosine_min"] > 0.98
    assert list(said["texts_per_s"])[1] == "OpenVINO int8 on cpu"
    exact, small = load_encoder(open_model("all-MiniLM-L6-v2"), device="cpu", precision="fp32"), load_encoder(open_model(str(folder)))
    words = (EXAMPLES / "corpus.jsonl").read_text().replace("\\n", " ").split()
    texts = [" ".join(words[40 : 40 + length]) for length in range(1, 130)]
    reference = exact.encode(texts)
    assert (small.encode(texts) * reference).sum(1).min() > 0.97
    assert (np.concatenate([small.encode([text]) for text in texts]) * reference).sum(1).min() > 0.97


def test_a_collection_moves_to_int8(int8, collection):
    """By a migration like any other; never by mixing."""
    folder, _ = int8
    collection.ingest([EXAMPLES], min_words=10)
    before = collection.search("how do ants find home")
    with pytest.raises(IdentityError, match="differs in weights"):
        collection.ingest([EXAMPLES], choose_models(str(folder)), min_words=10)
    assert collection.migrate(str(folder), gentle=False).phase == "swapped"
    after = collection.search("how do ants find home")
    assert after.models["chunks"] == "minilm-int8"
    assert {hit.id for hit in after.hits[:5]} & {hit.id for hit in before.hits[:5]}
    assert collection.verify().passed


def test_what_cannot_be_quantised_is_refused(models, int8, tmp_path, monkeypatch):
    """With the reason, before anything is written."""
    model, folder = read_model(models.bert), int8[0]
    papers = [Paper("1", "Title", "", TEXT * 5, {}, "", {})]
    with pytest.raises(InputError, match="exists"):
        quantise(model, papers, tmp_path)
    with pytest.raises(InputError, match="There are 2 passages"):
        quantise(model, papers, tmp_path / "x")
    with pytest.raises(InputError, match="on the CPU"):
        load_encoder(read_model(folder), device="cuda")
    for unfit in (read_model(models.dense), read_model(folder)):
        with pytest.raises(ModelError, match="architecture"):
            quantise(unfit, papers, tmp_path / "x")
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ModelError, match="NNCF"):
        quantise(model, papers * 40, tmp_path / "x")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match="OpenVINO is not installed"):
        load_encoder(read_model(folder))
    assert list(tmp_path.iterdir()) == []


def test_damaged_graphs_are_refused(int8, tmp_path):
    """A file that was cut off, or is missing."""
    folder = tmp_path / "copy"
    shutil.copytree(int8[0], folder)
    data = (folder / GRAPH).with_suffix(".bin")
    data.write_bytes(data.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="damaged"):
        read_model(folder)
    data.unlink()
    with pytest.raises(ModelError, match="missing"):
        read_model(folder)


def test_passages_of_all_lengths_are_sampled(models):
    """From many papers, whole and cut short, the same ones each time."""
    model = read_model(models.bert)
    papers = [Paper(str(n), f"Title {n}", "", TEXT * 20, {}, "", {}) for n in range(400)]
    passages = sample_passages(papers, model)
    assert passages == sample_passages(papers, model)
    lengths = {len(text.split()) for text in passages}
    assert len(passages) == 300
    assert len(lengths) > 20
    assert min(lengths) < 6
