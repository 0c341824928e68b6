"""Metadata: typed once per field; a conflict costs the field, never the paper."""

from __future__ import annotations

from collections import Counter

from osembed.metadata import MAX_FIELDS, field_type, fit, flatten, new_types


def test_objects_and_lists_are_flattened():
    """Objects become dotted names, lists of objects one list per field, empty values go."""
    meta = {"a": {"b": {"c": 1}}, "authors": [{"name": "X", "n": 1}, {"name": "Y"}], "tags": ["t", None, ""], "none": None}
    assert flatten(meta) == {"a.b.c": 1, "authors.name": ["X", "Y"], "authors.n": [1], "tags": ["t"]}


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
    dropped: Counter[str] = Counter()
    assert fit(metas[0], types, dropped) == metas[0]
    assert fit(metas[1], types, dropped) == {"new": True}
    assert dropped == {"year": 1, "on": 1, "x.y": 1}


def test_too_many_fields_are_left_out():
    """At most 200 fields are mapped; the rest is counted."""
    meta = {f"f{number}": number for number in range(MAX_FIELDS + 50)}
    types, dropped = new_types(iter([meta]), {}), Counter()
    assert len(types) == MAX_FIELDS
    assert len(fit(meta, types, dropped)) == MAX_FIELDS
    assert sum(dropped.values()) == 50
