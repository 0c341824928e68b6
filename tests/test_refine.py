"""Sorted hits, facets and fields: over all matches by words, over the ranking window otherwise, and the same on every page."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from osembed.collection import Collection
from osembed.errors import InputError, UnsettledError
from osembed.ingest.spec import CollectionSpec
from osembed.search import facets, sorting
from osembed.search.projection import choose_fields
from tests.conftest import paper

COUNT = 130
TYPES = {"year": "double", "venue": "keyword", "authors": "object", "authors.name": "keyword", "open": "boolean", "seen": "date"}


def record(number: int) -> dict:
    """A paper whose metadata can be computed again: a tenth has no year, each has two topics."""
    fields: dict = {"venue": f"venue {number % 12}", "open": number % 3 == 0, "topics": [f"t{number % 2}", f"t{2 + number % 3}"]}
    if number % 10:
        fields["year"] = 2000 + number % 7
    return paper(number, words=60, seen=f"2020-0{1 + number % 4}-01", **fields)


@pytest.fixture(scope="module")
def many(url, client, models):
    """130 papers on two shards, more than a ranking window holds; each long enough for some chunks."""
    collection = Collection("refined", url)
    spec = CollectionSpec(paper_model=str(models.bert), chunk_model=str(models.bert), chunk_words=25, chunk_overlap=0, shards=2)
    collection.ingest((record(n) for n in range(COUNT)), spec, min_words=10)
    yield collection
    for index in client.indices.get(index="refined*", params={"expand_wildcards": "all"}):
        client.indices.delete(index=index)


def years(ids) -> list[float | None]:
    return [record(int(key[1:])).get("year") for key in ids]


def in_order(ids: list[str], *, descending: bool = False) -> bool:
    """Values sorted, missing ones last, ties by id."""
    key = lambda one: (one[1] is None, (-one[1] if descending else one[1]) if one[1] is not None else 0, one[0])  # noqa: E731
    pairs = list(zip(ids, years(ids), strict=True))
    return pairs == sorted(pairs, key=key)


@pytest.mark.parametrize("level", ["both", "papers", "chunks"])
def test_by_words_the_server_sorts_all_matches(many, level):
    """The oldest of all 130 papers come first on the first page, whatever their score; pages are slices of one order."""
    result = many.search("study species cells", mode="lexical", sort="year", size=100, passages=0, level=level)
    ids = [hit.id for hit in result]
    assert (result.sort, result.scope, result.notices) == ("year:asc", "matches", ())
    everything = sorted((one for one in map(record, range(COUNT))), key=lambda one: (one.get("year", 9999), one["id"]))
    assert ids == [one["id"] for one in everything][:100]
    newest = [hit.id for page in (1, 2) for hit in many.search("study", mode="lexical", sort="year:desc", page=page, level=level)]
    assert newest == [one["id"] for one in sorted(everything, key=lambda one: (-one.get("year", 0), one["id"]))][:20]
    assert all(hit.score > 0 for hit in result)


@pytest.mark.parametrize("mode", ["hybrid", "vector"])
@pytest.mark.parametrize("level", ["both", "papers", "chunks"])
def test_a_window_is_reordered_and_says_so(many, mode, level):
    """The same hundred papers in another order, before paging; scores stay with their papers."""
    plain = many.search("study 5 species", mode=mode, level=level, size=100, passages=0)
    result = many.search("study 5 species", mode=mode, level=level, size=100, passages=0, sort="year:desc")
    ids = [hit.id for hit in result]
    assert (result.scope, result.found) == ("window", 100)
    assert "among the 100 best hits" in result.notices[-1]
    assert set(ids) == {hit.id for hit in plain}
    assert in_order(ids, descending=True)
    assert {hit.id: hit.score for hit in result} == {hit.id: hit.score for hit in plain}
    pages = [hit.id for page in (1, 2, 3) for hit in many.search("study 5 species", mode=mode, level=level, page=page, sort="year:desc")]
    assert pages == ids[:30]


def test_chunks_are_sorted_by_their_papers(many):
    """Several chunks of a paper stay together, the best first."""
    for mode in ("lexical", "hybrid"):
        result = many.search("study 7 species", mode=mode, hits="chunks", sort="year", size=60)
        assert in_order(list(dict.fromkeys(hit.id for hit in result)))
        assert len({(hit.id, hit.passages[0].chunk_index) for hit in result}) == 60


def test_sorting_by_score_is_the_ranking(many):
    """`score` asks for what is the default."""
    plain = [hit.id for hit in many.search("study 7")]
    assert [hit.id for hit in many.search("study 7", sort="score")] == plain
    assert [hit.id for hit in many.search("study 7", mode="lexical", sort="id", size=3)] == ["p0", "p1", "p10"]


@pytest.mark.parametrize("level", ["both", "papers", "chunks"])
def test_facets_count_all_papers_that_match(many, level):
    """Papers, never chunks, on each page alike; what is not listed is `other`; figures add up."""
    pages = [many.search("study species", mode="lexical", facets=["venue", "year"], page=page, level=level) for page in (1, 2)]
    assert pages[0].facets == pages[1].facets
    venue, year = pages[0].facets
    expected = Counter(record(n)["venue"] for n in range(COUNT))
    assert (venue.papers, venue.error, pages[0].scope) == (COUNT, 0, "matches")
    assert len(venue.values) == 10
    assert all(expected[value] == count for value, count in venue.values.items())
    assert sum(venue.values.values()) + venue.other + venue.missing == COUNT
    assert venue.other == COUNT - sum(count for _, count in expected.most_common(10))
    assert year.values == Counter(str(2000 + n % 7) for n in range(COUNT) if n % 10)
    assert (year.other, year.missing) == (0, 13)


@pytest.mark.parametrize("mode", ["hybrid", "vector"])
def test_other_facets_count_the_window(many, mode):
    """A hundred ranked papers, the same on every page, and the answer says which."""
    result = many.search("study 5 species", mode=mode, size=100, passages=0, facets="year")
    again = many.search("study 5 species", mode=mode, page=3, facets="year")
    assert again.facets == result.facets
    [year] = result.facets
    assert (result.scope, year.papers) == ("window", 100)
    found = Counter(years(hit.id for hit in result))
    assert year.missing == found.pop(None)
    assert year.values == {str(int(value)): count for value, count in found.items()}


def test_facets_of_every_type_feed_filters(many):
    """Dates, truths, numbers and lists: a value as it is shown is a filter that finds as many papers."""
    result = many.search("study", mode="lexical", facets=["seen", "open", "topics", "year"])
    for facet in result.facets:
        for value, count in facet.values.items():
            narrowed = many.search("study", mode="lexical", facets=[facet.field], where=f"{facet.field}={value}")
            assert narrowed.facets[0].papers == count, (facet.field, value)
    topics = result.facets[2]
    assert sum(topics.values.values()) == 2 * COUNT  # two each


def test_filters_narrow_what_is_counted_and_sorted(many):
    """Filters hold for facets and sort alike; nothing found is no error."""
    result = many.search("study", mode="lexical", where="year>=2004", facets="year", sort="year")
    assert set(result.facets[0].values) == {"2004", "2005", "2006"}
    assert result[0].meta["year"] == 2004
    for mode in ("lexical", "hybrid"):
        empty = many.search("study", mode=mode, where="year=1900", facets="year", sort="year")
        assert (len(empty), empty.facets[0].papers, empty.facets[0].values) == (0, 0, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sort": "yaer"}, "Did you mean year"),
        ({"sort": "year:down"}, "not a sort order"),
        ({"sort": "score:asc"}, "only be sorted best first"),
        ({"sort": "authors"}, "No paper has a field 'authors'"),
        ({"facets": "venues"}, "Did you mean venue"),
        ({"facets": "title"}, "No paper has a field 'title'"),
        ({"fields": "absract"}, "Did you mean abstract"),
        ({"sort": 5}, "sort: 5 is not a text"),
    ],
)
def test_unknown_fields_are_refused(many, options, message):
    """With the nearest name that there is."""
    with pytest.raises(InputError, match=message):
        many.search("study", **options)


def test_fields_choose_what_is_returned(many):
    """Metadata and long texts that were asked for, nothing else; by default all metadata and no long text."""
    plain = many.search("study 7", size=1)[0]
    assert (set(plain.meta), plain.texts) == ({"year", "venue", "open", "topics", "seen"}, {})
    hit = many.search("study 7", size=1, fields=["venue", "body", "title"])[0]
    assert (set(hit.meta), set(hit.texts), hit.title) == ({"venue"}, {"body"}, plain.title)
    assert hit.texts["body"].startswith("Study")
    assert hit.collection == "refined"
    shown = choose_fields(["authors", "meta.title"], {**TYPES, "title": "keyword"})
    assert shown.meta({"authors.name": ["A"], "title": "t", "year": 1}) == {"authors.name": ["A"], "title": "t"}


def test_printed_requests_sort_and_count_alike(many):
    """By words the printed body gives the same papers and figures; what takes a second request is refused."""
    options = {"mode": "lexical", "sort": "year:desc", "facets": ["year"], "fields": ["venue"]}
    request = many.request("study", **options)
    answer = many.client.search(index=request["alias"], body=request["body"])
    result = many.search("study", **options)
    assert [hit["_id"] for hit in answer["hits"]["hits"]] == [hit.id for hit in result]
    assert facets.read_facets(["year"], answer, "refined") == result.facets
    assert answer["hits"]["hits"][0]["_source"] == {"meta": result[0].meta}
    for refused in ({**options, "mode": "hybrid"}, {**options, "level": "chunks"}):
        with pytest.raises(InputError, match="request"):
            many.request("study", **refused)


def test_sort_is_what_was_typed():
    """Ascending unless :desc; the order of the ranking needs no sort."""
    assert str(sorting.parse_sort("year", TYPES)) == "year:asc"
    assert str(sorting.parse_sort("meta.year:desc", TYPES)) == "year:desc"
    assert sorting.parse_sort("score", TYPES) is sorting.parse_sort("", TYPES) is None


def test_figures_without_proof_are_not_believed():
    """A facet that does not say what it leaves out is no facet; one that may be too small says by how much."""
    whole = {"buckets": [{"key": 2015.0, "doc_count": 3}], "sum_other_doc_count": 4, "doc_count_error_upper_bound": 2}
    answer = {"hits": {"total": {"value": 9, "relation": "eq"}}, "aggregations": {"values0": whole, "missing0": {"doc_count": 2}}}
    [facet] = facets.read_facets(["year"], answer, "papers")
    assert facet == facets.Facet("year", 9, {"2015": 3}, 4, 2, error=2)
    assert replace(facet, error=0) != facet
    for broken in (
        {**answer, "aggregations": {"values0": whole}},
        {**answer, "aggregations": {"missing0": {"doc_count": 2}}},
        {**answer, "hits": {"total": {"value": 9, "relation": "gte"}}},
        *({**answer, "aggregations": {**answer["aggregations"], "values0": {k: v for k, v in whole.items() if k != key}}} for key in whole),
    ):
        with pytest.raises(UnsettledError):
            facets.read_facets(["year"], broken, "papers")
