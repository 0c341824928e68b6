"""Vectors on the wire: as JSON numbers, or as base64 of their bytes if the server reads that, at a quarter of the size."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray


def to_wire(vector: NDArray[np.float32]) -> str:
    """Return a vector as the string that OpenSearch reads: base64 of its little-endian float32 bytes."""
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode()


def from_wire(stored: object) -> NDArray[np.float32] | None:
    """Return the vector in a document's source, in either form, float32 of shape (dimension,); None if there is none."""
    if isinstance(stored, list) and stored:
        return np.asarray(stored, dtype=np.float32)
    return np.frombuffer(base64.b64decode(stored), dtype="<f4") if isinstance(stored, str) and stored else None
