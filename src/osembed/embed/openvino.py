"""Run models with OpenVINO on a CPU, for models that are OpenVINO graphs, such as those from `osembed models quantise`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from osembed.embed.native.encoder import BatchEncoder
from osembed.embed.native.layout import Block, Layout, padded_length
from osembed.errors import ModelError
from osembed.models.spec import Model

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenvinoEncoder(BatchEncoder):
    """A model whose weights are an OpenVINO graph. Raises ModelError if OpenVINO is missing or cannot read the graph."""

    def __init__(self, model: Model, precision: str) -> None:
        assert model.graph is not None
        quantised = b"FakeQuantize" in model.graph.read_bytes()
        # If the rest of an int8 graph runs in bf16, OpenVINO 2026.4 gives wrong results for texts of 32 tokens (cosine 0.9 and less).
        self._graph = Graph(model.graph, "f32" if quantised else _HINTS[precision], torch.get_num_threads())
        super().__init__(model, "cpu", "int8" if quantised else precision)

    @property
    def backend(self) -> str:
        """The backend in words, for provenance and messages."""
        return f"OpenVINO {self.precision} on cpu"

    def _lay_out(self, rows: Sequence[Sequence[int]]) -> Layout:
        return Block(rows, "cpu", min(padded_length(max(map(len, rows))), self.model.spec.max_length))

    def _hidden(self, layout: Layout) -> Tensor:
        assert isinstance(layout, Block)
        return self._graph(layout)


class Graph:
    """A compiled graph from blocks of token ids to hidden states. Thread-safe; one block at a time uses all cores."""

    def __init__(self, path: Path, hint: str, cores: int) -> None:
        core = load_openvino().Core()
        # Without pinning, because pinned threads of two processes would share the same cores.
        settings = {"INFERENCE_PRECISION_HINT": hint, "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": cores, "ENABLE_CPU_PINNING": False}
        try:
            self._request = core.compile_model(path, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot read {path}: {error}.", "The model cannot be used.", "Quantise the model again.") from error
        self._inputs = [port.get_any_name() for port in self._request.model_inputs]
        if not set(self._inputs) <= set(_INPUTS):
            raise ModelError(
                f"{path} has the inputs {', '.join(self._inputs)}.",
                f"osembed provides {', '.join(_INPUTS)}.",
                "Quantise the model again.",
            )
        self._lock = threading.Lock()

    def __call__(self, block: Block) -> Tensor:
        """Return the hidden states of a block: float32 [texts · longest, hidden]."""
        shape = (len(block.sizes), block.longest)
        ids = block.ids.view(shape)
        given = dict(zip(_INPUTS, (ids.numpy(), block.real.long().numpy(), np.zeros(shape, np.int64)), strict=True))
        with self._lock:
            hidden = self._request.infer({name: given[name] for name in self._inputs})[0]
        return torch.from_numpy(hidden).flatten(0, 1)


def load_openvino() -> Any:
    """Import and return OpenVINO without its telemetry, which would report each conversion. Raises ModelError if it is missing."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # the documented way to make an import fail
    try:
        import openvino
    except ImportError as error:
        raise ModelError("OpenVINO is not installed.", "Int8 models are OpenVINO graphs.", "pip install 'osembed[openvino]'") from error
    return openvino
