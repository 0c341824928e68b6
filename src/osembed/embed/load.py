"""Load models: choose the encoder, the device and the precision."""

from __future__ import annotations

import torch

from osembed.embed.library import LibraryEncoder
from osembed.embed.native.encoder import DTYPES, NativeEncoder
from osembed.embed.native.linear import ACTIVATIONS
from osembed.embed.native.weights import FAMILIES, activation_of
from osembed.embed.openvino import OpenvinoEncoder
from osembed.embed.protocol import Encoder
from osembed.errors import InputError
from osembed.models.spec import Model


def load_encoder(model: Model, *, device: str = "auto", precision: str = "auto") -> Encoder:
    """Load a model and return its encoder.

    Args:
        model: the model, from `open_model`.
        device: cpu, cuda, or auto (a GPU if there is one).
        precision: fp32, bf16, fp16, or auto: fp16 on a GPU, bf16 on a CPU that supports it in hardware, else fp32.

    Raises:
        ModelError: the files do not match the architecture.
        InputError: the device or precision is not available.
    """
    if model.graph:
        if device == "cuda":
            raise InputError(f"{model.spec.name} is an OpenVINO graph, which runs on the CPU.", "", "Leave out --device.")
        return OpenvinoEncoder(model, _choose_precision(precision, "cpu"))
    chosen = choose_device(device)
    if not is_native(model):
        return LibraryEncoder(model, chosen)
    return NativeEncoder(model, chosen, _choose_precision(precision, chosen))


def is_native(model: Model) -> bool:
    """Return whether osembed's own forward pass supports a model."""
    config = model.config
    return (
        model.graph is None
        and model.is_plain
        and config.get("model_type") in FAMILIES
        and model.spec.pooling in ("mean", "cls", "max")
        and activation_of(config) in ACTIVATIONS
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("sinusoidal_pos_embds")
    )


def choose_device(device: str) -> str:
    """Return cpu or cuda for cpu, cuda or auto. Raises InputError if it is not available."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("This machine has no usable GPU.", "--device cuda needs one.", "Leave out --device.")
    if device not in ("cpu", "cuda"):
        raise InputError(f"There is no device '{device}'.", "", "Use cpu, cuda or auto.")
    return device


def _choose_precision(precision: str, device: str) -> str:
    if precision == "auto":
        return "fp16" if device == "cuda" else "bf16" if has_bf16() else "fp32"
    if precision not in DTYPES:
        raise InputError(f"There is no precision '{precision}'.", "", f"Use {', '.join(DTYPES)} or auto.")
    return precision


def has_bf16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware. On other CPUs bf16 is slower than fp32."""
    try:
        flags = next(line for line in open("/proc/cpuinfo") if line.startswith("flags")).split()  # noqa: SIM115
    except (OSError, StopIteration):
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags
