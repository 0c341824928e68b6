"""Options and results of a migration."""

from __future__ import annotations

from dataclasses import dataclass, field

from osembed.limits import check_fields
from osembed.migrate.copy.window import CopyCounts
from osembed.migrate.proof.verdict import Gate, GateOptions
from osembed.migrate.proof.verification import Verification


@dataclass(frozen=True)
class MigrateOptions:
    """How a migration runs.

    Attributes:
        swap: whether to swap at the end, or stop when ready.
        rate: documents per second at most; 0 for no limit.
        gentle: leave room for searches on the same machine: the threads that embed get a low priority.
        allow_failed: how many documents that cannot be copied a swap may leave behind.
        full: verify every document instead of a sample.
        gate: how the new model is judged before the swap.
    """

    swap: bool = True
    rate: float = 0.0
    gentle: bool = False
    allow_failed: int = 0
    full: bool = False
    gate: GateOptions = field(default_factory=GateOptions)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass
class MigrateResult:
    """What a command brought about.

    Attributes:
        collection: its name.
        phase: where the migration stands now.
        models: level → the new model; {} where there was nothing to do.
        copied: what was copied.
        fence_s: how long the last fence stood, in seconds; None where there was none.
        fences: how many fences were raised.
        report: the verification, where one was made.
        gate: the judgement, where one was made.
        refused: what vetoed a swap.
        failed: "level/id" → why, of documents that could not be copied, or were left behind by a swap.
        notices: what else is to be said.
    """

    collection: str
    phase: str
    models: dict[str, str]
    copied: CopyCounts = field(default_factory=CopyCounts)
    fence_s: float | None = None
    fences: int = 0
    report: Verification | None = None
    gate: Gate | None = None
    refused: str = ""
    failed: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
