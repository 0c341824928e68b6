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
        collection: its name.
        read, indexed, unchanged, rejected: papers.
        chunks: of the papers that were indexed.
        embedded: passages that went through a model, `tokens` the tokens it read of them.
        tokens: that the models read.
        unknown: tokens that stand for what the models' vocabularies do not have, such as the signs of another script.
        unseen: tokens of chunks beyond the model's window: no model sees them.
        beyond: words after the last allowed chunk, which no model sees either.
        reasons: why papers were rejected, counted.
        superseded: the first ids that several records of the input have; the last of them was taken.
        doubled: papers that an earlier osembed stored under another id and that are therefore there twice: that id → the id now. The first
            ones; `doubled_count` says how many they are.
        doubled_count: how many papers are there twice.
        undecided: papers of some files of a folder that other files of it have, too: only the whole folder tells which is the last.
        dropped: metadata fields that were left out, counted by the reason and by name; their papers were kept.
        seconds: wall time, and within it per stage: tokenise, forward, serialise, server (stages overlap).
        skipped: files of folders that were passed over, counted by the reason; `skipped_names` are the first of them.
        skipped_names: reason → the first files that were passed over.
        models: level → its model.
        backends: level → what ran it, with precision and device.
        dead_letters: the file of what was rejected; None where nothing was.
        published: False while another process still loads this first generation.
        pruned: papers that were removed since their files are gone; the first of them are `pruned_ids`.
        pruned_ids: the first papers that were removed.
        spared: papers that are gone from the input and were kept, counted by the reason; `spared_ids` are the first of them.
        spared_ids: reason → the first papers that were kept.
        unpruned: why nothing was pruned of a folder or file.
        done: share of the input's bytes that is settled, from 0 to 1; None where its size is unknown (standard input).
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
