"""Text to token ids, exactly as the model's own tokeniser makes them. Imports no torch: chunking needs tokens before any model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from osembed.model_files import Model


@dataclass(frozen=True)
class Tokens:
    """Tokenised texts: the ids that the model reads, and how many each text has in all.

    Attributes:
        texts: the strings, as they were tokenised.
        ids: per text, at most the model's maximum of ids, special tokens included.
        counts: per text, the number of ids before truncation.
    """

    texts: Sequence[str]
    ids: list[list[int]]
    counts: list[int]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def read(self) -> int:
        """How many tokens the model reads."""
        return sum(map(len, self.ids))

    @property
    def unseen(self) -> int:
        """How many tokens were cut off."""
        return sum(self.counts) - self.read


class Tokeniser:
    """The fast tokeniser of a model, without padding and with a truncation that counts what it cuts."""

    def __init__(self, model: Model) -> None:
        from tokenizers import Tokenizer

        self.max_length = model.spec.max_length
        self._tokenizer = Tokenizer.from_file(str(model.folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @cached_property
    def specials(self) -> int:
        """How many special tokens frame each text."""
        return int(self._tokenizer.num_special_tokens_to_add(is_pair=False))

    def tokenise(self, texts: Sequence[str]) -> Tokens:
        """Tokenise texts in parallel threads; the last id of a truncated text stays its closing special token."""
        full = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        limit = self.max_length
        ids = [row if len(row) <= limit else row[: limit - 1] + row[-1:] for row in full]
        return Tokens(texts, ids, [len(row) for row in full])

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, without special tokens."""
        return [len(row) for row in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def starts(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return, per text, the character position at which each of its tokens starts, ascending."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [np.fromiter((start for start, _ in found.offsets), np.int64, len(found)) for found in encodings]
