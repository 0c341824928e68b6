"""Several collections as one search target: one request searches all of them, and the keys of hits name their collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from osembed.errors import IdentityError, InputError
from osembed.opensearch.target import Target, Targets
from osembed.papers.levels import LEVELS


@dataclass(frozen=True)
class Joint(Target):
    """The indexes of several collections on one level. Keys are `collection/id`, because collection names contain no slash.

    `meta` is that of the first collection; `meta_types` has the fields of all.
    """

    parts: tuple[Target, ...] = ()

    @property
    def members(self) -> tuple[Target, ...]:
        """The single indexes."""
        return self.parts

    def key(self, index: str, document: str) -> str:
        """Return the key of a hit, which is unique across all collections."""
        return f"{self._named[index].meta.collection}/{document}"

    def owner(self, key: str) -> tuple[Target, str]:
        """Return the index that holds a hit, and the hit's id in it."""
        collection, _, document = key.partition("/")
        return next(part for part in self.parts if part.meta.collection == collection), document

    @property
    def _named(self) -> dict[str, Target]:
        return {part.index: part for part in self.parts}


def join(collections: Sequence[Targets]) -> Targets:
    """Return the targets of several collections as one."""
    return {level: _join([targets[level] for targets in collections]) for level in LEVELS}


def require_one_space(target: Target) -> None:
    """Raise IdentityError with the first difference if the indexes have different models, which rules out vector search."""
    first, *others = target.members
    for other in others:
        difference = first.meta.identity.difference(other.meta.identity)
        if difference:
            raise IdentityError(
                f"'{first.meta.collection}' and '{other.meta.collection}' differ in {difference}.",
                "Vectors of two models cannot be compared.",
                "Search them one by one, or by words: --mode lexical.",
            )


def require_one_type(target: Target, fields: Sequence[str]) -> tuple[str, ...]:
    """Raise InputError if a field has different types in different collections. Returns a notice for each collection that lacks it."""
    lacking = []
    for field in fields:
        types = {member.meta.collection: member.meta_types[field] for member in target.members if field in member.meta_types}
        kinds = dict.fromkeys(types.values())
        if len(kinds) > 1:
            first, second = (next(name for name in types if types[name] == kind) for kind in list(kinds)[:2])
            raise InputError(
                f"'{field}' is {types[first]} in '{first}' and {types[second]} in '{second}'.",
                "One filter, sort or facet cannot use both types.",
                "Search them one by one.",
            )
        lacking += [f"No paper of '{name}' has a field '{field}'." for name in _names(target) if types and name not in types]
    return tuple(lacking)


def _names(target: Target) -> list[str]:
    return [member.meta.collection for member in target.members]


def _join(parts: Sequence[Target]) -> Joint:
    types: dict[str, str] = {}
    for part in parts:
        types = {**part.meta_types, **types}
    joint = Joint(",".join(part.index for part in parts), "", parts[0].meta, types, parts=tuple(parts))
    return replace(joint, shards=sum(part.shards for part in parts))
