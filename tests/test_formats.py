"""Hits as CSV, JSON lines and BibTeX: read back by other programs, whatever a paper contains."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pybtex.database import parse_string

from osembed.cli import formats
from osembed.papers.paper import clean_text
from tests.conftest import paper, run
from tests.test_python import hit, page

# What a paper can hold: ingest has cleaned it of control characters and surrogates.
texts = st.text(st.characters(exclude_categories=("Cs", "Cc"))) | st.sampled_from(
    ["=1+1", "+x", "-x", "@cmd", "'=x", "\t=x", 'a"b,c', "a\r\nb", "}{", "\\", "@article{x,", "a and b", "$%&_#~^"]
)
STARTS = tuple("=+-@\t\r\n＝＋－＠")


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def unguarded(cell: str) -> str:
    return cell[1:] if re.match(r"'+[=+\-@\t\r\n＝＋－＠]", cell) else cell


def unescaped(text: str) -> str:
    """What LaTeX prints."""
    names = {"textbackslash": "\\", "textbraceleft": "{", "textbraceright": "}", "textasciitilde": "~", "textasciicircum": "^"}
    return re.sub(r"\\(?:(text\w+)\{\}|([&%$#_]))", lambda found: names[found[1]] if found[1] else found[2], text)


def plain(text: str) -> str:
    return " ".join(clean_text(text).split())


@given(texts, texts, st.floats(allow_nan=False) | st.integers() | st.booleans())
def test_csv_comes_back_and_holds_no_formula(title, venue, number):
    """One row per paper; every text comes back; no cell of text begins like a formula."""
    text = formats.csv_table(page(hit("a", title=title, meta={"venue": venue, "n": number}), hit("b", meta={"-odd": "x"})), ())
    head, first, second = rows(text)
    assert head == ["id", "score", "title", "venue", "n", "'-odd", "source", "word_count"]
    assert (unguarded(first[2]), unguarded(first[3])) == (clean_text(title), clean_text(venue))
    assert not any(cell.startswith(STARTS) for cell in (*first[2:4], *second, *head))
    assert float(first[4].replace("true", "1").replace("false", "0")) == float(number)
    assert text.endswith("\r\n")


def test_csv_columns_are_the_fields_asked_for():
    """In their order; a field that stands for several has a column for each; the collection where there are two."""
    one = hit("a", meta={"authors.name": ["A", "B"], "authors.age": [1.0]}, texts={"body": "long"}, collection="x")
    head, row = rows(formats.csv_table(page(one), ("body", "authors", "year")))
    assert head == ["id", "score", "body", "authors.name", "authors.age", "year"]
    assert row[2:] == ["long", "A; B", "1", ""]
    assert rows(formats.csv_table(page(one, hit("b", collection="y")), ("title",)))[1:] == [["x", "a", "1", ""], ["y", "b", "1", ""]]
    assert rows(formats.csv_table(page(), ("title",))) == [["id", "score", "title"]]


@settings(deadline=None)
@given(st.lists(st.tuples(texts, texts, texts, texts), max_size=3))
def test_bibtex_is_read_by_bibtex(papers):
    """Every entry is there, under a key of its own, with the title and the venue as they were."""
    hits = [
        hit(f"{number}{key}", title=title, meta={"venue": venue, "authors": [author]})
        for number, (key, title, venue, author) in enumerate(papers)
    ]
    entries = parse_string(formats.bibtex(page(*hits)), "bibtex").entries
    assert len(entries) == len(hits)
    for entry, (_, title, venue, _) in zip(entries.values(), papers, strict=True):
        assert unescaped(entry.fields.get("title", "")) == plain(title)
        assert unescaped(entry.fields.get("journal", "")) == plain(venue)
        assert entry.type == ("article" if venue else "misc")


def test_bibtex_fields():
    """Authors, year, journal, DOI and address are taken from where papers have them."""
    meta = {"authors": ["Doe, Jane", "Rock and Roll Institute"], "year": 2015.0, "journal": "Ants & Bees", "url": "https://x.org/{a} b"}
    entry = parse_string(formats.bibtex(page(hit("10.1000/a_b", title="50% {of} it", meta=meta))), "bibtex").entries["10.1000/a_b"]
    assert [str(person) for person in entry.persons["author"]] == ["Doe, Jane", "{Rock and Roll Institute}"]
    assert (entry.fields["year"], entry.fields["doi"], entry.fields["url"]) == ("2015", "10.1000/a_b", "https://x.org/%7Ba%7D%20b")
    assert entry.fields["journal"] == r"Ants \& Bees"
    assert entry.fields["title"] == r"50\% \textbraceleft{}of\textbraceright{} it"
    joined = formats.bibtex(page(hit("x", meta={"author": "A B; C D", "published": "2019-03-01"})))
    assert "author = {A B and C D}" in joined
    assert "year = {2019}" in joined


def test_bibtex_keys_are_unique():
    """Ids that come out alike are numbered, the case does not count; chunks of one paper are one entry."""
    text = formats.bibtex(page(hit("a b"), hit("a_b"), hit("A,b"), hit("a b"), hit("{}")))
    assert re.findall(r"@misc\{(.*?),?\n", text) == ["a_b", "a_b-2", "A_b-3", "_"]


@given(texts)
def test_json_lines_hold_one_hit_each(title):
    """Each line is a hit, whatever line ends a title has."""
    lines = formats.jsonl(page(hit("a", title=title), hit("b"))).split("\n")
    assert [json.loads(line)["title"] for line in lines[:-1]] == [title, ""]
    assert lines[-1] == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--json", "--format", "csv"], "--json means --format json"),
        (["--format", "xml"], "'xml' is not table"),
        (["--format", "csv", "--facet", "year"], "cannot show facets"),
    ],
)
def test_contradictions_are_usage_errors(words, message):
    """Said before anything is sent."""
    done = run("search", "ants", "--url", "http://127.0.0.1:9", *words)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_formats_from_the_shell(name, url, small, write, collection, known_models):
    """A real search in every format, sorted and counted; settings yield to the command line."""
    evil = [paper(n, title=f"=HYPERLINK({n}) {{x}}", year=2000 + n, venue="A & B", author="Doe, J") for n in range(3)]
    collection.ingest(evil, small)
    base = ("search", "study", "--collection", name, "--url", url, "--mode", "lexical", "--sort", "year:desc")
    assert [row[2] for row in rows(run(*base, "--format", "csv", "--fields", "year").stdout)] == ["year", "2002", "2001", "2000"]
    assert rows(run(*base, "--format", "csv").stdout)[1][2] == "'=HYPERLINK(2) {x}"
    assert list(parse_string(run(*base, "--format", "bibtex").stdout, "bibtex").entries) == ["p2", "p1", "p0"]
    lines = run(*base, "--json", env={"OSEMBED_FORMAT": "jsonl"}).stdout
    assert json.loads(lines)["sort"] == "year:desc"
    assert [json.loads(line)["id"] for line in run(*base, "--format", "jsonl").stdout.splitlines()] == ["p2", "p1", "p0"]
    shown = run(*base, "--facet", "year", "--fields", "venue").stdout
    assert "year, of 3 papers that match" in shown
    assert "venue A & B" in shown
    assert "year 2002" not in shown
    near = run("similar", "p1", "--collection", name, "--url", url, "--format", "csv", "--fields", "title,year")
    assert {row[0] for row in rows(near.stdout)[1:]} == {"p0", "p2"}
    for words in ([], ["p1", "--text", "x"]):
        refused = run("similar", *words, "--collection", name, "--url", url)
        assert (refused.returncode, "Exactly one of ID" in refused.stderr) == (2, True)
