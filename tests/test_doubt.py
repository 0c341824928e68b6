"""Whole commands on a server whose answers cover a part, refuse an item, or acknowledge nothing.

A fault that happens once: the end of an undisturbed run. One that stays: an error that names an index, and nothing is deleted or written that an
undisturbed run would not have. Then the fault is gone, and the same command ends as an undisturbed one.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from osembed.collection import Collection
from osembed.errors import AuthError, OsembedError
from osembed.migrate import direction
from osembed.migrate.proof.verdict import GateOptions
from osembed.opensearch.client import OpenSearch
from tests.conftest import dump, paper
from tests.proxy import Fault, FaultProxy, Request
from tests.test_answers import deny, fail_shard, lose_item, refuse_item, refuse_shard, time_out

pytestmark = pytest.mark.usefixtures("known_models")
GATE = {"gate": GateOptions(skip=True), "gentle": False}
Break = Callable[[dict], None]
Act = Callable[[Collection, "Setting"], Any]


class Setting:
    """What the commands are given."""

    def __init__(self, write, models, small) -> None:
        self.first = write([paper(n, 150, year=2000 + n) for n in range(5)], "first.jsonl")
        self.second = write([paper(1, 150, year=1999), paper(2, 90), paper(7, 150)], "second.jsonl")
        self.spec, self.mirror = small, str(models.mirror)

    def fill(self, url: str, name: str) -> None:
        """A collection of five papers, one of which another program has changed."""
        collection = Collection(name, url)
        collection.ingest(self.first, self.spec)
        client = collection.client
        for target in collection._searcher.resolve().values():
            client.indices.refresh(index=target.index)
        client.update(
            index=f"{name}-chunks", id="p3#0", body={"doc": {"text": "Something else stands here now."}}, params={"refresh": "true"}
        )


ACTS: dict[str, Act] = {
    "ingest": lambda c, s: c.ingest(s.second, min_words=50),
    "delete": lambda c, s: c.delete(["p4", "nobody"]),
    "repair": lambda c, s: c.repair(),
    "migrate": lambda c, s: c.migrate(s.mirror, **GATE),
    "there and back": lambda c, s: (c.migrate(s.mirror, **GATE), c.rollback(gentle=False), c.migration().abort()),
}
# Fault → the requests whose answers have such a part.
FAULTS: dict[Break, tuple[str, ...]] = {
    fail_shard: ("_search", "_refresh", "_stats"),
    refuse_shard: ("_search",),
    time_out: ("_search",),
    lose_item: ("_mget",),
    refuse_item: ("_mget",),
    deny: ("_aliases", "_settings", "_mapping", "_block"),
}


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, dict[str, Any]]:
    """Command → the contents that it leaves, made once."""
    return {}


@pytest.fixture
def setting(write, models, small) -> Setting:
    return Setting(write, models, small)


@pytest.fixture(autouse=True)
def _hurried(monkeypatch):
    monkeypatch.setenv("OSEMBED_RETRY_SECONDS", "0.5")
    monkeypatch.setenv("OSEMBED_PATIENCE_SECONDS", "1")
    monkeypatch.setattr(direction, "_FENCE_TRIES", 2)


@contextmanager
def fresh(client: OpenSearch, url: str, setting: Setting) -> Iterator[str]:
    name = f"t{uuid.uuid4().hex[:10]}"
    setting.fill(url, name)
    try:
        yield name
    finally:
        for index in client.indices.get(index=f"{name}*", params={"expand_wildcards": "all"}):
            client.indices.delete(index=index)


def contents(client: OpenSearch, name: str) -> dict[str, Any]:
    """What readers find, whatever the collection is called; where a copy came from is no content."""
    return {
        key.removeprefix(name): {field: value for field, value in source.items() if field != "origin"}
        for key, source in dump(client, name).items()
    }


def faulty(break_it: Break, first: int, last: int) -> tuple[Callable[[Request], Fault | None], list[str]]:
    """Break the answers number `first` to `last` of those that have such a part; note which requests met it."""
    seen, met = [0], list[str]()

    def rule(request: Request) -> Fault | None:
        path = request.path.split("?")[0]
        if not path.endswith(FAULTS[break_it]) and not any(f"{part}/" in path for part in FAULTS[break_it]):
            return None

        def rewrite(body: bytes) -> bytes:
            answer = json.loads(body)
            try:
                before = json.dumps(answer)
                break_it(answer)
            except (KeyError, IndexError):
                return body  # an error answer, or one without items
            if json.dumps(answer) == before:
                return body
            seen[0] += 1
            if not first <= seen[0] <= last:
                return body
            met.append(f"{request.method} {path}")
            return json.dumps(answer).encode()

        return Fault("rewrite", rewrite=rewrite)

    return rule, met


def run_undisturbed(undisturbed: dict, act: str, client: OpenSearch, url: str, setting: Setting) -> dict[str, Any]:
    if act not in undisturbed:
        with fresh(client, url, setting) as name:
            ACTS[act](Collection(name, url), setting)
            undisturbed[act] = contents(client, name)
    return undisturbed[act]


@pytest.mark.parametrize("break_it", list(FAULTS))
@pytest.mark.parametrize("act", list(ACTS))
def test_once(act, break_it, client, url, setting, undisturbed):
    """One answer is broken, which one rotates from day to day: the command ends as it would have."""
    expected = run_undisturbed(undisturbed, act, client, url, setting)
    with fresh(client, url, setting) as name, FaultProxy(url) as proxy:
        number = int(time.time() // 86400) % 7 + 1
        rule, met = faulty(break_it, number, number)
        proxy.rules.append(rule)
        ACTS[act](Collection(name, proxy.url), setting)
        assert contents(client, name) == expected, met


@pytest.mark.parametrize("break_it", list(FAULTS))
@pytest.mark.parametrize("act", list(ACTS))
def test_for_good(act, break_it, client, url, setting, undisturbed):
    """Every such answer is broken: an error and no harm; without the fault the same command completes."""
    expected = run_undisturbed(undisturbed, act, client, url, setting)
    with fresh(client, url, setting) as name, FaultProxy(url) as proxy:
        before = contents(client, name)
        rule, met = faulty(break_it, 1, 10**9)
        proxy.rules.append(rule)
        heals = break_it is deny and act not in ("migrate", "there and back")  # what is not acknowledged is looked for, and has happened
        if heals:
            ACTS[act](Collection(name, proxy.url), setting)
        else:
            refused = break_it in (refuse_item, refuse_shard)
            with pytest.raises(AuthError if refused else OsembedError, match=name):
                ACTS[act](Collection(name, proxy.url), setting)
        now = contents(client, name)
        assert {key: value for key, value in now.items() if value not in (before.get(key), expected.get(key))} == {}
        assert before.keys() & expected.keys() <= now.keys()
        proxy.rules.clear()
        with pytest.MonkeyPatch.context() as patch:  # a lease that could not be given back belongs to this very process
            patch.setattr("osembed.opensearch.coordination.lease.is_surely_dead", lambda _: True)
            ACTS[act](Collection(name, proxy.url), setting)
        assert contents(client, name) == expected, met[:3]
