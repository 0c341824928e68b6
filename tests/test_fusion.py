"""Fusion: exact numbers, and the same numbers as the server's own hybrid query."""

from __future__ import annotations

import pytest

from osembed.limits import FUSIONS
from osembed.search import bodies
from osembed.search.fusion import NORMALISERS, SERVER_FUSIONS, fuse_rankings
from osembed.search.options import SearchOptions
from osembed.search.searcher import Searcher
from tests.conftest import EXAMPLES

LEXICAL, VECTOR = {"a": 9.0, "b": 5.0, "c": 1.0}, {"b": 1.5, "c": 1.2, "d": 1.0}


@pytest.mark.parametrize(
    ("fusion", "expected"),
    [
        ("min_max", {"a": 0.5, "b": 0.75, "c": 0.2005, "d": 0.0005}),
        ("rrf", {"a": 0.5 / 61, "b": 0.5 / 62 + 0.5 / 61, "c": 0.5 / 63 + 0.5 / 62, "d": 0.5 / 63}),
        ("l2", {"a": 0.4350, "b": 0.5880, "c": 0.3254, "d": 0.2309}),
    ],
)
def test_exact_scores(fusion, expected):
    """The formulas, to four decimals; a document of one leg scores 0 in the other."""
    fused = {one.id: one.score for one in fuse_rankings([LEXICAL, VECTOR], fusion, (0.5, 0.5))}
    assert fused == pytest.approx(expected, abs=1e-4)


def test_every_fusion_has_its_formula():
    """What options allow can be computed; what the server is asked for is among it."""
    assert set(NORMALISERS) == set(FUSIONS) >= set(SERVER_FUSIONS)


def test_weights_empty_legs_and_ties():
    """Weights are shares; an empty leg is no error; ties are broken by id."""
    assert [one.id for one in fuse_rankings([LEXICAL, VECTOR], "min_max", (1, 0))][:2] == ["a", "b"]
    assert [one.id for one in fuse_rankings([{}, {"x": 1.0, "m": 1.0}], "min_max", (0.5, 0.5))] == ["m", "x"]
    assert fuse_rankings([{}, {}], "rrf", (0.5, 0.5)) == []
    assert fuse_rankings([{"a": 3.0}, {}], "min_max", (0.5, 0.5))[0].score == 0.5


@pytest.fixture(scope="module")
def examples(url, client, server):
    """The example papers, embedded with the real default model."""
    from osembed.collection import Collection

    collection = Collection("fusion-examples", url)
    collection.ingest([str(EXAMPLES)])
    yield collection
    for index in client.indices.get(index="fusion-examples*", params={"expand_wildcards": "all"}):
        client.indices.delete(index=index)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.3, 0.7)])
@pytest.mark.parametrize("text", ["ants walk home", "plastic in rivers", "QNT-5120", "the dark halo of a galaxy"])
def test_client_fusion_equals_the_servers(examples, client, fusion, weights, text):
    """On one level, both legs fused here give the scores of the native hybrid query."""
    searcher: Searcher = examples._searcher
    target = searcher.targets()["papers"]
    vector = searcher._query_vector(text, target)
    body = bodies.hybrid(text, vector, 20, [], bodies.pipeline(fusion, weights))
    native = {hit["_id"]: hit["_score"] for hit in client.search(index=target.index, body=body)["hits"]["hits"]}
    requests = [(target, bodies.leg(leg, 20)) for leg in (bodies.lexical(text), bodies.nearest(vector, 20, []))]
    legs = [{hit["_id"]: hit["_score"] for hit in hits} for hits in searcher.ranker.legs(requests)]
    ours = {one.id: one.score for one in fuse_rankings(legs, fusion, weights)}
    assert ours == pytest.approx(native, abs=2e-4)


def test_fallback_equals_native(examples):
    """Where the server cannot fuse, the client does, with the same result."""
    other = Searcher(examples.client, examples.server, examples.name, examples._query_encoders)
    other.ranker.give_up_native()
    for level in ("papers", "chunks"):
        options = SearchOptions(level=level)
        native = examples._searcher.rank("how do insects find home", options)
        assert other.rank("how do insects find home", options)[:10] == native[:10]
