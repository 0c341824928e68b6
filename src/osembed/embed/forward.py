"""One encoder forward for packed batches: the tokens of many texts in one row, without padding between them.

Post-norm transformer encoders of the BERT kind (Devlin et al. 2019), with MPNet's bucketed relative position bias (Song et al. 2020; buckets
after Raffel et al. 2020). Linear layers see one long matrix; attention works on groups of equal length (CPU) or on one padded block (GPU).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import groupby

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch program gives it
from torch import Tensor

from osembed.embed.weights import Layer, Linear, Weights

_GROUP = 8  # equal texts per attention call on a CPU: their scores still fit the cache
# oneDNN compiles and keeps a kernel per matrix height. Heights in steps of 256 instead of any: measured 1.25 times the speed and a third of the
# memory (800 MB against 2.4 GB after 300 batches of MiniLM in bf16).
_STEP = 256
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


def forward(weights: Weights, rows: list[list[int]]) -> Tensor:
    """Run the encoder over token ids.

    Args:
        weights: the encoder.
        rows: ids per text; fastest when texts of one length are neighbours.

    Returns:
        The hidden states of all tokens in one row after another, [sum of lengths, hidden].
    """
    device, lengths = weights.words.device, [len(row) for row in rows]
    count = sum(lengths)
    filler = -count % _STEP if count > _STEP else 0
    ids = torch.tensor([token for row in rows for token in row] + [0] * filler, device=device)
    positions = torch.cat([torch.arange(length) for length in [*lengths, *[1] * filler]]).to(device)
    x = _norm(weights.words[ids] + weights.positions[positions], weights.norm, weights.epsilon)
    bias = None if weights.relative is None else relative_bias(weights.relative, max(lengths))
    activation = _ACTIVATIONS[weights.activation]
    for layer in weights.layers:
        x = _apply(layer, x, lengths, weights, bias, activation)
    return x[:count]


def pool(hidden: Tensor, lengths: list[int], pooling: str) -> Tensor:
    """Reduce each text's hidden states to one float32 vector: [texts, hidden]."""
    counts = torch.tensor(lengths, device=hidden.device)
    if pooling == "cls":
        return hidden[counts.cumsum(0) - counts].float()
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=hidden.device), counts)
    if pooling == "max":
        empty = torch.full((len(lengths), hidden.shape[1]), -math.inf, device=hidden.device)
        return empty.index_reduce_(0, owner, hidden.float(), "amax")
    sums = torch.zeros(len(lengths), hidden.shape[1], device=hidden.device).index_add_(0, owner, hidden.float())
    return sums / counts[:, None]


def relative_bias(table: Tensor, length: int, max_distance: int = 128) -> Tensor:
    """Return MPNet's attention bias [heads, length, length] from its table [buckets, heads]."""
    buckets = table.shape[0] // 2
    exact = buckets // 2
    place = torch.arange(length, device=table.device)
    relative = place[None, :] - place[:, None]
    distance = relative.abs()
    ratio = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (ratio * (buckets - exact)).long()).clamp(max=buckets - 1)
    bucket = torch.where(distance < exact, distance, far) + (relative > 0).long() * buckets
    return table[bucket].permute(2, 0, 1).contiguous()


def _apply(
    layer: Layer,
    x: Tensor,
    lengths: list[int],
    weights: Weights,
    bias: Tensor | None,
    activation: Callable[[Tensor], Tensor],
) -> Tensor:
    qkv = F.linear(x, *layer.qkv).view(len(x), 3, weights.heads, -1)
    attend = attend_padded if x.is_cuda else attend_groups
    mixed = attend(qkv, lengths, bias).reshape(x.shape)
    x = _norm(x + F.linear(mixed, *layer.out), layer.norm1, weights.epsilon)
    return _norm(x + F.linear(activation(F.linear(x, *layer.up)), *layer.down), layer.norm2, weights.epsilon)


def _norm(x: Tensor, norm: Linear, epsilon: float) -> Tensor:
    return F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, epsilon)


def attend_groups(qkv: Tensor, lengths: list[int], bias: Tensor | None) -> Tensor:
    """Attend within each text, neighbours of one length together.

    Args:
        qkv: [tokens, 3, heads, head size]; rows after the last text are filler.
        lengths: tokens per text.
        bias: [heads, longest, longest] or None.

    Returns:
        [tokens, heads, head size].
    """
    mixed, start = torch.zeros_like(qkv[:, 0]), 0
    for length, count in _runs(lengths):
        stop = start + count * length
        query, key, value = qkv[start:stop].view(count, length, *qkv.shape[1:]).permute(2, 0, 3, 1, 4)
        mask = None if bias is None else bias[:, :length, :length]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed[start:stop] = attended.transpose(1, 2).reshape(stop - start, *mixed.shape[1:])
        start = stop
    return mixed


def attend_padded(qkv: Tensor, lengths: list[int], bias: Tensor | None) -> Tensor:
    """Do what `attend_groups` does in one fused call over a padded block."""
    longest = max(lengths)
    counts = torch.tensor(lengths, device=qkv.device)
    real = torch.arange(longest, device=qkv.device)[None, :] < counts[:, None]
    block = qkv.new_zeros(len(lengths), longest, *qkv.shape[1:])
    block[real] = qkv[: sum(lengths)]
    query, key, value = block.permute(2, 0, 3, 1, 4)
    mask = torch.zeros(real.shape, dtype=qkv.dtype, device=qkv.device).masked_fill(~real, -math.inf)[:, None, None, :]
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask if bias is None else mask + bias)
    mixed = torch.zeros_like(qkv[:, 0])
    mixed[: sum(lengths)] = attended.transpose(1, 2)[real]
    return mixed


def _runs(lengths: list[int]) -> list[tuple[int, int]]:
    """Split lengths into runs of equal neighbours, at most `_GROUP` each: (length, count)."""
    runs = []
    for length, same in groupby(lengths):
        left = len(list(same))
        while left > 0:
            runs.append((length, min(left, _GROUP)))
            left -= _GROUP
    return runs
