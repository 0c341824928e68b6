"""Searching the example papers with the real default model, and the small collections of tests."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import urllib.request

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osembed.collection import Collection
from osembed.errors import ClusterError, CollectionError, InputError, ModelError, OsembedError
from osembed.evaluate.judged import read_judged
from osembed.ingest.spec import CollectionSpec
from osembed.limits import MODES, SEARCH_LEVELS
from osembed.search import ranking
from osembed.search.bodies import MAX_WORDS, first_words
from osembed.search.searcher import check_query
from tests.conftest import EXAMPLES, paper
from tests.proxy import Fault


@pytest.fixture(scope="module")
def examples(url, client):
    """The example papers in a collection of their own."""
    collection = Collection("search-examples", url)
    collection.ingest([str(EXAMPLES)])
    yield collection
    for index in client.indices.get(index="search-examples*", params={"expand_wildcards": "all"}):
        client.indices.delete(index=index)


@pytest.fixture(scope="module")
def small_examples(url, client, models):
    """The same papers, embedded with a small model: for what no ranking decides."""
    collection = Collection("search-small", url)
    collection.ingest([str(EXAMPLES)], CollectionSpec(paper_model=str(models.bert), chunk_model=str(models.bert)))
    yield collection
    for index in client.indices.get(index="search-small*", params={"expand_wildcards": "all"}):
        client.indices.delete(index=index)


def rank_of(collection, text, wanted, **options):
    """Rank of the first wanted paper; 99 where it is not found."""
    found = [hit.id for hit in collection.search(text, size=50, passages=0, **options).hits]
    return min((found.index(key) + 1 for key in wanted if key in found), default=99)


def test_hybrid_finds_what_either_leg_misses(examples):
    """A third of the judged queries defeat words alone, a third defeat meaning alone; hybrid does best on the whole."""
    judged = read_judged(EXAMPLES)
    kinds = {row["_id"]: row["metadata"]["kind"] for row in map(json.loads, (EXAMPLES / "queries.jsonl").read_text().splitlines())}
    assert len(judged.queries) >= 40
    failed: dict[str, list[str]] = {"lexical": [], "vector": []}
    for key, text in judged.queries.items():
        best = [paper_id for paper_id, grade in judged.judgments[key].items() if grade == 2]
        for mode in failed:
            if rank_of(examples, text, best, mode=mode) > 1:
                failed[mode].append(key)
    assert len(failed["lexical"]) >= len(judged.queries) / 3
    assert len(failed["vector"]) >= len(judged.queries) / 4
    assert all(kinds[key] == "meaning" for key in failed["lexical"])
    assert all(kinds[key] == "words" for key in failed["vector"])
    rows = {(row.level, row.mode, row.fusion): row.metrics["ndcg@10"] for row in examples.evaluate(EXAMPLES).rows}
    assert len(rows) == 18
    hybrid = rows["both", "hybrid", "min_max"]
    assert hybrid > max(rows["both", "lexical", "-"], rows["both", "vector", "-"])
    assert hybrid > 0.85


@pytest.mark.parametrize("level", SEARCH_LEVELS)
@pytest.mark.parametrize("mode", MODES)
def test_every_level_and_mode_answers(examples, level, mode):
    """A plain question is answered by the right paper everywhere, with passages that belong to it."""
    result = examples.search("return of kelp forest after sea otters came back", level=level, mode=mode, size=3)
    assert result.hits[0].id == "kelp-urchin"
    assert result.hits[0].passages
    assert (result.mode, result.level, result.degraded) == (mode, level, False)
    assert [hit.score for hit in result.hits] == sorted((hit.score for hit in result.hits), reverse=True)


@pytest.mark.parametrize("fusion", ["min_max", "l2", "z_score", "rrf"])
@pytest.mark.parametrize("level", SEARCH_LEVELS)
def test_every_fusion_answers(examples, fusion, level):
    """All four fusions, with weights, on every level; where the client fuses, the weighted parts are the score."""
    result = examples.search("arsenic in rice grain", fusion=fusion, weights=(0.3, 0.7), level=level, size=2, explain=True)
    assert result.hits[0].id == "biochar-rice"
    assert result.hits[0].score > result.hits[1].score
    if level == "both":
        for hit in result:
            parts = {leg: part["weight"] * part["normalised"] for leg, part in hit.explain.items()}
            assert sum(parts.values()) == pytest.approx(hit.score, abs=1e-6)
            assert [part["weight"] for part in hit.explain.values()] == [0.3, 0.7]


def test_weights_decide(examples):
    """All weight on one leg gives the order of that leg."""
    words = [hit.id for hit in examples.search("plastic", mode="lexical", size=3).hits]
    assert [hit.id for hit in examples.search("plastic", weights=(1, 0), size=3).hits][: len(words)] == words


def test_filters_work_on_both_levels(examples):
    """Several filters, typed; each hit obeys them on every level."""
    for level in SEARCH_LEVELS:
        result = examples.search("water", where=("year>=2018", "topic=hydrology|glaciology"), level=level, size=20)
        assert result.hits
        assert all(hit.meta["year"] >= 2018 and hit.meta["topic"] in ("hydrology", "glaciology") for hit in result.hits)
    assert [hit.id for hit in examples.search("water", where=("id=river-plastic",)).hits] == ["river-plastic"]
    with pytest.raises(InputError, match="Did you mean topic"):
        examples.search("water", where=("topik=x",))


def test_pages_are_slices_of_one_ranking(examples):
    """Page after page equals one long page; no paper twice; beyond the window a clear error."""
    for level in SEARCH_LEVELS:
        whole = [hit.id for hit in examples.search("the effect of water", size=30, level=level).hits]
        pages = [hit.id for page in (1, 2, 3) for hit in examples.search("the effect of water", size=10, page=page, level=level).hits]
        assert pages == whole
        assert len(set(pages)) == len(pages)
    with pytest.raises(InputError, match="beyond the first 100"):
        examples.search("x", size=10, page=11)
    with pytest.raises(InputError, match="size: 101 is not a whole number from 1 to 100"):
        examples.search("x", size=101)


def test_a_leg_full_of_one_paper_is_asked_deeper(name, url, small, write, monkeypatch):
    """Where few papers fill a leg with their chunks, the window is filled from a deeper look, once."""
    monkeypatch.setattr(ranking, "DEPTHS", (5, 200))
    collection = Collection(name, url)
    collection.ingest([write([paper("long", 3000), *(paper(n, 120) for n in range(12))])], small)
    result = collection.search("study species cells", mode="vector", size=50)
    assert result.found == 13


def test_passages_and_highlights(examples):
    """The nearest passage first, then those that share words; marks are the only tags."""
    result = examples.search("does sleep of patients improve with quiet wheels and dampers on doors", size=1, passages=3)
    [hit] = result.hits
    assert hit.id == "hospital-noise"
    assert len(hit.passages) == 3
    assert any("<em>" in passage.highlight for passage in hit.passages)
    for passage in hit.passages:
        assert set(re.findall(r"<[^>]*>", passage.highlight)) <= {"<em>", "</em>"}


@pytest.mark.parametrize("mode", MODES)
def test_chunks_can_be_the_hits(examples, mode):
    """Each hit is one chunk, several of one paper may be found; of the level papers they cannot be asked."""
    result = examples.search("delirium on quiet hospital wards at night", hits="chunks", mode=mode, size=5)
    places = [(hit.id, hit.passages[0].chunk_index) for hit in result.hits]
    assert len(set(places)) == 5
    assert [key for key, _ in places].count("hospital-noise") >= 3
    assert all(len(hit.passages) == 1 for hit in result.hits)
    with pytest.raises(InputError, match="--level chunks"):
        examples.search("x", hits="chunks", level="papers")


def test_highlights_are_safe_whatever_a_paper_contains(name, url, small, write):
    """Tags, entities and scripts of a paper come out escaped in JSON and harmless on a terminal."""
    evil = "<script>alert(1)</script> <em>fake</em> & ants [bold]x[/bold] \x1b[31m " * 30
    collection = Collection(name, url)
    collection.ingest([write([{"id": "e", "title": "<img onerror=x> ants", "text": evil}])], small)
    [hit] = collection.search("ants", mode="lexical").hits
    shown = hit.highlight + "".join(passage.highlight for passage in hit.passages)
    assert "<script" not in shown
    assert "<img" not in shown
    assert "&lt;em&gt;fake" in shown
    assert "<em>ants</em>" in shown
    from osembed.cli.output import safe_text
    from osembed.cli.result_output import marked

    assert "\x1b" not in marked(hit.passages[0].highlight).plain
    assert safe_text("a\x1b[31m\u202eb\x07") == "a[31mb"


@pytest.mark.parametrize("level", SEARCH_LEVELS)
def test_explain_says_where_a_score_comes_from(examples, level):
    """Each leg's part; on the client's fusion the parts add up to the score."""
    hit = examples.search("permafrost methane", level=level, explain=True, size=1).hits[0]
    assert hit.explain
    if level == "both":
        parts = [part["normalised"] * part["weight"] for part in hit.explain.values()]
        assert sum(parts) == pytest.approx(hit.score, abs=1e-6)
        assert set(hit.explain) == {"lexical", "vector"}
    else:
        assert "details" in hit.explain


def test_similar_papers(examples):
    """The nearest papers by vector, never the paper itself; an unknown id is said."""
    found = [hit.id for hit in examples.similar("malaria-nets", size=5).hits]
    assert "malaria-nets" not in found
    assert {"measles-gap", "cholera-rumour"} & set(found)
    with pytest.raises(InputError, match="no paper 'nobody'"):
        examples.similar("nobody")


@pytest.mark.parametrize(
    "text",
    [
        "word " * 10_000,
        " ".join(f"w{n}" for n in range(10_000)),
        "the of and",
        "🧪🧬",
        "שלום عليكم",
        "a" * 5000,
        "\x00ants\ud800",
        '"*:(){}[]^~\\/ AND OR',
    ],
    ids=["long", "many-words", "stop-words", "emoji", "right-to-left", "one-giant", "unclean", "syntax"],
)
def test_odd_queries_are_only_text(examples, text):
    """Whatever is asked: no error, no query syntax, sane scores."""
    for mode in MODES:
        result = examples.search(text, mode=mode)
        assert all(0 <= hit.score < 1e6 for hit in result.hits)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (" \x00 ", {}, "query is empty"),
        ("x", {"mode": "magic"}, "mode: 'magic' is not"),
        ("x", {"fusion": "sum"}, "fusion: 'sum' is not"),
        ("x", {"level": "pages"}, "level: 'pages' is not"),
        ("x", {"weights": (0, 0)}, "not two numbers"),
        ("x", {"weights": (-1, 2)}, "not two numbers"),
        ("x", {"size": 0}, "size: 0 is not"),
        ("x", {"k": 20_000}, "no option 'k'"),
    ],
)
def test_bad_questions_are_refused(examples, text, options, message):
    """Options that cannot be are refused before anything is sent."""
    with pytest.raises(InputError, match=message):
        examples.search(text, **options)


def send(words: list[str]) -> bytes:
    """Run a curl line; where there is no curl, send the same request."""
    assert words[:3] == ["curl", "--fail-with-body", "-sS"]
    if shutil.which("curl"):
        return subprocess.run(words, capture_output=True, check=True).stdout
    request = urllib.request.Request(words[3], words[-1].encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


@pytest.mark.parametrize("level", ["papers", "chunks"])
def test_printed_requests_work_in_other_programs(examples, level):
    """The curl line, run as it is, finds the paper; with another identity the same request finds nothing."""
    request = examples.request("lakes below an ice stream", level=level, where=("year>=2015",))
    answer = send(shlex.split(request["curl"]))
    first = json.loads(answer)["hits"]["hits"][0]
    assert first["_id"].split("#")[0] == "glacier-lake"
    assert 0 < first["_score"] <= 1
    assert request["alias"] == ("search-examples" if level == "papers" else "search-examples-chunks")
    other = json.loads(json.dumps(request["body"]).replace(examples.status()[0].identity, "another"))
    assert examples.client.search(index=request["alias"], body=other)["hits"]["hits"] == []


def test_plain_hybrid_queries_come_out_normalised(examples, client):
    """Any client's hybrid query against the alias goes through the indexes' default pipeline."""
    body = {"query": {"hybrid": {"queries": [{"match": {"content": "ants"}}, {"match": {"title": "ants"}}]}}}
    hits = client.search(index="search-examples", body=body)["hits"]["hits"]
    assert hits
    assert all(0 < hit["_score"] <= 1 for hit in hits)


def test_an_index_that_vanishes_is_resolved_again(name, url, client, small, write):
    """Between resolving and searching the alias moves and the old index goes: the search succeeds on the new one (F33)."""
    collection = Collection(name, url)
    collection.ingest([write([paper(n) for n in range(3)])], small)
    assert collection.search("study").hits
    old = collection._searcher.targets()["papers"].index
    new = old.replace("-g1", "-g2")
    info = client.indices.get(index=old)[old]
    body = {"mappings": info["mappings"], "settings": {"index": {"knn": True, "number_of_replicas": 0}}}
    client.indices.create(index=new, body=body)
    client.reindex(body={"source": {"index": old}, "dest": {"index": new}}, refresh=True)
    client.indices.update_aliases(
        body={"actions": [{"remove": {"index": old, "alias": name}}, {"add": {"index": new, "alias": name, "is_write_index": True}}]}
    )
    client.indices.delete(index=old)
    assert collection.search("study").found == 3


@pytest.mark.parametrize("times", [2, 99])
def test_shards_that_are_away_for_a_moment_are_asked_again(times, name, proxy, small, write, monkeypatch):
    """An index is deleted, or its primary moves, under a search: "all shards failed" is answered by resolving and asking again, for a while."""
    collection = Collection(name, proxy.url)
    collection.ingest([write([paper(n) for n in range(3)])], small)
    monkeypatch.setattr("osembed.search.searcher._PAUSES_S", (0.0, 0.01, 0.01))

    def away(request):
        if "_msearch" not in request.path or proxy.fired == times:
            return None
        failed = {"error": {"type": "search_phase_execution_exception", "reason": "all shards failed"}, "status": 503}
        return Fault("answer", 200, json.dumps({"responses": [failed] * (request.body.count(b"\n") // 2)}).encode())

    proxy.rules.append(away)
    if times == 2:
        assert collection.search("study").found == 3
    else:
        with pytest.raises(ClusterError, match="all shards failed"):
            collection.search("study")
    assert proxy.fired == min(times, 4)


def test_without_the_model_words_are_searched(name, url, small, write, models, tmp_path):
    """A reader that lacks the model answers by words, flagged; --strict fails instead."""
    folder = shutil.copytree(models.bert, tmp_path / "mine")
    collection = Collection(name, url)
    from osembed.arguments import choose_models

    collection.ingest([write([paper(1)])], choose_models(str(folder)))
    shutil.rmtree(folder)
    reader = Collection(name, url)
    result = reader.search("study species")
    assert (result.degraded, result.mode) == (True, "lexical")
    assert "not on this machine" in result.notices[0]
    assert result.hits
    with pytest.raises(ModelError):
        reader.search("study species", strict=True)


def test_same_dimension_other_space_is_never_mixed(name, url, write, models):
    """A collection of the mirror model and one of the model itself: each query meets its own space, with cosine near 1."""
    from osembed.arguments import choose_models

    for folder in (models.bert, models.mirror):
        collection = Collection(f"{name}{folder.name[-1]}", url)
        collection.ingest([write([paper(n) for n in range(3)])], choose_models(str(folder)))
        text = f"Paper 1 {paper(1)['text']}"
        [hit] = collection.search(text, mode="vector", level="papers", size=1).hits
        assert hit.id == "p1"
        assert hit.score > 1.9  # OpenSearch: 1 + inner product


def test_papers_of_other_programs_are_found(name, url, client, small, write):
    """A document that another program put behind the alias, without osembed's own fields, is ranked like others."""
    collection = Collection(name, url)
    collection.ingest([write([paper(1)])], small)
    client.index(index=name, id="theirs", body={"title": "Zeppelin", "body": "A zeppelin of theirs."}, refresh=True)
    assert [hit.id for hit in collection.search("zeppelin", mode="lexical").hits] == ["theirs"]
    assert collection.search("zeppelin study").found == 2


def test_missing_collection(url):
    """The way to fill it is named."""
    with pytest.raises(CollectionError, match="osembed ingest PATH --collection nowhere"):
        Collection("nowhere", url).search("x")
    with pytest.raises(InputError, match="cannot be the name"):
        Collection("Papers*")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (['topic="ecology"'], 'No paper matches topic="ecology". Did you mean topic=ecology? Quotes count as part of the value.'),
        (["topic=Ecology"], "No paper matches topic=Ecology. Did you mean topic=ecology?"),
        (["topic=ecologie"], "No paper matches topic=ecologie. Did you mean ecology?"),
        (["topic=zzz"], "Its values are, for example, "),
        (["year>=3000"], "No paper matches year>=3000. Its values range from "),
        (["id=nobody"], "No paper matches id=nobody."),
        (["topic=ecology", "year<1900"], "No paper matches year<1900."),
    ],
)
def test_a_filter_that_no_paper_meets_is_said(small_examples, where, said):
    """The nearest value there is: quotes, case, spelling, the span of numbers. In every mode."""
    for mode in ("lexical", "hybrid"):
        result = small_examples.search("ecology", where=where, mode=mode)
        assert not result.hits
        assert any(said in notice for notice in result.notices), result.notices
        assert len(result.notices) == 1


def test_filters_that_no_paper_meets_together(small_examples):
    """Each alone finds papers."""
    result = small_examples.search("ecology", where=("topic=ecology", "topic=linguistics|animal navigation"), mode="lexical")
    assert result.notices == ("Each filter matches some papers, but no paper matches all of them.",)


def test_what_is_found_costs_no_hint(small_examples, monkeypatch):
    """The server is asked about filters only where nothing was found."""
    monkeypatch.setattr("osembed.search.filter_hints.unmet_filters", lambda *_: pytest.fail("asked"))
    assert small_examples.search("ecology", where="topic=ecology").notices == ()
    assert not small_examples.similar("ant-homing", size=3).notices


@pytest.mark.parametrize(
    "text", ["x" * 19_000, "字" * 5000, "a.b-c,d" * 2000, " ".join(f"w{n}" for n in range(3000)), "กขค" * 3000], ids=len
)
@pytest.mark.parametrize("level", SEARCH_LEVELS)
def test_a_long_query_is_cut_and_that_is_said(small_examples, text, level):
    """Words and signs without spaces alike: the server's limit of clauses is never met."""
    result = small_examples.search(text, level=level)
    cut = len(text) != 19_000
    assert any(f"only its first {MAX_WORDS} distinct words" in notice for notice in result.notices) == cut


def test_a_query_of_a_megabyte_is_refused():
    """With how long it may be."""
    with pytest.raises(InputError, match="The query has 1,000,000 characters. At most 100,000 are allowed"):
        check_query("x" * 1_000_000)


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(codec=None)))
def test_any_text_is_a_query_or_refused(text):
    """What is sent is valid UTF-8 and within the server's clauses."""
    try:
        kept, cut = first_words(check_query(text))
    except OsembedError:
        return
    kept.encode()
    assert cut == (kept != " ".join(dict.fromkeys(check_query(text).split())))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "5"}, "size: '5' is not a whole number from 1 to 100"),
        ({"size": 0}, "size: 0 is not"),
        ({"page": 1.5}, "page: 1.5 is not"),
        ({"mode": "hybird"}, "mode: .* Did you mean hybrid"),
        ({"fusion": None}, "fusion: None is not"),
        ({"weights": "0.3,0.7"}, "weights"),
        ({"weights": (float("nan"), 1.0)}, "weights"),
        ({"weights": (0, 0)}, "weights"),
        ({"explain": "yes"}, "explain: 'yes' is not true or false"),
        ({"where": 5}, "where: 5 is not"),
        ({"where": "year"}, "is not a filter"),
        ({"sise": 5}, "no option 'sise'. Did you mean size"),
    ],
)
def test_options_in_python_are_checked_by_name(options, message, monkeypatch):
    """Wrong types, values and names are our errors, before any server is looked for."""
    monkeypatch.setattr("osembed.opensearch.node.ensure", lambda *_: pytest.fail("a server was looked for"))
    monkeypatch.delenv("OSEMBED_URL", raising=False)
    with pytest.raises(InputError, match=message):
        Collection("never").search("x", **options)


@pytest.mark.parametrize("text", [None, 5, b"x", "", " \x00"])
def test_a_query_is_a_text(text, monkeypatch):
    """Anything else is refused before any server is looked for."""
    monkeypatch.setattr("osembed.opensearch.node.ensure", lambda *_: pytest.fail("a server was looked for"))
    monkeypatch.delenv("OSEMBED_URL", raising=False)
    with pytest.raises(InputError, match="query"):
        Collection("never").search(text)


def test_one_filter_may_be_given_as_a_text(small_examples):
    """where="year>=2015" is that filter, not its letters; numbers of numpy are numbers."""
    import numpy as np

    found = small_examples.search("ecology", where="topic=ecology", size=np.int64(3), weights=[0.2, np.float32(0.8)])
    assert {hit.meta["topic"] for hit in found.hits} == {"ecology"}
