"""Convert osembed's forward pass into an OpenVINO graph, and save it as a model folder."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch program gives it
from torch import Tensor

from osembed.embed.native.forward import forward
from osembed.embed.native.weights import Weights, read_weights
from osembed.embed.openvino import load_openvino
from osembed.models.folder import SETTINGS, settings_of
from osembed.models.spec import GRAPH, Model

_KEPT = ("*.json", "*.txt", "*.model", "1_Pooling/*.json", "2_Normalize/*.json", "LICENSE*", "README*")
_LEFT = ("*.index.json",)  # indexes of weight files, which are not copied


def graph_of(model: Model) -> Any:
    """Return a model's forward pass as an OpenVINO graph, with the input and output names of sentence-transformers."""
    openvino = load_openvino()
    traced = _Traced(read_weights(model, torch.float32, "cpu", packed=False))
    example = {name: torch.ones(2, 8, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenVINO uses deprecated functions of torch
        graph = openvino.convert_model(traced, example_input=example)
    graph.reshape({name: [-1, -1] for name in example})
    graph.outputs[0].get_tensor().set_names({"last_hidden_state"})
    return graph


def save_graph(model: Model, graph: Any, target: Path, notes: Mapping[str, Any]) -> None:
    """Write a graph and the settings of its original model into a new folder, completely or not at all."""
    openvino = load_openvino()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        folder = Path(scratch) / target.name
        (folder / GRAPH).parent.mkdir(parents=True)
        _copy_settings(model.folder, folder)
        openvino.save_model(graph, folder / GRAPH, compress_to_fp16=False)
        origin = {"from": model.spec.name, "weights": model.weights_hash, "openvino": version("openvino"), **notes}
        (folder / SETTINGS).write_text(json.dumps({"spec": settings_of(model.spec), "made": origin}, indent=1) + "\n")
        folder.rename(target)


class _Traced(torch.nn.Module):
    """The forward pass as a module that can be traced: ids and mask [texts, length] to hidden states [texts, length, hidden]."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self._weights = weights

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = forward(self._weights, _Padded(input_ids, attention_mask))
        return hidden.view(*input_ids.shape, -1)


class _Padded:
    """A padded batch as a layout. It uses only operations that can be traced and do not depend on the lengths of the example."""

    def __init__(self, ids: Tensor, mask: Tensor) -> None:
        self.longest: Any = ids.shape[1]
        self.ids = ids.flatten()
        self.positions = torch.arange(self.longest).expand(ids.shape).flatten()
        self._shape, self._hidden = ids.shape, (1.0 - mask.float())[:, None, None, :] * -1e4

    def attend(self, qkv: Tensor, bias: Tensor | None) -> Tensor:
        query, key, value = qkv.view(*self._shape, 3, qkv.shape[2], qkv.shape[3]).permute(2, 0, 3, 1, 4)
        mask = self._hidden if bias is None else self._hidden + bias
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return attended.transpose(1, 2).flatten(0, 1)

    def pool(self, hidden: Tensor, pooling: str) -> Tensor:
        raise NotImplementedError  # pooling is not part of the graph


def _copy_settings(source: Path, target: Path) -> None:
    left = {path for pattern in _LEFT for path in source.glob(pattern)}
    for path in (path for pattern in _KEPT for path in source.glob(pattern) if path not in left):
        (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / path.relative_to(source))
