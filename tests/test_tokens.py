"""Tokens from the table of words are those of the model's own tokeniser, id for id."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from osembed.models.folder import read_model
from osembed.models.registry import open_model
from osembed.passages import tokens
from osembed.passages.tokens import Tokeniser, is_wordwise
from tests.conftest import EXAMPLES


def genuine(model, texts):
    """What the tokeniser itself says, framed and truncated."""
    tokenizer = Tokenizer.from_file(str(model.folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.spec.max_length)
    cut = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    tokenizer.no_truncation()
    return cut, [len(encoding.ids) for encoding in tokenizer.encode_batch(texts)]


@pytest.fixture(scope="module")
def minilm():
    return open_model("all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def tokeniser(minilm):
    return Tokeniser(minilm)


def assert_exact(model, texts):
    """Whole papers, and 150-word pieces of them, which begin and end anywhere."""
    words = [text.split() for text in texts]
    pieces = [" ".join(row[start : start + 150]) for row in words for start in range(0, len(row), 400)]
    for group in (texts, pieces):
        found = Tokeniser(model).tokenise(group)
        assert (found.ids, found.counts) == genuine(model, group)


def test_examples_have_the_tokens_of_the_tokeniser(minilm):
    files = [path for path in sorted(EXAMPLES.rglob("*")) if path.is_file()]
    assert len(files) > 4
    assert_exact(minilm, [path.read_text() for path in files])


def test_real_papers_have_the_tokens_of_the_tokeniser(minilm, papers_folder):
    assert_exact(minilm, [path.read_text() for path in sorted(papers_folder.glob("*.txt"))])


@settings(max_examples=400, deadline=None)
@example("a\x1cb c\x85d\x0be\u2028f\u00a0g\u3000h\ufeffi")
@example("[SEP]x [CLS] [MASK]y x[SEP]")
@example("e\u0301 \u0301e 中文字 ß İstanbul ﬁ " + "a" * 300)
@given(st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(" \n\t[]#'-éα中\u0301\u200b\x1f\x85\u2028")), max_size=80))
def test_any_text_has_the_tokens_of_the_tokeniser(minilm, tokeniser, text):
    """Whatever stands in a text: control characters, odd white space, marks without a letter, special tokens, words beyond any limit."""
    found = tokeniser.tokenise([text])
    assert (found.ids, found.counts) == genuine(minilm, [text])


@pytest.mark.parametrize(("family", "wordwise"), [("bert", True), ("mpnet", True), ("distil", True), ("xlmr", False)])
def test_only_families_of_whole_words_use_the_table(models, family, wordwise):
    """Every family's tokens are exact, with the table or without; the tokens before each word are the same either way."""
    model = read_model(getattr(models, family))
    assert is_wordwise(Tokenizer.from_file(str(model.folder / "tokenizer.json"))) is wordwise
    text = "Ants walk home; they count\n\n(roughly) 1,000 steps, and the measured way back is short."
    tokeniser = Tokeniser(model)
    found = tokeniser.tokenise([text, "", "ants " * 200])
    assert (found.ids, found.counts) == genuine(model, [text, "", "ants " * 200])
    spans = [(0, 4), (5, 9), (10, 15)]
    table, tokeniser._table = tokeniser._table, None
    slow = tokeniser.before([text[:15]], [spans])[0].tolist()
    tokeniser._table = table
    assert tokeniser.before([text[:15]], [spans])[0].tolist() == slow


def test_a_full_table_makes_way(minilm, monkeypatch):
    """The table stays within its bound, and texts that need more words than that are tokenised all the same."""
    monkeypatch.setattr(tokens, "_MOST_WORDS", 50)
    tokeniser = Tokeniser(minilm)
    for start in range(0, 400, 40):
        group = [" ".join(f"w{number}" for number in range(start, start + 40)), "w1 w2"]
        assert tokeniser.tokenise(group).ids == genuine(minilm, group)[0]
        assert len(tokeniser._table._known) <= 50
    large = [" ".join(f"v{number}" for number in range(100))]
    assert tokeniser.tokenise(large).ids == genuine(minilm, large)[0]
