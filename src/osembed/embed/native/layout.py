"""Layouts: how the texts of a batch are arranged in memory, and how attention runs on that arrangement.

On a CPU, and for fused attention over cumulative lengths, tokens are in one row without padding. MPNet's attention adds a bias, which no
kernel for cumulative lengths supports. So on a GPU its texts are in a block of one static length, which a CUDA graph can also replay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain, groupby
from typing import Protocol, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch program gives it
from torch import Tensor

_PAD = 16  # tokens: attention kernels need matrices in whole blocks and aligned rows of a bias
_SHORT = 64  # for texts with fewer tokens, padding costs more than it gains
_GROUP = 8  # equal texts per attention call on a CPU, so that their scores fit the cache
# oneDNN compiles and keeps one kernel per matrix height. With heights in steps of 256, measurements show 1.25 times the speed and a third of the
# memory (800 MB against 2.4 GB after 300 batches of MiniLM in bf16).
_STEP = 256
_BUCKETS: tuple[int, ...] = (16, 32, *range(64, 8193, 64))  # lengths of blocks: few enough to keep a graph for each
_HIDE = 3e4  # removes a padded key from the softmax, and fits fp16
Attention = Callable[..., Tensor]


class Layout(Protocol):
    """The arrangement of a batch.

    Attributes:
        ids: token ids, [tokens], with padding and filler.
        positions: position of each token in its text, [tokens].
        longest: number of tokens of the longest text, with padding.
    """

    ids: Tensor
    positions: Tensor
    longest: int

    def attend(self, qkv: Tensor, bias: Tensor | None) -> Tensor:
        """Attend within each text: [tokens, 3, heads, head size] to [tokens, heads, head size]; `bias` is [heads, longest, longest]."""

    def pool(self, hidden: Tensor, pooling: str) -> Tensor:
        """Return one float32 vector per text, [texts, hidden], from the hidden states [tokens, hidden]."""


class _Row:
    """Texts one after another in one row. Each has a span at least as long as the text; filler follows the last one.

    Args:
        rows: token ids of each text.
        device: the device for the tensors.
        spans: number of places of each text; unused places are padding.
        filler: number of places after the last text.
    """

    def __init__(self, rows: Sequence[Sequence[int]], device: str, spans: Sequence[int], filler: int = 0) -> None:
        lengths = [len(row) for row in rows]
        gaps = [span - length for span, length in zip(spans, lengths, strict=True)]
        self.longest = max(spans)
        self.ids = _moved([*_joined([*row, *[0] * gap] for row, gap in zip(rows, gaps, strict=True)), *[0] * filler], device)
        places = _joined([*range(length), *[0] * gap] for length, gap in zip(lengths, gaps, strict=True))
        self.positions = _moved([*places, *[0] * filler], device)
        self.sizes = _moved(lengths, device)
        # The text that each place belongs to. Padding and filler belong to an extra text, which is discarded.
        owners = _joined([*[text] * length, *[len(rows)] * gap] for text, (length, gap) in enumerate(zip(lengths, gaps, strict=True)))
        self._owners = _moved([*owners, *[len(rows)] * filler], device)
        self._starts = _moved([0, *accumulate(spans)][:-1], device)

    def pool(self, hidden: Tensor, pooling: str) -> Tensor:
        """See Layout."""
        if pooling == "cls":
            return hidden[self._starts].float()
        texts = len(self.sizes)
        if pooling == "max":
            empty = torch.full((texts + 1, hidden.shape[1]), -math.inf, device=hidden.device)
            return empty.scatter_reduce_(0, self._owners[:, None].expand_as(hidden), hidden.float(), "amax")[:texts]
        sums = torch.zeros(texts + 1, hidden.shape[1], device=hidden.device).index_add_(0, self._owners, hidden.float())
        return sums[:texts] / self.sizes[:, None]


class Groups(_Row):
    """A row in which neighbouring texts of similar length share an attention call, for CPUs. Fastest if texts are sorted by length.

    Args:
        rows: token ids of each text.
        pad: whether longer texts are padded to whole steps: in bf16, torch's attention takes 1.5 times as long for 250 tokens as for 256.
    """

    def __init__(self, rows: Sequence[Sequence[int]], *, pad: bool) -> None:
        spans = [padded_length(len(row)) if pad and len(row) >= _SHORT else len(row) for row in rows]
        count = sum(spans)
        super().__init__(rows, "cpu", spans, -count % _STEP if count > _STEP else 0)
        self._runs = _runs(spans)
        self._masks: list[Tensor | None] | None = None

    def attend(self, qkv: Tensor, bias: Tensor | None) -> Tensor:
        """See Layout."""
        if self._masks is None:  # the same for all layers
            self._masks = self._make_masks(qkv.dtype, bias)
        mixed, start = torch.empty_like(qkv[:, 0]), 0
        for (span, count), mask in zip(self._runs, self._masks, strict=True):
            stop = start + count * span
            query, key, value = qkv[start:stop].view(count, span, *qkv.shape[1:]).permute(2, 0, 3, 1, 4)
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            mixed[start:stop] = attended.transpose(1, 2).reshape(stop - start, *mixed.shape[1:])
            start = stop
        mixed[start:] = 0  # filler is computed like the rest and discarded
        return mixed

    def _make_masks(self, dtype: torch.dtype, bias: Tensor | None) -> list[Tensor | None]:
        """Return what is added to the attention scores of each run: -∞ for padded keys, and the bias."""
        masks, first = [], 0
        for span, count in self._runs:
            sizes = self.sizes[first : first + count]
            first += count
            mask = None if bias is None else bias[:, :span, :span]
            if bool((sizes < span).any()):
                hidden = torch.where(torch.arange(span) < sizes[:, None], 0.0, -math.inf).to(dtype)[:, None, None, :]
                mask = hidden if mask is None else hidden + mask
            masks.append(mask)
        return masks


class Varlen(_Row):
    """A row for one fused attention kernel that gets the start of each text, for GPUs and models without an attention bias."""

    def __init__(self, rows: Sequence[Sequence[int]], device: str, kernel: Attention) -> None:
        super().__init__(rows, device, [len(row) for row in rows])
        self._bounds = F.pad(self.sizes.cumsum(0), (1, 0)).to(torch.int32)
        self._kernel = kernel

    def attend(self, qkv: Tensor, bias: Tensor | None) -> Tensor:
        """See Layout. `bias` must be None."""
        assert bias is None
        query, key, value = qkv.unbind(1)
        return self._kernel(query, key, value, self._bounds, self._bounds, self.longest, self.longest)


class Block:
    """Texts padded to one static length, for GPUs and models with an attention bias."""

    def __init__(self, rows: Sequence[Sequence[int]], device: str, length: int) -> None:
        self.longest = length
        self.ids = _moved([token for row in rows for token in [*row, *[0] * (length - len(row))]], device)
        self.sizes = _moved([len(row) for row in rows], device)
        self.positions = torch.arange(length, device=device).repeat(len(rows))

    @property
    def real(self) -> Tensor:
        """Which places hold a token: bool [texts, longest]."""
        return torch.arange(self.longest, device=self.sizes.device) < self.sizes[:, None]

    def attend(self, qkv: Tensor, bias: Tensor | None) -> Tensor:
        """See Layout.

        Adding a mask of padded keys to the bias would need a tensor [texts, heads, longest, longest]. Instead each key gets eight more
        numbers, the first of which hides it if it is padding (every query has a 1 there). So one bias is broadcast, and fused kernels
        accept it.
        """
        texts = len(self.sizes)
        query, key, value = qkv.view(texts, self.longest, *qkv.shape[1:]).permute(2, 0, 3, 1, 4)
        scale = query.shape[-1] ** -0.5
        hidden = torch.where(self.real, 0.0, -_HIDE).to(qkv.dtype)[:, None, :, None].expand(-1, key.shape[1], -1, 1)
        key = torch.cat([key, hidden, key.new_zeros(1).expand(*key.shape[:-1], 7)], dim=-1)
        query = torch.cat([query, query.new_ones(1).expand(*query.shape[:-1], 8)], dim=-1)
        mask = None if bias is None else bias.expand(texts, -1, -1, -1)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
        return attended.transpose(1, 2).reshape(qkv[:, 0].shape)

    def pool(self, hidden: Tensor, pooling: str) -> Tensor:
        """See Layout."""
        hidden = hidden.view(len(self.sizes), self.longest, -1).float()
        if pooling == "cls":
            return hidden[:, 0]
        real = self.real[..., None]
        if pooling == "max":
            return hidden.masked_fill(~real, -math.inf).amax(1)
        return torch.where(real, hidden, 0.0).sum(1) / self.sizes[:, None]


def padded_length(length: int) -> int:
    """Return a length rounded up to whole steps of padding."""
    return -(-length // _PAD) * _PAD


def bucket_of(length: int, longest: int) -> int:
    """Return the block length for a text of this length, at most the model's `longest`."""
    return min(next(bucket for bucket in _BUCKETS if bucket >= length), longest)


def varlen_kernel() -> Attention | None:
    """Return torch's fused attention over cumulative lengths (since torch 2.10; fp16 and bf16 on a GPU), or None."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return cast(Attention, varlen_attn)


def _moved(values: Sequence[int], device: str) -> Tensor:
    """Return integers as a tensor on a device. The copy to a GPU uses pinned memory and does not block."""
    tensor = torch.tensor(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device == "cuda" else tensor


def _joined(rows: Iterable[Iterable[int]]) -> Iterator[int]:
    return chain.from_iterable(rows)


def _runs(spans: Sequence[int]) -> list[tuple[int, int]]:
    """Split spans into runs of equal neighbours, at most `_GROUP` each: (span, count)."""
    runs = []
    for span, same in groupby(spans):
        left = len(list(same))
        while left > 0:
            runs.append((span, min(left, _GROUP)))
            left -= _GROUP
    return runs
