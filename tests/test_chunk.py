"""Cutting: every word is in a chunk, every chunk is seen whole, the end is the end."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osembed.models.registry import open_model
from osembed.papers.paper import Paper
from osembed.passages.chunk import ChunkRule, cut_papers, start_of
from osembed.passages.tokens import Tokeniser
from tests.conftest import EXAMPLES

MODEL = open_model("all-MiniLM-L6-v2")
TOKENISER = Tokeniser(MODEL)


def make(text: str, title: str = "A title") -> Paper:
    return Paper("p", title, "", text, {}, "", {})


def long_papers() -> list[Paper]:
    records = [json.loads(line) for line in (EXAMPLES / "corpus.jsonl").read_text().splitlines()]
    return [make(record["text"], record["title"]) for record in records]


def covers(text: str, chunks: list) -> bool:
    """Whether each word of a text stands in some chunk, in order, and positions tell the truth."""
    place = 0
    for chunk in chunks:
        assert text[chunk.start : chunk.end] == chunk.text
        if text[place : chunk.start].strip():
            return False
        place = max(place, chunk.end)
    return not text[place:].strip()


def test_default_chunks_are_seen_whole():
    """With the default rule no chunk of any example paper exceeds the model's window, title included."""
    papers = long_papers()
    for paper, (chunks, beyond) in zip(papers, cut_papers(papers, ChunkRule(), MODEL.spec, TOKENISER), strict=True):
        assert beyond == 0
        assert covers(paper.text, chunks)
        tokens = TOKENISER.tokenise([MODEL.spec.passage(paper.title, chunk.text) for chunk in chunks])
        assert tokens.unseen == 0
    assert any(len(chunks) > 10 for chunks, _ in cut_papers(papers, ChunkRule(), MODEL.spec, TOKENISER))


def test_most_chunks_end_at_sentences():
    """Windows are cut where sentences end if one ends in the closing fifth."""
    papers = [paper for paper in long_papers() if paper.word_count > 2000]
    ends = [chunk.text[-1] in ".!?”" for chunks, _ in cut_papers(papers, ChunkRule(), MODEL.spec, TOKENISER) for chunk in chunks]
    assert sum(ends) / len(ends) > 0.7


def test_fixed_windows_follow_the_starting_systems():
    """--chunk-words 512 --chunk-overlap 50: windows at 0, 462, 924 …; the last one ends with the text; at most 100."""
    text = " ".join(f"w{number}" for number in range(1200))
    [(chunks, beyond)] = cut_papers([make(text)], ChunkRule(512, 50, 100, fit=False), MODEL.spec, TOKENISER)
    assert [chunk.text.split()[0] for chunk in chunks] == ["w0", "w462", "w924"]
    assert [chunk.word_count for chunk in chunks] == [512, 512, 276]
    assert beyond == 0
    [(chunks, beyond)] = cut_papers([make(text)], ChunkRule(100, 10, 3, fit=False), MODEL.spec, TOKENISER)
    assert (len(chunks), beyond) == (3, 1200 - 280)


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8"), max_size=4000),
    words=st.integers(1, 60),
    overlap=st.integers(0, 59),
    fit=st.booleans(),
)
def test_any_text_is_covered_and_cutting_ends(text, words, overlap, fit):
    """Whatever the text and the rule: cutting ends, positions are right, no word is lost."""
    rule = ChunkRule(words, min(overlap, words - 1), 10_000, fit=fit)
    [(chunks, beyond)] = cut_papers([make(text)], rule, MODEL.spec, TOKENISER)
    assert covers(text, chunks)
    assert beyond == 0
    assert all(chunk.word_count <= words for chunk in chunks)


def test_a_monstrous_word_and_a_monstrous_title_end_too():
    """A word or a title longer than the window neither loops nor disappears."""
    [(chunks, _)] = cut_papers([make("a" * 5000 + " end")], ChunkRule(), MODEL.spec, TOKENISER)
    assert covers("a" * 5000 + " end", chunks)
    [(chunks, _)] = cut_papers([make("some words here", "very long title " * 200)], ChunkRule(), MODEL.spec, TOKENISER)
    assert covers("some words here", chunks)


def test_empty_text_has_no_chunks():
    """A paper that is only a title has none."""
    assert cut_papers([make("")], ChunkRule(), MODEL.spec, TOKENISER) == [([], 0)]
    assert start_of("one  two three", 2) == "one  two"


@pytest.mark.parametrize("text", ["Glucose-6-phosphate isn't 4.2 µM.", "x" * 900, "word " * 400])
def test_truncated_ids_are_those_of_the_models_own_truncation(text):
    """Cutting ids here gives what the tokeniser's own truncation gives, and counts what it cuts."""
    from tokenizers import Tokenizer

    reference = Tokenizer.from_file(str(MODEL.folder / "tokenizer.json"))
    reference.no_padding()
    reference.enable_truncation(MODEL.spec.max_length)
    tokens = TOKENISER.tokenise([text])
    assert tokens.ids[0] == reference.encode(text).ids
    reference.no_truncation()
    assert tokens.counts[0] == len(reference.encode(text).ids)
