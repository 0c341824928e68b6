"""Make a model of int8 weights and activations from one of the known families, as an OpenVINO graph in a folder of its own.

Post-training quantisation with SmoothQuant (Xiao et al. 2023) by NNCF: texts are run through the model to see how large its activations get.
The vectors are others than the model's own (cosine about 0.99), so the folder is another model, with an identity of its own.
"""

from __future__ import annotations

import logging
import random
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from osembed.errors import InputError, ModelError
from osembed.models.folder import Model, read_model
from osembed.models.identity import row_cosines
from osembed.papers.paper import Paper
from osembed.passages.chunk import ChunkRule, cut_papers, start_of
from osembed.passages.tokens import Tokeniser, Tokens

_READ = 5000  # passages, of which the sample is taken
_SAMPLES = 300
_LEAST = 30
_ROUNDS = 3


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
        [(chunks, _)] = cut_papers([paper], ChunkRule(), model.spec, tokeniser)
        passages += [model.spec.passage(paper.title, chunk.text) for chunk in chunks]
        if len(passages) >= _READ:
            break
    chance = random.Random(0)
    chosen = chance.sample(passages, min(_SAMPLES, len(passages)))
    return [start_of(text, chance.randint(2, max(2, len(text.split())))) if number % 2 else text for number, text in enumerate(chosen)]


def quantise(model: Model, papers: Iterable[Paper], target: Path) -> Quantised:
    """Write the int8 model of a model into a new folder, whole or not at all, and compare the two.

    Args:
        model: of a family that osembed's own forward serves.
        papers: some of those that will be embedded, or like them; read until there are passages enough.
        target: the folder, which must not exist.

    Raises:
        InputError: the folder exists, or there are too few texts. ModelError: the model is of another family, or OpenVINO or NNCF is missing.
    """
    from osembed.embed.load import is_native
    from osembed.embed.traced import graph_of, save_graph

    if target.exists():
        raise InputError(f"{target} exists.", "Nothing is overwritten.", "Give --to another folder.")
    if not is_native(model):
        raise ModelError(
            f"{model.spec.name} is of an architecture that osembed cannot quantise.", "", "Choose a BERT, MPNet or XLM-R model."
        )
    graph, texts = graph_of(model), sample_passages(papers, model)
    if len(texts) < _LEAST:
        found = f"There are {len(texts)} passages to quantise with"
        raise InputError(f"{found}, {_LEAST} are needed.", "Too few do not show how large activations get.", "Name more papers.")
    small = _quantised(graph, Tokeniser(model).tokenise(texts))
    save_graph(model, small, target, {"texts": len(texts), "nncf": version("nncf")})
    return _compare(model, read_model(target), texts)


def _compare(model: Model, made: Model, texts: Sequence[str]) -> Quantised:
    from osembed.embed.load import load_encoder

    exact, plain, small = load_encoder(model, device="cpu", precision="fp32"), load_encoder(model, device="cpu"), load_encoder(made)
    near = row_cosines(small.encode(texts), exact.encode(texts))
    rates: dict[str, list[float]] = {plain.backend: [], small.backend: []}
    for _ in range(_ROUNDS):
        for encoder in (plain, small):
            began = time.perf_counter()
            encoder.encode(texts)
            rates[encoder.backend].append(len(texts) / (time.perf_counter() - began))
    medians = {backend: round(statistics.median(values), 1) for backend, values in rates.items()}
    return Quantised(str(made.folder), round(float(near.min()), 4), round(float(near.mean()), 4), medians)


def _quantised(graph: Any, tokens: Tokens) -> Any:
    try:
        import nncf
    except ImportError as error:
        raise ModelError("NNCF is not installed.", "It quantises.", "pip install 'osembed[openvino]'") from error
    nncf.set_log_level(logging.ERROR)
    samples = [{"input_ids": np.array([row]), "attention_mask": np.ones((1, len(row)), np.int64)} for row in tokens.ids]
    with redirect_stdout(sys.stderr):  # its progress is no result
        return nncf.quantize(graph, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples))
