"""Words in any script: counted, cut, and analysed in their own language."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osembed.errors import InputError
from osembed.papers.languages import analyzers_of, choose_analyzer, language_name, recognise_language
from osembed.papers.words import count_words, word_spans
from osembed.passages.chunk import ChunkRule, cut_papers
from tests.test_chunk import MODEL, TOKENISER, make

CHINESE = "本研究表明，海水温度在过去几十年中显著上升。珊瑚礁因此受到严重破坏，许多鱼类失去了栖息地。"
JAPANESE = "研究の結果、海水の温度が上昇したことを示す。サンゴ礁は大きな被害を受けている。"
THAI = "การศึกษานี้แสดงให้เห็นว่าอุณหภูมิของน้ำทะเลสูงขึ้นอย่างมากในช่วงหลายทศวรรษที่ผ่านมา"
LAO = "ການສຶກສານີ້ສະແດງໃຫ້ເຫັນວ່າອຸນຫະພູມຂອງນ້ຳທະເລສູງຂຶ້ນ"


@pytest.mark.parametrize(("text", "fewest", "most"), [(CHINESE, 20, 40), (JAPANESE, 8, 20), (THAI, 10, 30), (LAO, 5, 12)])
def test_scripts_without_spaces_have_words(text, fewest, most):
    assert fewest <= count_words(text) <= most


@given(st.text(alphabet=st.sampled_from("ab 。、海水研の結カﾊทำสกຂ້ສ中。 \n\u0301x1…！「」한국"), max_size=60))
def test_words_are_all_of_a_text_but_its_spaces(text):
    """In order, without overlap, whatever the mixture; where there are only spaced scripts they are what split() finds."""
    spans = word_spans(text)
    assert "".join(text[start:end] for start, end in spans) == "".join(text.split())
    assert all(start < end for start, end in spans)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    assert [text[start:end] for start, end in word_spans(text, by_script=False)] == text.split()


@pytest.mark.parametrize("text", [CHINESE, JAPANESE, THAI, LAO])
@pytest.mark.parametrize("rule", [ChunkRule(), ChunkRule(40, 4, 1000, fit=False)], ids=["fitted", "fixed"])
def test_long_texts_without_spaces_are_cut(text, rule):
    """Into windows that the model sees whole, that leave nothing out, and that end between words."""
    body = text * 60
    [(chunks, beyond)] = cut_papers([make(body)], rule, MODEL.spec, TOKENISER)
    assert beyond == 0
    assert len(chunks) > 4 or (rule.fit and text in (THAI, LAO))  # which this model reads as a few unknown tokens
    assert (chunks[0].start, chunks[-1].end) == (0, len(body))
    assert all(after.start <= before.end for before, after in itertools.pairwise(chunks))
    if rule.fit:
        read = TOKENISER.tokenise([MODEL.spec.passage("", chunk.text) for chunk in chunks]).counts
        assert max(read) <= MODEL.spec.max_length


def test_collections_from_before_are_cut_as_they_were():
    [(chunks, _)] = cut_papers([make(CHINESE * 60)], ChunkRule(cutting=1), MODEL.spec, TOKENISER)
    assert len(chunks) == 1


def test_languages_have_analyzers():
    assert language_name("DE") == language_name(" German ") == "german"
    assert choose_analyzer("japanese", {"analysis-kuromoji"}) == "kuromoji"
    assert choose_analyzer("japanese", frozenset()) == "cjk"
    assert set(analyzers_of("japanese")) == {"kuromoji", "cjk"}
    with pytest.raises(InputError, match="Did you mean german"):
        language_name("germn")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Cells divide and grow in warm water while light falls on the leaves.", "english"),
        ("Der Fluss ist warm, und die Pflanzen wachsen am Ufer schneller als im Schatten.", "german"),
        ("Este estudo mostra que a temperatura da água do mar não para de subir e que os corais são muito afetados.", "portuguese"),
        ("تظهر هذه الدراسة أن درجة حرارة مياه البحر ارتفعت في العقود الأخيرة", "arabic"),
        (CHINESE, "chinese"),
        (JAPANESE, "japanese"),
        (THAI, "thai"),
        ("", "english"),
    ],
)
def test_languages_are_recognised(text, language):
    assert recognise_language([text]) == language


def test_one_text_decides_nothing():
    assert recognise_language([CHINESE, *["Cells divide and grow in warm water while light falls."] * 3]) == "english"
