"""Filters: parsed, typed by the mapping, never query syntax."""

from __future__ import annotations

from contextlib import suppress

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osembed.errors import InputError
from osembed.papers.levels import LEVELS
from osembed.search.filters import filter_clauses, parse_filters

TYPES = {"year": "double", "venue": "keyword", "open": "boolean", "on": "date", "authors": "object", "authors.name": "keyword"}
FIELDS = st.sampled_from(["id", "meta.year", *TYPES, "nowhere"])
OPERATORS = st.sampled_from([">=", "<=", "!=", "=", ">", "<", "==", " = "])


def one(text, level="papers"):
    [clause] = filter_clauses(parse_filters([text]), TYPES, level)
    return clause


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("year>=2015", {"range": {"meta.year": {"gte": 2015.0}}}),
        (" meta.year < 2015 ", {"range": {"meta.year": {"lt": 2015.0}}}),
        ("venue=eLife|PLOS Biology", {"terms": {"meta.venue": ["eLife", "PLOS Biology"]}}),
        ("venue!=eLife", {"bool": {"must_not": [{"terms": {"meta.venue": ["eLife"]}}]}}),
        ("authors.name=O'Neil", {"terms": {"meta.authors.name": ["O'Neil"]}}),
        ("open=yes", {"terms": {"meta.open": [True]}}),
        ("venue=*", {"exists": {"field": "meta.venue"}}),
        ("on>=2015-03", {"range": {"meta.on": {"gte": "2015-03"}}}),
        ("id=a|b", {"ids": {"values": ["a", "b"]}}),
    ],
)
def test_filters_become_typed_clauses(text, clause):
    """Each operator and type; text of the user's is only ever a value."""
    assert one(text) == clause


def test_ids_on_the_chunk_level():
    """The paper's id filters chunks by their paper."""
    assert one("id=a", "chunks") == {"terms": {"paper_id": ["a"]}}


def test_a_month_means_all_of_it():
    """on=2015-03 is a range."""
    [bounds] = one("on=2015-03")["bool"]["should"]
    assert bounds == {"range": {"meta.on": {"gte": "2015-03||/M", "lte": "2015-03||/M"}}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("year", "is not a filter"),
        ("year>=", "is not a filter"),
        ("title:(a OR b)", "is not a filter"),
        ("yeer>=2015", "Did you mean year"),
        ("authors=x", "No paper has a field 'authors'"),
        ("year>=two", "holds numbers"),
        ("year>=nan", "holds numbers; 'nan' is none"),
        ("year=inf|2015", "holds numbers; 'inf' is none"),
        ("on>=٢٠١٥", "holds dates"),
        ("open=maybe", "neither"),
        ("on=spring", "holds dates"),
        ("id>3", "only be compared"),
    ],
)
def test_bad_filters_say_what_is_wrong(text, message):
    """Unknown fields, wrong types and other forms are refused with the way out."""
    with pytest.raises(InputError, match=message):
        one(text)


TYPED = st.builds("{}{}{}".format, FIELDS, OPERATORS, st.text(max_size=12))


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(st.text(st.characters(codec=None), max_size=20) | TYPED, max_size=3), level=st.sampled_from(LEVELS))
def test_any_text_is_a_filter_or_refused(texts, level):
    """Whatever is typed, a clause that can be sent, or an InputError."""
    with suppress(InputError):
        orjson.dumps(filter_clauses(parse_filters(texts), TYPES, level))


@pytest.mark.parametrize("thing", [5, None, b"year=1"])
def test_filters_are_texts(thing):
    """Other types are refused by name."""
    with pytest.raises(InputError, match="where: .* is not a text"):
        parse_filters([thing])


def test_too_many_filters():
    """The number is bounded."""
    with pytest.raises(InputError, match="At most 20"):
        parse_filters(["a=1"] * 21)
