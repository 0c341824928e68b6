"""The permissions that each role needs, and which of them a user has. They are tested by requests that change nothing.

An action on an index is tested on a name that does not exist: if it is allowed, the server answers that there is no such index. The server
checks actions on shards only on a real shard, so they are tested on a scratch index that matches the collection's pattern. It is deleted
afterwards; one left behind by a killed process is recognised by its name.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import WeakKeyDictionary

from osembed.errors import AuthError, ClusterError
from osembed.opensearch import changes, reads
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.schema import JOURNAL, PIPELINE

Role = Literal["reader", "writer", "migrator"]
Scope = Literal["cluster", "data", "scratch", "journal"]
Grant = tuple[Scope, str]
Needs = dict[Scope, tuple[str, ...]]
ROLES: tuple[Role, ...] = ("reader", "writer", "migrator")
SCOPES: tuple[Scope, ...] = ("cluster", "data", "scratch", "journal")

_CREATE, _DELETE = "indices:admin/create", "indices:admin/delete"
_PUT_PIPELINE = "cluster:admin/search/pipeline/put"
_BULK, _MGET = "indices:data/write/bulk", "indices:data/read/mget"
_CONTENT = ("indices:data/write/index", "indices:data/write/bulk[s]")
_READ: Needs = {
    "cluster": ("cluster:monitor/main", "cluster:monitor/nodes/info", "indices:data/read/msearch", _MGET),
    "data": ("indices:admin/get", "indices:data/read/search", f"{_MGET}[shard]"),
    "journal": ("indices:data/read/get",),
}
_WRITE: Needs = {
    "cluster": ("cluster:monitor/health", "cluster:monitor/state", "cluster:admin/search/pipeline/get", _BULK),
    "data": (
        _CREATE,
        "indices:admin/aliases",
        "indices:admin/mapping/put",
        "indices:admin/refresh",
        "indices:admin/refresh[s]",
        "indices:admin/settings/update",
        "indices:monitor/stats",
        "indices:data/write/delete",
        *_CONTENT,
    ),
    "journal": ("indices:admin/get", *_CONTENT),
}
_FIRST: Needs = {
    "cluster": (_PUT_PIPELINE,),
    "scratch": (_DELETE,),
    "journal": (_CREATE,),
}
_MOVE: Needs = {
    "cluster": ("cluster:monitor/nodes/stats",),
    "data": ("indices:admin/mappings/get", "indices:admin/block/add", "indices:admin/block/add[s]", _DELETE),
    "journal": ("indices:data/write/delete",),
}


def _joined(*parts: Needs) -> Needs:
    return {scope: tuple(dict.fromkeys(action for part in parts for action in part.get(scope, ()))) for scope in SCOPES}


# The only table of permissions: documentation, tests and checks are derived from it.
NEEDS: dict[Role, Needs] = {
    "reader": _joined(_READ),
    "writer": _joined(_READ, _WRITE, _FIRST),
    "migrator": _joined(_READ, _WRITE, _MOVE),
}

_NOBODY = "osembed-scratch"  # a document id and pipeline name that does not exist
_NEVER = "if_seq_no=9000000000000000&if_primary_term=1"  # a condition that no document meets
_WRONG = {"settings": {"index.osembed_scratch": 1}}  # an unknown setting: the server checks permissions before it refuses it
Ask = tuple[str, str, Any]
_CLUSTER_ASKS: dict[str, Ask] = {
    "cluster:monitor/main": ("GET", "/", None),
    "cluster:monitor/nodes/info": ("GET", "/_nodes/_local/http?filter_path=_nodes", None),
    "cluster:monitor/nodes/stats": ("GET", "/_nodes/_local/stats/fs?filter_path=_nodes", None),
    "cluster:monitor/health": ("GET", "/_cluster/health?filter_path=status", None),
    "cluster:monitor/state": ("GET", "/_cluster/state/version", None),
    "cluster:admin/search/pipeline/get": ("GET", f"/_search/pipeline/{_NOBODY}", None),
    _PUT_PIPELINE: ("PUT", f"/_search/pipeline/{_NOBODY}", {"request_processors": [{_NOBODY: {}}]}),
    "indices:data/read/msearch": ("POST", "/_msearch", '{"index": "%s"}\n{"size": 0}\n'),
    _MGET: ("POST", "/_mget", {"docs": [{"_index": "%s", "_id": _NOBODY}]}),
    _BULK: ("DELETE", f"/%s/_doc/{_NOBODY}", None),  # a single write runs as a bulk too; `_bulk` itself needs no further permission
}
_INDEX_ASKS: dict[str, Ask] = {
    "indices:admin/get": ("GET", "/%s?expand_wildcards=none&filter_path=*.aliases", None),
    "indices:admin/mappings/get": ("GET", "/%s/_mapping", None),
    "indices:monitor/stats": ("GET", "/%s/_stats/docs", None),
    "indices:data/read/search": ("POST", "/%s/_search", {"size": 0}),
    "indices:data/read/get": ("GET", f"/%s/_doc/{_NOBODY}", None),
    "indices:data/write/index": ("PUT", f"/%s/_doc/{_NOBODY}?require_alias=true", {}),
    "indices:data/write/delete": ("DELETE", f"/%s/_doc/{_NOBODY}?{_NEVER}", None),
    _CREATE: ("PUT", "/%s", _WRONG),
    "indices:admin/aliases": ("POST", "/_aliases", {"actions": [{"remove": {"index": "%s", "alias": f"{_NOBODY}-w", "must_exist": True}}]}),
    "indices:admin/mapping/put": ("PUT", "/%s/_mapping", {"properties": {"t": {"type": "keyword"}}}),
    "indices:admin/refresh": ("POST", "/%s/_refresh", None),
    "indices:admin/settings/update": ("PUT", "/%s/_settings", {"index.refresh_interval": None}),
    "indices:admin/block/add": ("PUT", "/%s/_block/write", None),
    _DELETE: ("DELETE", "/%s", None),
}
_SHARD_ASKS: dict[str, Ask] = {
    f"{_MGET}[shard]": ("POST", "/_mget", {"docs": [{"_index": "%s", "_id": _NOBODY}]}),
    "indices:admin/refresh[s]": ("POST", "/%s/_refresh", None),
    "indices:data/write/bulk[s]": ("DELETE", f"/%s/_doc/{_NOBODY}?{_NEVER}", None),
    "indices:admin/block/add[s]": ("PUT", "/%s/_block/write", None),
}
_WRITE_DOCUMENT: Ask = ("PUT", f"/%s/_doc/{_NOBODY}?{_NEVER}", {})  # for the journal, in which a writer may not delete
_BLOCKING = "indices:admin/block/add[s]"
_secured: WeakKeyDictionary[OpenSearch, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class Lack:
    """The permissions that a user lacks for a role, and those that could not be tested.

    Attributes:
        missing, unknown: (scope, action).
    """

    role: Role
    collection: str
    missing: tuple[Grant, ...] = ()
    unknown: tuple[Grant, ...] = field(default=(), compare=False)

    def __bool__(self) -> bool:
        return bool(self.missing)

    @property
    def text(self) -> str:
        """The missing actions in one line, each group with its index patterns."""
        parts = []
        for scope in SCOPES:
            actions = [action for where, action in self.missing if where == scope]
            if actions:
                parts.append(", ".join(actions) + ("" if scope == "cluster" else f" on {', '.join(patterns(self.collection)[scope])}"))
        return "; ".join(parts)

    @property
    def yaml(self) -> str:
        """The missing permissions as a role that can be pasted into roles.yml."""
        needs: Needs = {scope: tuple(action for where, action in self.missing if where == scope) for scope in SCOPES}
        return as_yaml(f"{self.collection}-{self.role}", spec_of(needs, self.collection))


def patterns(collection: str) -> dict[Scope, list[str]]:
    """Return the index patterns of each scope of a role."""
    return {
        "data": [collection, f"{collection}-*", f"staging-{collection}-*"],
        "scratch": [f"{collection}-scratch-*"],
        "journal": [JOURNAL],
    }


def role_spec(role: Role, collection: str) -> dict[str, Any]:
    """Return a role for a collection in the form of the security plugin's API."""
    return spec_of(NEEDS[role], collection)


def as_yaml(name: str, spec: Mapping[str, Any]) -> str:
    """Return a role in the form of roles.yml."""
    lines = [f"{name}:"]
    if spec["cluster_permissions"]:
        lines += ["  cluster_permissions:", *(f"    - {json.dumps(action)}" for action in spec["cluster_permissions"])]
    if spec["index_permissions"]:
        lines.append("  index_permissions:")
    for part in spec["index_permissions"]:
        lines += [f"    - index_patterns: {json.dumps(part['index_patterns'])}", "      allowed_actions:"]
        lines += [f"        - {json.dumps(action)}" for action in part["allowed_actions"]]
    return "\n".join(lines)


def require(client: OpenSearch, collection: str, role: Role) -> None:
    """Raise AuthError unless this user has all permissions of a role. Takes one request if the server has no security plugin."""
    lack = find_lack(client, collection, role)
    if lack:
        raise refusal(lack)


def refusal(lack: Lack) -> AuthError:
    """Return the error that lists the missing permissions, with YAML to paste into a role."""
    error = AuthError(
        f"This user lacks {len(lack.missing)} of the permissions that a {lack.role} of '{lack.collection}' needs: {lack.text}.",
        "Nothing was changed.",
        f"Add to a role of this user, then run the same command again:\n{lack.yaml}",
    )
    error.actions = tuple(dict.fromkeys(action for _, action in lack.missing))
    error.where = ", ".join(dict.fromkeys(name for scope, _ in lack.missing for name in patterns(lack.collection).get(scope, [])))
    return error


def find_lack(client: OpenSearch, collection: str, role: Role) -> Lack:
    """Test all permissions of a role; return what is missing."""
    return find_lacks(client, collection, [role])[role]


def find_lacks(client: OpenSearch, collection: str, roles: list[Role]) -> dict[Role, Lack]:
    """Test the permissions of several roles, each permission once; return what is missing for each role."""
    if not is_secured(client):
        return {role: Lack(role, collection) for role in roles}
    # A dictionary as an ordered set: roles share many permissions.
    wanted = dict.fromkeys((scope, action) for role in roles for scope, actions in NEEDS[role].items() for action in actions)
    missing, unknown = _Questions(client, collection).ask(list(wanted))
    found = {}
    for role in roles:
        needed = [(scope, action) for scope, actions in NEEDS[role].items() for action in actions]
        lacking, open_ = ([grant for grant in needed if grant in among] for among in (missing, unknown))
        found[role] = Lack(role, collection, tuple(lacking), tuple(open_))
    return found


def is_secured(client: OpenSearch) -> bool:
    """Return whether the server has a security plugin. Tested once per connection."""
    if client not in _secured:
        try:
            _secured[client] = reads.plugin_answer(client, "/_plugins/_security/authinfo") is not None
        except AuthError:
            _secured[client] = True
    return _secured[client]


def left_behind(client: OpenSearch, collection: str) -> dict[str, int]:
    """Return the scratch indexes of a collection with their age in seconds. A young one may be in use; others were left by killed processes."""
    found = reads.matching(client, f"{collection}-scratch-*", "*.settings.index.creation_date,*.mappings._meta")
    marked = [name for name, info in found.items() if "osembed_scratch" in info.get("mappings", {}).get("_meta", {})]
    names = [name for name in marked if is_scratch(collection, name)]
    now = reads.server_clock(client) if names else 0
    return {name: now - int(found[name]["settings"]["index"]["creation_date"]) // 1000 for name in names}


def is_scratch(collection: str, index: str) -> bool:
    """Return whether an index has the name of a collection's scratch index."""
    return re.fullmatch(re.escape(collection) + r"-scratch-[0-9a-f]{12}", index) is not None


class _Questions:
    """Tests the permissions of one user. Each refusal names the missing actions."""

    def __init__(self, client: OpenSearch, collection: str) -> None:
        self._client, self._collection = client, collection
        self._absent = f"{collection}-scratch-{secrets.token_hex(6)}"
        self._missing: set[Grant] = set()
        self._allowed: set[Grant] = set()

    def ask(self, wanted: list[Grant]) -> tuple[set[Grant], set[Grant]]:
        """Return which of these are missing, and which could not be tested."""
        shards = [action for scope, action in wanted if scope == "data" and action in _SHARD_ASKS]
        for scope, action in wanted:
            if scope == "cluster" and not self._is_idle(action):
                self._put(scope, action, _CLUSTER_ASKS[action], self._absent)
            elif scope in ("data", "scratch") and action not in _SHARD_ASKS:
                self._put(scope, action, _INDEX_ASKS[action], self._absent)
        self._ask_journal([action for scope, action in wanted if scope == "journal"])
        if shards:
            self._ask_shards(shards, any(scope == "scratch" or action == _DELETE for scope, action in wanted))
        known = self._missing | self._allowed
        return self._missing, {grant for grant in wanted if grant not in known}

    def _put(self, scope: Scope, action: str, ask: Ask, index: str) -> None:
        method, path, body = ask
        text = None if body is None else (body if isinstance(body, str) else json.dumps(body)).replace("%s", index)
        refused = changes.ask(self._client, method, path.replace("%s", index), text)
        for name in refused:
            self._missing.add((_scope_of(name, scope), name))
        if not refused:
            self._allowed.add((scope, action))

    def _is_idle(self, action: str) -> bool:
        """Return whether an action is not needed, because the search pipeline already exists."""
        if action != _PUT_PIPELINE:
            return False
        try:
            there = reads.pipeline(self._client, PIPELINE) is not None
        except AuthError:  # reading a pipeline is tested separately
            return False
        if there:
            self._allowed.add(("cluster", action))
        return there

    def _ask_journal(self, actions: list[str]) -> None:
        try:
            there = bool(actions) and bool(reads.indexes(self._client, [JOURNAL], "*.aliases,*.settings.index.uuid"))
        except AuthError:  # try without this permission, if the role does not need it
            there = "indices:admin/get" not in actions and changes.ask(self._client, "GET", f"/{JOURNAL}/_doc/{_NOBODY}", None) == ()
        for action in actions:
            if action == _CREATE and there:  # no longer needed
                self._allowed.add(("journal", action))
            elif action in _INDEX_ASKS:
                self._put("journal", action, _INDEX_ASKS[action], JOURNAL)
            elif there:
                ask = _WRITE_DOCUMENT if action.endswith("bulk[s]") else _SHARD_ASKS[action]
                self._put("journal", action, ask, JOURNAL)

    def _ask_shards(self, actions: list[str], may_clean: bool) -> None:
        """Test on a scratch index if this user may create and delete it, else on the collection if it exists and the test is harmless."""
        made = {("data", _CREATE), ("data", "indices:admin/get")} <= self._allowed
        if may_clean and made and {("data", _DELETE), ("scratch", _DELETE)} & self._allowed:
            with _scratch(self._client, self._absent) as index:
                for action in sorted(actions, key=lambda action: action == _BLOCKING):  # the block last: it would refuse the writes
                    self._put("data", action, _SHARD_ASKS[action], index)
            return
        with suppress(AuthError):
            if reads.indexes(self._client, [self._collection], "*.aliases,*.settings.index.uuid"):
                for action in actions:
                    if action != _BLOCKING:
                        self._put("data", action, _SHARD_ASKS[action], self._collection)


@contextmanager
def _scratch(client: OpenSearch, name: str) -> Iterator[str]:
    """Create a scratch index and delete it afterwards."""
    settings = {"hidden": True, "number_of_shards": 1, "number_of_replicas": 0}
    try:
        changes.create_index(client, name, {"settings": {"index": settings}, "mappings": {"_meta": {"osembed_scratch": True}}})
        yield name
    finally:
        with suppress(ClusterError):  # it then remains until `doctor` deletes it
            changes.delete_index(client, name)


def spec_of(needs: Needs, collection: str) -> dict[str, Any]:
    """Return permissions as a role of the security plugin."""
    parts = [(names, needs.get(scope, ())) for scope, names in patterns(collection).items()]
    return {
        "cluster_permissions": list(needs.get("cluster", ())),
        "index_permissions": [{"index_patterns": names, "allowed_actions": list(actions)} for names, actions in parts if actions],
    }


def _scope_of(action: str, asked: Scope) -> Scope:
    return "cluster" if action in _CLUSTER_ASKS else asked
