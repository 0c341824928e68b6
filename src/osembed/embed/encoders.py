"""Encoders by identity: an index is always used with its own model, which is found by the hash of its weights."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

from osembed.embed.protocol import Encoder, Vectors
from osembed.errors import IdentityError, ModelError
from osembed.models.identity import WITNESS_TEXTS, Identity, StoredModel, admit_backend, identify
from osembed.models.registry import find_model
from osembed.models.spec import Model, ModelSpec


class Encoders:
    """Loads each model once, and allows it for an index only if it reproduces that index's vectors."""

    def __init__(self, device: str = "auto", precision: str = "auto") -> None:
        self._device, self._precision = device, precision
        self._loaded: dict[str, Encoder] = {}
        self._admitted: set[str] = set()
        self._lock = threading.Lock()

    @property
    def on_cpu(self) -> bool:
        """Whether passages are embedded on the CPU."""
        from osembed.embed.load import choose_device

        return choose_device(self._device) == "cpu"

    def gently(self) -> AbstractContextManager[None]:
        """Leave CPU time for other processes while a block runs: embed with one thread less, at a low priority."""
        from osembed.embed.native.threads import lower_priority

        return lower_priority()

    def load(self, model: Model) -> Encoder:
        """Return the encoder of a model; load it if needed. Raises ModelError, InputError."""
        from osembed.embed.load import load_encoder

        key = identify(model).hash
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = load_encoder(model, device=self._device, precision=self._precision)
            return self._loaded[key]

    def of(self, stored: StoredModel, recall_witness: Callable[[str], Vectors | None] | None = None) -> Encoder:
        """Return the encoder of an index.

        Args:
            stored: the model in the index's metadata.
            recall_witness: returns the stored witness vectors of an identity. If given, the backend is tested against them.

        Raises:
            ModelError: the model is not on this machine.
            IdentityError: the model or backend on this machine produces other vectors.
        """
        identity = stored.identity.hash
        encoder = self._loaded.get(identity) or self.load(model_of(stored))
        if recall_witness and identity not in self._admitted:
            witness = recall_witness(identity)
            if witness is not None:
                admit_backend(witness, encoder.encode(witness_passages(encoder.model.spec)), encoder.backend)
            self._admitted.add(identity)
        return encoder


def model_of(stored: StoredModel) -> Model:
    """Return the model of an index, found on this machine by the hash of its weights and not by its name. Raises as `Encoders.of`."""
    weights = stored.identity.weights
    model = find_model(weights, stored.path or stored.name) or find_model(weights, stored.name)
    if model is None:
        raise ModelError(
            f"The collection '{stored.collection}' is embedded with {stored.name}, which is not on this machine.",
            "Another model would produce vectors of another space.",
            "Put its folder into a directory that OSEMBED_MODELS names (it is recognised by the hash of its weights).",
        )
    model = replace(model, spec=spec_of(stored.identity, model.spec))
    difference = stored.identity.difference(identify(model))
    if difference:
        raise IdentityError(
            f"{model.folder} has the weights of '{stored.collection}', but differs in {difference}.",
            "It would produce vectors of another space.",
            "Restore the files that the collection was created with.",
        )
    return model


def spec_of(identity: Identity, spec: ModelSpec) -> ModelSpec:
    """Return a spec with the settings that an identity fixes, so that the folder's own settings cannot change them."""
    separator = identity.passage_template.removeprefix("{title}").removesuffix("{text}")
    return replace(
        spec,
        dimension=identity.dimension,
        max_length=identity.max_length,
        pooling=identity.pooling,
        normalize=identity.normalize,
        query_prompt=identity.query_prompt,
        passage_prompt=identity.passage_prompt,
        separator=separator,
        similarity="euclidean" if identity.space == "l2" else "cosine" if identity.normalize else "dot",
    )


def witness_passages(spec: ModelSpec) -> list[str]:
    """Return the witness texts in the form of a model's passages."""
    return [spec.passage("", text) for text in WITNESS_TEXTS]
