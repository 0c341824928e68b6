"""Reading: every kind of input, and every kind of bad input (F38, F39, F41, F42)."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys

import pytest

from osembed.errors import InputError
from osembed.papers.paper import MAX_ID_BYTES, Paper, clean_text, to_paper
from osembed.papers.readers.packed import zstd
from osembed.papers.readers.reader import Reader
from osembed.papers.records import DEAD_LETTER, Record, Rejected

BODY = "word " * 120


def read(*paths) -> list:
    return list(Reader([str(path) for path in paths]))


def paper_from(names=None, min_words=0, **fields):
    return to_paper(Record(fields, "f:1"), names or {}, min_words)


def test_text_folders(tmp_path):
    """.txt and .md: the first line is the title; ids are paths without suffix; readmes, hidden files and others are passed over."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("Title A\n\nBody of a.")
    (tmp_path / "sub" / "b.v2.md").write_text("# Title B\nBody of b.")
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"Title C\nBody of c."))
    for name in ("README.md", ".hidden.txt", "table.tsv"):
        (tmp_path / name).write_text("no paper")
    reader = Reader([str(tmp_path)])
    found = {record.fields["id"]: (record.fields["title"], record.fields["body"]) for record in reader}
    assert found == {"a": ("Title A", "Body of a."), "c": ("Title C", "Body of c."), "sub/b.v2": ("Title B", "Body of b.")}
    assert reader.skipped == {"readme, notice or licence files": 1, "hidden files": 1, ".tsv suffix": 1}
    assert reader.bytes_read == reader.bytes_total > 0


def test_json_lines_plain_and_packed(tmp_path):
    """.jsonl, .jsonl.gz and .jsonl.zst hold the same records; each knows its line."""
    lines = b'{"id": 1, "title": "T"}\n\n{"id": "2"}\n'
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "c.jsonl.zst").write_bytes(zstd.compress(lines))
    for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst"):
        records = read(tmp_path / name)
        assert [record.fields for record in records] == [{"id": 1, "title": "T"}, {"id": "2"}]
        assert records[1].source == f"{name}:3"


def test_csv_gives_numbers_back_their_type(tmp_path):
    """CSV knows only strings; years become numbers, codes with leading zeros do not."""
    (tmp_path / "a.csv").write_text('id,title,text,year,score,code\n7,"A, b","line\nline",2015,1.5,007\nbroken,row\n')
    first, second = read(tmp_path / "a.csv")
    assert first.fields == {"id": "7", "title": "A, b", "text": "line\nline", "year": 2015, "score": 1.5, "code": "007"}
    assert isinstance(second, Rejected)
    assert "columns" in second.reason


def test_beir_folder_means_its_corpus(tmp_path):
    """A folder with corpus.jsonl and queries.jsonl: the queries are no papers."""
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "title": "T", "text": "x", "metadata": {"year": 1999}}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "?"}\n')
    [record] = read(tmp_path)
    paper = to_paper(record, {}, 0)
    assert (paper.id, paper.title, paper.body, paper.meta) == ("d1", "T", "x", {"year": 1999})


def test_standard_input(monkeypatch):
    """- reads JSON lines from standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"id": "s"}\n')))
    assert [record.fields for record in read("-")] == [{"id": "s"}]


def test_one_bad_line_costs_one_record(tmp_path):
    """Broken JSON, a list, invalid UTF-8: rejected with file and line, the rest is read (F38)."""
    (tmp_path / "a.jsonl").write_bytes(b'{"id": 1}\n{broken\n[1]\n{"id": "\xff"}\n{"id": 2}\n')
    records = read(tmp_path / "a.jsonl")
    assert [isinstance(record, Rejected) for record in records] == [False, True, True, True, False]
    assert [record.source for record in records if isinstance(record, Rejected)] == ["a.jsonl:2", "a.jsonl:3", "a.jsonl:4"]


def test_bad_text_files(tmp_path):
    """Invalid UTF-8 names the byte; UTF-16 with its mark is read; a broken archive is rejected (F38)."""
    (tmp_path / "bad.txt").write_bytes(b"Title\nBody \xff\xfe")
    (tmp_path / "wide.txt").write_bytes("Titel\nKörper".encode("utf-16"))
    (tmp_path / "z.txt.gz").write_bytes(gzip.compress(b"Title\n" + b"x" * 999)[:-20])
    found = {record.source.split("/")[-1]: record for record in read(tmp_path)}
    assert (found["bad.txt"].reason, found["bad.txt"].check) == ("not UTF-8", "read as cp1252")
    assert found["wide.txt"].fields["title"] == "Titel"
    assert "cannot be read" in found["z.txt.gz"].reason


def test_giants_are_rejected_and_the_rest_is_read(tmp_path, monkeypatch):
    """A record over the limit costs itself, however it is packed (F39)."""
    for module in ("text", "jsonl"):
        monkeypatch.setattr(f"osembed.papers.readers.{module}.MAX_RECORD", 1000)
    lines = json.dumps({"id": 1, "text": "x" * 5000}) + "\n" + json.dumps({"id": 2}) + "\n"
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "b.txt").write_text("T\n" + "x" * 5000)
    giant, small, text = read(tmp_path)
    assert "larger than" in giant.reason
    assert small.fields == {"id": 2}
    assert "larger than" in text.reason


def test_links_that_leave_the_folder_and_devices_are_not_followed(tmp_path):
    """A link to somewhere else and a named pipe inside a folder are passed over."""
    outside = tmp_path / "outside.txt"
    outside.write_text("secret\nbody")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link.txt").symlink_to(outside)
    os.mkfifo(folder / "pipe.txt")
    (folder / "ok.txt").write_text("T\nB")
    reader = Reader([str(folder)])
    assert [record.fields["id"] for record in reader] == ["ok"]
    assert reader.skipped == {"links that leave the folder": 1, "devices and pipes": 1}


@pytest.mark.parametrize("path", ["nowhere", "a.pdf", "empty"])
def test_unusable_paths_are_refused(tmp_path, path):
    """A missing path, an unknown kind and a folder without papers stop before anything is sent."""
    (tmp_path / "a.pdf").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        read(tmp_path / path)


def test_foreign_names_and_usual_names():
    """Fields are found under their usual names, or those given; all others become metadata."""
    paper = paper_from(_id=5, title="T", summary="A", content="B", year=2020, venue={"name": "J"})
    assert (paper.id, paper.abstract, paper.body, paper.meta) == ("5", "A", "B", {"year": 2020, "venue.name": "J"})
    paper = paper_from({"id": "corpusid", "body": "full"}, corpusid="c1", title="T", full=["one", {"text": "two"}])
    assert (paper.id, paper.body) == ("c1", "one\n\ntwo")


def test_text_is_made_valid():
    """NUL, control characters and lone surrogates go; emoji, combining marks and right-to-left text stay (F38)."""
    assert clean_text("a\x00b\x1b[31mc\r\nd\ud800") == "ab[31mc\nd\ufffd"
    assert clean_text("café 👩‍🔬 שלום مرحبا") == "café 👩‍🔬 שלום مرحبا"
    paper = paper_from(id="i\x00d 1", title="T\x07", text="b", tags=["x\x00"])
    assert (paper.id, paper.title, paper.meta) == ("id 1", "T", {"tags": ["x"]})


def test_gate_and_empty_papers():
    """Too few words, no text at all, too long an id: rejected with the reason, and the record kept for the dead letters (F41, F42)."""
    assert paper_from(min_words=100, id="a", text="few words").reason == "fewer than 100 words"
    assert paper_from(id="a", text=" \n ", title=None).reason == "no text"
    rejected = paper_from(id="é" * MAX_ID_BYTES, text="b")
    assert rejected.reason.startswith("id longer than")
    assert rejected.fields["text"] == "b"
    assert isinstance(paper_from(id="only-a-title", title="T"), Paper)


def test_strange_ids_are_kept():
    """Ids with slashes, hashes, wild cards and a leading underscore are ids like others (F42)."""
    for key in ("a/b?c#d,e*", "_x", "10.1000/j.x:1", "κείμενο"):
        assert paper_from(id=key, text="b").id == key


def test_a_record_without_id_is_named_by_its_content():
    """The same record finds itself again; another one gets another id."""
    assert paper_from(text="b").id == paper_from(text="b", year=1).id != paper_from(text="c").id


def test_hash_ignores_where_a_record_came_from():
    """Equal records are unchanged, whatever file they stand in; a corrected year changes the hash."""
    one = to_paper(Record({"id": "a", "text": "b", "year": 1}, "x:1"), {}, 0)
    other = to_paper(Record({"year": 1, "text": "b", "id": "a"}, "y:9"), {}, 0)
    assert one.input_hash == other.input_hash != paper_from(id="a", text="b", year=2).input_hash


def test_dead_letters_are_read_as_what_they_hold(tmp_path):
    """A dead letter fed in again is the record inside it."""
    letter = {DEAD_LETTER: "fewer than 100 words", "source": "f:1", "record": {"id": "a", "text": "b"}}
    (tmp_path / "dead.jsonl").write_text(json.dumps(letter) + "\n")
    [record] = read(tmp_path / "dead.jsonl")
    assert (record.fields, record.source) == ({"id": "a", "text": "b"}, "f:1")
