"""Open a collection for writing; create, fill and publish its first generation.

Any number of ingests can fill the first generation behind a staging alias; the last one to finish publishes it. Each loader has an entry with
a heartbeat in the journal. A killed loader stops beating, and a process that waits for it measures that on its own clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from osembed.embed.encoders import Encoders, witness_passages
from osembed.errors import DroppedError, IdentityError, OsembedError
from osembed.ingest.spec import CollectionSpec, analyzer_for, check_profile, check_spec, describe_index
from osembed.models.registry import DEFAULT_MODEL, open_model
from osembed.opensearch import changes, create, indexes, permissions, pipelines, schema
from osembed.opensearch.client import OpenSearch, Server
from osembed.opensearch.coordination.journal import Journal, State
from osembed.opensearch.coordination.registration import (
    DEAD_S,
    Registration,
    collection_key,
    dropped_error,
    enter_process,
    living_entries,
    watch_entries,
)
from osembed.opensearch.names import unpublished_load
from osembed.opensearch.patience import until_settled
from osembed.opensearch.schema import IndexMeta
from osembed.opensearch.target import Target, Targets
from osembed.papers.languages import ENGLISH, recognise_language
from osembed.papers.levels import Level

_OF_DROPS = ("drops", "dropped", "floor")  # keys that a drop leaves in the journal entry; `floor` is the first generation after it


@dataclass
class Opened:
    """A collection opened for writing, with this process's entry in the journal, which must be closed when done."""

    targets: Targets
    entry: Registration
    notices: tuple[str, ...] = ()


def open_collection(
    client: OpenSearch, server: Server, collection: str, spec: CollectionSpec, encoders: Encoders, sample: Sequence[str] = ()
) -> Opened:
    """Open a collection for writing; create it first if it does not exist.

    Args:
        client, server, encoders: the connection and the models.
        collection: its name.
        spec: what the caller asks for.
        sample: texts of the first papers; they decide the language of a new collection if the spec names none.

    Raises IdentityError or InputError if the spec contradicts the stored collection; nothing is created then.
    """
    schema.check_name(collection)
    first = indexes.resolve(client, collection)
    if first is None:
        return _open_first(client, server, collection, spec, encoders, sample)
    entry, _ = enter_process(client, collection, "writers")  # first register, then resolve again: a drop may have happened in between
    try:
        targets = indexes.resolve(client, collection)  # while this entry beats, nobody drops it
        if targets is not None:
            check_spec(targets, spec)
            return Opened(targets, entry, tuple(_mend(client, targets, first)))
    except BaseException:
        leave_quietly(entry)
        raise
    leave_quietly(entry)
    return _open_first(client, server, collection, spec, encoders, sample)


def leave_quietly(entry: Registration) -> None:
    """Remove the journal entry of a failed run. Errors are ignored: an entry that remains stops beating and counts as dead."""
    with suppress(OsembedError):
        entry.close()


def _mend(client: OpenSearch, targets: Targets, first: Targets) -> Iterator[str]:
    """Repair a published collection and yield a sentence for each repair. (Its `_meta` was restored when it was first read.)"""
    healed = {target.index for found in (first, targets) for target in found.values() if target.healed}
    yield from (f"_meta of {index} had been wiped; restored from the journal." for index in sorted(healed))
    pipeline = pipelines.ensure_pipeline(client)
    if pipeline == "created":
        yield f"The search pipeline {schema.PIPELINE} was missing; it was recreated."
    yield from pipelines.fit_pipelines(client, targets, pipeline)
    for target in targets.values():
        if target.refresh_interval == "-1":  # left by a killed loader; without refresh new documents never become searchable
            _serve(client, target)
            yield f"{target.index} had its refresh turned off; restored."


def finish_loading(client: OpenSearch, opened: Opened, report: Callable[[str], None] = lambda _: None) -> bool:
    """Close this process's entry; publish a first generation if no other process is loading it. Returns whether it is published.

    Raises DroppedError if the collection was dropped in the meantime.
    """
    entry, targets = opened.entry, opened.targets
    collection, others = targets["papers"].meta.collection, until_settled(entry.close)
    if entry.dropped:
        raise dropped_error(collection, {})
    if entry.kind == "writers":
        return True
    alive = until_settled(lambda: _wait_for_dead(client, collection, others), report=report) if others else False
    if alive:
        report("Another ingest is still loading this collection; the last one to finish publishes it.")
        return False
    for target in targets.values():
        until_settled(partial(_serve, client, target), report=report)
    until_settled(lambda: indexes.publish(client, targets), report=report)
    return True


def _open_first(
    client: OpenSearch, server: Server, collection: str, spec: CollectionSpec, encoders: Encoders, sample: Sequence[str]
) -> Opened:
    permissions.require(client, collection, "writer")
    asked: dict[Level, str] = {"papers": spec.paper_model or DEFAULT_MODEL, "chunks": spec.chunk_model or DEFAULT_MODEL}
    models = {level: open_model(name) for level, name in asked.items()}
    profile = spec.profile or "lucene"
    check_profile(server, profile)
    language = spec.language or recognise_language(sample)
    analyzer = analyzer_for(client, language)
    # Models, profile and language are checked before the plan is entered in the journal.
    metas = {
        level: replace(describe_index(collection, level, model, spec.rule(), profile, encoders), analyzer=analyzer)
        for level, model in models.items()
    }
    journal = Journal(client)
    is_there = bool(unpublished_load(client, collection))
    entry, state = enter_process(client, collection, "loaders", lambda before: _plan(_living(before, is_there), metas, asked))
    try:
        shape: dict[str, Any] = {"number_of_shards": spec.shards} if spec.shards else {}
        pipeline = pipelines.ensure_pipeline(client)
        if pipeline == "unsupported":
            shape["search.default_pipeline"] = None
        replicas = indexes.default_replicas(client, server) if spec.replicas is None else spec.replicas
        for meta in metas.values():
            _create(client, server, replace(meta, generation=int(state["generation"])), shape, entry)
        targets = indexes.resolve_indexes(client, state["indexes"])
        check_spec(targets, spec)
        pipelines.fit_pipelines(client, targets, pipeline)  # the load may have started on a server with other plugins
        for level, target in targets.items():  # use the index's own meta: another loader may have created it
            journal.remember_index(target.uuid, schema.write_meta(target.meta), schema.wanted_settings(profile, replicas))
            encoder = encoders.load(models[level])
            journal.remember_witness(target.meta.identity.hash, encoder.encode(witness_passages(encoder.model.spec)))
    except BaseException:
        leave_quietly(entry)
        raise
    said = f"The papers are {language.capitalize()}: their words are analysed as {analyzer}. (Another language: --language NAME.)"
    return Opened(targets, entry, (said,) if language != ENGLISH and not spec.language else ())


def _create(client: OpenSearch, server: Server, meta: IndexMeta, shape: Mapping[str, Any], entry: Registration) -> None:
    """Create an index of a first generation. If the collection was dropped during the creation, delete the index and raise DroppedError."""
    entry.check()
    name, created = create.create_index(client, server, meta, shape)
    try:
        entry.check(surely=created)
    except DroppedError:
        if created:
            changes.delete_index(client, name)
        raise


def _living(before: State, is_there: bool) -> State:
    """Return the plan of a first generation without dead loaders. Without indexes and loaders, only what drops left is kept."""
    loaders = living_entries(before, "loaders")
    return {**before, "loaders": loaders} if is_there or loaders else {key: before[key] for key in _OF_DROPS if key in before}


def _plan(before: State, metas: dict[Level, IndexMeta], asked: dict[Level, str]) -> State:
    """Return the plan of the first generation, joining an existing plan. Raises IdentityError if that has other models."""
    generation = int(before.get("generation", 0)) or int(before.get("floor", 1))
    names = {level: schema.index_name(meta.collection, level, meta.identity, generation) for level, meta in metas.items()}
    planned = before.get("indexes")
    if planned and planned != names:
        raise IdentityError(
            f"A first load of '{metas['papers'].collection}' with {before['models']['papers']} and "
            f"{before['models']['chunks']} is running or was interrupted.",
            "A collection has one pair of models.",
            f"Finish it with --paper-model {before['models']['papers']} --chunk-model {before['models']['chunks']}, "
            "or use another --collection.",
        )
    return {**before, "generation": generation, "indexes": names, "models": asked}


def _serve(client: OpenSearch, target: Target) -> None:
    """Set the index's production settings (refresh, replicas)."""
    indexes.put_in_service(client, target, _wanted(client, target))


def _wanted(client: OpenSearch, target: Target) -> dict[str, Any]:
    kept = Journal(client).recall_index(target.uuid)
    return dict(kept["wanted"]) if kept else schema.wanted_settings(target.meta.profile, 0)


def _wait_for_dead(client: OpenSearch, collection: str, others: dict[str, State]) -> bool:
    """Watch the other loaders' heartbeats until one beats (return True) or all have been silent for too long (return False).

    Entries of dead loaders are removed.
    """
    journal = Journal(client)
    alive, _ = watch_entries(lambda: (journal.read(collection_key(collection)) or {}).get("loaders", {}), DEAD_S, first=others)
    if alive:
        return True
    left: dict[str, State] = {}

    def strike(state: State) -> State:
        loaders = state.get("loaders", {})
        left.clear()
        left.update({t: entry for t, entry in loaders.items() if t not in others or entry["beat"] != others[t]["beat"]})
        return {**state, "loaders": dict(left)}

    journal.change(collection_key(collection), strike)
    return bool(left)
