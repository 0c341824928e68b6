"""Run models with sentence-transformers, for architectures that osembed's own forward pass does not support."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from osembed.embed.protocol import LocalEncoder, Vectors
from osembed.errors import ModelError
from osembed.models.spec import Model
from osembed.passages.tokens import Tokens


class LibraryEncoder(LocalEncoder):
    """A model of any other architecture, run by sentence-transformers. Raises ModelError if it cannot be loaded."""

    def __init__(self, model: Model, device: str) -> None:
        from sentence_transformers import SentenceTransformer

        super().__init__(model, device, "fp32")
        self._lock = threading.Lock()
        try:
            self._transformer: Any = SentenceTransformer(
                str(model.folder),
                device=device,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
            )
        except (ValueError, KeyError, TypeError, AttributeError, ImportError, OSError) as error:  # an unsupported architecture
            kind = model.config.get("model_type", "none")
            raise ModelError(
                f"{model.folder} cannot be loaded: osembed and sentence-transformers do not support its architecture (model_type '{kind:.60}'),"
                f" or its files do not match it: {' '.join(str(error).split())[:200]}",
                "Nothing can be embedded without it.",
                "Check the folder, or choose a model from `osembed models`.",
            ) from error
        self._transformer.max_seq_length = model.spec.max_length

    @property
    def backend(self) -> str:
        """The backend in words, for provenance and messages."""
        return f"sentence-transformers {self.precision} on {self.device}"

    def embed(self, tokens: Tokens, stopped: Callable[[], bool] = lambda: False) -> Vectors:
        """Embed the texts of `tokens` in one call: float32 [texts, dimension]. `stopped` is ignored."""
        with self._lock:
            vectors = self._transformer.encode(
                list(tokens.texts),
                prompt="",
                normalize_embeddings=self.model.spec.normalize,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        return np.asarray(vectors, dtype=np.float32)
