"""Open a collection for writing; create, fill and publish its first generation.

The first generation is filled behind a staging alias by any number of ingests and published by whichever ends last. Who is loading stands in
the journal with a heartbeat. A loader that was killed stops beating; whoever waits for it sees that on a clock of its own.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from osembed import index as indexes
from osembed import schema
from osembed.client import OpenSearch, Server
from osembed.encoders import Encoders, witness_passages
from osembed.errors import IdentityError, InputError
from osembed.identity import identify
from osembed.index import Targets
from osembed.journal import Journal, State
from osembed.model_files import Model
from osembed.models import DEFAULT_MODEL, open_model
from osembed.opensearch import permissions
from osembed.presence import Heart, is_surely_dead, register
from osembed.schema import ChunkRule, IndexMeta, Level

_DEAD_S = 12.0


@dataclass(frozen=True)
class Wish:
    """What the caller asks of a collection. None means: as stored, or the default for a new one."""

    paper_model: str | None = None
    chunk_model: str | None = None
    chunk_words: int | None = None
    chunk_overlap: int | None = None
    max_chunks: int | None = None
    profile: str | None = None
    shards: int | None = None
    replicas: int | None = None

    def __post_init__(self) -> None:
        if (self.chunk_words or 1) < 1 or (self.max_chunks or 1) < 1 or (self.chunk_overlap or 0) < 0:
            raise InputError("Chunk sizes count words.", "", "Give numbers of at least 1 (0 for the overlap).")
        if (self.chunk_overlap or 0) >= (self.chunk_words or ChunkRule.words):
            raise InputError(
                f"An overlap of {self.chunk_overlap} words leaves windows of {self.chunk_words or ChunkRule.words} no step.",
                "Cutting would never end.",
                "Give an overlap smaller than the window.",
            )
        if self.profile and self.profile not in schema.PROFILES:
            raise InputError(f"There is no mapping profile '{self.profile}'.", "", f"Use {' or '.join(schema.PROFILES)}.")

    def rule(self) -> ChunkRule:
        """Return the chunking rule of a new collection: windows that the model sees whole, or fixed ones where words are given."""
        default = ChunkRule()
        if self.chunk_words is None:
            return replace(
                default,
                overlap=default.overlap if self.chunk_overlap is None else self.chunk_overlap,
                max_chunks=self.max_chunks or default.max_chunks,
            )
        overlap = min(default.overlap, self.chunk_words // 10) if self.chunk_overlap is None else self.chunk_overlap
        return ChunkRule(self.chunk_words, overlap, self.max_chunks or 100, fit=False)


@dataclass
class Opened:
    """A collection that can be written to. `loading` is set while its first generation is not published."""

    targets: Targets
    loading: Loading | None = None
    notices: tuple[str, ...] = ()


class Loading:
    """This process's entry among the loaders of an unpublished generation; beats until it is closed."""

    def __init__(self, client: OpenSearch, collection: str, token: str) -> None:
        self._collection, self.token = collection, token
        self._journal = Journal(client)
        self._heart = Heart(lambda: bool(self._journal.change(_key(collection), self._stamp)))

    def close(self) -> dict[str, State]:
        """Strike out this loader; return the others that are still entered."""
        self._heart.close()
        left: dict[str, State] = {}

        def strike(state: State) -> State:
            left.clear()
            left.update({token: entry for token, entry in state.get("loaders", {}).items() if token != self.token})
            return {**state, "loaders": dict(left)}

        self._journal.change(_key(self._collection), strike)
        return left

    def _stamp(self, state: State) -> State | None:
        entry = state.get("loaders", {}).get(self.token)
        if entry is None:
            return None
        return {**state, "loaders": {**state["loaders"], self.token: {**entry, "beat": entry["beat"] + 1}}}


def open_collection(client: OpenSearch, server: Server, collection: str, wish: Wish, encoders: Encoders) -> Opened:
    """Open a collection for writing, creating it first where it does not exist.

    Raises IdentityError or InputError where the wish contradicts what is stored; nothing is created then.
    """
    schema.check_name(collection)
    targets = indexes.resolve(client, collection)
    if targets is None:
        return _open_first(client, server, collection, wish, encoders)
    check_wish(targets, wish)
    notices = [f"_meta of {target.index} had been wiped; restored from the journal." for target in targets.values() if target.healed]
    if indexes.ensure_pipeline(client) == "created":
        notices.append(f"The search pipeline {schema.PIPELINE} was missing; created again.")
    for target in targets.values():
        if target.refresh_interval == "-1":  # a loader that is gone left it: nothing would ever become visible
            indexes.put_in_service(client, target, _wanted(client, target))
            notices.append(f"{target.index} was left without refresh; restored.")
    return Opened(targets, None, tuple(notices))


def check_wish(targets: Targets, wish: Wish) -> None:
    """Refuse a wish that contradicts the stored collection, naming the first difference."""
    for level, name in (("papers", wish.paper_model), ("chunks", wish.chunk_model)):
        meta = targets[level].meta  # type: ignore[index] # the two literals are the levels
        if name is None or name == meta.model:
            continue
        difference = meta.identity.difference(identify(open_model(name)))
        if difference:
            raise IdentityError(
                f"The {level} of '{meta.collection}' are embedded with {meta.model}; {name} differs in {difference}.",
                "Two models never share an index.",
                f"Leave the model out; to move the collection to it: osembed migrate --model {name}; to keep both: --collection NAME.",
            )
    meta = targets["chunks"].meta
    asked, stored = wish.rule(), meta.chunking
    wanted = (wish.chunk_words, wish.chunk_overlap, wish.max_chunks)
    have = (stored.words if not stored.fit else None, stored.overlap, stored.max_chunks)
    if any(mine is not None and mine != theirs for mine, theirs in zip(wanted, have, strict=True)):
        raise InputError(
            f"'{meta.collection}' is cut by {_rule_text(stored)}, not by {_rule_text(asked)}.",
            "One collection has one rule.",
            "Leave the chunk options out, or fill another collection: --collection NAME.",
        )
    if wish.profile and wish.profile != meta.profile:
        raise InputError(f"'{meta.collection}' has the mapping profile {meta.profile}.", "", "Leave --profile out.")


def finish_loading(client: OpenSearch, opened: Opened, report: Callable[[str], None] = lambda _: None) -> bool:
    """End this process's part in loading a first generation; publish it when nobody else loads. Return whether it is published."""
    loading, targets = opened.loading, opened.targets
    if loading is None:
        return True
    others = loading.close()
    if others and _wait_for_dead(client, targets["papers"].meta.collection, others):
        report("Another ingest is still loading this collection; whichever ends last publishes it.")
        return False
    for target in targets.values():
        indexes.put_in_service(client, target, _wanted(client, target))
    indexes.publish(client, targets)
    return True


def unpublished(client: OpenSearch, collection: str) -> State | None:
    """Return the journal's plan of a first generation whose indexes are there but not published, or None."""
    state = Journal(client).read(_key(collection))
    return state if state and indexes.exist(client, state.get("indexes", {}).values()) else None


def _open_first(client: OpenSearch, server: Server, collection: str, wish: Wish, encoders: Encoders) -> Opened:
    permissions.require(client, collection, "writer")
    asked: dict[Level, str] = {"papers": wish.paper_model or DEFAULT_MODEL, "chunks": wish.chunk_model or DEFAULT_MODEL}
    models = {level: open_model(name) for level, name in asked.items()}
    profile = wish.profile or "lucene"
    check_profile(server, profile)
    metas = {level: describe(collection, level, model, wish.rule(), profile, encoders) for level, model in models.items()}
    journal = Journal(client)
    journal.ensure()
    token, plan = secrets.token_hex(8), unpublished(client, collection)
    state = journal.change(_key(collection), lambda before: _enter(_living(before, bool(plan)), metas, asked, token))
    loading = Loading(client, collection, token)
    try:
        shape: dict[str, Any] = {"number_of_shards": wish.shards} if wish.shards else {}
        if indexes.ensure_pipeline(client) == "unsupported":
            shape["search.default_pipeline"] = None
        replicas = indexes.default_replicas(client, server) if wish.replicas is None else wish.replicas
        for meta in metas.values():
            planned = replace(meta, generation=int(state["generation"]))
            indexes.create_index(client, server, planned, shape)
        targets = indexes.resolve_indexes(client, state["indexes"])
        check_wish(targets, wish)
        for level, target in targets.items():  # what stands in the index, which another loader may have made
            journal.remember_index(target.uuid, schema.write_meta(target.meta), schema.wanted_settings(profile, replicas))
            encoder = encoders.load(models[level])
            journal.remember_witness(target.meta.identity.hash, encoder.encode(witness_passages(encoder.model.spec)))
    except BaseException:
        loading.close()
        raise
    return Opened(targets, loading)


def _living(before: State, is_there: bool) -> State:
    """Return the plan of a first generation without its dead loaders; {} where neither an index nor a loader is left of it."""
    loaders = {token: entry for token, entry in before.get("loaders", {}).items() if not is_surely_dead(entry)}
    return {**before, "loaders": loaders} if is_there or loaders else {}


def _enter(before: State, metas: dict[Level, IndexMeta], asked: dict[Level, str], token: str) -> State:
    """Plan the first generation, or join the one that is planned, and enter this loader."""
    generation = int(before.get("generation", 0)) or 1
    names = {level: schema.index_name(meta.collection, level, meta.identity, generation) for level, meta in metas.items()}
    planned = before.get("indexes")
    if planned and planned != names:
        raise IdentityError(
            f"A first load of '{metas['papers'].collection}' with {before['models']['papers']} and "
            f"{before['models']['chunks']} is under way or was interrupted.",
            "One collection has one pair of models.",
            f"Finish it with --paper-model {before['models']['papers']} --chunk-model {before['models']['chunks']}, "
            "or use another --collection.",
        )
    return {
        **before,
        "generation": generation,
        "indexes": names,
        "models": asked,
        "loaders": {**before.get("loaders", {}), token: register()},
    }


def describe(collection: str, level: Level, model: Model, rule: ChunkRule, profile: str, encoders: Encoders) -> IndexMeta:
    """Return what a new index of generation 1 would say of itself."""
    encoder = encoders.load(model)
    provenance = {
        "model": model.spec.name,
        "path": str(model.folder),
        "backend": encoder.backend,
        "osembed": _version(),
    }
    if model.spec.assumed:
        provenance["assumed"] = ", ".join(model.spec.assumed)
    return IndexMeta(collection, level, 1, identify(model), rule, profile, provenance)


def check_profile(server: Server, profile: str) -> None:
    """Refuse a mapping profile that would end the embedded node."""
    if profile == "faiss" and server.embedded:
        raise InputError(
            "The profile faiss was asked of the embedded node.",
            "Its k-NN plugin carries no native libraries: the first faiss vector would end the node.",
            "Use --profile lucene here, or a server of the opensearchproject/opensearch image (docker-compose.yml) for faiss.",
        )


def _wanted(client: OpenSearch, target: indexes.Target) -> dict[str, Any]:
    kept = Journal(client).recall_index(target.uuid)
    return dict(kept["wanted"]) if kept else schema.wanted_settings(target.meta.profile, 0)


def _wait_for_dead(client: OpenSearch, collection: str, others: dict[str, State]) -> bool:
    """Watch the other loaders' hearts until one is seen to beat (True: alive) or all have been still for too long (False).

    The dead are struck out.
    """
    journal, since = Journal(client), time.monotonic()
    left = {token: entry for token, entry in others.items() if not is_surely_dead(entry)}
    while left and time.monotonic() - since < _DEAD_S:
        time.sleep(0.5)
        now = (journal.read(_key(collection)) or {}).get("loaders", {})
        if any(token not in others or entry["beat"] != others[token]["beat"] for token, entry in now.items()):
            return True
        left = {token: entry for token, entry in left.items() if token in now and not is_surely_dead(entry)}
    alive = False

    def strike(state: State) -> State:
        nonlocal alive
        loaders = state.get("loaders", {})
        remaining = {t: entry for t, entry in loaders.items() if t not in others or entry["beat"] != others[t]["beat"]}
        alive = bool(remaining)
        return {**state, "loaders": remaining}

    journal.change(_key(collection), strike)
    return alive


def _rule_text(rule: ChunkRule) -> str:
    kind = "windows that fit the model" if rule.fit else f"windows of {rule.words} words"
    return f"{kind}, overlap {rule.overlap}, at most {rule.max_chunks} chunks"


def _key(collection: str) -> str:
    return f"collection:{collection}"


def _version() -> str:
    from importlib.metadata import version

    return version("osembed")
