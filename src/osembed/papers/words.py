"""Find the words of a text in any script, as character spans.

Most scripts put spaces between words. For Chinese, Japanese and Thai, which do not, BudouX finds phrases
(https://github.com/google/budoux), which count as words and between which a text may be cut. Lao, Khmer and Burmese are cut into short runs
of syllables.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from budoux import Parser

Span = tuple[int, int]
_SPACED = re.compile(r"\S+")
_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA = "\u3041-\u309f\u30a0-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_THAI, _OTHERS = "\u0e00-\u0e7f", "\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff"  # Lao, Burmese, Khmer
_UNSPACED = re.compile(f"[{_HAN}{_KANA}{_THAI}{_OTHERS}]")
# One run is text in one script with its punctuation, or any other text.
_RUN = re.compile(
    f"(?P<ja>[{_HAN}{_KANA}\u3000-\u303f\uff00-\uffef]+)|(?P<th>[{_THAI}]+)|(?P<other>[{_OTHERS}]+)"
    f"|(?P<spaced>[^{_HAN}{_KANA}{_THAI}{_OTHERS}]+)"
)
_JAPANESE = re.compile(f"[{_KANA}]")
_SYLLABLES = 6  # characters per word in scripts without a parser


def is_unspaced(text: str) -> bool:
    """Return whether a text contains a script without spaces between words."""
    return _UNSPACED.search(text) is not None


def word_spans(text: str, *, by_script: bool = True) -> list[Span]:
    """Return the words of a text as [start, end) in characters.

    Args:
        text: a text in any script.
        by_script: whether words without spaces between them are found too; otherwise only white space separates words.
    """
    spans = [match.span() for match in _SPACED.finditer(text)]
    if not by_script or not is_unspaced(text):
        return spans
    japanese = bool(_JAPANESE.search(text))
    return [part for start, end in spans for part in _split_span(text, start, end, japanese)]


def count_words(text: str) -> int:
    """Return the number of words in a text, in any script."""
    return len(word_spans(text)) if is_unspaced(text) else len(text.split())


def _split_span(text: str, start: int, end: int, japanese: bool) -> Iterator[Span]:
    """Yield the words in the text between two spaces."""
    for run in _RUN.finditer(text, start, end):
        kind, place = run.lastgroup or "", run.start()
        if kind == "spaced":
            yield run.span()
            continue
        for phrase in _phrases(run.group(), kind if kind != "ja" or japanese else "zh"):
            yield place, place + len(phrase)
            place += len(phrase)


def _phrases(text: str, script: str) -> list[str]:
    return _syllables(text) if script == "other" else _parser(script).parse(text)


def _syllables(text: str) -> list[str]:
    """Split a run every few characters, but never before a mark that belongs to the previous character."""
    starts = [0]
    for place, char in enumerate(text):
        if place - starts[-1] >= _SYLLABLES and not unicodedata.category(char).startswith("M"):
            starts.append(place)
    return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


@cache
def _parser(script: str) -> Parser:
    import budoux

    makers = {
        "ja": budoux.load_default_japanese_parser,
        "zh": budoux.load_default_simplified_chinese_parser,
        "th": budoux.load_default_thai_parser,
    }
    return makers[script]()
