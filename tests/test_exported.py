"""Stored papers as lines and back, files that are whole or not there, names that are like others: pure."""

from __future__ import annotations

import gzip
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from osembed.errors import InputError, OutputError
from osembed.opensearch.names import unknown_collection
from osembed.papers.exported import EXPORTED, nested, to_record
from osembed.papers.files import check_output, whole_file
from osembed.papers.metadata import fit_metadata, new_types
from osembed.papers.paper import Paper, to_paper
from osembed.papers.records import Record, Rejected

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
records = st.fixed_dictionaries(
    {"id": st.text(min_size=1, max_size=8), "title": st.text(max_size=20), "text": st.text(max_size=60)},
    optional={"abstract": st.text(max_size=30), "metadata": st.dictionaries(st.text(max_size=120), values, max_size=5), "year": values},
)


def stored(paper: Paper) -> tuple[dict, dict[str, str]]:
    """A paper as ingest stores it in a collection of its own, as JSON, with the types of its fields."""
    from collections import Counter

    types = new_types(iter([paper.meta]), {})
    document = {
        "title": paper.title,
        "abstract": paper.abstract,
        "body": paper.body,
        "meta": fit_metadata(paper.meta, types, Counter()),
        "source": paper.source,
        "input_hash": paper.input_hash,
        "word_count": paper.word_count,
    }
    return orjson.loads(orjson.dumps(document)), types


@given(records)
def test_whatever_was_ingested_comes_back(record):
    """Text and stored metadata are read again as they were, whatever the record held; a second time nothing changes any more."""
    first = to_paper(Record(record, "corpus.jsonl:1"), {}, 0)
    if isinstance(first, Rejected):
        return
    document, types = stored(first)
    line = orjson.loads(orjson.dumps(to_record(first.id, document, types)))
    again = to_paper(Record(line, "export.jsonl:1"), {}, 100)
    assert isinstance(again, Paper)
    assert (again.id, again.title, again.abstract, again.body, again.source) == (
        first.id,
        first.title,
        first.abstract,
        first.body,
        "corpus.jsonl:1",
    )
    if "" not in str(document["meta"].values()) and document["meta"] == first.meta:
        assert again.content_hash == first.content_hash
    assert to_record(again.id, stored(again)[0], stored(again)[1])["meta"] == line["meta"]


def test_dots_are_objects_and_order_does_not_count():
    """`{"a": {"b": 1}}` is stored as a.b and comes back as an object; names are in order; nothing is left out but what is empty."""
    assert nested({"b": 2, "a.c": [1], "a.b": 1}) == nested({"a": {"b": 1, "c": [1]}, "b": 2, "d": None, "e": {}, "f": ""})
    assert list(nested({"b": 2, "a.c": [1], "a.b": 1})) == ["a", "b"]
    assert nested([{"a": 1}, {"a": 2, "b": 3}]) == {"a": [1, 2], "b": 3}
    assert nested({"a": 1, "a.b": 2}) == {"a": 1, "a.b": 2}
    assert nested(None) == nested("text") == {}


def test_an_exported_line_is_taken_as_it_stands():
    """It was accepted once: no word limit, no other names, no cleaned id; where it came from stays. Its dead letter is the same line."""
    line = {"id": "a  b", "title": "T", "abstract": "", "body": "short", "summary": "mine", EXPORTED: {"source": "old.jsonl:7"}}
    paper = to_paper(Record(line, "new.jsonl:1"), {"title": "name", "id": "key"}, 100)
    assert isinstance(paper, Paper)
    assert (paper.id, paper.title, paper.abstract, paper.meta, paper.source) == ("a  b", "T", "", {"summary": "mine"}, "old.jsonl:7")
    rejected = to_paper(Record({**line, "title": "", "body": ""}, "new.jsonl:1"), {}, 100)
    assert isinstance(rejected, Rejected)
    assert EXPORTED in rejected.fields
    for other in ({**line, EXPORTED: 1}, {**line, "id": 5}):
        assert isinstance(to_paper(Record(other, "x"), {}, 100), Rejected)


def test_a_hash_counts_for_the_line_that_it_was_made_for():
    """The input hash of a paper that lost metadata comes along; whoever edits the line makes another paper of it."""
    line = {"id": "a", "title": "T", "body": "text", EXPORTED: {}}
    plain = to_paper(Record(line, "x"), {}, 0)
    line[EXPORTED] = {"content_hash": plain.content_hash, "input_hash": "f" * 32}
    assert to_paper(Record(line, "x"), {}, 0).input_hash == "f" * 32
    edited = to_paper(Record({**line, "title": "Another"}, "x"), {}, 0)
    assert edited.input_hash == edited.content_hash


def test_types_that_a_value_does_not_tell_come_along():
    """A number in a field of texts, a date in one of keywords: the first paper of a new collection must not decide otherwise."""
    types = {"venue": "keyword", "when": "keyword", "year": "double", "note": "text", "rank": "integer"}
    meta = {"venue": 3, "when": "2015-03", "year": 2015, "note": 7, "rank": 1}
    line = to_record("a", {"title": "T", "meta": meta}, types)
    assert line[EXPORTED] == {"types": {"note": "keyword", "venue": "keyword", "when": "keyword"}}
    paper = to_paper(Record(line, "x"), {}, 0)
    assert new_types(iter([paper.meta]), {}, paper.mark.types) == {
        "venue": "keyword",
        "when": "keyword",
        "year": "double",
        "note": "keyword",
        "rank": "double",
    }


def broken_off(path: Path, error: BaseException | type[BaseException]) -> None:
    with whole_file(path) as file:
        file.write(b"half")
        raise error


def test_a_file_is_whole_or_as_it_was(tmp_path):
    """Whatever ends the writing, nothing stays of it; a link stays a link; equal papers make equal files, packed too."""
    path, link = tmp_path / "papers.jsonl", tmp_path / "link.jsonl"
    link.symlink_to(path)
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error):
            broken_off(path, error)
    with pytest.raises(OutputError, match="cannot be written"):
        broken_off(path, OSError(28, "No space left on device"))
    assert sorted(tmp_path.iterdir()) == [link]
    with whole_file(link) as file:
        file.write(b"whole\n")
    assert (path.read_bytes(), link.is_symlink()) == (b"whole\n", True)
    packed = []
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        with whole_file(tmp_path / name) as file:
            file.write(b"whole\n")
        packed.append((tmp_path / name).read_bytes())
    assert packed[0] == packed[1]
    assert gzip.decompress(packed[0]) == b"whole\n"
    assert not [one for one in tmp_path.iterdir() if one.suffix == ".part"]


@pytest.mark.parametrize("name", ["papers.csv", "papers.jsonl.zst", "papers", "nowhere/papers.jsonl", "device.jsonl", "folder.jsonl"])
def test_a_file_that_ingest_would_not_read_is_refused(name, tmp_path):
    """Nor is a device or a folder replaced by a file."""
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "device.jsonl").symlink_to("/dev/null")
    with pytest.raises(InputError):
        check_output(tmp_path / name)


def test_a_missing_collection_is_answered_with_those_there_are():
    """The nearest is offered, all are named but for the many; where none was seen, nothing is said of others."""
    assert "Use --collection papers," in str(unknown_collection("paper", ["examples", "papers"]))
    assert "Existing collections: examples. Use --collection examples," in str(unknown_collection("papers", ["examples"]))
    assert "There are no others either." in str(unknown_collection("papers", []))
    assert "other" not in str(unknown_collection("papers", None))
    many = str(unknown_collection("papers", [f"c{n}" for n in range(20)]))
    assert "and 12 more (`osembed list`)" in many
