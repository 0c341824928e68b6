"""The Python face as programs and notebooks meet it: what it takes, what it refuses by name, and what a page of hits can do."""

from __future__ import annotations

import datetime
import gc
import threading
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

import osembed
from osembed.collection import Collection
from osembed.errors import InputError, OsembedError
from osembed.papers.records import Record
from osembed.search.options import SearchOptions
from osembed.search.results import Hit, Passage, SearchResult
from tests.conftest import paper

EVIL = '<script>alert(1)</script> "x" & <img src=x onerror=y>'


def page(*hits: Hit, **changes) -> SearchResult:
    given = {
        "query": "ants",
        "mode": "lexical",
        "fusion": "min_max",
        "level": "both",
        "page": 1,
        "size": 10,
        "found": len(hits),
        "hits": hits,
    }
    return SearchResult(**{**given, **changes})


def hit(key: str, **changes) -> Hit:
    return Hit(**{"id": key, "score": 1.0, "title": "", "highlight": "", "meta": {}, "source": "", "word_count": 1, **changes})


class Text(HTMLParser):
    """What a browser shows of a page, and the tags in it."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.shown, self.tags, self.attributes = "", set(), []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.shown += data


def test_results_are_sequences():
    """A page iterates, has a length, and gives hits by place; an empty one is false."""
    result = page(hit("a"), hit("b"), hit("c"))
    assert [one.id for one in result] == ["a", "b", "c"]
    assert (len(result), result[0].id, result[-1].id) == (3, "a", "c")
    assert [one.id for one in result[1:]] == ["b", "c"]
    assert not page()


@given(st.text(), st.text(), st.text(), st.text())
def test_notebooks_show_papers_as_text(title, key, value, passage):
    """Whatever a paper contains stands in the table as text: no tag but the table's, no attribute at all."""
    result = page(hit(key, title=title, meta={"venue": value}, passages=(Passage(0, 0, 1, passage, passage),)), query=title)
    seen = Text(result._repr_html_())
    assert seen.tags <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "b", "br", "small"}
    assert seen.attributes == []


def test_hostile_titles_come_out_escaped():
    """A script stays readable, and nothing but text."""
    markup = page(hit("e", title=EVIL, meta={"v": EVIL}), query=EVIL, notices=(EVIL,))._repr_html_()
    assert "<script" not in markup
    assert "<img" not in markup
    assert EVIL in Text(markup).shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "5"}, "size: '5' is not a whole number"),
        ({"size": True}, "size: True is not"),
        ({"where": 5}, "where: 5 is not"),
        ({"where": ["year>=2015", 3]}, "where: .* is not"),
        ({"mode": None}, "mode: None is not hybrid, lexical or vector"),
        ({"strict": 1}, "strict: 1 is not true or false"),
        ({"weights": "0.5,0.5"}, "weights: '0.5,0.5' is not"),
        ({"weights": 1}, "weights: 1 is not"),
    ],
)
def test_wrong_types_are_refused_by_name(options, message):
    """Before anything is sent, in the words of the caller."""
    with pytest.raises(InputError, match=message):
        SearchOptions(**options)
    with pytest.raises(InputError, match=message):
        Collection("papers", "http://127.0.0.1:9").search("ants", **options)


def test_nothing_given_is_no_traceback():
    """None and numbers where texts belong are our own errors."""
    papers = Collection("papers", "http://127.0.0.1:9")
    for call in (
        lambda: Collection(5),
        lambda: papers.delete(None),
        lambda: papers.delete([1]),
        lambda: papers.ingest(None),
        lambda: papers.ingest(7),
        lambda: papers.ingest([]),
        lambda: papers.ingest("x", 7),
        lambda: papers.ingest("x", min_words="9"),
        lambda: papers.migrate(spec=3),
    ):
        with pytest.raises(InputError):
            call()


def test_lone_filters_are_one_filter():
    """A lone string is a filter, not its letters."""
    assert SearchOptions(where="year>=2015").where == ("year>=2015",)
    assert SearchOptions(where=["a=1", "b=2"]).where == ("a=1", "b=2")


def test_dictionaries_and_records_are_papers(name, url, small, models):
    """A generator of dictionaries goes in like a file; a Record keeps its source; what is no paper is rejected and counted."""
    collection = Collection(name, url)
    done = collection.ingest((paper(n, year=2000 + n, seen=datetime.date(2020, 1, n)) for n in range(1, 4)), small)
    assert (done.read, done.indexed) == (3, 3)
    again = collection.ingest([paper(1, year=2001, seen="2020-01-01"), Record(paper(9), "desk:1"), 5, {"id": "x", "text": object()}])
    assert (again.unchanged, again.indexed, again.rejected) == (1, 1, 2)
    assert set(again.reasons) == {
        "not a dictionary but int",
        "cannot be written as JSON: Object of type object is not JSON serializable",
    }
    sources = {hit.id: hit.source for hit in collection.search("study", mode="lexical")}
    assert sources == {"p1": "dict:1", "p2": "dict:2", "p3": "dict:3", "p9": "desk:1"}
    assert len(collection.search("study", mode="lexical", where="year>=2002")) == 2
    assert len(collection.similar("p1", where="year>=2002")) == 2
    assert collection.request("study", mode="lexical", where="year>=2002")["body"]["query"]["bool"]["filter"]
    assert collection.ingest(paper(4), str(models.bert)).indexed == 1
    with pytest.raises(OsembedError, match="no-such-model"):
        collection.ingest(paper(5), "no-such-model")
    for wrong in (lambda: collection.search(None), lambda: collection.similar(5), lambda: collection.similar("p1", size="2")):
        with pytest.raises(InputError):
            wrong()


def test_public_names_hold_what_programs_need():
    """The types that a program writes down can be imported from the package."""
    assert osembed.Record is Record


def test_nothing_runs_on_for_a_collection_that_nobody_needs(name, url, small, write):
    """A program may open a collection for each request: each ends what it runs in the background, at `close` or when it is forgotten."""
    gc.collect()
    known = set(threading.enumerate())  # those of earlier tests may be about to end

    def announcers() -> int:
        return sum(thread.name == "osembed-announcer" for thread in threading.enumerate() if thread not in known)

    def wait_for(count: int) -> None:
        ends = time.monotonic() + 10
        while announcers() != count:
            assert time.monotonic() < ends, f"{announcers()} threads instead of {count}"
            time.sleep(0.05)

    with Collection(name, url) as papers:
        papers.ingest(write([paper(1)]), small)
        assert papers.search("species").hits
        assert announcers() == 1
    wait_for(0)
    assert papers.search("species").hits, "closed, it can be used again"
    assert announcers() == 1
    del papers
    gc.collect()
    wait_for(0)
