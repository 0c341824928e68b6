"""Metadata: typed once per field; a conflict costs the field, never the paper."""

from __future__ import annotations

from osembed.papers.metadata import (
    LIMIT,
    MAX_FIELDS,
    MAX_OWN,
    OTHER_TYPE,
    OWN,
    Dropped,
    field_type,
    fit_metadata,
    flatten_metadata,
    new_types,
)


def test_objects_and_lists_are_flattened():
    """Objects become dotted names, lists of objects one list per field, empty values go."""
    meta = {"a": {"b": {"c": 1}}, "authors": [{"name": "X", "n": 1}, {"name": "Y"}], "tags": ["t", None, ""], "none": None}
    assert flatten_metadata(meta) == {"a.b.c": 1, "authors.name": ["X", "Y"], "authors.n": [1], "tags": ["t"]}


def test_types():
    """Numbers, truth, ISO dates and strings are told apart; what cannot be mapped has no type."""
    kinds = {3: "double", 2.5: "double", True: "boolean", "x": "keyword", "2015-03-01": "date", "2015-03": "date", "2015": "keyword"}
    assert {value: field_type(value) for value in kinds} == kinds
    assert field_type(float("nan")) is None
    assert field_type([]) is None
    assert field_type(["2020-01-01"]) == "date"


def test_first_type_wins_and_conflicts_are_counted():
    """2015 then "n/a", a date then "spring 2020", a value then an object: the field is left out of the paper that differs."""
    metas = [{"year": 2015, "on": "2020-01-01", "x": "v"}, {"year": "n/a", "on": "spring 2020", "x.y": 1, "new": True}]
    types = new_types(iter(metas), {})
    assert types == {"year": "double", "on": "date", "x": "keyword", "new": "boolean"}
    dropped: Dropped = {}
    assert fit_metadata(metas[0], types, dropped) == metas[0]
    assert fit_metadata(metas[1], types, dropped) == {"new": True}
    assert dropped == {OTHER_TYPE: {"year": 1, "on": 1, "x.y": 1}}


def test_too_many_fields_are_left_out():
    """At most 200 fields are mapped; the rest is counted."""
    meta = {f"f{number}": number for number in range(MAX_FIELDS + 50)}
    types, dropped = new_types([meta, meta], {}), {}
    assert len(types) == MAX_FIELDS
    assert len(fit_metadata(meta, types, dropped)) == MAX_FIELDS
    assert {why: sum(names.values()) for why, names in dropped.items()} == {LIMIT: 50}


def test_one_paper_does_not_use_up_the_limit():
    """Thousands of keys in one paper leave room for those of all others, whoever comes first; the real reason is said."""
    hoard, others = {f"k{number}": number for number in range(2000)}, [{"year": 2000 + number, f"own{number}": 1} for number in range(3)]
    types, dropped = new_types([hoard, *others], {}), {}
    assert {"year", "own0", "own1", "own2"} <= set(types)
    assert len(fit_metadata(hoard, types, dropped)) == MAX_OWN
    assert {why: sum(names.values()) for why, names in dropped.items()} == {OWN: 1950}
    assert len(dropped[OWN]) <= 1001


def test_what_is_nested_too_deep_is_named():
    """Objects in objects in objects …, lists in lists: left out, and not silently."""
    deep: list[str] = []
    assert flatten_metadata({"a": {"b": {"c": {"d": {"e": {"f": 1}}}}}, "l": [[1], [2], 3], "ok": 1}, deep) == {"l": [3], "ok": 1}
    assert deep == ["a.b.c.d.e", "l"]
