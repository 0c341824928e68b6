"""One search over several collections: as if they were one, and refused where their models or fields do not agree."""

from __future__ import annotations

import uuid
from itertools import product

import orjson
import pytest

from osembed.collection import Collection
from osembed.errors import ClusterError, CollectionError, IdentityError, InputError, UnsettledError
from osembed.ingest.spec import CollectionSpec
from osembed.limits import SEARCH_LEVELS
from tests.conftest import paper, run
from tests.proxy import Fault, FaultProxy


@pytest.fixture(scope="module")
def names(url, client, models):
    """Names of collections: `a` and `b` part the papers of `ab` and have its model; `c` has another, and a year that is text."""
    stem = f"several{uuid.uuid4().hex[:6]}"
    names = {key: f"{stem}-{key}" for key in ("a", "b", "ab", "c")}
    bert, cls = (CollectionSpec(paper_model=str(model), chunk_model=str(model)) for model in (models.bert, models.cls))
    records = [paper(n, words=60 + n * 7, year=2000 + n % 5, venue=f"v{n % 3}") for n in range(24)]
    for key, part, spec in (
        ("a", records[::2], bert),
        ("b", [*records[1::2], paper(0, words=90, only="b")], bert),
        ("ab", [*records, {**paper(0, words=90, only="b"), "id": "again"}], bert),
        ("c", [paper(n, words=80, year=f"in {n}") for n in range(3)], cls),
    ):
        Collection(names[key], url).ingest(part, spec, min_words=10)
    yield names
    for index in client.indices.get(index=f"{stem}*", params={"expand_wildcards": "all"}):
        client.indices.delete(index=index)


@pytest.fixture
def both(names, url):
    """A search over `a` and `b`."""
    collection = Collection(names["a"], url)
    return lambda text, **options: collection.search(text, also=names["b"], **options)


def shape(result, names):
    """Scores by paper, whichever collection it is from; the paper that is in both by another id."""
    return {("again" if hit.collection == names["b"] and hit.id == "p0" else hit.id): pytest.approx(hit.score, rel=1e-4) for hit in result}


# On one level a single collection is fused by the server, from other candidates.
@pytest.mark.parametrize(("mode", "level"), [("hybrid", "both"), *product(("lexical", "vector"), SEARCH_LEVELS)])
def test_two_collections_answer_like_one(both, names, url, mode, level):
    """The same papers with the same scores as one collection that holds them all: words weigh alike on both sides."""
    one = Collection(names["ab"], url).search("study 7 species", mode=mode, level=level, size=100, passages=0)
    two = both("study 7 species", mode=mode, level=level, size=100, passages=0)
    assert two.found == one.found == 25
    assert shape(two, names) == {hit.id: hit.score for hit in one}


@pytest.mark.parametrize("level", SEARCH_LEVELS)
def test_hits_carry_their_collection(both, names, level):
    """Also where one id is in both; passages are those of the paper there."""
    result = both("study 0 species", level=level, size=100)
    assert {hit.collection for hit in result} == {names["a"], names["b"]}
    twins = [hit for hit in result if hit.id == "p0"]
    assert {hit.collection for hit in twins} == {names["a"], names["b"]}
    assert {"only" in hit.meta for hit in twins} == {True, False}
    assert all(hit.passages for hit in result)
    pages = [(hit.collection, hit.id) for page in (1, 2, 3) for hit in both("study 0 species", level=level, page=page)]
    assert pages == [(hit.collection, hit.id) for hit in result]
    chunks = both("study 0 species", hits="chunks", size=20)
    assert all(len(hit.passages) == 1 for hit in chunks)


def test_sort_facets_and_filters_run_over_both(both, names):
    """Counted once each, sorted together; a field that only one has narrows to it, and that is said."""
    for mode in ("lexical", "hybrid"):
        result = both("study", mode=mode, sort="year", facets=["year", "venue"], size=100, explain=True)
        found = [hit.meta["year"] for hit in result if "year" in hit.meta]
        assert (len(found), found) == (24, sorted(found))
        assert "year" not in result[-1].meta
        assert sum(result.facets[0].values.values()) == 24
        assert result.facets[0].papers == 25
        assert result.facets[0].missing == 1
    only = both("study", where="only=b")
    assert [(hit.id, hit.collection) for hit in only] == [("p0", names["b"])]
    assert f"No paper of '{names['a']}' has a field 'only'." in only.notices
    assert {hit.id for hit in both("study", where="id=p0|p1")} == {"p0", "p1"}


def test_other_models_are_searched_by_words_only(names, url):
    """Vectors of two models are refused with the first difference; words always work."""
    collection = Collection(names["a"], url)
    with pytest.raises(IdentityError, match=rf"'{names['a']}' and '{names['c']}' differ in weights"):
        collection.search("study", also=[names["b"], names["c"]])
    result = collection.search("study", also=[names["b"], names["c"]], mode="lexical", size=100)
    assert {hit.collection for hit in result} == {names[key] for key in "abc"}
    assert result.models["papers"].count(",") == 1


@pytest.mark.parametrize("options", [{"where": "year>=2001"}, {"sort": "year:desc"}, {"facets": "year"}])
def test_fields_of_two_types_are_refused(names, url, options):
    """One filter cannot mean both; where nobody asks for the field, nothing is refused."""
    with pytest.raises(InputError, match=f"'year' is double in '{names['a']}' and keyword in '{names['c']}'"):
        Collection(names["a"], url).search("study", also=names["c"], mode="lexical", **options)


def test_a_missing_collection_is_named(names, url):
    """Not the first, the one that is not there."""
    with pytest.raises(CollectionError, match="'nowhere-at-all'"):
        Collection(names["a"], url).search("study", also="nowhere-at-all")
    with pytest.raises(InputError, match="cannot be the name"):
        Collection(names["a"], url).search("study", also="Bad Name")
    with pytest.raises(InputError, match="also: .3. is not a list of texts"):
        Collection(names["a"], url).search("study", also=3)


def test_an_index_left_out_is_noticed(names, url, monkeypatch):
    """A server that answers for one of two collections, as a security plugin may, is not believed."""
    monkeypatch.setenv("OSEMBED_RETRY_SECONDS", "1")

    def fewer(body: bytes) -> bytes:
        answer = orjson.loads(body)
        for part in answer["responses"]:
            part["_shards"].update(total=1, successful=1)
        return orjson.dumps(answer)

    with FaultProxy(url) as proxy:
        collection = Collection(names["a"], proxy.url)
        assert collection.search("study", also=names["b"], mode="lexical")
        target = collection._searcher_of([names["b"]]).targets()["papers"]
        proxy.rules.append(lambda request: Fault("rewrite", rewrite=fewer) if "_msearch" in request.path else None)
        with pytest.raises(ClusterError, match="answered for 1 of the 2 shards"):
            collection.search("study", also=names["b"], mode="lexical")
        with pytest.raises(UnsettledError, match="answered for 1 of the 2 shards"):
            collection._searcher.ranker.count({"match_all": {}}, ["year"], target)


def test_from_the_shell(names, url, known_models):
    """Names separated by commas; requests for other programs are of one collection."""
    given = f"{names['a']},{names['b']}"
    shown = run("search", "study", "--collection", given, "--url", url, "--size", "30")
    assert names["a"] in shown.stdout, shown.stderr
    assert names["b"] in shown.stdout
    table = run("search", "study", "--collection", given, "--url", url, "--format", "csv", "--fields", "year")
    assert table.stdout.startswith("collection,id,score,year\r\n") or table.stdout.startswith("collection,id,score,year\n")
    refused = run("search", "study", "--collection", given, "--url", url, "--print-request")
    assert (refused.returncode, "one collection only" in refused.stderr) == (2, True)
