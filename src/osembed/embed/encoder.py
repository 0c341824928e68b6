"""Tokens to vectors: choose precision and device, cut the work into batches by tokens, pool, normalise."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from osembed.embed.forward import forward, pool
from osembed.embed.tokens import Tokeniser, Tokens
from osembed.embed.weights import ACTIVATIONS, FAMILIES, activation_of, read_weights
from osembed.errors import InputError
from osembed.model_files import Model

Vectors = NDArray[np.float32]

_CPU_BUDGET = 2048  # tokens per forward: activations stay in cache
_GPU_BUDGET = 65536
_GENTLE_NICE = 10
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Encoder:
    """A loaded model. Thread-safe: it holds no state between calls but its token budget."""

    def __init__(self, model: Model, device: str, precision: str) -> None:
        self.model, self.device, self.precision = model, device, precision
        self.tokeniser = Tokeniser(model)
        self._budget = _GPU_BUDGET if device == "cuda" else _CPU_BUDGET
        self._weights = read_weights(model, _DTYPES[precision], device)

    @property
    def backend(self) -> str:
        """The backend in words, as provenance and messages name it."""
        return f"torch {self.precision} on {self.device}"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Tokenise and embed texts: float32 [texts, dimension]."""
        return self.embed(self.tokeniser.tokenise(texts))

    def embed(self, tokens: Tokens) -> Vectors:
        """Embed tokenised texts: float32 [texts, dimension], in their order, normalised where the model says so."""
        vectors = np.empty((len(tokens), self.model.spec.dimension), dtype=np.float32)
        order = sorted(range(len(tokens)), key=lambda index: len(tokens.ids[index]))
        for batch in _batches(order, tokens, self._budget):
            vectors[batch] = self._embed_batch([tokens.ids[index] for index in batch])
        return vectors

    def _embed_batch(self, rows: list[list[int]]) -> Vectors:
        """Embed one batch; out of device memory halves the batch, and the budget of those to come."""
        try:
            return self._run(rows)
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
            self._budget = max(self._budget // 2, self.model.spec.max_length)
            torch.cuda.empty_cache()
        middle = len(rows) // 2
        return np.concatenate([self._embed_batch(rows[:middle]), self._embed_batch(rows[middle:])])

    @torch.inference_mode()
    def _run(self, rows: list[list[int]]) -> Vectors:
        spec = self.model.spec
        pooled = pool(forward(self._weights, rows), [len(row) for row in rows], spec.pooling)
        if spec.normalize:
            pooled = torch.nn.functional.normalize(pooled, dim=-1)
        return np.asarray(pooled.cpu().numpy(), dtype=np.float32)


class LibraryEncoder(Encoder):
    """A model of any other architecture, run by sentence-transformers."""

    def __init__(self, model: Model, device: str) -> None:
        from sentence_transformers import SentenceTransformer

        self.model, self.device, self.precision = model, device, "fp32"
        self.tokeniser = Tokeniser(model)
        self._lock = threading.Lock()
        self._transformer: Any = SentenceTransformer(
            str(model.folder),
            device=device,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )
        self._transformer.max_seq_length = model.spec.max_length

    @property
    def backend(self) -> str:
        """The backend in words, as provenance and messages name it."""
        return f"sentence-transformers {self.precision} on {self.device}"

    def embed(self, tokens: Tokens) -> Vectors:
        """Embed the texts of `tokens`: float32 [texts, dimension]."""
        with self._lock:
            vectors = self._transformer.encode(
                list(tokens.texts),
                prompt="",
                normalize_embeddings=self.model.spec.normalize,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        return np.asarray(vectors, dtype=np.float32)


def load_encoder(model: Model, *, device: str = "auto", precision: str = "auto") -> Encoder:
    """Load a model's weights.

    Args:
        model: from `open_model`.
        device: cpu, cuda, or auto (a GPU when there is one).
        precision: fp32, bf16, fp16, or auto: fp16 on a GPU, bf16 on a CPU whose instruction set has it, else fp32.

    Raises:
        ModelError: the files do not fit the architecture. InputError: a device or precision that is not there.
    """
    chosen = choose_device(device)
    if not _is_native(model):
        return LibraryEncoder(model, chosen)
    return Encoder(model, chosen, _choose_precision(precision, chosen))


def _is_native(model: Model) -> bool:
    config = model.config
    return (
        model.is_plain
        and config.get("model_type") in FAMILIES
        and model.spec.pooling in ("mean", "cls", "max")
        and activation_of(config) in ACTIVATIONS
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("sinusoidal_pos_embds")
    )


def choose_device(device: str) -> str:
    """Return cpu or cuda for a device as people name it."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("This machine has no usable GPU.", "--device cuda needs one.", "Leave --device out.")
    if device not in ("cpu", "cuda"):
        raise InputError(f"There is no device '{device}'.", "", "Use cpu, cuda or auto.")
    return device


def _choose_precision(precision: str, device: str) -> str:
    if precision == "auto":
        return "fp16" if device == "cuda" else "bf16" if has_bf16() else "fp32"
    if precision not in _DTYPES:
        raise InputError(f"There is no precision '{precision}'.", "", f"Use {', '.join(_DTYPES)} or auto.")
    return precision


def be_gentle() -> None:
    """Give this process one thread less and a low priority; threads that exist keep theirs."""
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(os.getpriority(os.PRIO_PROCESS, 0), _GENTLE_NICE))


def has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; elsewhere it is slower than fp32."""
    try:
        flags = next(line for line in open("/proc/cpuinfo") if line.startswith("flags")).split()  # noqa: SIM115
    except (OSError, StopIteration):
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def _batches(order: list[int], tokens: Tokens, budget: int) -> Iterator[list[int]]:
    """Cut indexes into batches of at most `budget` tokens (at least one text each)."""
    batch: list[int] = []
    size = 0
    for index in order:
        length = len(tokens.ids[index])
        if batch and size + length > budget:
            yield batch
            batch, size = [], 0
        batch.append(index)
        size += length
    if batch:
        yield batch
