"""One direction of a migration, forward or back: copy and catch up → put into service → verify → gate → fence and swap."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeVar

from osembed.embed.encoders import Encoders
from osembed.errors import BusyError, ClusterError, CollectionError
from osembed.migrate.copy import pairs
from osembed.migrate.copy.copier import Copier
from osembed.migrate.copy.level_copy import LevelCopy, Outdated, make_copies
from osembed.migrate.copy.window import CopyCounts, Window
from osembed.migrate.options import MigrateOptions, MigrateResult
from osembed.migrate.progress import Progress
from osembed.migrate.proof import gate as gates
from osembed.migrate.proof import verdict
from osembed.migrate.proof.gate import judge_models
from osembed.migrate.proof.sides import Side, pair_of
from osembed.migrate.proof.verification import kept_verification
from osembed.migrate.proof.verify import verify
from osembed.migrate.readiness import read_clients, unready_clients
from osembed.migrate.swap import GivenUp, SwapContext, Swapped, base_of, leave_known, lost_writes, swap
from osembed.opensearch import changes, indexes, permissions, reads, scan, schema, sight
from osembed.opensearch.bulk import BulkLoop
from osembed.opensearch.client import OpenSearch, Server
from osembed.opensearch.coordination import fence
from osembed.opensearch.coordination.journal import Journal
from osembed.opensearch.coordination.lease import Lease, take_tokens
from osembed.opensearch.coordination.migration_state import MigrationState
from osembed.opensearch.patience import until_settled
from osembed.opensearch.target import Target
from osembed.papers.levels import Level
from osembed.search.searcher import Searcher

_FENCE_TRIES = 12  # attempts to swap
_LAG_S = 1.0  # the fence is raised when the remaining copy takes less than this
_SMALL = 32  # documents that can always be copied under the fence
_NOTED_S = 5.0  # between notes of a verification's progress in the journal
_NAMED = 10  # documents listed in a notice
_LATE_S = 5.0  # for how long after the last try a late write block is watched for
_OLD_ONLY = "they are only in the old model's index, which `finish` deletes"
_NEW_ONLY = "they are only in the new model's index, which `abort` deletes"


T = TypeVar("T")
Say = Callable[[str], None]
Watch = Callable[[Progress], None]


@dataclass(frozen=True)
class MigrationContext:
    """What a migration works with.

    Attributes:
        client, server: the connection.
        encoders, query_encoders: the models for documents and for queries.
        report: called with notices for people.
        watch: called with the progress.
    """

    client: OpenSearch
    server: Server
    encoders: Encoders
    query_encoders: Encoders
    report: Say = lambda _: None
    watch: Watch = lambda _: None


class Direction:
    """One direction of a migration, for a process that holds the lease."""

    def __init__(self, work: MigrationContext, lease: Lease, options: MigrateOptions) -> None:
        self._work, self._lease, self._options = work, lease, options
        self._client, self._report, self._watch = work.client, work.report, work.watch
        self._journal = Journal(work.client)
        self._progress, self._began = Progress("copying"), time.monotonic()
        self._noted = 0.0
        self._heard = self._settled(lambda: read_clients(work.client, lease.state.collection))
        self._result = MigrateResult(lease.state.collection, lease.state.phase, dict(lease.state.models))

    def _settled(self, attempt: Callable[[], T]) -> T:
        """Run an attempt, waiting and reporting while the server is unavailable. Raises BusyError if another process takes over."""
        return until_settled(attempt, self._lease.check, report=self._report)

    def forward(self, judged: bool = False) -> MigrateResult:
        """Copy and catch up, verify, run the gate (unless it has been run), swap. Returns the result, refused or not."""
        if not judged and not self._options.gate.skip:
            self._warn_unjudged()
        self._lease.note("copying", phase="copy")
        with self._swap_context() as at:
            self._converge(at)
            self._serve(at)
            self._converge(at)  # writes arrived while the indexes were put into service
            if not self._complete() or not self._verified(at) or not (judged or self._judged(at)):
                return self._finished()
        self._lease.note("ready", phase="ready")
        return self._swap() if self._options.swap else self._finished()

    def backward(self) -> MigrateResult:
        """Roll back: copy from green to blue with the old model, then swap. The result is refused if documents could not be copied."""
        self._lease.note("rolling back")
        with self._swap_context() as at:
            self._converge(at)
        return self._swap()

    @contextmanager
    def _swap_context(self) -> Iterator[SwapContext]:
        """Yield what a copy and a swap need, under the current staging aliases."""
        client, level_copies = self._client, self._settled(lambda: make_copies(self._client, self._lease.state, self._work.encoders))
        loop = BulkLoop(client, report=self._report)
        try:
            copier = Copier(client, level_copies, loop, self._settle, self._between)
            with self._work.encoders.gently() if self._options.gentle else nullcontext():
                yield SwapContext(client, self._lease, level_copies, copier, loop, self._options.allow_failed)
        except Outdated as error:
            self._lease.check()
            raise BusyError(
                f"This process no longer holds the staging aliases of '{self._lease.state.collection}': {error}.",
                "Another client took them over.",
                "Run the command again.",
            ) from error
        finally:
            loop.close()

    def _converge(self, at: SwapContext) -> None:
        """Catch up and repeat deletes until the remaining copy takes less than a second."""
        grown, before = 0, float("inf")
        self._progress = Progress("catching up" if self._result.copied.seen else "copying", total=self._pending(at))
        self._began = time.monotonic()
        while True:
            at.copier.catch_up(lambda: {level: move.marks for level, move in self._lease.state.moves.items()})
            self._mend(at)
            left = self._pending(at)
            grown = grown + 1 if left >= 0.9 * before and left > _SMALL else 0  # passes without real progress
            self._progress.lag, self._progress.converging = left, grown < 3
            if grown == 3:
                self._report(f"Not converging: writes arrive as fast as they are embedded ({left:,} documents behind).")
            if left <= max(_SMALL, _LAG_S * self._progress.rate):
                return
            before = left
            self._progress.total = self._progress.done + left

    def _mend(self, at: SwapContext) -> None:
        for level_copy in at.level_copies:
            self._settled(partial(changes.refresh, self._client, level_copy.target.index))
            for shard, mark in self._lease.state.moves[level_copy.level].marks.items():
                base = base_of(self._lease.state, level_copy.level, shard)
                found = self._settled(partial(pairs.compare_shard, self._client, level_copy, int(shard), mark, base))
                leave_known(self._lease.state, level_copy.level, found)
                if found:
                    self._lease.check()
                    self._settled(partial(pairs.mend_difference, self._client, level_copy, found, at.copier, at.loop))

    def _pending(self, at: SwapContext) -> int:
        """Count the documents that changed since the marks."""
        moves = self._lease.state.moves
        return self._settled(
            lambda: sum(
                scan.count_after(self._client, level_copy.source.index, moves[level_copy.level].marks) for level_copy in at.level_copies
            )
        )

    def _serve(self, at: SwapContext) -> None:
        """Put the new indexes into service, before they are verified and searched."""
        for level_copy in at.level_copies:
            kept = self._settled(partial(self._journal.recall_index, level_copy.target.uuid))
            wanted = kept["wanted"] if kept else schema.wanted_settings(level_copy.target.meta.profile, 0)
            self._lease.check()
            self._settled(partial(indexes.put_in_service, self._client, level_copy.target, wanted))

    def _complete(self) -> bool:
        """Return whether at most `allow_failed` documents failed; otherwise refuse the swap."""
        failed = self._lease.state.failed
        if len(failed) <= self._options.allow_failed:
            return True
        self._result.refused = f"{len(failed)} documents could not be copied (--allow-failed {len(failed)} leaves them behind)"
        self._result.notices += _named(failed)
        self._lease.note(f"{len(failed)} documents failed")
        return False

    def _verified(self, at: SwapContext) -> bool:
        """Verify the copy and the new vectors, and store the report in the journal. Returns whether it passed."""
        self._show("verifying")
        state = self._lease.note("verifying", phase="verify")
        places = [place for level_copy in at.level_copies for place in (level_copy.source.place, level_copy.target.place)]
        self._settled(lambda: sight.prove(self._client, places))
        sides = [
            Side(level_copy.target, level_copy.level, level_copy.encoder, pair_of(level_copy, state)) for level_copy in at.level_copies
        ]
        moving = {side.level for side in sides}
        still = [target for level, target in self._published().items() if level not in moving]
        report = verify(self._client, state.collection, sides, full=self._options.full, still=still, watch=self._verifying)
        self._result.report = report
        self._keep("report", kept_verification(report))
        self._lease.note("verified" if report.passed else "verification refused", verified={"passed": report.passed, "id": state.id})
        if not report.passed:
            self._result.refused = "verification"
        return report.passed

    def _verifying(self, progress: Progress) -> None:
        """Show the progress of the verification, sometimes in the journal too. Raises BusyError if another process takes over."""
        self._progress = progress
        self._watch(progress)
        self._lease.check()
        if time.monotonic() - self._noted > _NOTED_S:
            self._noted = time.monotonic()
            self._lease.update(progress=asdict(progress))

    def _judged(self, at: SwapContext) -> bool:
        """Run the gate and store its verdict in the journal. Returns whether it passed."""
        options = self._options.gate
        published = self._published()
        if options.skip:
            self._lease.note("gate skipped", gated={"verdict": "skipped"})
            return True
        self._show("judging")
        self._lease.note("judging", phase="gate")
        after = {**published, **{level_copy.level: level_copy.target for level_copy in at.level_copies}}
        here = (self._client, self._work.server, self._lease.state.collection, self._work.query_encoders)
        blue, green = Searcher(*here, resolve=lambda: published), Searcher(*here, resolve=lambda: after)
        moving = list(self._lease.state.moves)
        gate = self._result.gate = self._settled(lambda: judge_models(self._client, blue, green, options, self._lease.check, moving))
        self._keep("gate", {**asdict(gate), "passed": gate.passed})
        said = f"gate {gate.verdict}{f': {gate.reason}' if gate.reason else ''}"
        said += f", overridden: {options.override}" if options.override else ""
        self._lease.note(said, gated=verdict.summary_of(gate))
        if not gate.passed:
            self._result.refused = f"gate ({gate.verdict}{f': {gate.reason}' if gate.reason else ''})"
        return gate.passed

    def _warn_unjudged(self) -> None:
        """Warn before the copy if the gate will not be able to decide."""
        why = gates.foresee_gate(self._published(), list(self._lease.state.moves))
        if why:
            self._lease.note(why)
            self._result.notices.append(why)
            self._report(why)

    def _published(self) -> dict[Level, Target]:
        targets = self._settled(lambda: indexes.resolve(self._client, self._lease.state.collection))
        if targets is None:
            raise CollectionError(f"The aliases of '{self._lease.state.collection}' are gone.", "", "Restore them, then run this again.")
        return targets

    def _keep(self, kind: str, document: dict[str, Any]) -> None:
        self._settled(lambda: self._journal.change(f"{kind}:{self._lease.state.collection}", lambda _: document))

    def _show(self, phase: str) -> None:
        self._progress.phase, self._progress.eta_s = phase, None
        self._watch(self._progress)

    def _swap(self) -> MigrateResult:
        """Fence and swap, with back-off, until it succeeds within the time limit."""
        why, late = "", False
        self._warn_unready()
        for number in range(_FENCE_TRIES):
            if number:
                self._pause(random.uniform(0.5, 1) * min(64.0, 2.0**number), late)
                take_tokens(self._lease, {level: self._lease.state.target(level) for level in self._lease.state.moves})
            with self._swap_context() as at:
                self._converge(at)
                if not self._complete():
                    return self._finished()
                permissions.require(self._client, self._lease.state.collection, "migrator")  # before writers have to wait
                try:
                    done = swap(at)
                except GivenUp as error:
                    why, late = str(error), error.late
                    self._report(f"The swap was postponed: {why}. Trying again.")
                    continue
                return self._crossed(at, done, number + 1)
        self._pause(_LATE_S, late)
        raise CollectionError(
            f"The swap was tried {_FENCE_TRIES} times without success: {why}.",
            "Nothing has changed for readers and writers, and the new indexes are kept.",
            "Try again when there are fewer writes: osembed migrate swap",
        )

    def _pause(self, seconds: float, late: bool) -> None:
        """Wait before another try. With `late`, lift the block of the last try if the server sets it only now."""
        ends, sources = time.monotonic() + seconds, [self._lease.state.source(level) for level in self._lease.state.moves]
        while (left := ends - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))
            if late:
                with suppress(ClusterError):
                    if reads.write_blocks(self._client, sources):
                        fence.unblock(self._client, sources)

    def _warn_unready(self) -> None:
        """Warn about known clients that lack the model they are about to need: they would search by words only."""
        state = self._lease.state
        targets = self._settled(lambda: indexes.resolve_indexes(self._client, {level: state.target(level) for level in state.moves}))
        identities = {target.meta.identity.hash: target.meta.model for target in targets.values()}
        heard = self._settled(lambda: read_clients(self._client, state.collection))
        for line in unready_clients(self._heard, heard, identities):
            self._result.notices.append(f"{line}: it will search by words only until it has the model.")
            self._report(self._result.notices[-1])

    def _crossed(self, at: SwapContext, done: Swapped, tries: int) -> MigrateResult:
        result = self._finished()
        result.fence_s, result.fences = done.fence_s, tries
        state = self._lease.state
        if state.failed:
            result.notices += [f"{len(state.failed):,} documents could not be brought back: {_NEW_ONLY}.", *_named(state.failed)]
        if state.left:
            said = "that were missing in the new model's index are back" if state.back else f"were left behind: {_OLD_ONLY}"
            result.notices += [f"{len(state.left):,} documents {said}.", *_named(state.left)]
        if not state.back:
            result.notices += [notice for level_copy in at.level_copies if (notice := self._lost_notice(level_copy))]
        return result

    def _lost_notice(self, level_copy: LevelCopy) -> str:
        """Return a notice about writes that bypassed the fence of a completed swap; "" for none."""
        try:
            lost = lost_writes(self._client, level_copy, self._lease.state.moves[level_copy.level].bases)
        except ClusterError as error:
            return f"Could not check whether writes reached {level_copy.source.index} after it was blocked: {error.found}"
        return f"{lost} writes reached {level_copy.source.index} after it was blocked: somebody lifted the block by hand." if lost else ""

    def _finished(self) -> MigrateResult:
        state = self._lease.state
        self._result.phase, self._result.failed = state.phase, dict(state.failed or ({} if state.back else state.left))
        return self._result

    def _settle(self, window: Window, copied: CopyCounts) -> None:
        """Record a window's failures and its mark in the journal, in one write."""
        level, progress = window.level_copy.level, self._progress
        self._result.copied.add(copied)
        progress.advance(copied.seen, self._began)

        def step(state: MigrationState) -> MigrationState:
            marks = {**state.moves[level].marks, str(window.shard): window.upto}
            settled = {f"{level}/{doc.id}" for doc in window.docs}
            failed = {key: why for key, why in state.failed.items() if key not in settled}
            failed.update({f"{level}/{key}": why for key, why in copied.failed.items()})
            left = {key: why for key, why in state.left.items() if key not in settled}
            return replace(state.with_move(level, marks=marks), failed=failed, left=left, progress=asdict(progress))

        self._lease.update(step)
        self._watch(progress)

    def _between(self) -> None:
        """Before each window, check the lease, wait while paused, and keep to the rate limit."""
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


def _named(documents: Mapping[str, str]) -> list[str]:
    """Return lines with the first few documents and their reasons."""
    more = [f"… and {len(documents) - _NAMED:,} more (--json lists them all)"] if len(documents) > _NAMED else []
    return [*(f"{key}: {why}" for key, why in list(documents.items())[:_NAMED]), *more]
