"""osembed's folders: data that must be kept (the node, dead letters), and a cache that may be deleted at any time."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def data_folder() -> Path:
    """Return the folder of the embedded node and of dead letters (`OSEMBED_HOME`, else the user's data folder)."""
    return Path(os.environ.get("OSEMBED_HOME") or platformdirs.user_data_dir("osembed"))


def cache_folder() -> Path:
    """Return the folder of downloads and unpacked distributions (`OSEMBED_CACHE`, else the user's cache folder)."""
    return Path(os.environ.get("OSEMBED_CACHE") or platformdirs.user_cache_dir("osembed"))
