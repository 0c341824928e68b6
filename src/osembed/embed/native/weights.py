"""Read the weights of the encoder families with a common structure: BERT, RoBERTa and XLM-R, MPNet, DistilBERT.

They differ only in the names of their tensors and in how they count positions; both are data here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from osembed.embed.native.layout import padded_length
from osembed.embed.native.linear import pack_weights
from osembed.errors import ModelError
from osembed.models.spec import Model

_PACKED = ("qkv", "out", "down")  # not `up`, whose layer has an activation


class Linear(NamedTuple):
    """Weight [out, in] and bias [out]."""

    weight: Tensor
    bias: Tensor


class Layer(NamedTuple):
    """One encoder layer. `qkv` is the merged projection [3·hidden, hidden]; `norm1` follows attention, `norm2` the feed-forward layer."""

    qkv: Linear
    out: Linear
    norm1: Linear
    up: Linear
    down: Linear
    norm2: Linear


@dataclass(frozen=True)
class Weights:
    """All tensors of an encoder, in one precision on one device.

    Attributes:
        words: [vocabulary, hidden].
        positions: [positions, hidden], with the constant token type added; the first row is for the first token.
        norm: layer norm of the embeddings.
        layers: the layers in order.
        bias: MPNet's attention bias [heads, longest, longest] for the longest padded text, else None.
        heads: number of attention heads.
        epsilon: the constant in every layer norm.
        activation: name of the activation in the feed-forward layers.
    """

    words: Tensor
    positions: Tensor
    norm: Linear
    layers: list[Layer]
    bias: Tensor | None
    heads: int
    epsilon: float
    activation: str

    @property
    def layer_bytes(self) -> int:
        """Bytes of the layers' matrices, which every forward pass reads completely."""
        linears = (linear for layer in self.layers for linear in (layer.qkv, layer.out, layer.up, layer.down))
        return sum(linear.weight.numel() * linear.weight.element_size() for linear in linears)


@dataclass(frozen=True)
class Family:
    """The tensor names of one family; `{i}` is the number of the layer."""

    query: str
    key: str
    value: str
    out: str
    norm1: str
    up: str
    down: str
    norm2: str
    offset_positions: bool = False


_BERT = Family(
    query="encoder.layer.{i}.attention.self.query",
    key="encoder.layer.{i}.attention.self.key",
    value="encoder.layer.{i}.attention.self.value",
    out="encoder.layer.{i}.attention.output.dense",
    norm1="encoder.layer.{i}.attention.output.LayerNorm",
    up="encoder.layer.{i}.intermediate.dense",
    down="encoder.layer.{i}.output.dense",
    norm2="encoder.layer.{i}.output.LayerNorm",
)
_ROBERTA = Family(**{**_BERT.__dict__, "offset_positions": True})
_MPNET = Family(
    query="encoder.layer.{i}.attention.attn.q",
    key="encoder.layer.{i}.attention.attn.k",
    value="encoder.layer.{i}.attention.attn.v",
    out="encoder.layer.{i}.attention.attn.o",
    norm1="encoder.layer.{i}.attention.LayerNorm",
    up="encoder.layer.{i}.intermediate.dense",
    down="encoder.layer.{i}.output.dense",
    norm2="encoder.layer.{i}.output.LayerNorm",
    offset_positions=True,
)
_DISTILBERT = Family(
    query="transformer.layer.{i}.attention.q_lin",
    key="transformer.layer.{i}.attention.k_lin",
    value="transformer.layer.{i}.attention.v_lin",
    out="transformer.layer.{i}.attention.out_lin",
    norm1="transformer.layer.{i}.sa_layer_norm",
    up="transformer.layer.{i}.ffn.lin1",
    down="transformer.layer.{i}.ffn.lin2",
    norm2="transformer.layer.{i}.output_layer_norm",
)
FAMILIES = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "mpnet": _MPNET,
    "distilbert": _DISTILBERT,
}


def activation_of(config: dict[str, Any]) -> str:
    """Return the name of the feed-forward activation in a configuration."""
    return str(config.get("hidden_act") or config.get("activation") or "gelu")


def read_weights(model: Model, dtype: torch.dtype, device: str, *, packed: bool = True) -> Weights:
    """Read a model's tensors, with `packed` in this machine's fastest format. Raises ModelError if one is missing."""
    config, family = model.config, FAMILIES[model.config["model_type"]]
    tensors = _Tensors(model.folder, dtype, device)
    count = int(config.get("num_hidden_layers") or config["n_layers"])
    first = int(config.get("pad_token_id", 1)) + 1 if family.offset_positions else 0  # rows before it are never used
    positions = tensors["embeddings.position_embeddings.weight"][first:]
    types = tensors.find("embeddings.token_type_embeddings.weight")
    relative = tensors.find("encoder.relative_attention_bias.weight")
    layers = (_layer(tensors, family, number) for number in range(count))
    return Weights(
        words=tensors["embeddings.word_embeddings.weight"],
        positions=positions if types is None else positions + types[0],
        norm=tensors.linear("embeddings.LayerNorm"),
        layers=[_packed(layer) if packed else layer for layer in layers],
        bias=None if relative is None else relative_bias(relative, padded_length(model.spec.max_length)),
        heads=int(config.get("num_attention_heads") or config["n_heads"]),
        epsilon=float(config.get("layer_norm_eps", 1e-12)),
        activation=activation_of(config),
    )


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


def _layer(tensors: _Tensors, family: Family, number: int) -> Layer:
    def named(template: str) -> Linear:
        return tensors.linear(template.format(i=number))

    query, key, value = named(family.query), named(family.key), named(family.value)
    return Layer(
        qkv=Linear(torch.cat([query.weight, key.weight, value.weight]), torch.cat([query.bias, key.bias, value.bias])),
        out=named(family.out),
        norm1=named(family.norm1),
        up=named(family.up),
        down=named(family.down),
        norm2=named(family.norm2),
    )


def _packed(layer: Layer) -> Layer:
    return layer._replace(**{name: part._replace(weight=pack_weights(part.weight)) for name in _PACKED for part in [getattr(layer, name)]})


class _Tensors:
    """The tensors in a folder's safetensors files by name, without the prefix that the saved class gave them."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: str) -> None:
        self._folder, self._tensors = folder, {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt", device=device) as file:
                for name in file.keys():  # noqa: SIM118 - safe_open is no dict
                    self._tensors[name] = file.get_tensor(name).to(dtype)
        anchor = next((name for name in self._tensors if name.endswith("embeddings.word_embeddings.weight")), "")
        self._prefix = anchor.removesuffix("embeddings.word_embeddings.weight")

    def find(self, name: str) -> Tensor | None:
        return self._tensors.get(self._prefix + name)

    def __getitem__(self, name: str) -> Tensor:
        found = self.find(name)
        if found is None:  # in old BERT checkpoints, weight and bias of a layer norm are called gamma and beta
            found = self.find(name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"))
        if found is None:
            raise ModelError(
                f"{self._folder} has no tensor {name}.",
                "The weights do not match the architecture in config.json.",
                "Download the model again.",
            )
        return found

    def linear(self, name: str) -> Linear:
        return Linear(self[f"{name}.weight"], self[f"{name}.bias"])
