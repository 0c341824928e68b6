"""The journal entry of a collection's migration. Pure; `fence` and `migrate` read and change it by compare-and-set.

It records intent and progress only. Which index is live, who may work on it and what is fenced is read from aliases and settings, in one
request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from osembed.papers.levels import Level

Phase = Literal["copy", "verify", "gate", "ready", "swap", "swapped", "return", "returned", "finished", "aborted"]
# The collection still uses the old model, and the migration can be continued.
BEFORE_SWAP: tuple[Phase, ...] = ("copy", "verify", "gate", "ready", "swap")
# Nothing is left to do; the next migration may start.
OVER: tuple[Phase, ...] = ("finished", "aborted")


@dataclass(frozen=True)
class LevelMove:
    """One level's move from one index to another.

    Attributes:
        blue, green: the index of the old model and that of the new one.
        blue_uuid, green_uuid: their UUIDs; green's is empty until green is created.
        marks: shard → the source's sequence number up to which the target has acknowledged everything. During a rollback green is the source.
        bases: shard → (source's, target's) highest sequence number when both were last proven equal; −1 if they never were.
    """

    blue: str
    blue_uuid: str
    green: str
    green_uuid: str = ""
    marks: dict[str, int] = field(default_factory=dict)
    bases: dict[str, tuple[int, int]] = field(default_factory=dict)

    def uuid_of(self, index: str) -> str:
        """Return the UUID of one of the two indexes; "" if it is not yet created."""
        return self.blue_uuid if index == self.blue else self.green_uuid


@dataclass(frozen=True)
class MigrationState:
    """One migration of one collection.

    Attributes:
        id: of this migration.
        collection: its name.
        models: level → the new model.
        moves: level → its indexes, and how far the copy is.
        generation: of the new indexes.
        phase: where the migration stands.
        attempt: number of the last holder. It names the holder's staging aliases, so that earlier holders can neither write nor swap.
        begun: the last attempt before this migration.
        lease: entry of the process that is running it, or None.
        fence: set while the source is blocked for a swap; unique per fence, so that a client can tell whether it is still the same one.
        paused, rate, gentle: the requested pace.
        paused: whether the process at work waits.
        rate: documents per second at most; 0 for no limit.
        gentle: whether searches on the same machine are given precedence.
        failed: "level/id" → why the document could not be copied in the current direction.
        left: "level/id" → why the swap left the document behind: it is only in the old index.
        progress: numbers for `osembed migrate status`.
        verified, gated: summaries of the last reports.
        swapped_at: the server's clock in seconds at the last swap.
        history: (time, event) for people.
    """

    id: str
    collection: str
    models: dict[str, str]
    moves: dict[Level, LevelMove]
    generation: int
    phase: Phase = "copy"
    attempt: int = 0
    begun: int = 0
    lease: dict[str, Any] | None = None
    fence: str = ""
    paused: bool = False
    rate: float = 0.0
    gentle: bool = False
    failed: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    verified: dict[str, Any] = field(default_factory=dict)
    gated: dict[str, Any] = field(default_factory=dict)
    swapped_at: int = 0
    history: list[tuple[str, str]] = field(default_factory=list)

    @property
    def back(self) -> bool:
        """Whether the migration is being or was rolled back, from green to blue."""
        return self.phase in ("return", "returned")

    def source(self, level: Level) -> str:
        """Return the index that documents are copied from: the one that readers use."""
        move = self.moves[level]
        return move.green if self.phase in ("swapped", "return") else move.blue

    def target(self, level: Level) -> str:
        """Return the index that documents are copied to."""
        move = self.moves[level]
        return move.blue if self.phase in ("swapped", "return") else move.green

    def with_move(self, level: Level, **changes: Any) -> MigrationState:
        """Return the state with one level's move changed."""
        return replace(self, moves={**self.moves, level: replace(self.moves[level], **changes)})


def migration_key(collection: str) -> str:
    """Return the journal key of a collection's migration."""
    return f"migration:{collection}"


def write_state(state: MigrationState) -> dict[str, Any]:
    """Return the state as plain data for the journal."""
    return asdict(state)


def read_state(stored: Mapping[str, Any] | None) -> MigrationState | None:
    """Return the state from its stored form; None for none. Keys of other versions are ignored."""
    if not stored:
        return None
    known = {field.name: stored[field.name] for field in fields(MigrationState) if field.name in stored}
    moves = {level: _read_move(move) for level, move in stored["moves"].items()}
    history = [(str(when), str(what)) for when, what in stored.get("history", [])]
    return MigrationState(**{**known, "moves": moves, "history": history})


def _read_move(stored: Mapping[str, Any]) -> LevelMove:
    bases = {shard: (int(pair[0]), int(pair[1])) for shard, pair in stored.get("bases", {}).items()}
    return LevelMove(**{**stored, "marks": dict(stored.get("marks", {})), "bases": bases})
