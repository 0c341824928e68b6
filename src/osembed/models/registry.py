"""Find model files by name: registry, local folders, pip packages, the hub."""

from __future__ import annotations

import importlib.util
import os
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from osembed.errors import InputError, ModelError
from osembed.limits import check_fields, guess_name
from osembed.models.folder import hash_files, read_model, weight_files
from osembed.models.spec import Model, ModelSpec
from osembed.paths import data_folder

DEFAULT_MODEL = "all-MiniLM-L6-v2"
PRESETS = {
    "minilm": (DEFAULT_MODEL, DEFAULT_MODEL),
    "papers": ("specter2_base", "multi-qa-mpnet-base-dot-v1"),
}


@lru_cache(maxsize=1)
def registry() -> dict[str, ModelSpec]:
    """Return the known models by name. The user's own file overrides osembed's. Raises InputError if that file is invalid."""
    entries = tomllib.loads(resources.files("osembed.models").joinpath("models.toml").read_text())
    named = os.environ.get("OSEMBED_MODELS_TOML")
    own = Path(named or data_folder() / "models.toml")
    if named and not own.is_file():
        raise InputError(f"OSEMBED_MODELS_TOML names {named}, which is not a file.", "Its models would be missing.", "Check the path.")
    if own.exists():
        for name, fields in _read_toml(own).items():
            if not isinstance(fields, dict):
                raise InputError(f"{own}: '{name}' is not a table.", "", f"Write [{name}] above the settings of that model.")
            entries[name] = {**entries.get(name, {}), **fields}
    return {name: _entry(name, fields) for name, fields in entries.items()}


def open_model(name: str) -> Model:
    """Find a model's files by registry name, hub id or folder, check them, and return the model.

    Raises ModelError if files are missing, damaged, unsafe or not understood.
    """
    spec, folder = _locate(name)
    return read_model(folder, spec)


def find_model(weights_hash: str, name: str) -> Model | None:
    """Return the local model with this hash of its weights; None if there is none. `name` is tried first."""
    for folder, spec in _local_folders(name):
        try:
            if hash_files(weight_files(folder)) == weights_hash:
                return read_model(folder, spec)
        except ModelError:  # a damaged folder must not hide a good copy elsewhere
            continue
    return None


def local_folder(spec: ModelSpec) -> Path | None:
    """Return the local folder of a registry model, or None."""
    for base in _model_folders():
        for candidate in (base / spec.name, base / spec.hub if spec.hub else base / spec.name):
            if (candidate / "config.json").exists():
                return candidate
    return _package_folder(spec.package) or _hub_folder(spec.hub, offline=True)


def _locate(name: str) -> tuple[ModelSpec | None, Path]:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return None, folder.resolve()
    if name.startswith((".", "/", "~")):  # clearly a path: do not search the hub for it
        raise ModelError(f"There is no folder {name}.", "A model's files are needed.", "Check the path.")
    spec = _registered(name)
    found = local_folder(spec) if spec else _named_folder(name)
    if spec is None and found is None and "/" not in name:
        raise ModelError(
            f"'{name}' is not a known model, hub id or folder.",
            "osembed needs the model's files.",
            f"Run `osembed models`, or use a hub id like BAAI/bge-m3 or a folder like ./my-model.{guess_name(name, registry())}",
        )
    if found is None:
        hub = spec.hub if spec else name
        found = _hub_folder(hub, offline=True) or _hub_folder(hub, offline=False)
    if found is None:
        raise ModelError(
            f"The files of {name} are not on this machine and could not be downloaded.",
            "Nothing can be embedded without them.",
            "Connect to the network, put its folder into a directory that OSEMBED_MODELS names, "
            "or use the default model (pip install 'osembed[local]').",
        )
    return spec, found


def _registered(name: str) -> ModelSpec | None:
    known = registry()
    return known.get(name) or next((spec for spec in known.values() if name == spec.hub), None)


def _local_folders(name: str) -> Iterator[tuple[Path, ModelSpec | None]]:
    """Yield folders that may hold a model: the named one, all registry models, the folders in OSEMBED_MODELS, the hub's cache."""
    hint = Path(name).expanduser()
    if hint.is_dir():
        yield hint, None
    first = _registered(name)
    for spec in ([first] if first else []) + list(registry().values()):
        folder = local_folder(spec)
        if folder:
            yield folder, spec
    for base in _model_folders():
        for config in sorted([*base.glob("*/config.json"), *base.glob("*/*/config.json")]):
            yield config.parent, None
    cached = _hub_folder(name, offline=True) if "/" in name else None
    if cached:
        yield cached, None


def _named_folder(name: str) -> Path | None:
    """Return the folder with this name in one of the OSEMBED_MODELS directories, or None."""
    return next((base / name for base in _model_folders() if (base / name / "config.json").exists()), None)


def _model_folders() -> list[Path]:
    return [Path(part).expanduser() for part in os.environ.get("OSEMBED_MODELS", "").split(os.pathsep) if part]


def _package_folder(package: str) -> Path | None:
    found = importlib.util.find_spec(package) if package else None
    if found is None or not found.submodule_search_locations:
        return None
    configs = Path(found.submodule_search_locations[0]).glob("**/config.json")
    return next((path.parent for path in configs if (path.parent / "tokenizer.json").exists()), None)


def _hub_folder(hub: str, *, offline: bool) -> Path | None:
    if not hub:
        return None
    from huggingface_hub import snapshot_download

    try:
        wanted = ["*.json", "*.safetensors", "*.txt", "*.model"]  # no pickled weights, no code
        path = Path(snapshot_download(hub, allow_patterns=wanted, local_files_only=offline))
    except Exception:  # the hub client raises its own errors, OSError and those of its HTTP library: the model is not available
        return None
    return path if (path / "config.json").exists() else None


def _entry(name: str, fields: dict[str, Any]) -> ModelSpec:
    try:
        spec = replace(ModelSpec(name, 0, 0), **{key: value for key, value in fields.items() if key != "name"})
        check_fields(spec)
    except TypeError as error:
        raise InputError(f"The model '{name}' has a field that osembed does not know: {error}.") from error
    except InputError as error:
        raise InputError(f"The model '{name}': {error.found}", "", "Fix the TOML file.") from error
    if spec.dimension <= 0 or spec.max_length <= 0:
        raise InputError(f"The model '{name}' lacks dimension or max_length.", "An index needs both.", "Add them to the TOML file.")
    return spec


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from error
