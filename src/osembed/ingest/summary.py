"""The result of an ingest, in numbers and names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from osembed.papers.metadata import Dropped, note_dropped


@dataclass
class Counts:
    """What the stages counted of one window. Each stage adds to the window that it has; the totals are summed where windows are written.

    Attributes:
        embedded, tokens, unknown, unseen, beyond, dropped: as in Summary.
        seconds: per stage.
    """

    embedded: int = 0
    tokens: int = 0
    unknown: int = 0
    unseen: int = 0
    beyond: int = 0
    dropped: Dropped = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("tokenise", "forward"), 0.0))


@dataclass
class Summary:
    """The result of an ingest. `read` = `indexed` + `unchanged` + `rejected`.

    Attributes:
        read: records in the input.
        rejected: records that cannot be indexed; they are in the dead letters.
        reasons: reason → number of rejected records.
        superseded: the first ids that several records share; the last record of each was used.
        doubled: papers stored twice, because an earlier version of osembed gave them another id: old id → new id. Only the first ones;
            `doubled_count` is their number.
        chunks: chunks written.
        embedded: passages that a model embedded; `tokens` is the number of tokens that it read.
        unknown: tokens that are not in the model's vocabulary, such as characters of another script.
        unseen: tokens of chunks beyond the model's window, which no model sees.
        beyond: words after the last allowed chunk, which no model sees either.
        dropped: reason → metadata field → number of papers from which the field was left out. The papers were kept.
        skipped: reason → number of files in folders that were skipped; `skipped_names` holds the first names.
        undecided: papers in the files of a folder that were read, if other files of the folder hold them too. Only a run over the whole
            folder can decide which record is the last.
        seconds: wall time ("wall"), and the time in each stage: tokenise, forward, serialise, server. Stages overlap.
        models, backends: level → model, level → how it was run.
        dead_letters: file of the rejected records; None if there are none.
        published: False while another process is still loading this first generation.
        pruned: papers that were removed because they are gone from the input; `pruned_ids` holds the first ids.
        spared: reason → number of papers that are gone from the input but were kept; `spared_ids` holds the first ids.
        unpruned: for each folder or file that was not pruned, the reason.
        done: share of the input's bytes that is processed, from 0 to 1; None if its size is unknown (standard input).
    """

    collection: str
    read: int = 0
    indexed: int = 0
    unchanged: int = 0
    rejected: int = 0
    chunks: int = 0
    embedded: int = 0
    tokens: int = 0
    unknown: int = 0
    unseen: int = 0
    beyond: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    superseded: list[str] = field(default_factory=list)
    doubled: dict[str, str] = field(default_factory=dict)
    doubled_count: int = 0
    undecided: int = 0
    dropped: Dropped = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("wall", "tokenise", "forward", "serialise", "server"), 0.0))
    skipped: dict[str, int] = field(default_factory=dict)
    skipped_names: dict[str, list[str]] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    backends: dict[str, str] = field(default_factory=dict)
    dead_letters: str | None = None
    published: bool = True
    pruned: int = 0
    pruned_ids: list[str] = field(default_factory=list)
    spared: dict[str, int] = field(default_factory=dict)
    spared_ids: dict[str, list[str]] = field(default_factory=dict)
    unpruned: list[str] = field(default_factory=list)
    done: float | None = None

    def add(self, counts: Counts, *, losses: bool) -> None:
        """Take in what was counted of a window; its `losses`, which are the papers' own, only at their first try."""
        self.embedded += counts.embedded
        self.tokens += counts.tokens
        self.unknown += counts.unknown
        for stage, seconds in counts.seconds.items():
            self.seconds[stage] += seconds
        if not losses:
            return
        self.unseen += counts.unseen
        self.beyond += counts.beyond
        for why, names in counts.dropped.items():
            for name, count in names.items():
                note_dropped(self.dropped, why, name, count)


ProgressCallback = Callable[[Summary], None]
