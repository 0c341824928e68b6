"""Check a model's folder and read its settings. Only safetensors, OpenVINO graphs and JSON: no remote code, no pickle, no torch."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from osembed.errors import ModelError
from osembed.models.spec import GRAPH, PLAIN_MODULES, Model, ModelSpec, is_graph

SETTINGS = "osembed.json"  # a spec written by osembed, which overrides the other files
_SAFE_MODULES = (*PLAIN_MODULES, "Dense", "LayerNorm")
_PLACES = ("name", "hub", "package", "assumed")
_POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}


def read_model(folder: Path, spec: ModelSpec | None = None) -> Model:
    """Check a folder's files and return the model. Without `spec`, the settings are read from the files.

    Raises ModelError if files are missing, damaged, unsafe or not understood.
    """
    try:
        return _checked_model(folder, spec)
    except (TypeError, ValueError, KeyError, AttributeError) as error:  # values of unexpected types
        raise ModelError(f"The settings in {folder} are not understood: {error!r:.100}.", "", "Download the model again.") from error


def _checked_model(folder: Path, spec: ModelSpec | None) -> Model:
    config = _read_json(folder / "config.json", folder)
    if not isinstance(config.get("model_type", ""), str):
        raise ModelError(f"{folder}/config.json states no model_type.", "The architecture is unknown.", "Download the model again.")
    if config.get("auto_map"):  # refused although it is never run: without its code the model would compute something else
        raise ModelError(
            f"{folder}/config.json requires its own code (auto_map).",
            "osembed runs no remote code.",
            "Choose a model with a standard architecture; `osembed models` lists some.",
        )
    weights = weight_files(folder)
    modules = _modules(folder)
    stated = spec or _stated_spec(folder, config)
    if stated.dimension != _stated_dimension(folder, config):
        raise ModelError(
            f"{folder} produces vectors of {_stated_dimension(folder, config)} numbers, but {stated.name} has {stated.dimension}.",
            "These are the files of another model.",
            "Check the folder, or specify it by its path.",
        )
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.exists():
        raise ModelError(f"{folder} has no tokenizer.json.", "Without it, text cannot be tokenised.", "Complete the folder.")
    return Model(stated, folder, config, modules, hash_files(weights), hash_files([tokenizer]))


def _stated_spec(folder: Path, config: dict[str, Any]) -> ModelSpec:
    """Read the settings from a folder's files. Settings that they do not state are assumed and listed in `assumed`."""
    written = _optional_json(folder / SETTINGS).get("spec")
    if written:
        return _written_spec(folder, written)
    assumed: list[str] = []
    pooling = _stated_pooling(folder)
    if pooling is None:
        pooling = "mean"
        assumed.append("mean pooling")
    extra = _optional_json(folder / "config_sentence_transformers.json")
    similarity = extra.get("similarity_fn_name") or "cosine"
    if similarity not in ("cosine", "dot", "euclidean"):
        raise ModelError(
            f"{folder} states the similarity '{similarity}'.",
            "The k-NN index supports cosine, dot and euclidean.",
            "Choose another model.",
        )
    if not extra.get("similarity_fn_name"):
        assumed.append("cosine similarity")
    prompts = extra.get("prompts") or {}
    return ModelSpec(
        name=folder.name,
        dimension=_stated_dimension(folder, config),
        max_length=_stated_length(folder, config),
        pooling=pooling,
        normalize=similarity == "cosine" or "Normalize" in _modules(folder),
        similarity=similarity,
        query_prompt=prompts.get("query", ""),
        passage_prompt=prompts.get("passage", prompts.get("document", "")),
        assumed=tuple(assumed),
    )


def settings_of(spec: ModelSpec) -> dict[str, Any]:
    """Return the part of a spec that decides the vectors, in the form of SETTINGS."""
    return {name: value for name, value in asdict(spec).items() if name not in _PLACES}


def _written_spec(folder: Path, written: dict[str, Any]) -> ModelSpec:
    try:
        return ModelSpec(name=folder.name, **written)
    except TypeError as error:
        raise ModelError(f"{folder / SETTINGS} is from another version of osembed: {error}.", "", "Quantise the model again.") from error


def _stated_pooling(folder: Path) -> str | None:
    stated = _optional_json(folder / "1_Pooling" / "config.json")
    if "pooling_mode" in stated:
        return str(stated["pooling_mode"])
    chosen = [key for key, value in stated.items() if key.startswith("pooling_mode_") and value is True]
    return _POOLINGS.get(chosen[0], chosen[0]) if chosen else None


def _stated_dimension(folder: Path, config: dict[str, Any]) -> int:
    dense = [_optional_json(path).get("out_features") for path in sorted(folder.glob("*_Dense/config.json"))]
    width = config.get("hidden_size") or config.get("dim")
    if not width:
        raise ModelError(f"{folder}/config.json states no hidden_size.", "The dimension is unknown.", "Complete the file.")
    return int(dense[-1] if dense and dense[-1] else width)


def _stated_length(folder: Path, config: dict[str, Any]) -> int:
    stated = _optional_json(folder / "sentence_bert_config.json").get("max_seq_length")
    positions = int(config.get("max_position_embeddings") or 512)
    if config.get("model_type") in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= 2  # in these families, positions start after the padding index
    # Some tokenisers state a huge number for "unlimited", hence the minimum below.
    tokenizer = _optional_json(folder / "tokenizer_config.json").get("model_max_length") or positions
    return min(int(stated or tokenizer), positions)


def _modules(folder: Path) -> tuple[str, ...]:
    listed = json.loads((folder / "modules.json").read_text()) if (folder / "modules.json").exists() else []
    modules = tuple(str(entry["type"]).rsplit(".", 1)[-1] for entry in listed) or ("Transformer", "Pooling")
    for entry, module in zip(listed, modules, strict=False):
        if module not in _SAFE_MODULES or not str(entry["type"]).startswith("sentence_transformers."):
            raise ModelError(
                f"{folder}/modules.json names the module {entry['type']}.",
                "osembed runs no code from a model.",
                f"Supported modules are {', '.join(_SAFE_MODULES)}.",
            )
    return modules


def weight_files(folder: Path) -> list[Path]:
    """Return the checked weight files of a folder. Raises ModelError if they are missing, pickled or damaged."""
    if is_graph(folder):
        return _graph_files(folder / GRAPH)
    files = sorted(path for path in folder.glob("**/*.safetensors") if path.parts[-2] not in ("onnx", "openvino"))
    if not files or not any(path.parent == folder for path in files):
        pickled = next((p.name for p in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pkl"))), None)
        raise ModelError(
            f"{folder} has {pickled} but no model.safetensors." if pickled else f"{folder} has no model.safetensors.",
            "osembed reads weights only from safetensors, because pickled files can run code.",
            "Convert the model (model.save_pretrained writes safetensors) or choose another one.",
        )
    for path in files:
        _check_safetensors(path)
    return files


def _graph_files(graph: Path) -> list[Path]:
    """Return a graph's two files, after checking that the data file has all the bytes that the graph refers to."""
    data = graph.with_suffix(".bin")
    if not data.exists():
        raise _damaged(graph, f"its {data.name} is missing")
    places = re.findall(rb'offset="(\d+)" size="(\d+)"', graph.read_bytes())
    promised = max((int(offset) + int(size) for offset, size in places), default=0)
    if not promised or data.stat().st_size < promised:
        raise _damaged(data, f"it has {data.stat().st_size:,} bytes of {promised:,}")
    return [data, graph]


def _check_safetensors(path: Path) -> None:
    """Raise ModelError unless a file has the size that its header states (format: 8 bytes length, JSON header, tensors)."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, 100_000_000)))
        promised = 8 + length + max(entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__")
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, "its header cannot be read") from error
    if size != promised:
        raise _damaged(path, f"it has {size:,} bytes of {promised:,}")


def _damaged(path: Path, reason: str) -> ModelError:
    return ModelError(f"{path} is damaged: {reason}.", "Its vectors would be wrong.", "Delete it and download it again.")


def hash_files(paths: list[Path]) -> str:
    """Return the SHA-256 of one file, or of the hashes of several files in the given order."""
    hashes = []
    for path in paths:
        with path.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _read_json(path: Path, folder: Path) -> dict[str, Any]:
    if not path.exists():
        raise ModelError(f"{folder} has no {path.name}.", "The model needs it.", "Complete the folder.")
    return _optional_json(path)


def _optional_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}.", "", "Download the model again.") from error
