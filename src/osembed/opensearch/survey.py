"""Everything that the cluster holds of one collection: its indexes, foreign indexes with its aliases, journal entries."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from osembed.errors import AuthError, CollectionError
from osembed.opensearch import reads, schema
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.journal import OF_INDEX, Journal, State
from osembed.opensearch.coordination.migration_state import OVER, MigrationState, migration_key, read_state
from osembed.opensearch.coordination.registration import KINDS, collection_key
from osembed.opensearch.manifests import manifest_keys
from osembed.opensearch.schema import IndexMeta, alias_name, index_name, staging_stem
from osembed.papers.levels import LEVELS

SEE = "*.aliases,*.mappings._meta,*.settings.index.uuid"
_OF_COLLECTION = ("report", "gate", "clients")


@dataclass(frozen=True)
class SurveyedIndex:
    """One index of the cluster.

    Attributes:
        meta: its metadata, from `_meta` or from the journal by UUID; None if neither has it.
    """

    index: str
    uuid: str
    aliases: frozenset[str]
    meta: IndexMeta | None


@dataclass(frozen=True)
class Survey:
    """Everything that the cluster holds of one collection.

    Attributes:
        ours: indexes whose metadata names this collection and whose name matches that metadata.
        foreign: indexes with one of the collection's aliases that do not provably belong to it.
        scratch: indexes left behind by checks of permissions.
        state: the journal entry of the collection.
        migration: the journal entry of its migration.
        keys: keys of its other journal entries.
        gone: UUIDs that the journal lists for this collection and that no longer exist.
    """

    collection: str
    ours: tuple[SurveyedIndex, ...]
    foreign: tuple[SurveyedIndex, ...]
    scratch: tuple[SurveyedIndex, ...]
    state: State
    migration: MigrationState | None
    keys: tuple[str, ...]
    gone: frozenset[str]

    @property
    def published(self) -> tuple[SurveyedIndex, ...]:
        """Its indexes that readers use."""
        readers = {alias_name(self.collection, level) for level in LEVELS}
        return tuple(found for found in self.ours if found.aliases & readers)

    @property
    def moving(self) -> MigrationState | None:
        """Its migration, unless it is over or none of its indexes is left."""
        there = {(found.index, found.uuid) for found in self.ours}
        state = self.migration
        if state is None or state.phase in OVER:
            return None
        pairs = {(index, move.uuid_of(index)) for move in state.moves.values() for index in (move.blue, move.green)}
        return state if pairs & there else None

    @property
    def loading(self) -> tuple[SurveyedIndex, ...]:
        """Its indexes of a first generation that is not yet published."""
        planned = set(self.state.get("indexes", {}).values())
        return () if self.published else tuple(found for found in self.ours if found.index in planned)

    @property
    def entries(self) -> dict[str, State]:
        """The entries of processes that are loading or writing to it."""
        return entries_of(self.state)

    def staging(self, found: SurveyedIndex) -> list[str]:
        """Return the staging aliases of this collection on an index."""
        return sorted(name for name in found.aliases if _is_staging(name, self.collection))


def survey_indexes(client: OpenSearch, collection: str) -> Survey:
    """Read everything that the cluster holds of a collection. Changes nothing."""
    journal = Journal(client)
    found = reads.matching(client, f"{collection},{collection}-*,staging-{collection}-*", SEE)
    kept = _kept(journal, [info["settings"]["index"]["uuid"] for info in found.values()])
    state = journal.read(collection_key(collection)) or {}
    indexes = [as_found(index, info, kept) for index, info in found.items()]
    known = {key.partition(":")[2] for key, entry in kept.items() if entry["meta"].get("collection") == collection}
    uuids = sorted({*known, *state.get("dropped", {}).get("uuids", [])})
    keys = [f"{kind}:{collection}" for kind in _OF_COLLECTION] + [f"{kind}:{uuid}" for uuid in uuids for kind in OF_INDEX]
    there = journal.read_several(keys)  # realtime reads: the search in `_kept` may lag behind
    ours = tuple(one for one in indexes if is_ours(one, collection))
    return Survey(
        collection=collection,
        ours=ours,
        foreign=tuple(one for one in indexes if one not in ours and is_behind(one, collection)),
        scratch=tuple(one for one in indexes if one not in ours and is_scratch(one.index, collection)),
        state=state,
        migration=read_state(journal.read(migration_key(collection))),
        keys=(*(key for key in keys if key in there), *manifest_keys(journal, collection)),
        gone=frozenset(uuids) - {one.uuid for one in indexes},
    )


def entries_of(state: Mapping[str, Any]) -> dict[str, State]:
    """Return the entries of all loaders and writers in a collection's state."""
    return {token: entry for kind in KINDS for token, entry in state.get(kind, {}).items()}


def is_ours(found: SurveyedIndex, collection: str) -> bool:
    """Return whether an index provably belongs to this collection: its metadata names the collection and matches the index's name."""
    meta = found.meta
    return meta is not None and meta.collection == collection and _name_of(meta) == found.index


def is_scratch(index: str, collection: str) -> bool:
    """Return whether an index was created by a check of permissions for this collection."""
    return re.fullmatch(rf"{re.escape(collection)}-scratch-[0-9a-f]+", index) is not None


def _name_of(meta: IndexMeta) -> str:
    return index_name(meta.collection, meta.level, meta.identity, meta.generation)


def as_found(index: str, info: Mapping[str, Any], kept: Mapping[str, State]) -> SurveyedIndex:
    """Return an index of the cluster. `kept` holds journal entries of indexes, for indexes whose `_meta` was wiped."""
    uuid = str(info["settings"]["index"]["uuid"])
    said = info.get("mappings", {}).get("_meta", {}).get("osembed") or kept.get(f"index:{uuid}", {}).get("meta")
    meta = None
    if said:
        with suppress(CollectionError, KeyError, TypeError, ValueError):  # from a newer osembed or another program: not provably ours
            meta = schema.read_meta(said)
    return SurveyedIndex(index, uuid, frozenset(info.get("aliases", {})), meta)


def _kept(journal: Journal, uuids: list[str]) -> dict[str, State]:
    """Return the journal's entries of indexes: always those of these UUIDs, and all others if this user may search the journal."""
    kept: dict[str, State] = {}
    with suppress(AuthError):
        kept = journal.entries("index")
    return {**kept, **journal.read_several([f"index:{uuid}" for uuid in uuids])}


def is_behind(found: SurveyedIndex, collection: str) -> bool:
    """Return whether an index has one of a collection's aliases."""
    readers = {alias_name(collection, level) for level in LEVELS}
    return any(name in readers or _is_staging(name, collection) for name in found.aliases)


def _is_staging(name: str, collection: str) -> bool:
    return any(name.startswith(stem) and name[len(stem) :].isdigit() for stem in _stems(collection))


def _stems(collection: str) -> Iterator[str]:
    yield from (staging_stem(collection, level) for level in LEVELS)
