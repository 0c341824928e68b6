"""What a migration would do, and whether it may: read before anything is created."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from osembed.embed.encoders import Encoders, model_of, spec_of, witness_passages
from osembed.errors import AuthError, InputError, ModelError
from osembed.ingest.spec import Wish, analyzer_for, check_profile, describe
from osembed.migrate.copy.copier import PAGE
from osembed.migrate.proof.gate import foresee
from osembed.models.folder import Model, ModelSpec
from osembed.models.identity import identify
from osembed.models.registry import open_model
from osembed.opensearch import answers, indexes, reads
from osembed.opensearch.client import OpenSearch, Server
from osembed.opensearch.coordination.migration_state import MigrationState, Move
from osembed.opensearch.doctor import forecast_bytes
from osembed.opensearch.indexes import Target, Targets
from osembed.opensearch.names import missing
from osembed.opensearch.schema import IndexMeta, alias_name, index_name
from osembed.papers.levels import Level
from osembed.passages.passage import stored_passage

if TYPE_CHECKING:
    from osembed.embed.native.encoder import Encoder

_SAMPLE = 96
_SPACE_FACTOR = 1.2


@dataclass(frozen=True)
class Route:
    """Where a migration leads: the indexes that move, the models and descriptions of the new ones."""

    collection: str
    targets: Targets
    models: dict[Level, Model]
    metas: dict[Level, IndexMeta]
    generation: int


@dataclass
class LevelPlan:
    """One level's forecast, from a sample of its documents.

    Attributes:
        documents: live documents of the source.
        tokens: tokens that the new model would read.
        unseen_now, unseen_then: share of the sampled texts' tokens beyond the old and the new model's window.
        carried: whether vectors are carried over, because only the mapping changes.
        seconds: time to embed, at the measured rate.
        graph_mb: memory of both generations' graphs.
    """

    level: str
    source: str
    target: str
    model_now: str
    model_then: str
    dimension_now: int
    dimension_then: int
    documents: int
    tokens: int
    unseen_now: float
    unseen_then: float
    carried: bool
    seconds: float
    graph_mb: tuple[float, float]
    disk_mb: tuple[float, float]


@dataclass
class Plan:
    """The whole forecast: levels, problems that stop the migration, and every kind of request it would send."""

    collection: str
    levels: list[LevelPlan]
    tokens_per_s: float
    seconds: float
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether nothing stops the migration."""
        return not self.problems


def find_route(
    client: OpenSearch, server: Server, collection: str, wish: Wish, encoders: Encoders, before: MigrationState | None
) -> Route | None:
    """Find what a wish would change; None where the collection is as wished already.

    Raises CollectionError or InputError for whatever forbids it, with the way out.
    """
    targets = indexes.resolve(client, collection)
    if targets is None:
        raise missing(client, collection)
    names: dict[Level, str | None] = {"papers": wish.paper_model, "chunks": wish.chunk_model}
    if not any(names.values()) and wish.profile is None and wish.language is None:
        raise InputError("No model, profile or language was given.", "A migration needs to know where to.", "osembed migrate --model MODEL")
    models: dict[Level, Model] = {}
    metas: dict[Level, IndexMeta] = {}
    generation = max(*(target.meta.generation for target in targets.values()), before.generation if before else 0) + 1
    for level, target in targets.items():
        meta, name = target.meta, names[level]
        profile = wish.profile or meta.profile
        analyzer = analyzer_for(client, wish.language) if wish.language else meta.analyzer
        model = open_model(name) if name else None
        if (model is None or identify(model) == meta.identity) and (profile, analyzer) == (meta.profile, meta.analyzer):
            continue
        check_profile(server, profile)
        models[level] = model or model_of(target.meta.stored_model)
        described = describe(collection, level, models[level], meta.chunking, profile, encoders)
        metas[level] = replace(described, analyzer=analyzer, generation=generation)
    return Route(collection, targets, models, metas, generation) if metas else None


def new_state(route: Route, token: str, before: MigrationState | None) -> MigrationState:
    """Return the journal's first entry of a migration."""
    moves: dict[Level, Move] = {}
    for level, meta in route.metas.items():
        source = route.targets[level]
        moves[level] = Move(source.index, source.uuid, index_name(route.collection, level, meta.identity, route.generation))
    attempt = before.attempt if before else 0
    models: dict[str, str] = {level: meta.model for level, meta in route.metas.items()}
    return MigrationState(token, route.collection, models, moves, route.generation, attempt=attempt, begun=attempt)


def preflight(client: OpenSearch, route: Route) -> list[str]:
    """Return what forbids the migration, each with its repair command; [] for nothing."""
    return [problem for level in route.metas for problem in _problems(client, route.targets[level], level)]


def make_plan(client: OpenSearch, server: Server, route: Route, encoders: Encoders) -> Plan:
    """Forecast a migration: sample, measure, compare with what the cluster has. Creates nothing."""
    levels = [_forecast(client, route, level, encoders.load(route.models[level])) for level in route.metas]
    tokens, seconds = sum(plan.tokens for plan in levels), sum(plan.seconds for plan in levels)
    plan = Plan(route.collection, levels, tokens / seconds if seconds else 0.0, seconds)
    plan.problems = [*preflight(client, route), *_space(client, levels), *_memory(client, route, levels)]
    plan.warnings = [*_warnings(levels, route), *_unseen_policies(client, levels)]
    plan.calls = list(_calls(route, levels))
    return plan


def _problems(client: OpenSearch, target: Target, level: Level) -> Iterator[str]:
    found = reads.description(client, target.index)
    alias, settings = alias_name(target.meta.collection, level), found["settings"]
    own = found["aliases"].get(alias, {})
    if own.get("filter") or own.get("index_routing") or own.get("search_routing"):
        yield (
            f"The alias '{alias}' has a filter or routing: osembed's searches go to the index and would not see it. Make it plain: "
            f'POST _aliases {{"actions": [{{"add": {{"index": "{target.index}", "alias": "{alias}", "is_write_index": true}}}}]}}'
        )
    if str(settings.get("index.blocks.write", "")).lower() == "true" or str(settings.get("index.blocks.read_only", "")).lower() == "true":
        yield (
            f"{target.index} has a write block that osembed did not set. Lift it: "
            f'PUT {target.index}/_settings {{"index.blocks.write": null, "index.blocks.read_only": null}}'
        )
    if settings.get("index.final_pipeline", "_none") != "_none":
        yield (
            f"{target.index} has the final pipeline {settings['index.final_pipeline']}, which would run on every copy again. "
            f'Detach it: PUT {target.index}/_settings {{"index.final_pipeline": null}}'
        )
    if found["mappings"].get("_source", {}).get("enabled") is False:
        yield f"{target.index} keeps no _source: there is nothing to copy. Ingest into another collection instead."
    policy = ""
    with suppress(AuthError):  # said as a warning
        policy = _ism_policy(client, target.index)
    if policy:
        yield (
            f"{target.index} is managed by the ISM policy '{policy}', which may roll it over or delete it meanwhile. "
            f"Detach it: POST _plugins/_ism/remove/{target.index}"
        )
    foreign = _foreign_version(client, target)
    if foreign:
        yield (
            f"'{foreign[0]}' in {target.index} has the version {foreign[1]}: some writer sets versions of its own, and would meet conflicts "
            "for ever after a swap. Let it use plain writes or if_seq_no, and write these documents once without a version."
        )


def _ism_policy(client: OpenSearch, index: str) -> str:
    """Return the policy that manages an index, "" for none. Raises AuthError where this user may not see it."""
    said = (reads.plugin_answer(client, f"/_plugins/_ism/explain/{index}") or {}).get(index, {})
    return str(said.get("policy_id") or said.get("index.plugins.index_state_management.policy_id") or "")


def _foreign_version(client: OpenSearch, target: Target) -> tuple[str, int] | None:
    """Look for external versions in a sample; the copy looks at every document."""
    body = {"size": 1000, "version": True, "_source": False, "query": {"match_all": {}}}
    hits = reads.search(client, target.index, body)["hits"]["hits"]
    return next(((hit["_id"], hit["_version"]) for hit in hits if 2**32 < hit["_version"] < 2**50), None)


def _forecast(client: OpenSearch, route: Route, level: Level, encoder: Encoder) -> LevelPlan:
    source, meta = route.targets[level], route.metas[level]
    documents = indexes.doc_count(client, source.index)
    sample = _sample(client, source.index)
    now = _texts(spec_of(source.meta.identity, encoder.model.spec), level, sample)
    then = _texts(encoder.model.spec, level, sample)
    tokens = encoder.tokeniser.tokenise(then)
    carried = meta.identity == source.meta.identity
    seconds = 0.0
    if then and not carried:
        encoder.encode(witness_passages(encoder.model.spec))  # warm up
        began = time.perf_counter()
        vectors = encoder.embed(tokens)
        seconds = (time.perf_counter() - began) / len(then) * documents
        if not (np.isfinite(vectors).all() and vectors.any(axis=1).all()):
            raise ModelError(f"{meta.model} makes vectors that are zero or not finite.", "They cannot be searched.", "Use another model.")
    share = documents / max(len(then), 1)
    size = _store_bytes(client, source.index)
    growth = 4 * documents * (meta.identity.dimension - source.meta.identity.dimension)
    return LevelPlan(
        level=level,
        source=source.index,
        target=index_name(route.collection, level, meta.identity, route.generation),
        model_now=source.meta.model,
        model_then=meta.model,
        dimension_now=source.meta.identity.dimension,
        dimension_then=meta.identity.dimension,
        documents=documents,
        tokens=0 if carried else int(tokens.read * share),
        unseen_now=_unseen(now, source.meta.identity.max_length, encoder),
        unseen_then=_unseen(then, meta.identity.max_length, encoder),
        carried=carried,
        seconds=seconds,
        graph_mb=(_graph_mb(source.meta, documents), _graph_mb(meta, documents)),
        disk_mb=(round(size / 2**20, 1), round(max(0, size + growth) / 2**20, 1)),
    )


def _sample(client: OpenSearch, index: str) -> list[dict[str, Any]]:
    query = {"function_score": {"query": {"match_all": {}}, "random_score": {"seed": 7, "field": "_seq_no"}}}
    hits = reads.search(client, index, {"size": _SAMPLE, "query": query, "_source": {"excludes": ["embedding"]}})["hits"]["hits"]
    return [hit["_source"] for hit in hits]


def _texts(spec: ModelSpec, level: Level, sample: list[dict[str, Any]]) -> list[str]:
    return [text for text in (stored_passage(spec, level, fields) for fields in sample) if text]


def _unseen(texts: list[str], limit: int, encoder: Encoder) -> float:
    """Return the share of tokens beyond a window, counted with the new model's tokeniser."""
    counts = encoder.tokeniser.tokenise(texts).counts if texts else []
    return round(sum(max(0, count - limit) for count in counts) / max(1, sum(counts)), 4)


def _store_bytes(client: OpenSearch, index: str) -> int:
    return int(reads.stats(client, index, "store")["primaries"]["store"]["size_in_bytes"])


def _graph_mb(meta: IndexMeta, documents: int) -> float:
    return round(forecast_bytes(meta.identity.dimension, documents) / 2**20, 1)


def _space(client: OpenSearch, levels: list[LevelPlan]) -> Iterator[str]:
    """Compare the new indexes with what the fullest data node may still take below its low watermark."""
    needed = _SPACE_FACTOR * sum(plan.disk_mb[1] for plan in levels)
    room = sum(_room(node["fs"]["total"]) for node in reads.cluster_nodes(client, "fs").values())
    if needed > room:
        yield (
            f"The new indexes will not fit: they need about {needed:,.0f} MB on disk (1.2 times the forecast), and the nodes have "
            f"{max(room, 0):,.0f} MB below the low watermark (85 %). Free disk or add a node."
        )


def _room(total: Mapping[str, int]) -> float:
    return (total["available_in_bytes"] - 0.15 * total["total_in_bytes"]) / 2**20


def _memory(client: OpenSearch, route: Route, levels: list[LevelPlan]) -> Iterator[str]:
    """Compare both generations' faiss graphs with the k-NN circuit breaker; Lucene's live in the page cache."""
    if not any(meta.profile == "faiss" for meta in route.metas.values()):
        return
    answer = reads.plugin_answer(client, "/_plugins/_knn/stats")
    if answer is None:
        return
    stats = answers.nodes(answer).values()
    used = sum(node.get("graph_memory_usage", 0) for node in stats) / 1024
    share = sum(node.get("graph_memory_usage_percentage", 0.0) for node in stats) / max(1, len(stats))
    limit = used / (share / 100) if share else None  # of all nodes together: the mean share is that of the sum
    more = sum(plan.graph_mb[1] for plan in levels)
    if limit is not None and used + more > limit:
        yield (
            f"The new graphs will not fit: {more:,.0f} MB beside {used:,.0f} MB now, and the k-NN circuit breaker closes at {limit:,.0f} MB. "
            "Add memory, or raise knn.memory.circuit_breaker.limit."
        )


def _unseen_policies(client: OpenSearch, levels: list[LevelPlan]) -> Iterator[str]:
    for plan in levels:
        try:
            _ism_policy(client, plan.source)
        except AuthError as error:
            yield f"Whether an ISM policy manages {plan.source} could not be seen: {error.found} One may roll it over or delete it meanwhile."


def _warnings(levels: list[LevelPlan], route: Route) -> Iterator[str]:
    for plan in levels:
        if plan.level == "chunks" and plan.unseen_then > plan.unseen_now + 0.01:
            yield (
                f"{plan.model_then} would not see {plan.unseen_then:.0%} of the chunks' text ({plan.model_now}: {plan.unseen_now:.0%}): "
                "chunks are copied as they are cut. For chunks that fit it, ingest into a new collection."
            )
    if unjudged := foresee(route.targets, list(route.metas)):
        yield unjudged
    for level, model in route.models.items():
        if model.spec.assumed:
            yield f"{model.spec.name} ({level}) does not state its {', '.join(model.spec.assumed)}; osembed assumed the usual."


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
        yield f"PUT /{plan.target}/_settings  (refresh and replicas as in service)"
    yield "verification and gate: reads only"
    yield f"PUT /{sources}/_block/write  (at most 5 s, then lifted or swapped)"
    yield f"POST /_aliases  ({', '.join(alias_name(route.collection, plan.level) for plan in levels)}; conditional, all or nothing)"  # type: ignore[arg-type]
    yield f"later, by `osembed migrate finish`: removal of {sources}"
