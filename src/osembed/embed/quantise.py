"""Make a model of int8 weights and activations from one of the known families, as an OpenVINO graph in a folder of its own.

Post-training quantisation with SmoothQuant (Xiao et al. 2023) by NNCF: texts are run through the model to see how large its activations get.
The vectors are others than the model's own (cosine about 0.99), so the folder is another model, with an identity of its own.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch program gives it
from torch import Tensor

from osembed.chunk import cut, start_of
from osembed.embed.forward import forward
from osembed.embed.load import is_native, load_encoder
from osembed.embed.openvino import load_openvino
from osembed.embed.tokens import Tokeniser, Tokens
from osembed.embed.weights import Weights, read_weights
from osembed.errors import InputError, ModelError
from osembed.model_files import GRAPH, Model, read_model
from osembed.paper import Paper
from osembed.schema import ChunkRule

_KEPT = ("*.json", "*.txt", "*.model", "1_Pooling/*.json", "2_Normalize/*.json", "LICENSE*", "README*")
_READ = 5000  # passages, of which the sample is taken
_SAMPLES = 300
_LEAST = 30
_ROUNDS = 3
_LEFT = ("*.index.json",)  # lists of the weight files that are not copied


@dataclass(frozen=True)
class Quantised:
    """An int8 model beside the one it was made from, on this machine.

    Attributes:
        folder: where it is.
        cosine_min, cosine_mean: of its vectors to the model's own in fp32, over the texts it was made with.
        texts_per_s: backend in words → rate; the int8 model's last.
    """

    folder: str
    cosine_min: float
    cosine_mean: float
    texts_per_s: dict[str, float]

    @property
    def pays(self) -> bool:
        """Whether it is faster here than the model as osembed runs it by itself."""
        plain, small = self.texts_per_s.values()
        return small > plain


def sample_passages(papers: Iterable[Paper], model: Model) -> list[str]:
    """Return passages of papers to quantise with: spread over the first thousands, every second one cut short, so that all lengths occur."""
    tokeniser, passages = Tokeniser(model), []
    for paper in papers:
        [(chunks, _)] = cut([paper], ChunkRule(), model.spec, tokeniser)
        passages += [model.spec.passage(paper.title, chunk.text) for chunk in chunks]
        if len(passages) >= _READ:
            break
    chance = random.Random(0)
    chosen = chance.sample(passages, min(_SAMPLES, len(passages)))
    return [start_of(text, chance.randint(2, max(2, len(text.split())))) if number % 2 else text for number, text in enumerate(chosen)]


def quantise(model: Model, texts: Sequence[str], target: Path) -> Quantised:
    """Write the int8 model of a model into a new folder, whole or not at all, and compare the two.

    Args:
        model: of a family that osembed's own forward serves.
        texts: passages as they will be embedded, a few hundred, of all lengths.
        target: the folder, which must not exist.

    Raises:
        InputError: the folder exists, or there are too few texts. ModelError: the model is of another family, or OpenVINO or NNCF is missing.
    """
    if target.exists():
        raise InputError(f"{target} exists.", "Nothing is overwritten.", "Give --to another folder.")
    if not is_native(model):
        raise ModelError(
            f"{model.spec.name} is of an architecture that osembed cannot quantise.", "", "Choose a BERT, MPNet or XLM-R model."
        )
    if len(texts) < _LEAST:
        found = f"There are {len(texts)} passages to quantise with"
        raise InputError(f"{found}, {_LEAST} are needed.", "Too few do not show how large activations get.", "Name more papers.")
    graph = _quantised(graph_of(model), Tokeniser(model).tokenise(texts))
    save_graph(model, graph, target, {"texts": len(texts), "nncf": version("nncf")})
    return _compare(model, read_model(target), texts)


def _compare(model: Model, made: Model, texts: Sequence[str]) -> Quantised:
    exact, plain, small = load_encoder(model, device="cpu", precision="fp32"), load_encoder(model, device="cpu"), load_encoder(made)
    vectors, reference = small.encode(texts), exact.encode(texts)
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1)
    cosines = np.einsum("ij,ij->i", vectors, reference) / np.maximum(lengths, 1e-12)
    rates: dict[str, list[float]] = {plain.backend: [], small.backend: []}
    for _ in range(_ROUNDS):
        for encoder in (plain, small):
            began = time.perf_counter()
            encoder.encode(texts)
            rates[encoder.backend].append(len(texts) / (time.perf_counter() - began))
    medians = {backend: round(statistics.median(values), 1) for backend, values in rates.items()}
    return Quantised(str(made.folder), round(float(cosines.min()), 4), round(float(cosines.mean()), 4), medians)


def graph_of(model: Model) -> Any:
    """Return a model's forward as an OpenVINO graph, its inputs and its output named as sentence-transformers names them."""
    openvino = load_openvino()
    traced = _Traced(read_weights(model, torch.float32, "cpu", packed=False))
    example = {name: torch.ones(2, 8, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenVINO calls what torch has deprecated
        graph = openvino.convert_model(traced, example_input=example)
    graph.reshape({name: [-1, -1] for name in example})
    graph.outputs[0].get_tensor().set_names({"last_hidden_state"})
    return graph


def _quantised(graph: Any, tokens: Tokens) -> Any:
    try:
        import nncf
    except ImportError as error:
        raise ModelError("NNCF is not installed.", "It quantises.", "pip install 'osembed[openvino]'") from error
    nncf.set_log_level(logging.ERROR)
    samples = [{"input_ids": np.array([row]), "attention_mask": np.ones((1, len(row)), np.int64)} for row in tokens.ids]
    with redirect_stdout(sys.stderr):  # its progress is no result
        return nncf.quantize(graph, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples))


def save_graph(model: Model, graph: Any, target: Path, notes: Mapping[str, Any]) -> None:
    """Write a graph and the settings of the model it was made from into a new folder, whole or not at all."""
    openvino = load_openvino()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        folder = Path(scratch) / target.name
        (folder / GRAPH).parent.mkdir(parents=True)
        _copy_settings(model.folder, folder)
        openvino.save_model(graph, folder / GRAPH, compress_to_fp16=False)
        origin = {"from": model.spec.name, "weights": model.weights_hash, "openvino": version("openvino"), **notes}
        (folder / "made.json").write_text(json.dumps(origin, indent=1) + "\n")
        folder.rename(target)


class _Traced(torch.nn.Module):
    """The forward as a graph: ids and mask of any batch size and length in, hidden states out."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self._weights = weights

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = forward(self._weights, _Padded(input_ids, attention_mask))
        return hidden.view(*input_ids.shape, -1)


class _Padded:
    """A padded batch as a layout, of operations that a graph can hold: nothing depends on the lengths of the texts at hand."""

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
