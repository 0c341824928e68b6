"""Servers and clusters in the states that people meet: unreachable, old, with aliases gone astray (F19, F29, F31)."""

from __future__ import annotations

import json
import os

import pytest

from osembed.collection import Collection
from osembed.errors import ClusterError, CollectionError, RefusedError
from osembed.opensearch import schema
from tests.conftest import paper
from tests.proxy import Fault


@pytest.fixture
def filled(name, url, small, write):
    collection = Collection(name, url)
    collection.ingest([write([paper(n) for n in range(3)])], small)
    return collection


def again(collection: Collection) -> Collection:
    """The same collection as a new process would see it."""
    return Collection(collection.name, collection._url)


def test_unreachable_server():
    """Nothing listens: said within seconds, with what to check."""
    with pytest.raises(ClusterError, match="cannot be reached"):
        Collection("c", "http://127.0.0.1:9").search("x")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("answer", 200, b"<html>log in</html>", "text/html"), "not with JSON|no OpenSearch"),
        (Fault("answer", 200, b'{"hello": "world"}'), "not like OpenSearch"),
        (Fault("answer", 200, b'{"version": {"number": "8.1.0"}}'), "is Elasticsearch 8.1.0"),
    ],
)
def test_what_is_no_opensearch(proxy, fault, message):
    """A login page, another service, Elasticsearch: named, no parse error (F19)."""
    proxy.rules.append(lambda request: fault)
    with pytest.raises(ClusterError, match=message):
        Collection("c", proxy.url).doctor()


def test_alias_on_two_indexes(filled, client, write):
    """A search would mix spaces: refused, with the request that mends it (F29)."""
    other = f"{filled.name}-other"
    client.indices.create(index=other, body={"aliases": {filled.name: {}}})
    with pytest.raises(CollectionError, match="is on 2 indexes.*POST _aliases"):
        again(filled).search("study")
    with pytest.raises(CollectionError, match="is on 2 indexes"):
        again(filled).ingest(write([paper(1)]))


def test_one_alias_missing(filled, client):
    """A pair of which one is gone is no collection."""
    client.indices.delete_alias(index="*", name=f"{filled.name}-chunks")
    with pytest.raises(CollectionError, match=f"'{filled.name}-chunks' is missing"):
        again(filled).search("study")


def test_alias_name_is_an_index(name, url, client, small, write):
    """An index of the collection's name is not touched (F29)."""
    client.indices.create(index=name)
    for act in (lambda c: c.search("x"), lambda c: c.ingest([write([paper(1)])], small)):
        with pytest.raises(CollectionError, match="is an index, not an alias"):
            act(Collection(name, url))
    assert client.count(index=name)["count"] == 0


def test_a_foreign_index_behind_the_alias(name, url, client):
    """An index that osembed did not create is neither searched nor written."""
    for alias in (name, f"{name}-chunks"):
        client.indices.create(index=f"{alias}-foreign", body={"aliases": {alias: {}}})
    with pytest.raises(CollectionError, match="was not created by osembed"):
        Collection(name, url).search("x")


def test_a_wiped_meta_is_restored(filled, client, write):
    """Any client may wipe _meta; the journal knows the index by its UUID."""
    target = filled._searcher.targets()["papers"]
    client.indices.put_mapping(index=target.index, body={"_meta": {"mine": 1}})
    told: list[str] = []
    Collection(filled.name, filled._url, report=told.append).ingest([write([paper(9)])])
    assert "had been wiped; restored" in told[0]
    assert client.indices.get_mapping(index=target.index)[target.index]["mappings"]["_meta"]["osembed"]["collection"] == filled.name
    assert again(filled).search("study").found == 4


def test_a_deleted_pipeline_is_made_again(filled, client, write):
    """Without it every query of other programs is a 400, none of osembed's; doctor and ingest create it."""
    path = f"/_search/pipeline/{schema.PIPELINE}"
    client.transport.perform_request("DELETE", path)
    with pytest.raises(RefusedError, match="is not defined"):
        client.search(index=filled.name)
    assert again(filled).search("study", mode="lexical").hits[0].passages
    assert any(check.verdict == "mended" for check in filled.doctor())
    assert client.search(index=filled.name)["hits"]["hits"]
    client.transport.perform_request("DELETE", path)
    filled.ingest([write([paper(1)])])
    assert client.transport.perform_request("GET", path)


def test_refresh_left_off_is_restored(filled, client, write):
    """Somebody's load settings on a live index: the next ingest gives them back."""
    target = filled._searcher.targets()["papers"].index
    client.indices.put_settings(index=target, body={"index.refresh_interval": "-1"})
    assert any("never refreshes" in check.found for check in filled.doctor())
    again(filled).ingest([write([paper(5)])])
    assert "refresh_interval" not in client.indices.get_settings(index=target)[target]["settings"]["index"]


def older(version: str, lacking: str = ""):
    """Rewrite what the server says of its version and plugins; everything else is the real server."""

    def rewrite(body: bytes) -> bytes:
        answer = json.loads(body)
        if "version" in answer:
            answer["version"]["number"] = version
        for node in answer.get("nodes", {}).values():
            if "plugins" in node:
                node["plugins"] = [plugin for plugin in node["plugins"] if plugin["name"] != lacking]
        return json.dumps(answer).encode()

    return lambda request: Fault("rewrite", rewrite=rewrite) if request.path.split("?")[0] in ("/", "/_nodes/plugins") else None


@pytest.mark.parametrize(
    ("rule", "message"),
    [(older("3.4.0"), "drops top documents"), (older("3.6.0", "opensearch-neural-search"), "opensearch-neural-search is missing")],
    ids=["3.4", "no-neural-search"],
)
def test_older_servers_are_fused_for_on_the_client(proxy, filled, rule, message):
    """doctor says what is lacking; hybrid search gives the same ranking without a hybrid query."""
    proxy.rules.append(rule)
    collection = Collection(filled.name, proxy.url)
    assert any(message in f"{check.found} {check.advice}" for check in collection.doctor())
    expected = [hit.id for hit in filled.search("study species 2", level="papers").hits]
    assert [hit.id for hit in collection.search("study species 2", level="papers").hits] == expected
    assert not any(b'"hybrid"' in request.body for request in proxy.seen)


def test_a_server_that_cannot_have_the_pipeline(proxy, name, small, write):
    """Without neural-search the pipeline is refused: the indexes get none, ingest and hybrid search work all the same."""
    refusal = Fault("answer", 400, b'{"error": {"reason": "Invalid processor type normalization-processor"}, "status": 400}')
    missing = Fault("answer", 404, b"{}")
    proxy.rules.append(lambda request: (refusal if request.method == "PUT" else missing) if "/_search/pipeline" in request.path else None)
    proxy.rules.append(older("3.6.0", "opensearch-neural-search"))
    collection = Collection(name, proxy.url)
    collection.ingest([write([paper(1)])], small)
    target = collection._searcher.targets()["papers"].index
    assert "search" not in collection.client.indices.get_settings(index=target)[target]["settings"]["index"]
    assert collection.search("study", level="papers").hits
    assert any(check.name == "search pipeline" and check.verdict == "warning" for check in collection.doctor())


def test_partial_answers_are_refused(filled, proxy):
    """Every search asks for complete answers or none."""
    Collection(filled.name, proxy.url).search("study")
    Collection(filled.name, proxy.url).search("study", level="chunks")
    searches = [request for request in proxy.seen if "search" in request.path and "pipeline" not in request.path]
    assert searches
    for request in searches:
        assert b'"allow_partial_search_results":false' in request.body or "allow_partial_search_results=false" in request.path


def test_status_says_what_is_live(filled):
    """Model, identity, generation and size of both levels."""
    papers, chunks = filled.status()
    assert (papers.level, papers.documents, papers.generation, papers.model) == ("papers", 3, 1, "tiny-bert")
    assert chunks.documents >= 3
    assert chunks.alias == f"{filled.name}-chunks"


def test_a_busy_server_is_asked_again(filled, proxy):
    """Lost and refused reads are tried again; a search does not fail because of them."""
    proxy.once("_msearch", Fault("lost"))
    proxy.once("_msearch", Fault("answer", 503, b'{"error": {"reason": "not ready"}}'))
    assert Collection(filled.name, proxy.url).search("study").hits
    assert proxy.fired == 2


def test_environment_names_the_server(url, filled, monkeypatch):
    """OSEMBED_URL stands for --url."""
    monkeypatch.setenv("OSEMBED_URL", url)
    assert Collection(filled.name).search("study").hits
    assert os.environ["OSEMBED_URL"] == url
