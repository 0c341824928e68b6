"""Encoders by identity: whoever embeds for an index gets the very model of that index, found by the hash of its weights."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from osembed.errors import IdentityError, ModelError
from osembed.identity import WITNESS_TEXTS, Identity, admit, identify
from osembed.journal import Journal
from osembed.model_files import Model, ModelSpec
from osembed.models import find_model
from osembed.schema import IndexMeta

if TYPE_CHECKING:
    from osembed.embed.encoder import Encoder


class Encoders:
    """Loads each model once, and admits it to an index only when it makes that index's vectors."""

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

    def be_gentle(self) -> None:
        """Leave room for others on this machine: embed with one thread less, at the lowest urgency that still moves."""
        from osembed.embed.crew import be_gentle

        be_gentle()

    def load(self, model: Model) -> Encoder:
        """Return the encoder of a model."""
        from osembed.embed.load import load_encoder

        key = identify(model).hash
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = load_encoder(model, device=self._device, precision=self._precision)
            return self._loaded[key]

    def of(self, meta: IndexMeta, journal: Journal | None = None) -> Encoder:
        """Return the encoder of an index.

        Args:
            meta: what the index says of itself.
            journal: where its witness vectors are kept; given, the backend is tested against them.

        Raises:
            ModelError: this machine lacks the model. IdentityError: it has another one under that name.
        """
        identity = meta.identity.hash
        encoder = self._loaded.get(identity) or self.load(model_of(meta))
        if journal and identity not in self._admitted:
            witness = journal.recall_witness(identity)
            if witness is not None:
                admit(witness, encoder.encode(witness_passages(encoder.model.spec)), encoder.backend)
            self._admitted.add(identity)
        return encoder


def model_of(meta: IndexMeta) -> Model:
    """Find the model of an index on this machine by the hash of its weights, whatever it is called here."""
    model = find_model(meta.identity.weights, meta.provenance.get("path") or meta.model) or find_model(meta.identity.weights, meta.model)
    if model is None:
        raise ModelError(
            f"The collection '{meta.collection}' is embedded with {meta.model}, which is not on this machine.",
            "Another model would make vectors of another space.",
            "Put its folder under a directory named in OSEMBED_MODELS (it is recognised by the hash of its weights).",
        )
    model = replace(model, spec=spec_of(meta.identity, model.spec))
    difference = meta.identity.difference(identify(model))
    if difference:
        raise IdentityError(
            f"{model.folder} has the weights of '{meta.collection}', but differs in {difference}.",
            "Its vectors would be of another space.",
            "Restore the files that the collection was made with.",
        )
    return model


def spec_of(identity: Identity, spec: ModelSpec) -> ModelSpec:
    """Return the settings that an identity fixes, so that a folder's own defaults cannot change them."""
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
    """Return the witness texts as passages of a model."""
    return [spec.passage("", text) for text in WITNESS_TEXTS]
