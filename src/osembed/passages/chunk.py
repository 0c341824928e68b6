"""Cut texts into chunks: windows of words that fit the model and end at sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from osembed.errors import InputError
from osembed.limits import checked_value
from osembed.models.spec import ModelSpec
from osembed.papers.paper import Paper
from osembed.papers.words import word_spans
from osembed.passages.tokens import Tokeniser

_SENTENCE_END = re.compile(r"""[.!?…。！？]["'”’)\]]*$""")
_SEARCH_BACK = 0.2  # share of a window that is searched backwards for a sentence end
_LEAST_SHARE = 0.25  # smallest share of the model's window for the text, however long the title is


@dataclass(frozen=True)
class ChunkRule:
    """How papers are cut. Stored with the index, but not part of its identity.

    Attributes:
        words: most words per window.
        overlap: words that neighbouring windows share.
        max_chunks: most chunks per paper; words after them are reported as unseen.
        fit: whether windows shrink to what the model can read, and end at sentences; else all windows have `words` words.
        cutting: what counts as a word. 1: text between white space; 2: also phrases in scripts without spaces.
    """

    words: int = 512
    overlap: int = 50
    max_chunks: int = 400
    fit: bool = True
    cutting: int = 2

    def __post_init__(self) -> None:
        checked_value("chunk_words", self.words)
        checked_value("max_chunks", self.max_chunks)
        if checked_value("chunk_overlap", self.overlap) >= self.words:
            raise InputError(
                f"chunk_overlap: {self.overlap} is not smaller than the window of {self.words} words.",
                "The windows would never advance.",
                "Use an overlap smaller than the window.",
            )


@dataclass(frozen=True)
class Chunk:
    """A window of a paper's text, characters [start, end)."""

    start: int
    end: int
    text: str
    word_count: int


def cut_papers(papers: Sequence[Paper], rule: ChunkRule, spec: ModelSpec, tokeniser: Tokeniser) -> list[tuple[list[Chunk], int]]:
    """Cut papers by a rule.

    Returns:
        For each paper its chunks in order, and the number of words after the last allowed chunk.
    """
    texts = [paper.text for paper in papers]
    words = [word_spans(text, by_script=rule.cutting > 1) for text in texts]
    if not rule.fit:
        return [_cut_text(text, spans, _fixed_windows(len(spans), rule), rule) for text, spans in zip(texts, words, strict=True)]
    frames = tokeniser.count([spec.passage(paper.title, "a") for paper in papers])
    rooms = [_room(spec.max_length - tokeniser.specials, frame) for frame in frames]
    return [
        _cut_text(text, spans, _fitted_windows(before, _Ends(text, spans), rule, room), rule)
        for text, spans, before, room in zip(texts, words, tokeniser.before(texts, words), rooms, strict=True)
    ]


def start_of(text: str, words: int) -> str:
    """Return the beginning of a text up to its `words`-th word, unchanged."""
    # Words are split at white space in every script, because the result is part of stored hashes.
    for number, match in enumerate(re.finditer(r"\S+", text), 1):
        if number == words:
            return text[: match.end()]
    return text


def _room(window: int, frame: int) -> int:
    """Return the number of tokens left for the text next to a title of `frame` tokens."""
    return max(window - frame, int(window * _LEAST_SHARE), 1)


def _cut_text(text: str, spans: list[tuple[int, int]], windows: list[tuple[int, int]], rule: ChunkRule) -> tuple[list[Chunk], int]:
    beyond = len(spans) - windows[rule.max_chunks - 1][1] if len(windows) > rule.max_chunks else 0
    chunks = []
    for first, last in windows[: rule.max_chunks]:
        start, end = spans[first][0], spans[last - 1][1]
        chunks.append(Chunk(start, end, text[start:end], last - first))
    return chunks, beyond


class _Ends:
    """Tells for each word of a text whether it ends a sentence. Computed on request, because few words are ever looked at."""

    def __init__(self, text: str, spans: list[tuple[int, int]]) -> None:
        self._text, self._spans = text, spans

    def __getitem__(self, word: int) -> bool:
        start, end = self._spans[word]
        return bool(_SENTENCE_END.search(self._text, max(start, end - 8), end))


def _fixed_windows(words: int, rule: ChunkRule) -> list[tuple[int, int]]:
    """Return windows [first, last) of `rule.words` words; the last one ends with the text."""
    windows, first = [], 0
    while words:
        last = min(first + rule.words, words)
        windows.append((first, last))
        if last == words:
            break
        first = last - rule.overlap
    return windows


def _fitted_windows(before: NDArray[np.int64], ends: _Ends, rule: ChunkRule, room: int) -> list[tuple[int, int]]:
    """Return windows [first, last) of at most `room` tokens and `rule.words` words.

    Args:
        before: number of tokens before each word, and the total: [words + 1].
        ends: whether each word ends a sentence.
        rule: gives the most words per window, and the overlap as a share of them.
        room: tokens that the model can read next to the title.
    """
    words, windows, first = len(before) - 1, [], 0
    while words:
        last = int(np.searchsorted(before, before[first] + room, side="right")) - 1
        last = min(max(last, first + 1), first + rule.words, words)
        if last < words:
            last = _back_to_sentence(first, last, ends)
        windows.append((first, last))
        if last == words:
            break
        overlap = round((last - first) * rule.overlap / rule.words)
        first = _on_to_sentence(max(last - overlap, first + 1), last, ends)
    return windows


def _back_to_sentence(first: int, last: int, ends: _Ends) -> int:
    """Return the last sentence end in the last fifth of a window, else the window's end."""
    for word in range(last, last - int((last - first) * _SEARCH_BACK), -1):
        if ends[word - 1]:
            return word
    return last


def _on_to_sentence(first: int, last: int, ends: _Ends) -> int:
    """Return the first beginning of a sentence in the overlap, else the beginning of the overlap."""
    for word in range(first, last):
        if ends[word - 1]:
            return word
    return first
