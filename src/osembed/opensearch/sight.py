"""Check that this user sees all of an index, before anything that was read is copied, relied on or used to delete.

Document-level security hides documents from searches and reads, but not from the index statistics. When it is active, the security plugin
also refuses to profile a search. Field-level security hides fields from documents and from the mapping that this user sees, but not from
the cluster state. A masked field looks like an ordinary value; only its writer knows better. So every writer stores witnesses in the
journal, which are hashes of what it sent, and later readers compare them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from osembed.errors import AuthError, UnsettledError
from osembed.opensearch import changes, reads
from osembed.opensearch.checkpoints import unconfirmed
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.coordination.journal import Journal
from osembed.opensearch.schema import read_mapping
from osembed.papers.levels import Level

_TRIES = 20  # attempts to count documents in a moment without writes
_LIMITED = "DLS is activated"  # the security plugin's message when it refuses to profile a search
_NOT_SHOWN = ("embedding",)  # not compared: the server may return a vector with other digits
_SOURCE = "document-level security (dls)"
_FIELDS = "field-level security (fls) or masked_fields"
Sent = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class _Shard:
    """The statistics of a primary: global checkpoint, highest sequence number, live documents."""

    number: int
    safe: int
    highest: int
    documents: int


@dataclass(frozen=True)
class Place:
    """One concrete index by name and UUID."""

    index: str
    uuid: str


def prove(client: OpenSearch, places: Iterable[Place], *, quiet: bool = False) -> None:
    """Raise AuthError unless this user sees every document and every field of these indexes as written.

    Args:
        client: the user's connection.
        places: the indexes to check.
        quiet: whether no writes are possible (a fence, a retired index), so that the counts must match exactly. Otherwise the check waits for a
            moment without writes. If there is none, hidden documents are noticed only if they outnumber the writes in the meantime.
    """
    given = list(places)
    for index, count in hidden_documents(client, [place.index for place in given], quiet=quiet).items():
        if count:
            raise _unseen(f"This user does not see {count:,} documents of {index}.", _SOURCE)
    for index, fields in hidden_fields(client, given).items():
        if fields:
            shown = ", ".join(fields[:5]) + (", …" if len(fields) > 5 else "")
            raise _unseen(f"This user does not see {shown} of {index} as it was written.", _FIELDS)


def is_limited(client: OpenSearch, names: Sequence[str]) -> bool:
    """Return whether document-level security limits what this user finds in any of these indexes. Needs only the permission to search."""
    try:
        reads.count_shards(client, [(name, 0) for name in names])
    except AuthError as error:
        if _LIMITED in error.found:
            return True
        raise
    return False


def limits(client: OpenSearch, names: Mapping[Level, str]) -> str:
    """Return the security settings that hide documents or searched fields from this user; "" for none.

    This check is for readers: it needs only the permissions to search and to read the mapping, and therefore does not notice masked values.
    """
    found = [_SOURCE] if is_limited(client, list(names.values())) else []
    shown = reads.indexes(client, list(names.values()), "*.mappings.properties")
    if any(_searched(level) - set(_mapped(shown.get(index, {}).get("mappings", {}))) for level, index in names.items()):
        found.append("field-level security (fls)")
    return " and ".join(found)


def hidden_documents(client: OpenSearch, names: Sequence[str], *, quiet: bool = False) -> dict[str, int]:
    """Return how many documents of each index are hidden from this user: the count in the statistics minus the count in a search.

    Raises AuthError if this user may not read the statistics, UnsettledError if a shard shows writes that it does not confirm.
    """
    hidden: dict[str, int] = {}
    behind: dict[str, _Shard | None] = {}
    fewest = dict.fromkeys(names, 0)
    for attempt in range(_TRIES):
        left = [name for name in names if name not in hidden]
        if not left:
            break
        time.sleep(0.02 * attempt)
        changes.refresh(client, *left)
        before = _shards(client, left)  # before and after the count, to detect writes in between
        visible = dict(zip(before, _count(client, list(before)), strict=True))
        after = _shards(client, left)
        for name in left:
            mine = [shard for shard in before if shard[0] == name]
            # The lower count of both: another client's refresh in between may reveal earlier writes.
            surplus = sum(min(before[shard].documents, after[shard].documents) - visible[shard] for shard in mine)
            written = sum(after[shard].highest - before[shard].highest for shard in mine)
            behind[name] = next((after[shard] for shard in mine if not written and after[shard].safe < after[shard].highest), None)
            if not written and surplus >= 0 and not behind[name]:
                hidden[name] = surplus
            fewest[name] = max(fewest[name], surplus - written)
    for name, shard in behind.items():
        if shard:
            raise unconfirmed(name, shard.number, shard.safe, shard.highest)
    if quiet and len(hidden) < len(fewest):
        raise UnsettledError(
            f"The documents of {', '.join(names)} could not be counted: they keep changing.", "No writes should be possible now."
        )
    return {**fewest, **hidden}


def hidden_fields(client: OpenSearch, places: Sequence[Place]) -> dict[str, list[str]]:
    """Return index → the fields that are hidden from this user or look different from what was written."""
    names, journal = [place.index for place in places], Journal(client)
    seen, stated = reads.indexes(client, names, "*.mappings"), reads.state_mappings(client, names)
    kept = journal.read_several([_key(place.uuid) for place in places])
    witnesses = {(place.index, key): held for place in places for key, held in kept.get(_key(place.uuid), {}).get("witnesses", {}).items()}
    found = reads.several_documents(client, [(index, key, held.get("routing")) for (index, key), held in witnesses.items()])
    hidden: dict[str, set[str]] = {}
    for place in places:
        noted = kept.get(_key(place.uuid), {}).get("fields", [])
        hidden[place.index] = {*_mapped(stated[place.index]), *noted} - set(_mapped(seen.get(place.index, {}).get("mappings", {})))
    for document in found:
        held = witnesses[document["_index"], document["_id"]]
        if (document["_seq_no"], document["_primary_term"]) == (held["seq"], held["term"]):  # otherwise it was changed since
            hidden[document["_index"]] |= _differing(held["hashes"], document["_source"])
    return {index: sorted(fields) for index, fields in hidden.items()}


class Witnesses:
    """Stores witnesses of what this process wrote, at least one document per field, and checks that it can read them back."""

    def __init__(self, client: OpenSearch) -> None:
        self._client, self._journal = client, Journal(client)
        self._covered: dict[str, set[str]] = {}
        self._ids: dict[str, set[str]] = {}

    def choose(self, place: Place, documents: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Return the ids of documents that have a field without a witness, or that are witnesses already."""
        covered = set(self._load(place))
        chosen = []
        for key, document in documents.items():
            names = {name for name, _ in _leaves(document)}
            if key in self._ids[place.uuid] or not names <= covered:
                covered |= names
                chosen.append(key)
        return chosen

    def leave(
        self, place: Place, sent: Sent, versions: Mapping[str, tuple[int, int]], routings: Mapping[str, str | None] | None = None
    ) -> None:
        """Store witnesses of documents that were just written.

        Args:
            place: the index they were written to.
            sent: id → the document as sent.
            versions: id → (sequence number, primary term) that the server assigned.
            routings: id → routing, for documents that have their own.

        Raises AuthError if a document reads back differently.
        """
        routing = dict(routings or {})
        keys = [(key, routing.get(key)) for key in sent if key in versions]
        back = {found["_id"]: found for found in reads.documents(self._client, place.index, keys)}
        witnesses: dict[str, dict[str, Any]] = {}
        for key, _ in keys:
            found, hashes = back.get(key), {name: _hash(value) for name, value in _leaves(sent[key])}
            if found is None or (found["_seq_no"], found["_primary_term"]) != versions[key]:
                continue  # deleted or changed by another process just now; hidden documents are noticed when documents are counted
            if differing := _differing(hashes, found["_source"]):
                shown = ", ".join(sorted(differing)[:5])
                raise _unseen(f"This user does not see {shown} of {place.index} as it was just written.", _FIELDS)
            witnesses[key] = {"seq": versions[key][0], "term": versions[key][1], "routing": routing.get(key), "hashes": hashes}
        if witnesses:
            self._keep(place, witnesses)

    def _load(self, place: Place) -> set[str]:
        """Return the fields covered by witnesses whose documents have not changed since."""
        if place.uuid not in self._covered:
            kept = (self._journal.read(_key(place.uuid)) or {}).get("witnesses", {})
            keys = [(key, witness.get("routing")) for key, witness in kept.items()]
            found = reads.documents(self._client, place.index, keys, ["paper_id"])
            there = {document["_id"]: document["_seq_no"] for document in found}
            valid = {key: witness for key, witness in kept.items() if there.get(key) == witness["seq"]}
            self._ids[place.uuid] = set(valid)
            self._covered[place.uuid] = {name for witness in valid.values() for name in witness["hashes"]}
        return self._covered[place.uuid]

    def _keep(self, place: Place, witnesses: Mapping[str, Any]) -> None:
        self._load(place)
        names = {name for witness in witnesses.values() for name in witness["hashes"]}
        self._ids[place.uuid] |= witnesses.keys()
        self._covered[place.uuid] |= names
        valid = set(self._ids[place.uuid])

        def step(state: dict[str, Any]) -> dict[str, Any]:
            kept = {key: witness for key, witness in state.get("witnesses", {}).items() if key in valid}
            return {"fields": sorted({*state.get("fields", []), *names}), "witnesses": {**kept, **witnesses}}

        self._journal.change(_key(place.uuid), step)


def _shards(client: OpenSearch, names: Sequence[str]) -> dict[tuple[str, int], _Shard]:
    """Return (index, shard) → statistics of its primary. Raises UnsettledError if a primary does not answer."""
    found = {}
    for name, stats in reads.stats_of(client, names, "docs", level="shards").items():
        for number, copies in stats.get("shards", {}).items():
            primary = next((copy for copy in copies if copy["routing"]["primary"]), None)
            if primary is None:
                raise UnsettledError(f"The primary of shard {number} of {name} does not answer.")
            at = primary["seq_no"]
            found[name, int(number)] = _Shard(
                int(number), int(at["global_checkpoint"]), int(at["max_seq_no"]), int(primary["docs"]["count"])
            )
    return found


def _count(client: OpenSearch, shards: Sequence[tuple[str, int]]) -> list[int]:
    try:
        return reads.count_shards(client, shards)
    except AuthError as error:
        if _LIMITED in error.found:
            raise _unseen(f"Document-level security limits what this user sees of {error.where or shards[0][0]}.", _SOURCE) from error
        raise


def _mapped(mappings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the flat names of a mapping's fields that hold values, such as `meta.year`."""
    for name, field in mappings.get("properties", {}).items():
        if "properties" in field:
            yield from _mapped(field, f"{prefix}{name}.")
        else:
            yield prefix + name


def _searched(level: Level) -> set[str]:
    """Return the text fields of a level."""
    properties = read_mapping(f"{level}.json")["mappings"]["properties"]
    return {name for name, field in properties.items() if field.get("type") == "text"}


def _leaves(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        elif prefix + name not in _NOT_SHOWN and value is not None:
            yield prefix + name, value


def _differing(hashes: Mapping[str, str], source: Mapping[str, Any]) -> set[str]:
    """Return the fields of a document that are missing or do not match their hashes."""
    now = {name: _hash(value) for name, value in _leaves(source)}
    return {name for name, said in hashes.items() if now.get(name) != said}


def _hash(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def _key(uuid: str) -> str:
    return f"sight:{uuid}"


def _unseen(found: str, setting: str) -> AuthError:
    return AuthError(
        found,
        "Continuing could lose or overwrite what it does not see. Nothing was changed.",
        f"Remove {setting} from this user's roles for the collection's indexes (docs/security.md), or use another user (OSEMBED_USER).",
    )
