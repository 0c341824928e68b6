"""A model as its folder states it: its settings, its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRAPH = "openvino/openvino_model.xml"  # the same path as in sentence-transformers
PLAIN_MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class ModelSpec:
    """The settings that a model's vectors depend on besides its weights, and the source of its files.

    Attributes:
        dimension: numbers per vector.
        max_length: most tokens that the model reads, with special tokens.
        pooling: mean, cls or max.
        normalize: whether vectors are normalised to length 1.
        similarity: cosine, dot or euclidean.
        query_prompt, passage_prompt: prefixes of queries and passages.
        separator: between title and text of a passage.
        hub, package: hub id, or name of the pip package that contains the files.
        assumed: settings that the model's files do not state.
    """

    name: str
    dimension: int
    max_length: int
    pooling: str = "mean"
    normalize: bool = True
    similarity: str = "cosine"
    query_prompt: str = ""
    passage_prompt: str = ""
    separator: str = " "
    licence: str = "unknown"
    hub: str = ""
    package: str = ""
    assumed: tuple[str, ...] = ()

    @property
    def space(self) -> str:
        """The k-NN space. Vectors of cosine models are normalised, so their inner product is the cosine."""
        return "l2" if self.similarity == "euclidean" else "innerproduct"

    def passage(self, title: str, text: str) -> str:
        """Return the exact string that is embedded for a title and a text."""
        joined = f"{title}{self.separator}{text}" if title and text else title or text
        return f"{self.passage_prompt}{joined}"

    def query(self, text: str) -> str:
        """Return the exact string that is embedded for a query."""
        return f"{self.query_prompt}{text}"


@dataclass(frozen=True)
class Model:
    """A model whose files are on this machine and have been checked."""

    spec: ModelSpec
    folder: Path
    config: dict[str, Any]
    modules: tuple[str, ...]
    weights_hash: str
    tokenizer_hash: str

    @property
    def graph(self) -> Path | None:
        """The OpenVINO graph of a model without other weights; else None."""
        return self.folder / GRAPH if is_graph(self.folder) else None

    @property
    def is_plain(self) -> bool:
        """Whether the model is a transformer with pooling and optional normalisation, and nothing else."""
        return set(self.modules) <= set(PLAIN_MODULES)


def is_graph(folder: Path) -> bool:
    """Return whether a folder holds its weights as an OpenVINO graph only."""
    return (folder / GRAPH).exists() and not any(folder.glob("*.safetensors"))
