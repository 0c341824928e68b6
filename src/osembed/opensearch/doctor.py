"""Check a server and a collection: version, plugins, permissions, pipeline, aliases, leftovers, memory, disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from osembed.errors import AuthError, OsembedError
from osembed.opensearch import changes, indexes, permissions, pipelines, reads, schema
from osembed.opensearch.client import OpenSearch, Server
from osembed.opensearch.leftovers import find_leftovers, other_collections
from osembed.opensearch.names import missing_collection
from osembed.opensearch.pipelines import Pipeline
from osembed.opensearch.target import Targets

Severity = Literal["ok", "warning", "problem", "mended"]
_NEEDED = ("opensearch-knn", reads.NEURAL_SEARCH)
_HARMFUL = ("write block", "foreign index", "interrupted drop")
_AT_WORK_S = 60  # a scratch index younger than this may be in use
_LINKS = 16  # HNSW m of every profile


@dataclass(frozen=True)
class Finding:
    """What doctor found of one thing.

    Attributes:
        name: what was looked at.
        verdict: how it is; "mended" is what doctor has put right itself.
        found: what was found.
        advice: what to do, often a command; "" for nothing.
    """

    name: str
    verdict: Severity
    found: str
    advice: str = ""


def examine_server(client: OpenSearch, server: Server, collection: str) -> list[Finding]:
    """Run all checks and return the findings.

    Recreates the search pipeline, repairs the indexes' default pipeline and deletes old scratch indexes; changes nothing else. Something that
    this user may not see is reported as a warning, never as missing.
    """
    pipeline, finding = _pipeline(client)  # first, because the checks of the collection depend on it
    found = [*_collection(client, collection, pipeline), *_leftovers(client, collection)]
    return [*_server(client, server), *_permissions(client, collection), finding, *found, *_resources(client)]


def forecast_bytes(dimension: int, vectors: int) -> int:
    """Return the bytes of memory of an HNSW graph with float vectors: 1.1 · (4d + 8m) per vector (OpenSearch documentation)."""
    return int(1.1 * (4 * dimension + 8 * _LINKS) * vectors)


def _server(client: OpenSearch, server: Server) -> Iterator[Finding]:
    kind = "embedded node" if server.embedded else "server"
    yield Finding("server", "ok", f"OpenSearch {server.version_text}, {kind}, {server.url}")
    try:
        found = reads.plugins(client)
    except AuthError as error:
        yield _unseen("plugins", error)
        return
    missing = [name for name in _NEEDED if name not in found]
    if "opensearch-knn" in missing:
        yield Finding(
            "plugins",
            "problem",
            "opensearch-knn is missing",
            "Without it the server cannot store vectors. Install the k-NN plugin.",
        )
    elif missing:
        yield Finding(
            "plugins",
            "warning",
            "opensearch-neural-search is missing",
            "Hybrid search is fused on the client; other programs cannot send hybrid queries.",
        )
    else:
        yield Finding("plugins", "ok", ", ".join(_NEEDED))
    if server.version < reads.OLDEST_HYBRID:
        yield Finding(
            "hybrid query",
            "warning",
            f"{server.version_text} drops top documents of hybrid queries (fixed in 3.5)",
            "osembed fuses on the client instead, with the same formula. Upgrade before other programs send hybrid queries.",
        )


def _unseen(name: str, error: AuthError) -> Finding:
    return Finding(name, "warning", f"not visible: {error.found}", "Its state is unknown; run doctor as a user with this permission.")


def _permissions(client: OpenSearch, collection: str) -> Iterator[Finding]:
    """Yield for each role whether this user has its permissions; missing ones are given as YAML to paste into a role."""
    try:
        if not permissions.is_secured(client):
            yield Finding("permissions", "ok", "this server has no users: everything is allowed")
            return
        lacks = permissions.find_lacks(client, collection, list(permissions.ROLES))
    except OsembedError as error:
        yield Finding("permissions", "warning", f"not visible: {error.found}", error.hint)
        return
    for role, lack in lacks.items():
        open_ = f"; could not be checked: {', '.join(action for _, action in lack.unknown)}" if lack.unknown else ""
        if lack:
            found = f"this user lacks {len(lack.missing)} of the permissions that a {role} of '{collection}' needs{open_}"
            yield Finding(role, "problem" if role == "reader" else "warning", found, lack.yaml)
        else:
            yield Finding(role, "ok", f"this user has the permissions of a {role} of '{collection}'{open_}")
    yield from _scratch(client, collection)


def _scratch(client: OpenSearch, collection: str) -> Iterator[Finding]:
    try:
        left = permissions.left_behind(client, collection)
        for name, age in left.items():
            if age > _AT_WORK_S:
                changes.delete_index(client, name)
                yield Finding("scratch index", "mended", f"{name}, left behind by a killed process, was deleted")
    except AuthError as error:
        yield _unseen("scratch index", error)


def _pipeline(client: OpenSearch) -> tuple[Pipeline | None, Finding]:
    """Create the search pipeline if needed. Returns its state (None if it could not be determined) and the finding."""
    name = "search pipeline"
    try:
        found = pipelines.ensure_pipeline(client)
    except AuthError as error:
        return None, _unseen(name, error)
    except OsembedError as error:
        return None, Finding(name, "problem", error.found, "Run doctor as a user who may create search pipelines.")
    if found == "created":
        return found, Finding(name, "mended", f"{schema.PIPELINE} was missing, so every search by other programs would fail; recreated")
    if found == "unsupported":
        advice = "Indexes have no default pipeline here; `osembed doctor` sets it when the neural-search plugin is installed."
        return found, Finding(name, "warning", "this server cannot normalise hybrid queries", advice)
    return found, Finding(name, "ok", schema.PIPELINE)


def _default_pipelines(client: OpenSearch, targets: Targets, found: Pipeline) -> Iterator[Finding]:
    """Repair the indexes' default pipeline: without it, searches by other programs fail."""
    try:
        for notice in pipelines.fit_pipelines(client, targets, found):
            failed = " Until now every search by other programs failed with 400." if found == "unsupported" else ""
            yield Finding("default pipeline", "mended", notice + failed)
    except OsembedError as error:
        yield Finding("default pipeline", "problem", error.found, "Run doctor as a user who may change the collection's settings.")
    for target in targets.values():
        chosen = target.default_pipeline
        if chosen not in ("", "_none", schema.PIPELINE) and reads.pipeline(client, chosen) is None:
            yield Finding(
                "default pipeline",
                "problem",
                f"{target.index} names the search pipeline {chosen}, which does not exist: every search by other programs fails",
                f'Create it, or PUT {target.index}/_settings {{"index.search.default_pipeline": null}}, then run doctor again.',
            )


def _collection(client: OpenSearch, collection: str, pipeline: Pipeline | None) -> Iterator[Finding]:
    try:
        targets = indexes.resolve(client, collection)
    except OsembedError as error:
        yield Finding("collection", "problem", error.found, f"{error.why} {error.hint}".strip())
        return
    if targets is None:
        absent = missing_collection(client, collection)
        yield Finding("collection", "warning", absent.found.rstrip("."), absent.hint)
        return
    try:
        if pipeline:
            yield from _default_pipelines(client, targets, pipeline)
        yield from _indexes(client, targets)
    except AuthError as error:
        yield _unseen("documents", error)


def _indexes(client: OpenSearch, targets: Targets) -> Iterator[Finding]:
    for level, target in targets.items():
        count = indexes.doc_count(client, target.index)
        memory = forecast_bytes(target.meta.identity.dimension, count) / 2**20
        verdict: Severity = "mended" if target.healed else "ok"
        note = "; its wiped _meta was restored" if target.healed else ""
        found = f"{target.index}: {count:,} documents, {target.meta.model}, graph about {memory:,.0f} MB{note}"
        yield Finding(level, verdict, found)
        if target.refresh_interval == "-1":
            yield Finding(
                level,
                "problem",
                f"{target.index} never refreshes",
                "Run any `osembed ingest` on it: it restores the settings.",
            )


def _leftovers(client: OpenSearch, collection: str) -> Iterator[Finding]:
    """Yield what interrupted work left behind, each with the command that removes it."""
    try:
        found = find_leftovers(client, collection)
        elsewhere = other_collections(client, collection)
    except OsembedError as error:
        yield Finding("leftovers", "warning", f"not visible: {error.found}", error.hint)
        return
    for one in found:
        yield Finding(one.kind, "problem" if one.kind in _HARMFUL else "warning", one.found, one.command)
    for name, count in sorted(elsewhere.items()):
        text = f"{count} unpublished indexes of '{name}' (loading or left over)"
        yield Finding("leftovers", "warning", text, f"osembed doctor --collection {name}")
    if not found and not elsewhere:
        yield Finding("leftovers", "ok", "none")


def _resources(client: OpenSearch) -> Iterator[Finding]:
    try:
        nodes = reads.cluster_nodes(client, "fs,jvm")
    except AuthError as error:
        yield _unseen("disk and heap", error)
        nodes = {}
    for node in nodes.values():
        total = node["fs"]["total"]
        free, share = total["available_in_bytes"] / 2**30, total["available_in_bytes"] / total["total_in_bytes"]
        verdict: Severity = "warning" if free < 2 or share < 0.05 else "ok"
        yield Finding(
            "disk",
            verdict,
            f"{node['name']}: {free:,.1f} GB free",
            "" if verdict == "ok" else "Writes stop when it is full.",
        )
        heap = node["jvm"]["mem"]["heap_used_percent"]
        yield Finding("heap", "warning" if heap > 85 else "ok", f"{node['name']}: {heap} % used")
    yield from _breaker(client)


def _breaker(client: OpenSearch) -> Iterator[Finding]:
    try:
        stats = reads.plugin_answer(client, "/_plugins/_knn/stats/circuit_breaker_triggered")
    except AuthError as error:
        yield _unseen("k-NN memory", error)
        return
    if stats is None:
        return
    if stats.get("circuit_breaker_triggered"):
        yield Finding(
            "k-NN memory",
            "problem",
            "the circuit breaker has triggered",
            "Give the nodes more memory, or store fewer vectors.",
        )
    else:
        yield Finding("k-NN memory", "ok", "circuit breaker closed")
