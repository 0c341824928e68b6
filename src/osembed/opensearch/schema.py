"""Names, mappings and `_meta` of osembed's indexes. Pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from osembed.errors import CollectionError, InputError
from osembed.limits import checked_value
from osembed.models.identity import Identity, StoredModel, read_identity
from osembed.papers.languages import ENGLISH
from osembed.papers.levels import Level
from osembed.passages.chunk import ChunkRule

JOURNAL = "osembed-journal"
PIPELINE = "osembed-hybrid-v1"
TEXT_FIELDS = ("title", "abstract", "body", "text", "content")
META_VERSION = 2  # version 1 split words at white space and always used English
# In force while no reader alias points to an index; the settings for afterwards are in the journal.
LOAD_SETTINGS = {"refresh_interval": "-1", "number_of_replicas": 0}
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")


@dataclass(frozen=True)
class IndexMeta:
    """An index's metadata, stored in `_meta.osembed`.

    Attributes:
        collection, level, generation: the place of the index; generations count up with each migration.
        identity: the vector space of its vectors.
        chunking: how its papers were cut into chunks.
        profile: the mapping profile of the vector field.
        provenance: how it came about: model name, folder, backend, version of osembed.
        analyzer: how the server analyses its texts and queries.
    """

    collection: str
    level: Level
    generation: int
    identity: Identity
    chunking: ChunkRule
    profile: str
    provenance: dict[str, str]
    analyzer: str = ENGLISH

    @property
    def model(self) -> str:
        """The name under which the model was known when the index was created."""
        return self.provenance.get("model", "?")

    @property
    def stored_model(self) -> StoredModel:
        """The model of its vectors, for `Encoders.of`."""
        return StoredModel(self.identity, self.model, self.provenance.get("path", ""), self.collection)


def check_name(collection: str) -> str:
    """Return the name of a collection. Raises InputError if it cannot be one."""
    if not _NAME.fullmatch(checked_value("collection", collection, str)) or collection.endswith(("-chunks", "-w")):
        raise InputError(
            f"'{collection}' cannot be the name of a collection.",
            "Its aliases and indexes are named after it.",
            "Use up to 100 of a-z, 0-9, _ and -, starting with a letter or digit, not ending in -chunks or -w.",
        )
    return collection


def alias_name(collection: str, level: Level) -> str:
    """Return the alias that readers use, and writers that bypass osembed."""
    return collection if level == "papers" else f"{collection}-chunks"


def index_name(collection: str, level: Level, identity: Identity, generation: int) -> str:
    """Return the name of a concrete index: alias, first eight digits of the identity, generation."""
    return f"{alias_name(collection, level)}-{identity.hash[:8]}-g{generation}"


def write_alias(index: str) -> str:
    """Return the private write alias of an index. It never moves, so a write to a deleted index fails instead of creating a new one."""
    return f"{index}-w"


def staging_alias(collection: str, level: Level, attempt: int = 1) -> str:
    """Return the staging alias: it marks an unpublished index, and the process that holds this attempt works through it."""
    return f"{staging_stem(collection, level)}{attempt}"


def staging_stem(collection: str, level: Level) -> str:
    """Return what the staging aliases of all attempts begin with."""
    return f"staging-{alias_name(collection, level)}-"


def index_body(meta: IndexMeta, aliases: list[str]) -> dict[str, Any]:
    """Return the body that creates an index with load settings behind the given aliases."""
    body = read_mapping(f"{meta.level}.json")
    vector = {"type": "knn_vector", "dimension": meta.identity.dimension, "space_type": meta.identity.space}
    vector.update(read_mapping("profiles.json")[meta.profile])
    body["mappings"]["properties"]["embedding"] = vector
    body["mappings"]["properties"] |= analysed(body["mappings"]["properties"], meta.analyzer)
    body["mappings"]["_meta"] = {"osembed": write_meta(meta)}
    body["settings"]["index"].update(load_settings(meta.profile))
    body["aliases"] = {name: {"is_hidden": True, "is_write_index": True} for name in aliases}
    return body


def analysed(properties: Mapping[str, Any], analyzer: str) -> dict[str, Any]:
    """Return osembed's own text fields from a mapping's properties, with this analyzer."""
    return {
        name: {**field, "analyzer": analyzer} for name, field in properties.items() if field.get("type") == "text" and name in TEXT_FIELDS
    }


def load_settings(profile: str) -> dict[str, Any]:
    """Return the settings of an index before it is published."""
    deferred = {"knn.advanced.approximate_threshold": -1} if profile == "faiss" else {}
    return {**LOAD_SETTINGS, **deferred}


def wanted_settings(profile: str, replicas: int) -> dict[str, Any]:
    """Return the production settings of an index; None restores the server's default."""
    built = {"knn.advanced.approximate_threshold": 0} if profile == "faiss" else {}
    return {"refresh_interval": None, "number_of_replicas": replicas, **built}


def write_meta(meta: IndexMeta) -> dict[str, Any]:
    """Return the metadata as plain data for `_meta.osembed` and the journal."""
    return {"version": META_VERSION, **asdict(meta)}


def read_meta(stored: dict[str, Any]) -> IndexMeta:
    """Return the metadata from its stored form. Raises CollectionError if a newer version of osembed wrote it."""
    if stored.get("version", 0) > META_VERSION:
        raise CollectionError(
            f"The index was created by a newer osembed (format {stored['version']}; this version knows up to {META_VERSION}).",
            "Its metadata may have another meaning.",
            "Upgrade: pip install -U osembed.",
        )
    return IndexMeta(
        collection=stored["collection"],
        level=stored["level"],
        generation=int(stored["generation"]),
        identity=read_identity(stored["identity"]),
        chunking=ChunkRule(**{"cutting": 1, **stored["chunking"]}),
        profile=stored["profile"],
        provenance=dict(stored["provenance"]),
        analyzer=stored.get("analyzer", ENGLISH),
    )


def read_mapping(name: str) -> dict[str, Any]:
    """Return the content of a JSON file in `mappings/`."""
    return dict(json.loads(resources.files("osembed.mappings").joinpath(name).read_text()))
