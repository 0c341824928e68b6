"""The requested models, chunking, language and mapping of a collection, and the check against a stored one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from osembed.embed.encoders import Encoders
from osembed.errors import IdentityError, InputError
from osembed.limits import check_fields
from osembed.models.identity import identify
from osembed.models.registry import open_model
from osembed.models.spec import Model
from osembed.opensearch import reads
from osembed.opensearch.client import OpenSearch, Server
from osembed.opensearch.schema import IndexMeta
from osembed.opensearch.target import Targets
from osembed.papers.languages import analyzers_of, choose_analyzer, language_name, needs_plugins
from osembed.papers.levels import Level
from osembed.passages.chunk import ChunkRule


@dataclass(frozen=True)
class CollectionSpec:
    """What the caller asks of a collection. None means: as stored, or the default for a new one.

    Attributes:
        paper_model, chunk_model: a name that `osembed models` lists, a hub id or a folder.
        chunk_words: fixed windows of so many words; None for chunks that the model sees whole.
        chunk_overlap: words that neighbouring chunks share.
        max_chunks: most chunks of a paper.
        profile: how vectors are indexed: lucene, lucene-sq or faiss.
        language: that searches by words use, such as german or de; None takes that of the first papers.
        shards: primary shards.
        replicas: of each shard, once the collection is loaded.
    """

    paper_model: str | None = None
    chunk_model: str | None = None
    chunk_words: int | None = None
    chunk_overlap: int | None = None
    max_chunks: int | None = None
    profile: str | None = None
    language: str | None = None
    shards: int | None = None
    replicas: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        self.rule()
        if self.language is not None:
            object.__setattr__(self, "language", language_name(self.language))  # turns a code into the name

    def rule(self) -> ChunkRule:
        """Return the chunking rule of a new collection: windows that fit the model, or fixed windows if `chunk_words` is given."""
        default = ChunkRule()
        if self.chunk_words is None:
            return replace(
                default,
                overlap=default.overlap if self.chunk_overlap is None else self.chunk_overlap,
                max_chunks=self.max_chunks or default.max_chunks,
            )
        overlap = min(default.overlap, self.chunk_words // 10) if self.chunk_overlap is None else self.chunk_overlap
        return ChunkRule(self.chunk_words, overlap, self.max_chunks or 100, fit=False)


def check_spec(targets: Targets, spec: CollectionSpec) -> None:
    """Raise IdentityError or InputError if a spec contradicts the stored collection, naming the first difference."""
    for level, name in (("papers", spec.paper_model), ("chunks", spec.chunk_model)):
        meta = targets[level].meta  # type: ignore[index] # the two literals are the levels
        if name is None or name == meta.model:  # the same name needs no model files on this machine
            continue
        difference = meta.identity.difference(identify(open_model(name)))
        if difference:
            raise IdentityError(
                f"The {level} of '{meta.collection}' are embedded with {meta.model}; {name} differs in {difference}.",
                "Two models never share an index.",
                f"Leave out the model; to move the collection to it: osembed migrate --model {name}; to keep both: --collection NAME.",
            )
    meta = targets["chunks"].meta
    asked, stored = spec.rule(), meta.chunking
    wanted = (spec.chunk_words, spec.chunk_overlap, spec.max_chunks)
    have = (stored.words if not stored.fit else None, stored.overlap, stored.max_chunks)
    if any(mine is not None and mine != theirs for mine, theirs in zip(wanted, have, strict=True)):
        raise InputError(
            f"'{meta.collection}' has chunks of {_rule_text(stored)}, not of {_rule_text(asked)}.",
            "A collection has one chunking rule.",
            "Leave out the chunk options, or use another collection: --collection NAME.",
        )
    if spec.profile and spec.profile != meta.profile:
        raise InputError(f"'{meta.collection}' has the mapping profile {meta.profile}.", "", "Leave out --profile.")
    if spec.language and meta.analyzer not in analyzers_of(spec.language):
        raise InputError(
            f"The words of '{meta.collection}' are analysed as {meta.analyzer}, not as {spec.language}.",
            "A collection has one language; words analysed differently would not be found.",
            f"Leave out --language; to change it: osembed migrate --language {spec.language}; to keep both: --collection NAME.",
        )


def describe_index(collection: str, level: Level, model: Model, rule: ChunkRule, profile: str, encoders: Encoders) -> IndexMeta:
    """Return the metadata of a new index of generation 1."""
    encoder = encoders.load(model)
    provenance = {
        "model": model.spec.name,
        "path": str(model.folder),
        "backend": encoder.backend,
        "osembed": _version(),
    }
    if model.spec.assumed:  # recorded, so that a later doubt about the settings can be resolved
        provenance["assumed"] = ", ".join(model.spec.assumed)
    return IndexMeta(collection, level, 1, identify(model), rule, profile, provenance)


def analyzer_for(client: OpenSearch, language: str) -> str:
    """Return the best analyzer that the server offers for a language."""
    return choose_analyzer(language, reads.plugins(client) if needs_plugins(language) else frozenset())


def check_profile(server: Server, profile: str) -> None:
    """Raise InputError for a mapping profile that would crash the embedded node."""
    if profile == "faiss" and server.embedded:
        raise InputError(
            "The embedded node does not support the profile faiss.",
            "Its k-NN plugin has no native libraries: the first faiss vector would crash the node.",
            "Use --profile lucene here; for faiss use a server from the opensearchproject/opensearch image (docker-compose.yml).",
        )


def _rule_text(rule: ChunkRule) -> str:
    kind = "windows that fit the model" if rule.fit else f"windows of {rule.words} words"
    return f"{kind}, overlap {rule.overlap}, at most {rule.max_chunks} chunks"


def _version() -> str:
    from importlib.metadata import version

    return version("osembed")
