"""One direction of a migration, from the claim to the swap: copy and catch up → serve → verify → gate → fence and swap."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from osembed import index as indexes
from osembed import schema
from osembed.audience import read_clients, unready
from osembed.bulk import BulkLoop
from osembed.client import OpenSearch, Server
from osembed.encoders import Encoders
from osembed.errors import BusyError, ClusterError, CollectionError
from osembed.index import Target
from osembed.journal import Journal
from osembed.migrate import gate as gates
from osembed.migrate import pairs, scan
from osembed.migrate.copy import Copied, Copier, Lane, Outdated, Window
from osembed.migrate.gate import Gate, GateOptions, PinnedSearcher, judge
from osembed.migrate.lease import Lease, take_tokens
from osembed.migrate.swap import Crossing, GivenUp, Swapped, base_of, lost_writes, swap
from osembed.migrate.verify import Pair, Report, Side, page_of, verify
from osembed.opensearch import changes, permissions, sight
from osembed.opensearch.patience import settled
from osembed.schema import Level, staging_alias
from osembed.state import MigrationState

_FENCE_TRIES = 12
_LAG_S = 1.0  # a fence is raised when what is left takes less than this
_SMALL = 32


@dataclass(frozen=True)
class MigrateOptions:
    """How a migration runs.

    Attributes:
        swap: whether to swap at the end, or stop when ready.
        rate: documents per second at most; 0 for no limit.
        gentle: leave room for searches on the same machine: this process gets a lower urgency, and keeps it until it ends.
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


@dataclass
class Progress:
    """Where a running migration is. `lag` is how many changed documents were left after the last pass."""

    phase: str
    done: int = 0
    total: int = 0
    rate: float = 0.0
    eta_s: float | None = None
    lag: int = 0
    converging: bool = True


@dataclass
class MigrateResult:
    """What a command brought about. `phase` is where the migration stands now; `refused` names what vetoed a swap."""

    collection: str
    phase: str
    models: dict[str, str]
    copied: Copied = field(default_factory=Copied)
    fence_s: float | None = None
    fences: int = 0
    report: Report | None = None
    gate: Gate | None = None
    refused: str = ""
    notices: list[str] = field(default_factory=list)


Say = Callable[[str], None]
Watch = Callable[[Progress], None]


@dataclass(frozen=True)
class Bench:
    """What a leg works with: the server, the encoders of documents and of queries, and whom to tell."""

    client: OpenSearch
    server: Server
    encoders: Encoders
    query_encoders: Encoders
    report: Say = lambda _: None
    watch: Watch = lambda _: None


class Leg:
    """One direction of a migration, from claim to swap."""

    def __init__(self, work: Bench, lease: Lease, options: MigrateOptions) -> None:
        self._work, self._lease, self._options = work, lease, options
        self._client, self._report, self._watch = work.client, work.report, work.watch
        self._journal = Journal(work.client)
        self._progress, self._began = Progress("copying"), time.monotonic()
        self._heard = read_clients(work.client, lease.state.collection)
        self._result = MigrateResult(lease.state.collection, lease.state.phase, dict(lease.state.models))

    def forward(self, judged: bool = False) -> MigrateResult:
        """Copy and catch up, prove, judge (unless it was judged before), swap."""
        self._lease.note("copying", phase="copy")
        with self._crossing() as at:
            self._converge(at)
            self._serve(at)
            self._converge(at)
            if not self._complete() or not self._verified(at) or not (judged or self._judged(at)):
                return self._finished()
        self._lease.note("ready", phase="ready")
        return self._swap() if self._options.swap else self._finished()

    def backward(self) -> MigrateResult:
        """The same, from green to blue with the old model; blue is in service already."""
        self._lease.note("rolling back")
        with self._crossing() as at:
            self._converge(at)
        return self._swap()

    @contextmanager
    def _crossing(self) -> Iterator[Crossing]:
        """Everything that copies under the present staging aliases."""
        client, lanes = self._client, make_lanes(self._client, self._lease.state, self._work.encoders)
        loop = BulkLoop(client, report=self._report)
        try:
            copier = Copier(client, lanes, loop, self._settle, self._between)
            yield Crossing(client, self._lease, lanes, copier, loop, self._options.allow_failed)
        except Outdated as error:
            self._lease.check()
            raise BusyError(
                f"This process no longer holds the staging aliases of '{self._lease.state.collection}': {error}.",
                "Another client took them over.",
                "Run the command again.",
            ) from error
        finally:
            loop.close()

    def _converge(self, at: Crossing) -> None:
        """Catch up again and again, and repair deletes, until what is left takes less than a second."""
        grown, before = 0, float("inf")
        self._progress = Progress("catching up" if self._result.copied.seen else "copying", total=self._pending(at))
        self._began = time.monotonic()
        while True:
            at.copier.catch_up(lambda: {level: move.marks for level, move in self._lease.state.moves.items()})
            self._mend(at)
            left = self._pending(at)
            grown = grown + 1 if left >= 0.9 * before and left > _SMALL else 0
            self._progress.lag, self._progress.converging = left, grown < 3
            if grown == 3:
                self._report(f"Not converging: writes come as fast as they are embedded ({left:,} documents behind).")
            if left <= max(_SMALL, _LAG_S * self._progress.rate):
                return
            before = left
            self._progress.total = self._progress.done + left

    def _mend(self, at: Crossing) -> None:
        for lane in at.lanes:
            settled(lambda lane=lane: changes.refresh(self._client, lane.target.index), self._between)  # type: ignore[misc]
            for shard, mark in self._lease.state.moves[lane.level].marks.items():
                base = base_of(self._lease.state, lane.level, shard)
                compare = lambda: pairs.compare(self._client, lane, int(shard), mark, base)  # noqa: E731, B023 - called at once
                found = settled(compare, self._between)
                for key in [key for key in found.missing if f"{lane.level}/{key[0]}" in self._lease.state.failed]:
                    del found.missing[key]
                if found:
                    self._lease.check()
                    pairs.mend(self._client, lane, found, at.copier, at.loop)

    def _pending(self, at: Crossing) -> int:
        """Count the documents that changed since the marks."""
        moves = self._lease.state.moves
        return sum(scan.count_after(self._client, lane.source.index, moves[lane.level].marks) for lane in at.lanes)

    def _serve(self, at: Crossing) -> None:
        """Give the new indexes the settings of service before anybody looks at them."""
        for lane in at.lanes:
            kept = self._journal.recall_index(lane.target.uuid)
            wanted = kept["wanted"] if kept else schema.wanted_settings(lane.target.meta.profile, 0)
            self._lease.check()
            indexes.put_in_service(self._client, lane.target, wanted)

    def _complete(self) -> bool:
        """Whether no more documents failed than may be left behind."""
        failed = self._lease.state.failed
        if len(failed) <= self._options.allow_failed:
            return True
        self._result.refused = f"{len(failed)} documents could not be copied (--allow-failed {len(failed)} leaves them behind)"
        self._result.notices += [f"{key}: {why}" for key, why in list(failed.items())[:10]]
        self._lease.note(f"{len(failed)} documents failed")
        return False

    def _verified(self, at: Crossing) -> bool:
        """Compare both sides, and the new vectors with their texts; keep the report with the journal."""
        self._show("verifying")
        state = self._lease.note("verifying", phase="verify")
        sight.prove(self._client, [place for lane in at.lanes for place in (lane.source.place, lane.target.place)])
        sides = [Side(lane.target, lane.level, lane.encoder, pair_of(lane, state)) for lane in at.lanes]
        moving = {side.level for side in sides}
        still = [target for level, target in self._published().items() if level not in moving]
        report = verify(self._client, state.collection, sides, full=self._options.full, still=still)
        self._result.report = report
        self._keep("report", kept_report(report))
        self._lease.note("verified" if report.passed else "verification refused", verified={"passed": report.passed, "id": state.id})
        if not report.passed:
            self._result.refused = "verification"
        return report.passed

    def _judged(self, at: Crossing) -> bool:
        """Compare what both models find; keep the judgment with the journal."""
        options = self._options.gate
        published = self._published()
        if options.skip or not indexes.doc_count(self._client, published["papers"].index):
            self._lease.note("gate skipped" if options.skip else "gate: nothing to judge", gated={"verdict": "skipped"})
            return True
        self._show("judging")
        self._lease.note("judging", phase="gate")
        after = {**published, **{lane.level: lane.target for lane in at.lanes}}
        query = self._work.query_encoders
        blue = PinnedSearcher(self._client, self._work.server, published, query)
        green = PinnedSearcher(self._client, self._work.server, after, query)
        gate = self._result.gate = judge(self._client, blue, green, options, self._lease.check)
        self._keep("gate", {**asdict(gate), "passed": gate.passed})
        said = f"gate {gate.verdict}" + (f", overridden: {options.override}" if options.override else "")
        self._lease.note(said, gated=gates.summary_of(gate))
        if not gate.passed:
            self._result.refused = f"gate ({gate.verdict})"
        return gate.passed

    def _published(self) -> dict[Level, Target]:
        targets = indexes.resolve(self._client, self._lease.state.collection)
        if targets is None:
            raise CollectionError(f"The aliases of '{self._lease.state.collection}' are gone.", "", "Put them back, then run this again.")
        return targets

    def _keep(self, kind: str, document: dict[str, Any]) -> None:
        self._journal.change(f"{kind}:{self._lease.state.collection}", lambda _: document)

    def _show(self, phase: str) -> None:
        self._progress.phase, self._progress.eta_s = phase, None
        self._watch(self._progress)

    def _swap(self) -> MigrateResult:
        """Fence and swap, with back-off, until it is done in time."""
        why = ""
        self._warn_unready()
        for number in range(_FENCE_TRIES):
            if number:
                time.sleep(random.uniform(0.5, 1) * min(64.0, 2.0**number))
                take_tokens(self._lease, {level: self._lease.state.target(level) for level in self._lease.state.moves})
            with self._crossing() as at:
                self._converge(at)
                permissions.require(self._client, self._lease.state.collection, "migrator")  # not to find out under the fence
                try:
                    done = swap(at)
                except GivenUp as error:
                    why = str(error)
                    self._report(f"The swap was put off: {why}. Trying again.")
                    continue
                return self._crossed(at, done, number + 1)
        raise CollectionError(
            f"The swap was tried {_FENCE_TRIES} times: {why}.",
            "Everything is as before, and the new indexes are kept.",
            "When there are fewer writes: osembed migrate swap",
        )

    def _warn_unready(self) -> None:
        """Tell which known clients lack the model that they are about to need: they would search by words only."""
        targets = indexes.resolve_indexes(self._client, {level: self._lease.state.target(level) for level in self._lease.state.moves})
        identities = {target.meta.identity.hash: target.meta.model for target in targets.values()}
        for line in unready(self._heard, read_clients(self._client, self._lease.state.collection), identities):
            self._result.notices.append(f"{line}: it will search by words only until it has it.")
            self._report(self._result.notices[-1])

    def _crossed(self, at: Crossing, done: Swapped, tries: int) -> MigrateResult:
        result = self._finished()
        result.fence_s, result.fences = done.fence_s, tries
        if not self._lease.state.back:
            result.notices += [notice for lane in at.lanes if (notice := self._lost_notice(lane))]
        return result

    def _lost_notice(self, lane: Lane) -> str:
        """Return what is to be said of writes that by-passed the fence of a swap; "" for nothing. The swap is done, and stays so."""
        try:
            lost = lost_writes(self._client, lane, self._lease.state.moves[lane.level].bases)
        except ClusterError as error:
            return f"Whether writes reached {lane.source.index} after it was fenced could not be seen: {error.found}"
        return f"{lost} writes reached {lane.source.index} after it was fenced: somebody lifted the block by hand." if lost else ""

    def _finished(self) -> MigrateResult:
        self._result.phase = self._lease.state.phase
        return self._result

    def _settle(self, window: Window, copied: Copied) -> None:
        """Keep what a window did: failures first, then its mark, in one write."""
        level, progress = window.lane.level, self._progress
        self._result.copied.add(copied)
        progress.done += copied.seen
        progress.rate = progress.done / max(time.monotonic() - self._began, 1e-6)
        progress.total = max(progress.total, progress.done)
        shown = progress.total and progress.done / progress.total >= 0.01
        progress.eta_s = (progress.total - progress.done) / progress.rate if shown and progress.rate else None

        def step(state: MigrationState) -> MigrationState:
            marks = {**state.moves[level].marks, str(window.shard): window.upto}
            settled = {f"{level}/{doc.id}" for doc in window.docs}
            failed = {key: why for key, why in state.failed.items() if key not in settled}
            failed.update({f"{level}/{key}": why for key, why in copied.failed.items()})
            return replace(state.with_move(level, marks=marks), failed=failed, progress=progress.__dict__.copy())

        self._lease.update(step)
        self._watch(progress)

    def _between(self) -> None:
        """Before each window: is this process still the holder, is it paused, is it too fast?"""
        self._lease.check()
        fenced = bool(self._lease.state.fence)
        while self._lease.state.paused and not fenced:
            self._progress.phase = "paused"
            self._watch(self._progress)
            time.sleep(0.5)
            self._lease.update()
        rate = self._lease.state.rate
        if rate and not fenced:
            ahead = self._progress.done / rate - (time.monotonic() - self._began)
            if ahead > 0:
                time.sleep(min(ahead, 10.0))


def make_lanes(client: OpenSearch, state: MigrationState, encoders: Encoders) -> list[Lane]:
    """Return the ways of a migration's levels as they stand, under the present holder's staging aliases."""
    levels = list(state.moves)
    sources = indexes.resolve_indexes(client, {level: state.source(level) for level in levels})
    targets = indexes.resolve_indexes(client, {level: state.target(level) for level in levels})
    leg, journal = 2 * state.generation + (1 if state.back else 0), Journal(client)
    return [
        Lane(
            level,
            sources[level],
            targets[level],
            staging_alias(state.collection, level, state.attempt),
            encoders.of(targets[level].meta, journal),
            leg,
        )
        for level in levels
    ]


def pair_of(lane: Lane, state: MigrationState) -> Pair:
    """Return one level of a migration as verification sees it."""
    move = state.moves[lane.level]
    failed = frozenset(key for key in state.failed if key.startswith(f"{lane.level}/"))
    return Pair(lane, move.marks, move.bases if state.back else {}, failed)


def kept_report(report: Report) -> dict[str, Any]:
    """Return a report as the journal keeps it: its fields and a readable page."""
    kept = {**asdict(report), "passed": report.passed}
    return {**kept, "page": page_of(kept)}
