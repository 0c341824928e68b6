"""Tokenise texts exactly as the model's own tokeniser does. Imports no torch, because chunking needs tokens before a model is loaded."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from osembed.models.spec import Model
from osembed.papers.words import is_unspaced

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MOST_WORDS = 150_000  # words in a table: about 40 MB
_UNKNOWN = ("[UNK]", "<unk>")  # in WordPiece and SentencePiece; byte-level vocabularies have no unknown tokens
_REMOVED = re.compile(r"[\x0b\x0c\x1c-\x1f\x85]")  # BERT's cleaning removes these characters, but Python's `split` splits words at them


@dataclass(frozen=True)
class Tokens:
    """Tokenised texts.

    Attributes:
        texts: the strings.
        ids: for each text the ids that the model reads, with special tokens, at most the model's maximum.
        counts: for each text the number of ids before truncation.
        unknown: number of ids for something that is not in the vocabulary.
    """

    texts: Sequence[str]
    ids: list[list[int]]
    counts: list[int]
    unknown: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def read(self) -> int:
        """Number of tokens that the model reads."""
        return sum(map(len, self.ids))

    @property
    def unseen(self) -> int:
        """Number of tokens that were cut off."""
        return sum(self.counts) - self.read


class Tokeniser:
    """The fast tokeniser of a model, without padding. It counts the tokens that truncation cuts off. Thread-safe."""

    def __init__(self, model: Model) -> None:
        from tokenizers import Tokenizer

        self.max_length = model.spec.max_length
        self._tokenizer = Tokenizer.from_file(str(model.folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._unknown = next((found for name in _UNKNOWN if (found := self._tokenizer.token_to_id(name)) is not None), None)
        self._table = WordTable(self._pieces) if is_wordwise(self._tokenizer) else None

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        """The special tokens before and after each text."""
        whole = self._tokenizer.encode("a").ids
        [inner] = self._pieces(["a"])
        before = next(place for place in range(len(whole)) if whole[place : place + len(inner)] == inner)
        return whole[:before], whole[before + len(inner) :]

    @property
    def specials(self) -> int:
        """Number of special tokens around each text."""
        return sum(map(len, self.frame))

    def tokenise(self, texts: Sequence[str]) -> Tokens:
        """Tokenise texts. A truncated text keeps its closing special token."""
        opening, closing = self.frame
        rows = self._table.tokenise(texts) if self._table else self._pieces(texts)
        room = self.max_length - self.specials
        ids = [opening + (row if len(row) <= room else row[:room]) + closing for row in rows]
        unknown = sum(row.count(self._unknown) for row in ids) if self._unknown is not None else 0
        return Tokens(texts, ids, [len(row) + self.specials for row in rows], unknown)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, without special tokens."""
        return [len(row) for row in self._pieces(texts)]

    def before(self, texts: Sequence[str], spans: Sequence[Sequence[tuple[int, int]]]) -> list[NDArray[np.int64]]:
        """Return for each text the number of tokens before each of its words, and the total, ascending: int64 [words + 1].

        `spans` holds the words of each text as characters [start, end).
        """
        if self._table and not any(map(is_unspaced, texts)):  # in unspaced scripts a token may belong to two words
            lengths = self._table.lengths([text[start:end] for start, end in words] for text, words in zip(texts, spans, strict=True))
            return [np.cumsum([0, *row]) for row in lengths]
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        starts = [[start for start, _ in encoding.offsets] for encoding in encodings]
        return [
            np.append(np.searchsorted(tokens, [start for start, _ in words]), len(tokens))
            for tokens, words in zip(starts, spans, strict=True)
        ]

    def _pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenise texts without special tokens, in parallel threads."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


class WordTable:
    """Caches the tokens of words. Texts of one field repeat their words, and a look-up is six times as fast as tokenising.

    The result is exact if a word's tokens do not depend on its neighbours; see `is_wordwise`.
    """

    def __init__(self, cut: Callable[[Sequence[str]], list[list[int]]]) -> None:
        self._cut = cut
        self._known: dict[str, list[int]] = {}

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text."""
        split = [_REMOVED.sub("", text).split() for text in texts]
        known = self._know(chain.from_iterable(split))
        return [list(chain.from_iterable(map(known.__getitem__, words))) for words in split]

    def lengths(self, texts: Iterable[Sequence[str]]) -> list[list[int]]:
        """Return the number of tokens of each word of each text."""
        split = list(texts)
        known = self._know(chain.from_iterable(split))
        return [list(map(len, map(known.__getitem__, words))) for words in split]

    def _know(self, words: Iterable[str]) -> dict[str, list[int]]:
        """Add words to the table and return it."""
        wanted, known = set(words), self._known
        missing = [word for word in wanted if word not in known]
        if missing and len(known) + len(missing) > _MOST_WORDS:  # replaced, not cleared: other threads may still read the old table
            known = self._known = {word: known[word] for word in wanted if word in known}
        known.update(zip(missing, self._cut(missing), strict=True))
        return known


def is_wordwise(tokenizer: Tokenizer) -> bool:
    """Return whether the tokens of a text are the tokens of its white-space-separated words, one after another.

    This holds for WordPiece after BERT's splitting at white space and punctuation (BERT, MPNet, DistilBERT), because every rule looks at
    one word only. In byte-level BPE and SentencePiece, the space before a word is part of it.
    """
    from tokenizers import models, normalizers, pre_tokenizers

    normalizer = tokenizer.normalizer
    return (
        isinstance(tokenizer.model, models.WordPiece)
        and isinstance(normalizer, normalizers.BertNormalizer)
        and bool(normalizer.clean_text)
        and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and not any(set(token.content) & set(string.whitespace) for token in tokenizer.get_added_tokens_decoder().values())
    )
