"""The route of a migration: which levels move, and to which model, profile or language."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from osembed.embed.encoders import Encoders, model_of
from osembed.errors import InputError
from osembed.ingest.spec import CollectionSpec, analyzer_for, check_profile, describe_index
from osembed.models.identity import identify
from osembed.models.registry import open_model
from osembed.models.spec import Model
from osembed.opensearch.client import OpenSearch, Server
from osembed.opensearch.coordination.migration_state import MigrationState
from osembed.opensearch.names import find_published
from osembed.opensearch.schema import IndexMeta
from osembed.opensearch.target import Targets
from osembed.papers.levels import Level


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
        level: papers or chunks.
        source, target: the index that is copied, and the new one.
        model_now, model_then: the model of each.
        dimension_now, dimension_then: of their vectors.
        documents: live documents of the source.
        tokens: tokens that the new model would read.
        unseen_now, unseen_then: share of the sampled texts' tokens beyond the old and the new model's window.
        carried: whether vectors are carried over, because only the mapping changes.
        seconds: time to embed, at the measured rate.
        graph_mb: memory of both generations' graphs.
        disk_mb: size of the source and estimated size of the target.
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
class MigrationPlan:
    """The whole forecast: levels, problems that stop the migration, and every kind of request it would send.

    Attributes:
        collection: its name.
        levels: a forecast for each level that moves.
        tokens_per_s: the measured rate of embedding.
        seconds: how long embedding will take.
        problems: what stops the migration; nothing is created then.
        warnings: what does not stop it.
        calls: each kind of request that it would send.
    """

    collection: str
    levels: list[LevelPlan]
    tokens_per_s: float
    seconds: float
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether nothing prevents the migration."""
        return not self.problems


def find_route(
    client: OpenSearch, server: Server, collection: str, spec: CollectionSpec, encoders: Encoders, before: MigrationState | None
) -> Route | None:
    """Return the route to what a spec asks for; None if the collection already is like that.

    Raises CollectionError or InputError, with a hint, if something prevents it.
    """
    targets = find_published(client, collection)
    names: dict[Level, str | None] = {"papers": spec.paper_model, "chunks": spec.chunk_model}
    if not any(names.values()) and spec.profile is None and spec.language is None:
        raise InputError("No model, profile or language was given.", "A migration needs a target.", "Like: osembed migrate --model MODEL")
    models: dict[Level, Model] = {}
    metas: dict[Level, IndexMeta] = {}
    generation = max(*(target.meta.generation for target in targets.values()), before.generation if before else 0) + 1
    for level, target in targets.items():
        meta, name = target.meta, names[level]
        profile = spec.profile or meta.profile
        analyzer = analyzer_for(client, spec.language) if spec.language else meta.analyzer
        model = open_model(name) if name else None
        if (model is None or identify(model) == meta.identity) and (profile, analyzer) == (meta.profile, meta.analyzer):
            continue
        check_profile(server, profile)
        models[level] = model or model_of(target.meta.stored_model)
        described = describe_index(collection, level, models[level], meta.chunking, profile, encoders)
        metas[level] = replace(described, analyzer=analyzer, generation=generation)
    return Route(collection, targets, models, metas, generation) if metas else None
