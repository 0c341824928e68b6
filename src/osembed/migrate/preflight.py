"""Problems that prevent a migration, and warnings before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from osembed.errors import AuthError
from osembed.migrate.proof.gate import foresee_gate
from osembed.migrate.route import LevelPlan, Route
from osembed.opensearch import reads
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.schema import alias_name
from osembed.opensearch.target import Target
from osembed.papers.levels import Level


def preflight(client: OpenSearch, route: Route) -> list[str]:
    """Return the problems that prevent the migration, each with the command that fixes it; [] for none."""
    return [problem for level in route.metas for problem in _problems(client, route.targets[level], level)]


def _problems(client: OpenSearch, target: Target, level: Level) -> Iterator[str]:
    found = reads.description(client, target.index)
    alias, settings = alias_name(target.meta.collection, level), found["settings"]
    own = found["aliases"].get(alias, {})
    if own.get("filter") or own.get("index_routing") or own.get("search_routing"):
        yield (
            f"The alias '{alias}' has a filter or routing, but osembed searches the index directly and ignores them. Make it plain: "
            f'POST _aliases {{"actions": [{{"add": {{"index": "{target.index}", "alias": "{alias}", "is_write_index": true}}}}]}}'
        )
    if str(settings.get("index.blocks.write", "")).lower() == "true" or str(settings.get("index.blocks.read_only", "")).lower() == "true":
        yield (
            f"{target.index} has a write block that osembed did not set. Lift it: "
            f'PUT {target.index}/_settings {{"index.blocks.write": null, "index.blocks.read_only": null}}'
        )
    if settings.get("index.final_pipeline", "_none") != "_none":
        yield (
            f"{target.index} has the final pipeline {settings['index.final_pipeline']}, which would run again on every copied document. "
            f'Detach it: PUT {target.index}/_settings {{"index.final_pipeline": null}}'
        )
    if found["mappings"].get("_source", {}).get("enabled") is False:
        yield f"{target.index} does not store _source, so there is nothing to copy. Ingest into another collection instead."
    policy = ""
    with suppress(AuthError):  # `unseen_policies` warns about it
        policy = _ism_policy(client, target.index)
    if policy:
        yield (
            f"{target.index} is managed by the ISM policy '{policy}', which may roll it over or delete it during the migration. "
            f"Detach it: POST _plugins/_ism/remove/{target.index}"
        )
    foreign = _foreign_version(client, target)
    if foreign:
        yield (
            f"'{foreign[0]}' in {target.index} has the version {foreign[1]}: some writer sets its own versions. After a swap all its "
            "writes would be conflicts. Let it use plain writes or if_seq_no, and write these documents once without a version."
        )


def _ism_policy(client: OpenSearch, index: str) -> str:
    """Return the ISM policy that manages an index; "" for none. Raises AuthError if this user may not see it."""
    said = (reads.plugin_answer(client, f"/_plugins/_ism/explain/{index}") or {}).get(index, {})
    return str(said.get("policy_id") or said.get("index.plugins.index_state_management.policy_id") or "")


def _foreign_version(client: OpenSearch, target: Target) -> tuple[str, int] | None:
    """Return (id, version) of a document with an external version, from a sample; the copy checks every document."""
    body = {"size": 1000, "version": True, "_source": False, "query": {"match_all": {}}}
    hits = reads.search(client, target.index, body)["hits"]["hits"]
    return next(((hit["_id"], hit["_version"]) for hit in hits if 2**32 < hit["_version"] < 2**50), None)


def unseen_policies(client: OpenSearch, levels: list[LevelPlan]) -> Iterator[str]:
    """Yield a warning for each index whose ISM policy this user may not see."""
    for plan in levels:
        try:
            _ism_policy(client, plan.source)
        except AuthError as error:
            yield f"Could not check whether an ISM policy manages {plan.source}, which may roll it over or delete it: {error.found}"


def find_warnings(levels: list[LevelPlan], route: Route) -> Iterator[str]:
    """Yield warnings: things to know before a migration that do not prevent it."""
    for plan in levels:
        if plan.level == "chunks" and plan.unseen_then > plan.unseen_now + 0.01:
            yield (
                f"{plan.model_then} would not see {plan.unseen_then:.0%} of the chunks' text ({plan.model_now}: {plan.unseen_now:.0%}): "
                "a migration does not cut chunks again. For chunks that fit the new model, ingest into a new collection."
            )
    if unjudged := foresee_gate(route.targets, list(route.metas)):
        yield unjudged
    for level, model in route.models.items():
        if model.spec.assumed:
            yield f"{model.spec.name} ({level}) does not state its {', '.join(model.spec.assumed)}; osembed assumes the usual values."
