"""The story of a migration: claim → create → copy and catch up → verify → gate → swap, and what follows a swap.

Every command begins by taking the lease and the staging aliases and by reading from the cluster where the migration stands; so a command
may be killed anywhere and the next one, whichever it is, goes on.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from osembed import fence, schema
from osembed import index as indexes
from osembed.bulk import BulkLoop
from osembed.client import OpenSearch, Server
from osembed.encoders import Encoders, witness_passages
from osembed.errors import BusyError, CollectionError, InputError
from osembed.generation import Wish
from osembed.journal import Journal
from osembed.migrate import pairs, scan
from osembed.migrate.copy import Copied, Copier, Lane, Outdated, Window
from osembed.migrate.dispose import dispose
from osembed.migrate.lease import Lease, claim, server_clock, settle, take_tokens
from osembed.migrate.plan import Plan, Route, find_route, make_plan, new_state
from osembed.migrate.swap import Crossing, GivenUp, Swapped, base_of, lost_writes, swap
from osembed.schema import Level, staging_alias
from osembed.state import BEFORE_SWAP, OVER, MigrationState, migration_key, read_state

if TYPE_CHECKING:
    from collections.abc import Iterator

_FENCE_TRIES = 12
_LAG_S = 1.0  # a fence is raised when what is left takes less than this
_SMALL = 32
_GRACE_S = 600


@dataclass(frozen=True)
class MigrateOptions:
    """How a migration runs.

    Attributes:
        swap: whether to swap at the end, or stop when ready.
        rate: documents per second at most; 0 for no limit.
        gentle: leave room for searches on the same machine; None decides by where the server is.
        allow_failed: how many documents that cannot be copied a swap may leave behind.
        verify_full: verify every document instead of a sample.
        gate: how the new model is judged before the swap; None for no judgment.
    """

    swap: bool = True
    rate: float = 0.0
    gentle: bool | None = None
    allow_failed: int = 0


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
    """What a command brought about."""

    collection: str
    phase: str
    models: dict[str, str]
    copied: Copied = field(default_factory=Copied)
    fence_s: float | None = None
    fences: int = 0
    notices: list[str] = field(default_factory=list)


Report = Callable[[str], None]
Watch = Callable[[Progress], None]


class Migration:
    """The migration of one collection, as its commands see it."""

    def __init__(
        self,
        client: OpenSearch,
        server: Server,
        collection: str,
        encoders: Encoders,
        report: Report = lambda _: None,
        watch: Watch = lambda _: None,
    ) -> None:
        self._client, self._server, self._collection, self._encoders = client, server, collection, encoders
        self._report, self._watch, self._journal = report, watch, Journal(client)

    @property
    def state(self) -> MigrationState | None:
        """What the journal knows of the last migration; None where there never was one."""
        return read_state(self._journal.read(migration_key(self._collection)))

    def plan(self, wish: Wish) -> Plan | None:
        """Forecast a migration; None where there is nothing to do. Creates nothing."""
        route = find_route(self._client, self._server, self._collection, wish, self._encoders, self.state)
        return make_plan(self._client, self._server, route, self._encoders) if route else None

    def run(self, wish: Wish, options: MigrateOptions) -> MigrateResult:
        """Migrate, or go on with what was interrupted.

        Raises:
            BusyError: another process holds the lease, or took it over.
            CollectionError: something forbids it, or a third party interfered; says what to do.
        """
        before = self.state
        route = None
        if before is None or before.phase in OVER:
            route = find_route(self._client, self._server, self._collection, wish, self._encoders, before)
            if route is None:
                return MigrateResult(self._collection, "nothing to do", {})
            self._refuse(make_plan(self._client, self._server, route, self._encoders).problems)
        token = secrets.token_hex(8)

        def begin(state: MigrationState | None) -> MigrationState:
            if state is not None and state.phase not in OVER:
                self._check_same(state, wish)
                return replace(state, paused=False)
            if route is None:
                raise BusyError("The migration was ended by another process.", "", "Run the command again to begin a new one.")
            return new_state(route, token, state)

        with self._claimed(begin) as lease:
            settle(lease)
            if lease.state.phase not in BEFORE_SWAP:
                return self._result(lease)
            lease.update(rate=options.rate)
            self._create(lease, route, wish)
            return _Leg(self, lease, options).forward()

    def swap(self, options: MigrateOptions) -> MigrateResult:
        """Swap a migration that is ready: catch up, then as `run` does."""
        with self._claimed(self._existing) as lease:
            settle(lease)
            if lease.state.phase not in BEFORE_SWAP:
                raise InputError(f"'{self._collection}' has been swapped already.", "", "See: osembed migrate status")
            take_tokens(lease, self._greens(lease.state))
            return _Leg(self, lease, replace(options, swap=True)).forward()

    def rollback(self, options: MigrateOptions) -> MigrateResult:
        """Bring the old model back, with the writes and deletes made since the swap."""
        with self._claimed(self._existing) as lease:
            settle(lease)
            if lease.state.phase in BEFORE_SWAP:
                raise InputError(
                    f"'{self._collection}' has not been swapped: it still answers with the old model.",
                    "There is nothing to roll back.",
                    "To give the migration up: osembed migrate abort",
                )
            if lease.state.phase == "returned":
                return self._result(lease)
            lease.update(phase="return", paused=False, rate=options.rate)
            take_tokens(lease, {level: move.blue for level, move in lease.state.moves.items()})
            fence.unblock(self._client, [move.blue for move in lease.state.moves.values()])
            return _Leg(self, lease, options).backward()

    def finish(self, grace_s: float = _GRACE_S) -> MigrateResult:
        """Delete the indexes of the old model, once nobody can be reading them any more."""
        with self._claimed(self._existing) as lease:
            settle(lease)
            state = lease.state
            if state.phase not in ("swapped", "returned"):
                raise InputError(
                    f"The migration of '{self._collection}' is not swapped yet.", "Only what was replaced is deleted.", "osembed migrate swap"
                )
            left = grace_s - (server_clock(self._client) - state.swapped_at)
            if left > 0 and state.phase == "swapped":
                raise InputError(
                    f"The swap was {grace_s - left:.0f} s ago.",
                    "Searches that began before it may still read the old indexes.",
                    f"Wait {left:.0f} s, or give --grace 0.",
                )
            swapped = state.phase == "swapped"
            dispose(lease, {level: (move.blue, move.green) if swapped else (move.green, move.blue) for level, move in state.moves.items()})
            lease.note("finished", phase="finished")
            return self._result(lease)

    def abort(self) -> MigrateResult:
        """Give a migration up before its swap, or what is left of it after a rollback: delete the new model's indexes."""
        with self._claimed(self._existing) as lease:
            settle(lease)
            state = lease.state
            if state.phase not in (*BEFORE_SWAP, "returned"):
                raise InputError(
                    f"'{self._collection}' answers with the new model already.", "", "Go back first: osembed migrate rollback"
                )
            if state.phase in BEFORE_SWAP:
                take_tokens(lease, self._greens(state))  # lifts a fence that was left standing
            dispose(lease, {level: (move.green, move.blue) for level, move in state.moves.items()})
            lease.note("aborted", phase="aborted")
            return self._result(lease)

    def control(self, **changes: Any) -> MigrationState:
        """Set `paused` or `rate` from outside: whoever works on the migration sees it within a window."""
        changed = fence.change_state(self._client, self._collection, lambda state: replace(self._existing(state), **changes))
        return self._existing(changed)

    @contextmanager
    def _claimed(self, begin: Callable[[MigrationState | None], MigrationState]) -> Iterator[Lease]:
        lease = claim(self._client, self._collection, begin)
        try:
            yield lease
        finally:
            lease.close()

    def _existing(self, state: MigrationState | None) -> MigrationState:
        if state is None or state.phase in OVER:
            raise InputError(f"'{self._collection}' has no migration under way.", "", "Begin one: osembed migrate --model MODEL")
        return state

    def _check_same(self, state: MigrationState, wish: Wish) -> None:
        """Refuse to go on with another model than the one that was begun."""
        names: dict[Level, str | None] = {"papers": wish.paper_model, "chunks": wish.chunk_model}
        for level, name in names.items():
            model = state.models.get(level)
            if name and model and name != model and schema_name(name) != model:
                raise InputError(
                    f"A migration of '{self._collection}' to {model} is {_where(state)}.",
                    "One collection moves to one model at a time.",
                    f"Go on with --model {model}, or end it: osembed migrate {_ending(state)}.",
                )

    def _refuse(self, problems: list[str]) -> None:
        if problems:
            raise CollectionError(problems[0], f"{len(problems)} problem(s) in all." if len(problems) > 1 else "", "Nothing was changed.")

    def _greens(self, state: MigrationState) -> dict[Level, str]:
        return {level: move.green for level, move in state.moves.items()}

    def _create(self, lease: Lease, route: Route | None, wish: Wish) -> None:
        """Create the new indexes that are not there yet, each behind this holder's staging alias."""
        take_tokens(lease, self._greens(lease.state))
        if all(move.green_uuid for move in lease.state.moves.values()):
            return
        if route is None:
            route = find_route(self._client, self._server, self._collection, wish, self._encoders, lease.state)
            if route is None:
                raise CollectionError("The collection is already as wished.", "", "osembed migrate abort")
        for level in lease.state.moves:
            self._create_level(lease, level, route)

    def _create_level(self, lease: Lease, level: Level, route: Route) -> None:
        state = lease.state
        move = state.moves[level]
        if move.green_uuid:
            return
        meta = replace(route.metas[level], generation=state.generation)
        encoder = self._encoders.load(route.models[level])
        vectors = encoder.encode(witness_passages(encoder.model.spec))
        lease.check()
        wanted = indexes.create_like(self._client, route.targets[level], meta, staging_alias(self._collection, level, state.attempt))
        green = indexes.resolve_indexes(self._client, {level: move.green})[level]
        if green.meta.collection != self._collection or green.meta.identity != meta.identity or green.meta.generation != state.generation:
            raise CollectionError(f"{move.green} exists and is not of this migration.", "It is not touched.", "osembed migrate abort")
        self._journal.remember_index(green.uuid, schema.write_meta(green.meta), wanted)
        self._journal.remember_witness(meta.identity.hash, vectors)
        lease.update(lambda state: state.with_move(level, green_uuid=green.uuid))

    def _result(self, lease: Lease) -> MigrateResult:
        return MigrateResult(self._collection, lease.state.phase, dict(lease.state.models))


class _Leg:
    """One direction of a migration, from claim to swap."""

    def __init__(self, migration: Migration, lease: Lease, options: MigrateOptions) -> None:
        self._migration, self._lease, self._options = migration, lease, options
        self._client, self._report, self._watch = migration._client, migration._report, migration._watch
        self._copied, self._progress = Copied(), Progress("copy")
        self._began = time.monotonic()

    def forward(self) -> MigrateResult:
        """Copy and catch up, prove, judge, swap."""
        self._lease.note("copying", phase="copy")
        with self._crossing() as at:
            self._converge(at)
            self._serve(at)
            self._converge(at)
        if not self._options.swap:
            self._lease.note("ready", phase="ready")
            return self._finished()
        return self._swap()

    def backward(self) -> MigrateResult:
        """The same, from green to blue with the old model; blue is in service already."""
        self._lease.note("rolling back")
        with self._crossing() as at:
            self._converge(at)
        return self._swap()

    @contextmanager
    def _crossing(self) -> Iterator[Crossing]:
        """Everything that copies under the present staging aliases."""
        state, client = self._lease.state, self._client
        levels = list(state.moves)
        sources = indexes.resolve_indexes(client, {level: state.source(level) for level in levels})
        targets = indexes.resolve_indexes(client, {level: state.target(level) for level in levels})
        leg = 2 * state.generation + (1 if state.back else 0)
        lanes = [
            Lane(
                level,
                sources[level],
                targets[level],
                staging_alias(state.collection, level, state.attempt),
                self._migration._encoders.of(targets[level].meta, self._migration._journal),
                leg,
            )
            for level in levels
        ]
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
        self._progress = Progress("catching up" if self._copied.seen else "copying", total=self._pending(at))
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
            scan.settled(lambda lane=lane: scan.refresh(self._client, lane.target.index), self._between)  # type: ignore[misc]
            for shard, mark in self._lease.state.moves[lane.level].marks.items():
                base = base_of(self._lease.state, lane.level, shard)
                compare = lambda: pairs.compare(self._client, lane, int(shard), mark, base)  # noqa: E731, B023 - called at once
                found = scan.settled(compare, self._between)
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
            kept = self._migration._journal.recall_index(lane.target.uuid)
            wanted = kept["wanted"] if kept else schema.wanted_settings(lane.target.meta.profile, 0)
            self._lease.check()
            indexes.put_in_service(self._client, lane.target, wanted)

    def _swap(self) -> MigrateResult:
        """Fence and swap, with back-off, until it is done in time."""
        why = ""
        for number in range(_FENCE_TRIES):
            if number:
                time.sleep(random.uniform(0.5, 1) * min(64.0, 2.0**number))
                take_tokens(self._lease, {level: self._lease.state.target(level) for level in self._lease.state.moves})
            with self._crossing() as at:
                self._converge(at)
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

    def _crossed(self, at: Crossing, done: Swapped, tries: int) -> MigrateResult:
        result = self._finished()
        result.fence_s, result.fences = done.fence_s, tries
        if not self._lease.state.back:
            for lane in at.lanes:
                lost = lost_writes(self._client, lane, self._lease.state.moves[lane.level].bases)
                if lost:
                    result.notices.append(f"{lost} writes reached {lane.source.index} after it was fenced: somebody lifted the block by hand.")
        return result

    def _finished(self) -> MigrateResult:
        result = self._migration._result(self._lease)
        result.copied = self._copied
        return result

    def _settle(self, window: Window, copied: Copied) -> None:
        """Keep what a window did: failures first, then its mark, in one write."""
        level, progress = window.lane.level, self._progress
        self._copied.add(copied)
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


def schema_name(name: str) -> str:
    """Return the name under which a model given as a folder or hub id is known."""
    from osembed.models import open_model

    return open_model(name).spec.name


def _where(state: MigrationState) -> str:
    return "rolled back" if state.back else "swapped and not finished" if state.phase == "swapped" else "under way"


def _ending(state: MigrationState) -> str:
    return "finish" if state.phase == "swapped" else "abort"


def show(state: MigrationState) -> Mapping[str, Any]:
    """Return a state as `status` prints it."""
    return {"phase": state.phase, "models": state.models, **state.progress}
