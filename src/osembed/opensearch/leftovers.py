"""Leftovers of interrupted work, each with the command that removes it.

A leftover is something that no process works on and no reader uses: staging aliases, unpublished indexes, write blocks, scratch indexes,
journal entries without an index.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from osembed.errors import AuthError
from osembed.opensearch import reads
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.journal import Journal
from osembed.opensearch.coordination.migration_state import BEFORE_SWAP, MigrationState, migration_key
from osembed.opensearch.coordination.registration import collection_key, is_pending, watch_entries
from osembed.opensearch.schema import alias_name
from osembed.opensearch.survey import Survey, SurveyedIndex, entries_of, survey_indexes
from osembed.papers.levels import LEVELS

PROBE = "osembed-probe"  # see `create`: it exists for a moment while an index is created
Kind = Literal["staging alias", "unpublished index", "write block", "scratch index", "journal entry", "interrupted drop", "foreign index"]
_WATCH_S = 5.0  # two and a half heartbeats


@dataclass(frozen=True)
class Leftover:
    """One leftover.

    Attributes:
        kind: its kind.
        name: the name of the index, alias or journal entry.
        found: a description for people.
        command: the command that removes it.
    """

    kind: Kind
    name: str
    found: str
    command: str


def find_leftovers(client: OpenSearch, collection: str) -> list[Leftover]:
    """Return the leftovers of a collection. Changes nothing. Takes a few seconds if a process seems to be working on it."""
    seen = survey_indexes(client, collection)
    blocks = reads.write_blocks(client, [found.index for found in seen.ours]) if seen.ours else {}
    probe = bool(reads.indexes(client, [PROBE], "*.settings.index.uuid"))
    busy = is_worked_on(client, seen)
    return list(compare(seen, blocks, busy=busy, probe=probe))


def is_worked_on(client: OpenSearch, seen: Survey) -> bool:
    """Return whether the heartbeat of a migration, first load or ingest is alive."""
    journal = Journal(client)

    def entries() -> dict[str, dict[str, object]]:
        lease = (journal.read(migration_key(seen.collection)) or {}).get("lease")
        return {**entries_of(journal.read(collection_key(seen.collection)) or {}), **({str(lease["token"]): lease} if lease else {})}

    return bool(watch_entries(entries, _WATCH_S)[0])


def compare(seen: Survey, blocks: Mapping[str, list[str]], *, busy: bool, probe: bool) -> Iterator[Leftover]:
    """Yield the leftovers. Pure.

    Args:
        seen: what the cluster holds of the collection.
        blocks: index → its write blocks.
        busy: whether a process works on it; staging aliases, unpublished indexes and fences are then in use.
        probe: whether the probe index exists.
    """
    where = f"--collection {seen.collection}"
    drop, clear = f"osembed drop {where}", f"osembed drop --leftovers {where}"
    if is_pending(seen.state) and not busy:
        yield Leftover("interrupted drop", seen.collection, f"a drop of '{seen.collection}' was interrupted", drop)
    for found in seen.foreign:
        text = f"{found.index} has an alias of '{seen.collection}' but was not provably created by osembed"
        yield Leftover("foreign index", found.index, text, f"GET {found.index}; remove the alias from it, or delete it yourself")
    if not busy:
        yield from _unpublished(seen, drop, clear)
        yield from _tokens(seen, clear)
        yield from _blocks(seen, blocks, where)
    for found in seen.scratch:
        yield Leftover("scratch index", found.index, f"{found.index} was left by an interrupted check of permissions", clear)
    if probe and not busy:
        yield Leftover("scratch index", PROBE, f"{PROBE} was left by an interrupted creation of an index", clear)
    yield from _entries(seen, drop, clear)


def stray_aliases(seen: Survey) -> tuple[SurveyedIndex, ...]:
    """Return the collection's indexes that are not published and belong neither to its migration nor to a first load."""
    moving = seen.moving
    used = {index for move in moving.moves.values() for index in (move.blue, move.green)} if moving else set()
    return tuple(found for found in seen.ours if found not in (*seen.published, *seen.loading) and found.index not in used)


def idle_tokens(seen: Survey) -> list[tuple[str, str]]:
    """Return (index, staging alias) of published indexes; empty during a migration."""
    return [] if seen.moving else [(found.index, name) for found in seen.published for name in seen.staging(found)]


def lost_entries(seen: Survey) -> list[str]:
    """Return the keys of journal entries of deleted indexes, and of the collection itself if none of its indexes is left."""
    of_gone = [key for key in seen.keys if key.partition(":")[2] in seen.gone]
    return of_gone if seen.ours else [*of_gone, *(key for key in seen.keys if key.split(":")[1] == seen.collection)]


def other_collections(client: OpenSearch, collection: str) -> dict[str, int]:
    """Return collection → number of its unpublished indexes, for other collections, as far as this user can see them."""
    found: dict[str, dict[str, object]] = {}
    with suppress(AuthError):
        found = reads.matching(client, "staging-*", "*.aliases,*.mappings._meta.osembed.collection,*.mappings._meta.osembed.level")
    counts: Counter[str] = Counter()
    for info in found.values():
        said = _said(info)
        readers = {alias_name(said, level) for level in LEVELS} if said else set()
        if said and said != collection and not readers & set(_keys(info.get("aliases"))):
            counts[said] += 1
    return dict(counts)


def _unpublished(seen: Survey, drop: str, clear: str) -> Iterator[Leftover]:
    where, moving, published = f"--collection {seen.collection}", seen.moving, seen.published
    for found in seen.loading:
        text = f"{found.index} is from an interrupted first load: run that `osembed ingest` again, or delete it"
        yield Leftover("unpublished index", found.index, text, drop)
    for found in stray_aliases(seen):
        yield Leftover("unpublished index", found.index, f"{found.index} belongs to no migration and no load", clear if published else drop)
    if moving:
        held = {index for move in moving.moves.values() for index in (move.blue, move.green)}
        for found in (one for one in seen.ours if one.index in held and one not in published):
            yield Leftover("unpublished index", found.index, *_of_migration(found, moving, where, drop if not published else ""))


def _of_migration(found: SurveyedIndex, moving: MigrationState, where: str, drop: str) -> tuple[str, str]:
    if drop:
        return f"{found.index} is from a migration of a collection whose aliases are gone", drop
    if moving.phase == "swapped":
        return (
            f"{found.index} was replaced by a migration; `osembed migrate rollback` would bring it back",
            f"osembed migrate finish {where}",
        )
    if moving.phase == "return":
        return f"{found.index} is from an interrupted rollback", f"osembed migrate rollback {where}"
    return f"{found.index} is from a migration that no process is running ({moving.phase})", f"osembed migrate abort {where}"


def _tokens(seen: Survey, clear: str) -> Iterator[Leftover]:
    for index, name in idle_tokens(seen):
        yield Leftover("staging alias", name, f"{name} is on {index}, but no migration is running", clear)


def _blocks(seen: Survey, blocks: Mapping[str, list[str]], where: str) -> Iterator[Leftover]:
    """Yield the write blocks on published indexes. A block on an index that a swap replaced is intended."""
    moving, published = seen.moving, {found.index for found in seen.published}
    for index in sorted(set(blocks) & published):
        command = f"osembed verify --repair {where}"
        if any("read-only" in block for block in blocks[index]):  # set by a person: osembed never sets this kind
            command = f'PUT {index}/_settings {{"index.blocks.read_only": null}}'
        elif moving and moving.phase in (*BEFORE_SWAP, "return"):
            command = f"osembed migrate {'rollback' if moving.phase == 'return' else 'abort'} {where}"
        yield Leftover("write block", index, f"{index} refuses writes ({', '.join(blocks[index])}), but no swap is running", command)


def _entries(seen: Survey, drop: str, clear: str) -> Iterator[Leftover]:
    keys = lost_entries(seen)
    if not keys and not seen.ours and seen.state.get("indexes") and not seen.entries:
        keys = [collection_key(seen.collection)]
    if keys:
        shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3:,} more" if len(keys) > 3 else "")
        yield Leftover("journal entry", keys[0], f"the journal has entries of deleted indexes: {shown}", clear if seen.ours else drop)


def _said(info: Mapping[str, object]) -> str:
    value: object = info
    for name in ("mappings", "_meta", "osembed", "collection"):
        value = value.get(name) if isinstance(value, Mapping) else None
    return str(value or "")


def _keys(value: object) -> Iterable[str]:
    return [str(key) for key in value] if isinstance(value, Mapping) else []
