"""Plan a migration: what it would do, and what prevents it. Nothing is created."""

from __future__ import annotations

from collections.abc import Iterator

from osembed.embed.encoders import Encoders
from osembed.migrate.copy.level_copy import PAGE
from osembed.migrate.forecast import forecast_level, forecast_memory, forecast_space
from osembed.migrate.preflight import find_warnings, preflight, unseen_policies
from osembed.migrate.route import LevelPlan, MigrationPlan, Route
from osembed.opensearch.client import OpenSearch, Server
from osembed.opensearch.coordination.migration_state import LevelMove, MigrationState
from osembed.opensearch.schema import alias_name, index_name
from osembed.papers.levels import Level


def new_state(route: Route, token: str, before: MigrationState | None) -> MigrationState:
    """Return the first journal entry of a migration. `token` becomes its id; `before` is the state of the last migration."""
    moves: dict[Level, LevelMove] = {}
    for level, meta in route.metas.items():
        source = route.targets[level]
        moves[level] = LevelMove(source.index, source.uuid, index_name(route.collection, level, meta.identity, route.generation))
    attempt = before.attempt if before else 0
    models: dict[str, str] = {level: meta.model for level, meta in route.metas.items()}
    return MigrationState(token, route.collection, models, moves, route.generation, attempt=attempt, begun=attempt)


def make_plan(client: OpenSearch, server: Server, route: Route, encoders: Encoders) -> MigrationPlan:
    """Return the estimate of a migration: measure a sample, and compare with the cluster's resources. Creates nothing."""
    levels = [forecast_level(client, route, level, encoders.load(route.models[level])) for level in route.metas]
    tokens, seconds = sum(plan.tokens for plan in levels), sum(plan.seconds for plan in levels)
    plan = MigrationPlan(route.collection, levels, tokens / seconds if seconds else 0.0, seconds)
    plan.problems = [*preflight(client, route), *forecast_space(client, levels), *forecast_memory(client, route, levels)]
    plan.warnings = [*find_warnings(levels, route), *unseen_policies(client, levels)]
    plan.calls = list(_calls(route, levels))
    return plan


def _calls(route: Route, levels: list[LevelPlan]) -> Iterator[str]:
    sources = ",".join(plan.source for plan in levels)
    for plan in levels:
        yield f"PUT /{plan.target}  (hidden behind staging-…-N; refresh off, no replicas)"
    for plan in levels:
        pages = -(-plan.documents // PAGE[plan.level])  # type: ignore[index]
        yield f"{pages:,} × POST /{plan.source}/_search  (windows of _seq_no, {PAGE[plan.level]} documents each)"  # type: ignore[index]
        yield f"{pages:,} × POST /_bulk → {plan.target}  (external versions, require_alias)"
    yield "POST _refresh, _stats, histograms of _seq_no and origin  (catch-up, until it takes less than a second)"
    for plan in levels:
        yield f"PUT /{plan.target}/_settings  (production refresh and replicas)"
    yield "verification and gate: reads only"
    yield f"PUT /{sources}/_block/write  (at most 5 s, then lifted or swapped)"
    yield f"POST /_aliases  ({', '.join(alias_name(route.collection, plan.level) for plan in levels)}; conditional, all or nothing)"  # type: ignore[arg-type]
    yield f"later, by `osembed migrate finish`: deletion of {sources}"
