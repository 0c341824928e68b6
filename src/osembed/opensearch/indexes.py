"""Everything that touches one index or the aliases of one collection: resolve, create, publish, mend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from osembed.errors import AuthError, CollectionError, MissingError, RefusedError
from osembed.opensearch import answers, changes, reads, schema
from osembed.opensearch.client import OpenSearch, Server
from osembed.opensearch.coordination.journal import Journal
from osembed.opensearch.schema import IndexMeta, alias_name, staging_alias, write_alias
from osembed.opensearch.sight import Place
from osembed.opensearch.vectors import to_wire
from osembed.papers.levels import LEVELS, Level

_RESOLVE = (
    "*.aliases,*.mappings._meta,*.mappings.properties.meta,*.settings.index.uuid,"
    "*.settings.index.refresh_interval,*.settings.index.search.default_pipeline,*.settings.index.provided_name,"
    "*.settings.index.number_of_shards"
)


@dataclass(frozen=True)
class Target:
    """One concrete index: where requests go, and what it says of itself.

    Attributes:
        meta_types: the mapped metadata fields and their OpenSearch types, `authors.name` style.
        default_pipeline: the search pipeline that requests go through which name none; "" where the index sets none.
        healed: whether `_meta` had been wiped and was restored from the journal.
        shards: how many the index has.
    """

    index: str
    uuid: str
    meta: IndexMeta
    meta_types: Mapping[str, str]
    refresh_interval: str = ""
    default_pipeline: str = ""
    healed: bool = False
    shards: int = 0

    @property
    def members(self) -> tuple[Target, ...]:
        """The indexes that a search of this target runs over: this one (see `joint`)."""
        return (self,)

    def key(self, index: str, document: str) -> str:
        """Return what a hit is called: its id."""
        return document

    def owner(self, key: str) -> tuple[Target, str]:
        """Return the index that holds a hit, and its id there."""
        return self, key

    @property
    def write_alias(self) -> str:
        """The private alias that writes go through."""
        return write_alias(self.index)

    @property
    def place(self) -> Place:
        """The index by name and UUID."""
        return Place(self.index, self.uuid)

    def on_wire(self, vector: NDArray[np.float32]) -> NDArray[np.float32] | str:
        """Return a vector in the form that this index is written in."""
        return to_wire(vector) if self.meta.provenance.get("vectors") == "base64" else vector


Targets = dict[Level, Target]
# Settings that the server gives each index for itself, or that belong to one index's history.
_DEFAULT_PIPELINE = "search.default_pipeline"
Pipeline = Literal["there", "created", "unsupported"]


def resolve(client: OpenSearch, collection: str) -> Targets | None:
    """Return the indexes that a collection's aliases point to now; None where there is neither alias.

    Raises CollectionError for every state in which a search or a write could go to the wrong place.
    """
    names: dict[Level, str] = {level: alias_name(collection, level) for level in LEVELS}
    found = _read_indexes(client, list(names.values()))
    for name in names.values():
        if name in found:
            raise CollectionError(
                f"'{name}' is an index, not an alias.",
                "osembed moves collections by moving aliases, and would have to delete this index to take the name.",
                "Use another name: --collection NAME.",
            )
    holders = {level: [index for index, info in found.items() if name in info["aliases"]] for level, name in names.items()}
    if not any(holders.values()):
        return None
    for level, name in names.items():
        _check_single(name, holders[level])
    return {level: _target(client, holders[level][0], found[holders[level][0]]) for level in LEVELS}


def resolve_indexes(client: OpenSearch, names: Mapping[Level, str]) -> Targets:
    """Return the given concrete indexes. Raises MissingError where one is missing."""
    found = _read_indexes(client, list(names.values()))
    for name in names.values():
        if name not in found:
            raise MissingError(f"The index {name} is gone.", "", "See `osembed doctor`.", status=404, kind="index_not_found_exception")
    return {level: _target(client, name, found[name]) for level, name in names.items()}


def default_pipeline(client: OpenSearch, source: Target) -> dict[str, Any]:
    """Return the setting of the index that comes after another: an operator's choice stays, osembed's own is what this server can do."""
    if source.default_pipeline not in ("", schema.PIPELINE):
        return {}
    return {_DEFAULT_PIPELINE: None if ensure_pipeline(client) == "unsupported" else schema.PIPELINE}


def ensure_pipeline(client: OpenSearch) -> Pipeline:
    """Create the cluster-wide default search pipeline unless it is there; say what was found.

    A missing default pipeline turns every query of every client into an error, so each writer sees to it. A server without the neural-search
    plugin cannot have it: its indexes get no default pipeline, and hybrid search is fused on the client. Such a server may still list a
    pipeline that was created when it had the plugin; then only the attempt to create it tells.
    """
    listed = reads.pipeline(client, schema.PIPELINE) is not None
    if listed and reads.NEURAL_SEARCH in reads.plugins(client):
        return "there"
    try:
        changes.put_pipeline(client, schema.PIPELINE, schema.read_mapping("pipeline.json"))
    except RefusedError as error:
        if "normalization-processor" in str(error.detail):  # an unknown kind of processor: the plugin is not there
            return "unsupported"
        raise
    return "there" if listed else "created"


def fit_pipelines(client: OpenSearch, targets: Targets, found: Pipeline) -> list[str]:
    """Give indexes the default pipeline where the server has it, and take it away where the server cannot; return what was done.

    Other default pipelines, and `_none`, are an operator's choice and stay.

    Args:
        client: the connection.
        targets: the indexes.
        found: what `ensure_pipeline` said.
    """
    notices = []
    for target in targets.values():
        if found == "unsupported" and target.default_pipeline == schema.PIPELINE:
            changes.put_settings(client, [target.index], {_DEFAULT_PIPELINE: None})
            notices.append(f"{target.index} named a search pipeline that this server does not have; now it names none.")
        elif found != "unsupported" and not target.default_pipeline:
            changes.put_settings(client, [target.index], {_DEFAULT_PIPELINE: schema.PIPELINE})
            notices.append(f"{target.index} had no default search pipeline; now it has {schema.PIPELINE}.")
    return notices


def put_in_service(client: OpenSearch, target: Target, wanted: Mapping[str, Any]) -> None:
    """Give an index its wanted settings and make all it holds visible."""
    changes.put_settings(client, [target.index], wanted)
    changes.refresh(client, target.index)
    if target.meta.profile == "faiss":  # graphs were deferred: the threshold is 0 again, merging builds them
        changes.force_merge(client, target.index)


def publish(client: OpenSearch, targets: Targets) -> None:
    """Point the collection's aliases at indexes that stood behind the staging alias: both in one request, or not at all."""
    collection = targets["papers"].meta.collection
    actions: list[dict[str, Any]] = []
    for level in LEVELS:
        index = targets[level].index
        actions.append({"remove": {"index": index, "alias": staging_alias(collection, level), "must_exist": True}})
        actions.append({"add": {"index": index, "alias": alias_name(collection, level), "is_write_index": True}})
    try:
        changes.update_aliases(client, actions)
    except MissingError:  # the other of two loaders that ended together was faster
        if resolve(client, collection) is None:
            raise
    except RefusedError as error:
        raise CollectionError(
            f"The aliases of '{collection}' could not be set. {error.found}",
            "Something else uses these names; what was loaded stays behind the staging alias.",
            f"Look at `GET _alias/{collection}*`, free the names, then run ingest again.",
        ) from error


def add_meta_fields(client: OpenSearch, target: Target, types: Mapping[str, str]) -> Target:
    """Map new metadata fields. Where somebody mapped one differently meanwhile, theirs holds: the returned target says what is."""
    fields = {name: kind for name, kind in types.items() if name not in target.meta_types and kind in _FIELD}
    if not fields:
        return target
    body = {"properties": {"meta": {"properties": _nested(fields)}}}
    try:
        changes.put_mapping(client, target.index, body)
    except MissingError:
        raise
    except RefusedError:
        for name, kind in fields.items():  # one by one, so that one conflict does not cost the others
            _try_mapping(client, target.index, {name: kind})
    return replace(target, meta_types=read_meta_types(client, target.index))


def read_meta_types(client: OpenSearch, index: str) -> dict[str, str]:
    """Return the mapped metadata fields of an index and their types."""
    return _flat_types(answers.named(_read_indexes(client, [index]), index))


def exist(client: OpenSearch, names: Iterable[str]) -> bool:
    """Whether any of these indexes exists."""
    wanted = list(names)
    return bool(wanted) and bool(_read_indexes(client, wanted))


def doc_count(client: OpenSearch, index: str) -> int:
    """Return how many documents are visible."""
    return reads.count(client, index)


def default_replicas(client: OpenSearch, server: Server) -> int:
    """Return one copy where there is a second node to hold it, else none."""
    if server.embedded:
        return 0
    return 1 if reads.data_nodes(client) > 1 else 0


def _read_indexes(client: OpenSearch, names: Sequence[str]) -> dict[str, Any]:
    return {name: {"aliases": {}, **info} for name, info in reads.indexes(client, names, _RESOLVE).items()}


def _check_single(name: str, holders: list[str]) -> None:
    if len(holders) > 1:
        remove = ", ".join(f'{{"remove": {{"index": "{index}", "alias": "{name}"}}}}' for index in holders[1:])
        raise CollectionError(
            f"The alias '{name}' is on {len(holders)} indexes: {', '.join(sorted(holders))}.",
            "A search would mix two vector spaces.",
            f'Keep one: POST _aliases {{"actions": [{remove}]}}',
        )
    if not holders:
        raise CollectionError(
            f"The alias '{name}' is missing while its sister is there.",
            "A collection is a pair: papers and their chunks.",
            "Put the alias back on its index (`GET _cat/aliases?v` and `osembed doctor` help to find it).",
        )


def _target(client: OpenSearch, index: str, info: Mapping[str, Any]) -> Target:
    stored = info.get("mappings", {}).get("_meta", {}).get("osembed")
    settings = info["settings"]["index"]
    healed = stored is None
    if stored is None:
        stored = _restore_meta(client, index, settings["uuid"])
    return Target(
        index=index,
        uuid=settings["uuid"],
        meta=schema.read_meta(stored),
        meta_types=_flat_types(info),
        refresh_interval=settings.get("refresh_interval", ""),
        default_pipeline=settings.get("search", {}).get("default_pipeline", ""),
        healed=healed,
        shards=int(settings.get("number_of_shards", 0)),
    )


def _restore_meta(client: OpenSearch, index: str, uuid: str) -> dict[str, Any]:
    """Any client may wipe `_meta` with one mapping update; the journal knows it by the index's UUID."""
    kept = Journal(client).recall_index(uuid)
    if kept is None:
        raise CollectionError(
            f"The index {index} was not made by osembed.",
            "Which model its vectors come from is unknown.",
            "Use another collection (--collection NAME), or move the alias back.",
        )
    meta = dict(kept["meta"])
    with suppress(AuthError):  # a reader without the right to mend still knows what the index is
        changes.put_mapping(client, index, {"_meta": {"osembed": meta}})
    return meta


def _try_mapping(client: OpenSearch, index: str, fields: Mapping[str, str]) -> None:
    with suppress(RefusedError):  # mapped otherwise by another writer, or over the server's limit: the caller reads what is
        changes.put_mapping(client, index, {"properties": {"meta": {"properties": _nested(fields)}}})


def _nested(fields: Mapping[str, str]) -> dict[str, Any]:
    """Turn `a.b: type` into the mapping's nested properties."""
    root: dict[str, Any] = {}
    for name, kind in fields.items():
        *path, last = name.split(".")
        place = root
        for part in path:
            place = place.setdefault(part, {"properties": {}})["properties"]
        place[last] = dict(_FIELD[kind])
    return root


_FIELD: dict[str, dict[str, Any]] = {
    "keyword": {"type": "keyword", "ignore_above": 1024},
    "double": {"type": "double", "ignore_malformed": True},
    "date": {"type": "date", "ignore_malformed": True},
    "boolean": {"type": "boolean"},
}


def _flat_types(info: Mapping[str, Any]) -> dict[str, str]:
    types: dict[str, str] = {}

    def walk(properties: Mapping[str, Any], prefix: str) -> None:
        for name, field in properties.items():
            types[prefix + name] = field.get("type", "object")
            walk(field.get("properties", {}), f"{prefix}{name}.")

    walk(info.get("mappings", {}).get("properties", {}).get("meta", {}).get("properties", {}), "")
    return types
