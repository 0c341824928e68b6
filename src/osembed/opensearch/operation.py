"""Single operations of a bulk request, each with its condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Operation:
    """One bulk operation, already serialised: the action line and, except for a delete, the document line."""

    id: str
    action: bytes
    document: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return len(self.action) + len(self.document or b"") + 2


def put(alias: str, doc_id: str, document: Mapping[str, Any], seen: tuple[int, int] | None = None, routing: str | None = None) -> Operation:
    """Return an operation that writes a document through a private alias and can never create an index.

    Args:
        alias: the private write alias.
        doc_id: the document's id.
        document: its fields; numpy arrays are allowed.
        seen: (sequence number, primary term) that the stored document must still have; None for no condition.
        routing: the routing that another program gave the document, or None.
    """
    return Operation(doc_id, _action("index", alias, doc_id, seen, routing), _line(document))


def create(alias: str, doc_id: str, document: Mapping[str, Any]) -> Operation:
    """Return an operation that writes a document that must not exist yet."""
    return Operation(doc_id, _action("create", alias, doc_id, None), _line(document))


def copy(alias: str, doc_id: str, document: Mapping[str, Any], version: int, routing: str | None = None) -> Operation:
    """Return an operation that writes a document unless the same or a newer version exists (a conflict, which is fine).

    No ingest pipeline runs, because the document went through it before it was copied.
    """
    action = {"_index": alias, "_id": doc_id, "require_alias": True, "version": version, "version_type": "external", "pipeline": "_none"}
    return Operation(doc_id, orjson.dumps({"index": _routed(action, routing)}), _line(document))


def delete(alias: str, doc_id: str, seen: tuple[int, int], routing: str | None = None) -> Operation:
    """Return an operation that deletes only the version `seen`.

    With `if_seq_no` it cannot delete a newer version, and cannot create an index if the alias is missing (a delete with `version` would).
    """
    action = {"_index": alias, "_id": doc_id, "if_seq_no": seen[0], "if_primary_term": seen[1]}
    return Operation(doc_id, orjson.dumps({"delete": _routed(action, routing)}))


def never(index: str, doc_id: str) -> Operation:
    """Return an operation that always fails, by refusal or conflict: it tests whether this user may write to an index without write alias."""
    action = {"_index": index, "_id": doc_id, "if_seq_no": 9_000_000_000_000_000, "if_primary_term": 1}
    return Operation(doc_id, orjson.dumps({"index": action}), b"{}")


def _action(kind: str, alias: str, doc_id: str, seen: tuple[int, int] | None, routing: str | None = None) -> bytes:
    fields: dict[str, Any] = {"_index": alias, "_id": doc_id, "require_alias": True}
    if seen:
        fields["if_seq_no"], fields["if_primary_term"] = seen
    return orjson.dumps({kind: _routed(fields, routing)})


def _routed(action: dict[str, Any], routing: str | None) -> dict[str, Any]:
    return action if routing is None else {**action, "routing": routing}


def _line(document: Mapping[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
