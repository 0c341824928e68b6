"""Quantise a model to int8 weights and activations, as an OpenVINO graph in a new folder.

This is post-training quantisation with SmoothQuant (Xiao et al. 2023) by NNCF: texts are run through the model to measure the range of its
activations. The vectors differ from the original model's (cosine about 0.99), so the result is a different model with its own identity.
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
from osembed.models.folder import read_model
from osembed.models.identity import row_cosines
from osembed.models.spec import Model
from osembed.papers.paper import Paper
from osembed.passages.chunk import ChunkRule, cut_papers, start_of
from osembed.passages.tokens import Tokeniser, Tokens

_READ = 5000  # passages from which the sample is drawn
_SAMPLES = 300  # passages to quantise with
_LEAST = 30  # fewest passages to quantise with
_ROUNDS = 3  # speed measurements per model


@dataclass(frozen=True)
class Quantised:
    """An int8 model compared with its original on this machine.

    Attributes:
        folder: its folder.
        cosine_min, cosine_mean: cosine of its vectors to the original's in fp32, over the texts it was quantised with.
        texts_per_s: backend in words → rate; the int8 model is last.
    """

    folder: str
    cosine_min: float
    cosine_mean: float
    texts_per_s: dict[str, float]

    @property
    def pays(self) -> bool:
        """Whether it is faster on this machine than the original model."""
        plain, small = self.texts_per_s.values()
        return small > plain


def sample_passages(papers: Iterable[Paper], model: Model) -> list[str]:
    """Return passages to quantise with, drawn from the first thousands. Every second one is shortened, so that all lengths occur."""
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
    """Write the int8 version of a model into a new folder, completely or not at all, and return the comparison of both.

    Args:
        model: a model that osembed's own forward pass supports.
        papers: papers like those that will be embedded; they are read until there are enough passages.
        target: the new folder, which must not exist.

    Raises:
        InputError: the folder exists, or there are too few texts.
        ModelError: the model's architecture is not supported, or OpenVINO or NNCF is missing.
    """
    from osembed.embed.load import is_native
    from osembed.embed.traced import graph_of, save_graph

    if target.exists():
        raise InputError(f"{target} exists.", "osembed does not overwrite it.", "Use another folder for --to.")
    if not is_native(model):
        raise ModelError(f"{model.spec.name} has an architecture that osembed cannot quantise.", "", "Choose a BERT, MPNet or XLM-R model.")
    graph, texts = graph_of(model), sample_passages(papers, model)
    if len(texts) < _LEAST:
        found = f"There are {len(texts)} passages to quantise with"
        raise InputError(f"{found}, {_LEAST} are needed.", "Fewer do not show the range of activations.", "Use more papers.")
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
        raise ModelError("NNCF is not installed.", "Quantisation needs it.", "pip install 'osembed[openvino]'") from error
    nncf.set_log_level(logging.ERROR)
    samples = [{"input_ids": np.array([row]), "attention_mask": np.ones((1, len(row)), np.int64)} for row in tokens.ids]
    with redirect_stdout(sys.stderr):  # its progress must not mix with our output
        return nncf.quantize(graph, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples))
