"""The forward pass of an encoder, for every layout of a batch.

It computes post-norm transformer encoders like BERT (Devlin et al. 2019), with MPNet's bucketed relative position bias (Song et al. 2020;
buckets after Raffel et al. 2020).
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - the name that every torch program gives it
from torch import Tensor

from osembed.embed.native.layout import Layout
from osembed.embed.native.linear import ACTIVATIONS, linear, linear_add
from osembed.embed.native.weights import Layer, Linear, Weights


def forward(weights: Weights, layout: Layout) -> Tensor:
    """Run the encoder over a batch. Returns the hidden states at the places of its tokens: [tokens, hidden]."""
    x = F.embedding(layout.ids, weights.words) + F.embedding(layout.positions, weights.positions)
    x = _norm(x, weights.norm, weights.epsilon)
    bias = None if weights.bias is None else weights.bias[:, : layout.longest, : layout.longest]
    for layer in weights.layers:
        x = _apply(layer, x, layout, weights, bias)
    return x


def _apply(layer: Layer, x: Tensor, layout: Layout, weights: Weights, bias: Tensor | None) -> Tensor:
    qkv = linear(x, *layer.qkv).view(-1, 3, weights.heads, x.shape[1] // weights.heads)
    mixed = layout.attend(qkv, bias).reshape(x.shape)
    x = _norm(linear_add(mixed, *layer.out, x), layer.norm1, weights.epsilon)
    inner = linear(x, *layer.up, ACTIVATIONS[weights.activation])
    return _norm(linear_add(inner, *layer.down, x), layer.norm2, weights.epsilon)


def _norm(x: Tensor, norm: Linear, epsilon: float) -> Tensor:
    return F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, epsilon)
