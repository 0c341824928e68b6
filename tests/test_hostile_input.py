"""Hostile input: whatever stands in a file or a folder, no exception, no lost count, bounded memory; what can be mended can be fed in again."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osembed.errors import InputError, NoPapersError
from osembed.ingest.intake import Intake
from osembed.ingest.options import IngestOptions
from osembed.papers.columns import explain_names
from osembed.papers.dead_letters import DeadLetters
from osembed.papers.paper import Paper, to_paper
from osembed.papers.readers.packed import zstd
from osembed.papers.readers.reader import Reader
from osembed.papers.records import DEAD_LETTER, Record, Rejected
from osembed.papers.seen import SeenIds
from tests.conftest import as_nobody

SUFFIXES = [".txt", ".md", ".jsonl", ".csv", ".txt.gz", ".jsonl.zst", ".csv.gz", ".csv.zst"]
anything = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(*paths, names=None) -> list[Record | Rejected]:
    return list(Reader([str(path) for path in paths], names or {}))


def papers(*paths, names=None) -> list[Paper | Rejected]:
    return [to_paper(record, names or {}, 0) if isinstance(record, Record) else record for record in read(*paths, names=names)]


def feed_again(rejected: list[Rejected], folder: Path) -> list[Paper | Rejected]:
    """What becomes of dead letters that are ingested as they are."""
    file = folder / "letters.jsonl"
    file.unlink(missing_ok=True)
    letters = DeadLetters(str(file), "x")
    for one in rejected:
        letters.write(one)
    letters.close()
    return papers(file) if rejected else []


# Ids are text from the first byte to the last.


@pytest.mark.parametrize("key", ["2101.00010", "0704.0010", "007", "1e5", "12345678901234567890123", "-0", "1.0", "10.1000/182"])
def test_ids_of_tables_are_text(tmp_path, key):
    """No id is taken for a number, and neither is a title; a year is one."""
    (tmp_path / "a.csv").write_text(f"id,title,text,year\n{key},1.10,2020.50,2015\n")
    [paper] = papers(tmp_path / "a.csv")
    assert (paper.id, paper.title, paper.body, paper.meta) == (key, "1.10", "2020.50", {"year": 2015})


def test_ids_of_tables_are_text_under_any_name(tmp_path):
    """Under the name that the caller gave; what else looks like a number becomes one."""
    (tmp_path / "a.csv").write_text("arxiv,id,text\n2101.00010,7,b\n")
    [paper] = papers(tmp_path / "a.csv", names={"id": "arxiv"})
    assert (paper.id, paper.meta) == ("2101.00010", {"id": 7})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2101.00010", "2101.00010"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("18446744073709551615", None),
        ("7", None),
    ],
)
def test_ids_of_json_keep_their_digits(tmp_path, written, meant):
    """Floats and integers beyond 64 bits are ids as they are written, in a dead letter, too; what an earlier osembed made of them is known."""
    record = f'{{"id": {written}, "text": "b", "score": 2.50}}'
    (tmp_path / "a.jsonl").write_text(f'{record}\n{{"{DEAD_LETTER}": "x", "source": "s", "record": {record}}}\n')
    one, again = papers(tmp_path / "a.jsonl")
    assert one.id == again.id == (meant or written)
    assert one.former == (str(float(written)) if meant else "")
    assert one.meta == {"score": 2.5}


@pytest.mark.parametrize("key", [["a"], {"a": 1}, True])
def test_ids_that_are_no_text_are_refused(key):
    """A list, an object, true: refused with the reason, not stored as Python writes them."""
    refused = to_paper(Record({"id": key, "text": "b"}, "f:1"), {}, 0)
    assert isinstance(refused, Rejected)
    assert "not text" in refused.reason


def test_former_ids():
    """A record whose id was made of its content, since its name was not understood then, is known under that."""
    before = to_paper(Record({"title": "T", "text": "b"}, "f:1"), {}, 0)
    now = to_paper(Record({"ID": "a", "title": "T", "text": "b"}, "f:1"), {}, 0)
    assert (now.id, now.former) == ("a", before.id)
    assert to_paper(Record({"id": "a", "title": "T", "text": "b"}, "f:1"), {}, 0).former == ""


# One bad file never ends an ingest.


def test_bad_files_cost_themselves(tmp_path):
    """Links to nothing and to themselves, packed files that are none, damaged or cut short, names that are not UTF-8: all others are read."""
    lines = b"".join(b'{"id": "%d", "text": "b"}\n' % number for number in range(5000))
    (tmp_path / "to-nothing.txt").symlink_to(tmp_path / "gone.txt")
    (tmp_path / "to-itself.txt").symlink_to(tmp_path / "to-itself.txt")
    (tmp_path / "no-gzip.jsonl.gz").write_bytes(b"plain text")
    (tmp_path / "no-zstd.jsonl.zst").write_bytes(b"plain text")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(lines)[:-100])
    (tmp_path / "cut.jsonl.zst").write_bytes(zstd.compress(lines)[:-20])
    damaged = bytearray(gzip.compress(lines))
    damaged[len(damaged) // 2] ^= 0xFF
    (tmp_path / "damaged.jsonl.gz").write_bytes(damaged)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("Café\nBody")
    (tmp_path / "good.txt").write_text("Good\nBody")
    found = read(tmp_path)
    reasons = {
        one.source.split("/")[-1]: one.reason for one in found if isinstance(one, Rejected) and one.reason.startswith("cannot be read")
    }
    assert set(reasons) == {
        "to-nothing.txt",
        "to-itself.txt",
        "no-gzip.jsonl.gz",
        "no-zstd.jsonl.zst",
        "cut.jsonl.gz",
        "cut.jsonl.zst",
        "damaged.jsonl.gz",
    }
    assert str(tmp_path) not in "".join(reasons.values())
    titles = {one.fields["id"]: one.fields["title"] for one in found if "title" in one.fields}
    assert titles == {"good": "Good", "caf\\xe9": "Café"}
    json.dumps([(one.source, one.fields) for one in found]).encode()
    again = feed_again([one for one in found if isinstance(one, Rejected)], tmp_path)
    assert Counter(map(type, again)) == {Rejected: len([one for one in found if isinstance(one, Rejected)])}


def test_files_that_vanish(tmp_path):
    """What was there a moment ago is named."""
    (tmp_path / "a.txt").write_text("A\nBody")
    (tmp_path / "b.txt").write_text("B\nBody")
    reader = Reader([str(tmp_path)])
    (tmp_path / "a.txt").unlink()
    gone, good = reader
    assert isinstance(gone, Rejected)
    assert "No such file" in gone.reason
    assert good.fields["id"] == "b"


def test_folders_that_are_closed():
    """So is a folder that may not be entered, by a user who may enter the one above it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "b.txt").write_text("B\nBody")
        closed = folder / "closed"
        closed.mkdir(mode=0)
        try:
            with as_nobody():
                assert [one.source for one in read(folder) if isinstance(one, Rejected)] == [f"{folder.name}/closed"]
        finally:
            closed.chmod(0o700)


def test_links_to_folders_are_named_and_not_followed(tmp_path):
    """A folder that links to itself is no endless one."""
    (tmp_path / "a.txt").write_text("A\nBody")
    (tmp_path / "round").symlink_to(tmp_path)
    reader = Reader([str(tmp_path)])
    assert len(list(reader)) == 1
    assert reader.skipped == {"links to folders": 1}
    assert reader.skipped_names == {"links to folders": [f"{tmp_path.name}/round"]}


def test_a_device_is_refused():
    """It never ends."""
    with pytest.raises(InputError, match="neither a file nor a folder"):
        Reader([os.devnull])


def test_frames_behind_frames_are_read(tmp_path):
    """Packed files that were appended to one another are read to the end; a long window is allowed."""
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(zstd.compress(b'{"id": "%d"}\n' % number) for number in range(3)))
    options = {zstd.CompressionParameter.window_log: 28, zstd.CompressionParameter.enable_long_distance_matching: 1}
    (tmp_path / "b.jsonl.zst").write_bytes(zstd.compress(b'{"id": "long"}\n', options=options))
    assert [one.fields["id"] for one in read(tmp_path)] == ["0", "1", "2", "long"]


def test_only_whole_names_are_passed_over(tmp_path):
    """README and LICENSE are no papers; "Contributing factors" is one."""
    read_names = ["Contributing factors.txt", "Licensed drugs.txt", "Noticeable effects.md", "readme-study.txt"]
    passed = ["README.md", "LICENSE.txt", "Changelog.md", "NOTICE.txt"]
    for name in read_names + passed:
        (tmp_path / name).write_text("T\nB")
    reader = Reader([str(tmp_path)])
    assert len(list(reader)) == len(read_names)
    assert reader.skipped == {"readme, notice or licence files": 4}
    assert reader.skipped_names["readme, notice or licence files"] == [f"{tmp_path.name}/{name}" for name in sorted(passed)[:3]]


# Tables.


def test_a_quote_that_never_closes_costs_its_row(tmp_path):
    """All rows behind it are read."""
    rows = "".join(f"{number},T{number},text {number}\n" for number in range(2, 2000))
    (tmp_path / "a.csv").write_text(f'id,title,text\n1,"T,text 1\n{rows}')
    first, *others = read(tmp_path / "a.csv")
    assert isinstance(first, Rejected)
    assert (first.source, first.reason, first.fields["id"]) == ("a.csv:2", "a quote never closes", "1")
    assert [one.fields["id"] for one in others] == [str(number) for number in range(2, 2000)]
    assert others[0].source == "a.csv:3"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_and_line_ends(tmp_path, separator, end):
    """Spreadsheets write semicolons or tabs, and old ones a lone carriage return."""
    rows = [["Key", "Title", "Abstract Note"], ["A1", "One, two", "x"], ["A2", "T", "y"]]
    text = end.join(separator.join(f'"{cell}"' for cell in row) for row in rows)
    (tmp_path / "zotero.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [(one.id, one.title, one.abstract) for one in papers(tmp_path / "zotero.csv")] == [("A1", "One, two", "x"), ("A2", "T", "y")]


def test_wide_encodings_are_read(tmp_path):
    """UTF-16 with its mark, as spreadsheets write it, in every kind of file."""
    (tmp_path / "a.csv").write_bytes("id\ttext\nä\tböd\n".encode("utf-16"))
    (tmp_path / "b.jsonl").write_bytes('{"id": "ü", "text": "x"}\n'.encode("utf-16"))
    assert [one.fields["id"] for one in read(tmp_path)] == ["ä", "ü"]


# Dead letters.


def test_what_is_not_utf8_can_be_mended(tmp_path):
    """Rows, lines and files in another encoding are kept as text with a guess at it; they go in once a person has looked."""
    (tmp_path / "a.csv").write_bytes("id,text,year\né,bodé,2015\n".encode("cp1252"))
    (tmp_path / "b.jsonl").write_bytes('{"id": "ö", "text": "x"}\n'.encode("cp1252"))
    (tmp_path / "c.txt").write_bytes("Títle\nB\x81".encode("latin-1"))
    found = read(tmp_path)
    assert [(one.reason, one.check) for one in found] == [("not UTF-8", "read as cp1252")] * 2 + [("not UTF-8", "read as latin-1")]
    again = feed_again(found, tmp_path)
    assert again == found
    file = tmp_path / "letters.jsonl"
    letters = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    file.write_bytes(b"".join(orjson.dumps({key: letter[key] for key in letter if key != "check"}) + b"\n" for letter in letters))
    one, two, three = papers(file)
    assert (one.id, one.body, one.meta, two.id, three.title) == ("é", "bodé", {"year": 2015}, "ö", "Títle")


def test_broken_json_can_be_mended(tmp_path):
    """The line is kept; mended it is read as the line it should have been, unmended it is the same dead letter again."""
    (tmp_path / "a.jsonl").write_text('{"id": 2101.00010, "text": "b"\n[1]\n')
    found = read(tmp_path / "a.jsonl")
    assert feed_again(found, tmp_path) == found
    file = tmp_path / "letters.jsonl"
    letters = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    letters[0]["record"]["raw"] += "}"
    file.write_bytes(orjson.dumps(letters[0]))
    [mended] = papers(file)
    assert (mended.id, mended.source) == ("2101.00010", "a.jsonl:1")


def test_rows_of_the_wrong_length_keep_what_they_have(tmp_path):
    """Nothing is cut off, and nothing goes in with its columns shifted."""
    (tmp_path / "a.csv").write_text("id,title,text\n1,T\n2,T,x,more,and more\n")
    short, long = read(tmp_path / "a.csv")
    assert short.fields == {"id": "1", "title": "T"}
    assert long.fields == {"id": "2", "title": "T", "text": "x", "extra columns": ["more", "and more"]}
    assert feed_again([short, long], tmp_path) == [short, long]


# Names.


@pytest.mark.parametrize(
    ("columns", "names", "said"),
    [
        (["nr", "Titel", "Volltext"], {}, "Their fields are nr, Titel, Volltext. Try --field title=Titel --field body=Volltext."),
        (["id", "titles", "full text"], {}, "--field body='full text'"),
        (["id", "title", "fulltext"], {"body": "ful_text"}, "--field body=fulltext"),
        (["a", "b"], {}, "Specify which fields to use"),
        (["id", "TITLE", "Abstract Note"], {}, ""),
    ],
)
def test_unknown_names_get_a_hint(columns, names, said):
    """The names that were found, the nearest known one, what to type; silence where the text was found."""
    hint = explain_names(columns, names)
    assert said in hint
    assert bool(said) == bool(hint)


def test_a_name_that_no_record_has_is_said(tmp_path):
    """Else a misspelled body would be left out in silence where there are abstracts."""
    path = tmp_path / "a.csv"
    path.write_text("id,title,abstract,full_txt\n1,T,an abstract,the text\n")
    for names, said in (({"body": "full_text"}, "--field body=full_txt"), ({"body": "nothing like it"}, "Their fields are id, title")):
        with closing(Intake([str(path)], IngestOptions(0, names), "c")) as intake:
            intake.look()
            assert f"have no field {shlex.quote(names['body'])}" in intake.notice
            assert said in intake.notice
    with closing(Intake([str(path)], IngestOptions(0, {"body": "FULL_TXT"}), "c")) as intake:
        intake.look()
        assert intake.notice == ""


def test_an_input_without_papers_says_why(tmp_path):
    """The reasons counted, the names of the columns, where the records are kept."""
    (tmp_path / "a.csv").write_text("nr;titel;Volltext\n1;T;some text\n2;T;more text\n")
    intake = Intake([str(tmp_path / "a.csv")], IngestOptions(dead_letters=str(tmp_path / "dead.jsonl")), "x")
    with pytest.raises(NoPapersError) as refused:
        intake.look()
    for said in ("2 records read", "2 no text", "Their fields are nr, titel, Volltext", "--field title=titel", "dead.jsonl"):
        assert said in str(refused.value)
    with pytest.raises(InputError, match="Did you mean title=x"):
        IngestOptions(names={"titel": "x"})


# Anything at all.


@anything
@given(
    data=st.binary(max_size=400) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")),
    suffix=st.sampled_from(SUFFIXES),
)
def test_any_bytes(tmp_path, data, suffix):
    """Any bytes in any kind of file, packed or claiming to be: records or rejections, which are the same when they are fed in again."""
    for content in (data, gzip.compress(data), zstd.compress(data), b"id,title,text\n" + data, zstd.compress(b"id;text\n" + data)):
        file = tmp_path / f"a{suffix}"
        file.write_bytes(content)
        rejected = [one for one in papers(file) if isinstance(one, Rejected)]
        assert feed_again(rejected, tmp_path) == rejected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["id", "_id", "ID", "doi", "title", "Text", "body", "meta", "abstract", "raw", DEAD_LETTER, "record", "source", "check"]
)


@anything
@given(records=st.lists(st.dictionaries(names, json_values, max_size=5), max_size=5))
def test_any_records(tmp_path, records):
    """Any JSON objects, dead letters among them: one result per line, ids are text, whatever is rejected can be fed in again."""
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    found = papers(tmp_path / "a.jsonl")
    assert len(found) == len(records)
    for one in found:
        if isinstance(one, Paper):
            assert one.id
            assert one.input_hash
    rejected = [one for one in found if isinstance(one, Rejected)]
    assert feed_again(rejected, tmp_path) == rejected


@anything
@given(rows=st.lists(st.lists(st.text(alphabet='a,;"\n\r\t 1.é', max_size=6), max_size=4), max_size=6))
def test_any_table(tmp_path, rows):
    """Any cells, quoted or not, never closed, of any number: no row ends the file."""
    text = "id,title,text\n" + "\n".join(",".join(row) for row in rows) + "\nlast,T,x\n"
    (tmp_path / "a.csv").write_text(text, newline="")
    read(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes(text.replace('"', "").encode())
    assert read(tmp_path / "b.csv")[-1].fields.get("id") == "last"


def test_deep_nesting_is_one_records_fault(tmp_path):
    """As deep as the parser goes."""
    for name in ("text", "id", "meta", "year"):
        for deep in ("[" * 900 + "]" * 900, '{"a":' * 900 + "1" + "}" * 900):
            (tmp_path / "a.jsonl").write_text(f'{{"{name}": {deep}, "title": "T"}}\n')
            found = papers(tmp_path / "a.jsonl")
            assert len(found) == 1
            assert feed_again([Rejected("x", "s", {name: orjson.loads(deep)})], tmp_path)


# Memory.


@pytest.mark.parametrize(
    ("name", "head", "piece", "limit_mb"),
    [
        ("bomb.csv.zst", b'id,title,text\n1,T,"', b"x", 400),
        ("lines.csv.gz", b'id,title,text\n1,T,"', b"x" * 1023 + b"\n", 400),
        ("columns.csv.gz", b"id,title,text\n1,T", b",", 400),
        ("bomb.jsonl.zst", b'{"id": "', b"x", 250),
        ("bomb.txt.gz", b"Title\n", b"x", 250),
    ],
)
def test_bombs_do_not_take_the_memory(tmp_path, name, head, piece, limit_mb):
    """300 MB from a tiny file: the record is refused, and no more than a record's share of memory is taken."""
    open_packed = gzip.open if name.endswith(".gz") else zstd.open
    with open_packed(tmp_path / name, "wb") as file:
        file.write(head)
        for _ in range(300):
            file.write(piece * (2**20 // len(piece)))
    assert (tmp_path / name).stat().st_size < 2**20
    program = (
        "import resource, sys\n"
        "from osembed.papers.readers.reader import Reader\n"
        "from osembed.papers.records import Rejected\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak()\n"
        "rejected = sum(isinstance(one, Rejected) for one in Reader([sys.argv[1]]))\n"
        "print(rejected, peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], capture_output=True, text=True, timeout=300)
    rejected, grown = map(int, done.stdout.split())
    assert rejected >= 1
    assert grown < limit_mb, f"{name} took {grown} MB"


def test_ids_that_were_met_are_known():
    """Across many windows, whatever else was met."""
    seen = SeenIds()
    for start in range(0, 20_000, 250):
        assert seen.meet(str(number) for number in range(start, start + 250)) == set()
    assert seen.meet(["7", "new"]) == {"7"}
    seen.close()


def test_dead_letters_that_would_be_read_again_without_end_are_refused(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"id": "1", "title": "short"}\n')
    (tmp_path / "link").symlink_to(tmp_path)
    for path, letters in ((file, file), (tmp_path, tmp_path / "dead.jsonl"), (tmp_path / "link", tmp_path / "sub" / "dead.jsonl")):
        with pytest.raises(InputError, match="inside the input"):
            Intake([str(path)], IngestOptions(dead_letters=str(letters)), "x")
    for letters in ("rejected.log", ".dead.jsonl", ".hidden/dead.jsonl"):
        Intake([str(tmp_path)], IngestOptions(dead_letters=str(tmp_path / letters)), "x").close()
