"""The commands of a migration: run, swap, rollback, finish, abort, verify, plan.

Every command first takes the lease and the staging aliases, and reads the state of the migration from the cluster. So a command may be
killed at any point, and the next command continues, whichever it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

from osembed.embed.encoders import witness_passages
from osembed.errors import AuthError, BusyError, ClusterError, CollectionError, InputError, RefusedError
from osembed.ingest.spec import CollectionSpec
from osembed.migrate.copy.level_copy import make_copies
from osembed.migrate.direction import Direction, MigrationContext
from osembed.migrate.options import MigrateOptions, MigrateResult
from osembed.migrate.plan import make_plan, new_state
from osembed.migrate.proof.sides import Side, pair_of
from osembed.migrate.proof.verification import Verification, kept_verification
from osembed.migrate.proof.verify import verify
from osembed.migrate.route import MigrationPlan, Route, find_route
from osembed.models.registry import open_model
from osembed.opensearch import create, indexes, permissions, reads, schema, sight
from osembed.opensearch.coordination import fence
from osembed.opensearch.coordination.dispose import dispose_indexes
from osembed.opensearch.coordination.journal import Journal
from osembed.opensearch.coordination.lease import Lease, claim_lease, settle, take_tokens
from osembed.opensearch.coordination.migration_state import BEFORE_SWAP, OVER, MigrationState, migration_key, read_state
from osembed.opensearch.coordination.registration import telling
from osembed.opensearch.names import find_published
from osembed.opensearch.patience import until_settled
from osembed.opensearch.schema import staging_alias
from osembed.opensearch.sight import Place
from osembed.opensearch.target import Target
from osembed.papers.levels import Level

T = TypeVar("T")
GRACE_S = 600.0  # time after a swap for which running searches may still read the old indexes


class Migration:
    """The migration of one collection, as its commands see it."""

    def __init__(self, work: MigrationContext, collection: str) -> None:
        self._work, self._collection = work, collection
        self._client, self._server, self._encoders = work.client, work.server, work.encoders
        self._journal = Journal(work.client)

    @property
    def state(self) -> MigrationState | None:
        """The journal's state of the last migration; None if there never was one."""
        return read_state(self._journal.read(migration_key(self._collection)))

    def report(self) -> dict[str, Any]:
        """Return the last verification report from the journal, with a readable version under "page"; {} for none."""
        return self._journal.read(f"report:{self._collection}") or {}

    def plan(self, spec: CollectionSpec) -> MigrationPlan | None:
        """Return an estimate of a migration; None if there is nothing to do.

        Creates nothing, except for a short-lived scratch index on a secured server.
        """
        with self._telling():
            return self._plan(spec)

    def _plan(self, spec: CollectionSpec) -> MigrationPlan | None:
        lack = permissions.find_lack(self._client, self._collection, "migrator")
        try:
            route = find_route(self._client, self._server, self._collection, spec, self._encoders, self.state)
            plan = make_plan(self._client, self._server, route, self._encoders) if route else None
        except AuthError as error:
            raise (permissions.refusal(lack) if lack else error) from error
        if plan and lack:  # a plan only reads, so it is shown even if the migration itself would be refused
            plan.problems.insert(0, str(permissions.refusal(lack)))
        return plan

    def run(self, spec: CollectionSpec, options: MigrateOptions) -> MigrateResult:
        """Run a migration, or continue an interrupted one. Returns the result, which may be a refusal.

        Raises:
            BusyError: another process holds the lease, or has taken it over.
            CollectionError: something prevents it, or a third party interfered; the error says what to do.
        """
        with self._telling():
            return self._run(spec, options)

    def _run(self, spec: CollectionSpec, options: MigrateOptions) -> MigrateResult:
        self._settled(lambda: permissions.require(self._client, self._collection, "migrator"))
        under_way, route = self._settled(lambda: self._route(spec))
        if not under_way and route is None:
            return MigrateResult(self._collection, "nothing to do", {})
        token = secrets.token_hex(8)

        def begin(state: MigrationState | None) -> MigrationState:
            if state is not None and self._is_under_way(state):
                self._check_same(state, spec)
                return replace(state, paused=False)
            if route is None:
                raise BusyError("Another process ended the migration.", "", "Run the command again to start a new one.")
            return new_state(route, token, state)

        with self._claimed(begin, asked=True) as lease:
            settle(lease)  # an earlier process may have swapped without recording it
            if lease.state.phase not in BEFORE_SWAP:
                return self._result(lease)
            lease.update(rate=options.rate)
            self._prove_sight()
            self._settled(lambda: self._create(lease, route, spec))
            return Direction(self._work, lease, options).forward()

    def swap(self, options: MigrateOptions) -> MigrateResult:
        """Swap a migration that is ready: catch up, verify, and swap as `run` does."""
        with self._claimed(self._existing) as lease:
            before = lease.state.phase
            settle(lease)
            if lease.state.phase not in BEFORE_SWAP:
                if before in BEFORE_SWAP:  # an earlier swap was interrupted after the aliases had moved; `settle` completed it
                    return self._result(lease)
                raise InputError(f"'{self._collection}' has already been swapped.", "", "See: osembed migrate status")
            if not all(move.green_uuid for move in lease.state.moves.values()):
                raise InputError(
                    f"The new indexes of '{self._collection}' do not exist yet.", "", "Continue with: osembed migrate --model MODEL"
                )
            take_tokens(lease, self._greens(lease.state))
            gated = lease.state.gated
            judged = gated.get("verdict") in ("passed", "skipped") or bool(gated.get("override"))
            return Direction(self._work, lease, replace(options, swap=True)).forward(judged)

    def rollback(self, options: MigrateOptions) -> MigrateResult:
        """Bring the old model back, with the writes and deletes made since the swap."""
        with self._claimed(self._existing) as lease:
            settle(lease)
            if lease.state.phase in BEFORE_SWAP:
                raise InputError(
                    f"'{self._collection}' has not been swapped: it still uses the old model.",
                    "There is nothing to roll back.",
                    "To cancel the migration: osembed migrate abort",
                )
            if lease.state.phase == "returned":
                return self._result(lease)
            self._prove_sight()
            lease.update(phase="return", paused=False, rate=options.rate)
            take_tokens(lease, {level: move.blue for level, move in lease.state.moves.items()})
            self._settled(lambda: fence.unblock(self._client, [move.blue for move in lease.state.moves.values()]))
            return Direction(self._work, lease, options).backward()

    def finish(self, grace_s: float = GRACE_S) -> MigrateResult:
        """Delete the old model's indexes, when `grace_s` seconds have passed since the swap."""
        if self._settled(self._is_over):
            return MigrateResult(self._collection, "nothing to do", {})
        with self._claimed(self._existing) as lease:
            settle(lease)
            state = lease.state
            if state.phase not in ("swapped", "returned"):
                raise InputError(
                    f"The migration of '{self._collection}' is not swapped yet.",
                    "Only replaced indexes can be deleted.",
                    "Swap first: osembed migrate swap",
                )
            left = grace_s - (reads.server_clock(self._client) - state.swapped_at)
            if left > 0 and state.phase == "swapped":  # after a rollback nobody reads the new indexes, so there is no grace period
                raise InputError(
                    f"The swap was {grace_s - left:.0f} s ago.",
                    "Searches that started before it may still read the old indexes.",
                    f"Wait {left:.0f} s, or use --grace 0.",
                )
            swapped = state.phase == "swapped"
            pairs = {level: (move.blue, move.green) if swapped else (move.green, move.blue) for level, move in state.moves.items()}
            self._settled(lambda: dispose_indexes(lease, pairs))
            lease.note("finished", phase="finished")
            return self._result(lease, state.left if swapped else state.failed)

    def abort(self) -> MigrateResult:
        """Cancel a migration before its swap or after a rollback: delete the new model's indexes."""
        if self._settled(self._is_over):
            return MigrateResult(self._collection, "nothing to do", {})
        with self._claimed(self._existing) as lease:
            settle(lease)
            state = lease.state
            if state.phase not in (*BEFORE_SWAP, "returned"):
                raise InputError(f"'{self._collection}' already uses the new model.", "", "Roll back first: osembed migrate rollback")
            if state.phase in BEFORE_SWAP:
                take_tokens(lease, self._greens(state))  # also lifts a fence that an interrupted swap left
            self._settled(lambda: dispose_indexes(lease, {level: (move.green, move.blue) for level, move in state.moves.items()}))
            lease.note("aborted", phase="aborted")
            return self._result(lease, state.failed if state.phase == "returned" else {})

    def verify(self, *, full: bool = False) -> Verification:
        """Verify the new indexes of a running migration against the old ones, or else the live indexes against their own texts."""
        with self._telling():
            sides, still, places = self._settled(self._sides)
            self._settled(lambda: sight.prove(self._client, places))
            report = verify(self._client, self._collection, sides, full=full, still=still, watch=self._work.watch)
            self._settled(lambda: self._journal.change(f"report:{self._collection}", lambda _: kept_verification(report)))
            return report

    def _sides(self) -> tuple[list[Side], list[Target], list[Place]]:
        """Return the indexes to verify, the live indexes of levels that do not move, and all indexes that must be fully visible."""
        state, encoders = self.state, self._encoders
        targets = find_published(self._client, self._collection)
        if state is not None and state.phase in BEFORE_SWAP and all(move.green_uuid for move in state.moves.values()):
            level_copies = make_copies(self._client, state, encoders)
            sides = [
                Side(level_copy.target, level_copy.level, level_copy.encoder, pair_of(level_copy, state)) for level_copy in level_copies
            ]
        else:
            sides = [
                Side(target, level, encoders.of(target.meta.stored_model, self._journal.recall_witness))
                for level, target in targets.items()
            ]
        moving = {side.level for side in sides}
        still = [target for level, target in targets.items() if level not in moving]
        return sides, still, [target.place for target in (*targets.values(), *(side.target for side in sides))]

    def control(self, **changes: Any) -> MigrationState:
        """Set `paused` or `rate` from another process. The process that runs the migration reads it before its next window."""
        changed = fence.change_state(self._client, self._collection, lambda state: replace(self._existing(state), **changes))
        return self._existing(changed)

    def _settled(self, attempt: Callable[[], T]) -> T:
        """Run an attempt, waiting and reporting while the server is unavailable."""
        return until_settled(attempt, report=self._work.report)

    def _route(self, spec: CollectionSpec) -> tuple[bool, Route | None]:
        """Return whether a migration is running or interrupted and, if not, the route of a new one (None if there is nothing to do)."""
        before = self.state
        if self._is_under_way(before):
            return True, None
        route = find_route(self._client, self._server, self._collection, spec, self._encoders, before)
        if route:
            self._refuse(make_plan(self._client, self._server, route, self._encoders).problems)
        return False, route

    def _prove_sight(self) -> None:
        """Raise AuthError if this user sees only part of the collection, which must not be copied then."""

        def prove() -> None:
            targets = indexes.resolve(self._client, self._collection) or {}
            sight.prove(self._client, [target.place for target in targets.values()])

        self._settled(prove)

    @contextmanager
    def _claimed(self, begin: Callable[[MigrationState | None], MigrationState], *, asked: bool = False) -> Iterator[Lease]:
        """Hold the lease, after checking this user's permissions (unless they have been checked: `asked`)."""
        with self._telling():
            if not asked:
                self._settled(lambda: permissions.require(self._client, self._collection, "migrator"))
            lease = self._settled(lambda: claim_lease(self._client, self._collection, begin))
            try:
                yield lease
            except RefusedError:
                with suppress(ClusterError):
                    lease.update()  # if another process has taken over, that is the reason: raises BusyError
                raise
            finally:
                lease.close()

    def _telling(self) -> AbstractContextManager[None]:
        """Raise DroppedError instead of an error that results from a drop of the collection."""
        return telling(lambda: self._client, self._collection)

    def _is_over(self) -> bool:
        """Return whether the last migration is finished or aborted, so that `finish` or `abort`, run again, has nothing to do."""
        state = self.state
        return state is not None and state.phase in OVER

    def _is_under_way(self, state: MigrationState | None) -> bool:
        """Return whether a migration was started and not ended. It also counts as ended if all its indexes were deleted by hand."""
        return state is not None and state.phase not in OVER and fence.has_any(fence.look(self._client, state), state)

    def _existing(self, state: MigrationState | None) -> MigrationState:
        if state is None or not self._is_under_way(state):
            raise InputError(f"'{self._collection}' has no migration in progress.", "", "Start one: osembed migrate --model MODEL")
        return state

    def _check_same(self, state: MigrationState, spec: CollectionSpec) -> None:
        """Raise InputError if the spec names another model than the migration in progress."""
        names: dict[Level, str | None] = {"papers": spec.paper_model, "chunks": spec.chunk_model}
        for level, name in names.items():
            model = state.models.get(level)
            if name and model and name != model and open_model(name).spec.name != model:
                raise InputError(
                    f"A migration of '{self._collection}' to {model} is {_where(state)}.",
                    "One collection moves to one model at a time.",
                    f"Continue with --model {model}, or end it: osembed migrate {_ending(state)}.",
                )

    def _refuse(self, problems: list[str]) -> None:
        if problems:
            raise CollectionError(problems[0], f"{len(problems)} problem(s) in all." if len(problems) > 1 else "", "Nothing was changed.")

    def _greens(self, state: MigrationState) -> dict[Level, str]:
        return {level: move.green for level, move in state.moves.items()}

    def _create(self, lease: Lease, route: Route | None, spec: CollectionSpec) -> None:
        """Create the new indexes that do not exist yet, each behind this holder's staging alias."""
        take_tokens(lease, self._greens(lease.state))
        if all(move.green_uuid for move in lease.state.moves.values()):
            return
        if route is None:
            route = find_route(self._client, self._server, self._collection, spec, self._encoders, lease.state)
            if route is None:
                raise CollectionError("The collection is already what was asked for.", "", "Cancel the migration: osembed migrate abort")
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
        alias = staging_alias(self._collection, level, state.attempt)
        wanted = create.create_like(self._client, self._server, route.targets[level], meta, alias)
        green = indexes.resolve_indexes(self._client, {level: move.green})[level]
        if green.meta.collection != self._collection or green.meta.identity != meta.identity or green.meta.generation != state.generation:
            raise CollectionError(
                f"{move.green} exists, but does not belong to this migration.", "It was not changed.", "Cancel it: osembed migrate abort"
            )
        self._journal.remember_index(green.uuid, schema.write_meta(green.meta), wanted)
        self._journal.remember_witness(meta.identity.hash, vectors)
        lease.update(lambda state: state.with_move(level, green_uuid=green.uuid))

    def _result(self, lease: Lease, gone: Mapping[str, str] | None = None) -> MigrateResult:
        """Return the state of the migration, with the documents (`gone`) that were only in a deleted index."""
        failed = dict(gone or {})
        notices = [f"{len(failed):,} documents were only in the deleted index: {', '.join(list(failed)[:10])}."] if failed else []
        return MigrateResult(self._collection, lease.state.phase, dict(lease.state.models), failed=failed, notices=notices)


def _where(state: MigrationState) -> str:
    return "rolled back" if state.back else "swapped but not finished" if state.phase == "swapped" else "in progress"


def _ending(state: MigrationState) -> str:
    return "finish" if state.phase == "swapped" else "abort"
