"""Vectors as base64, where a server takes them: the real node behind a proxy that reads them as OpenSearch 3.9 does, or otherwise."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest

from osembed.collection import Collection
from osembed.migrate.proof.verdict import GateOptions
from osembed.opensearch.vectors import from_wire, to_wire
from tests.conftest import paper
from tests.oracle import everything
from tests.proxy import Fault

PACKED = re.compile(rb'"embedding":"([A-Za-z0-9+/=]+)"')


def server_39(order: str):
    """A server that calls itself 3.9.0 and reads base64 as float32 of a byte order: "<" as OpenSearch does, "" for one that refuses it."""

    def numbers(match):
        return b'"embedding":' + json.dumps(np.frombuffer(base64.b64decode(match[1]), f"{order}f4").tolist()).encode()

    def name_version(body):
        return body.replace(b'"number" : "3.6.0"', b'"number" : "3.9.0"')

    def rule(request):
        if request.path.split("?")[0] == "/":
            return Fault("rewrite", rewrite=name_version)
        return Fault(translate=lambda body: PACKED.sub(numbers, body)) if order and request.method in ("PUT", "POST") else None

    return rule


def test_both_forms_are_read(models):
    """What is written can be read; what holds no vector is none."""
    vector = np.array([0.5, -1.25, 3e-8], dtype=np.float32)
    assert to_wire(vector) == base64.b64encode(np.array(vector, "<f4").tobytes()).decode()
    for stored in (to_wire(vector), vector.tolist()):
        np.testing.assert_array_equal(from_wire(stored), vector)
    assert [from_wire(stored) for stored in (None, [], "")] == [None] * 3


def test_a_server_that_takes_base64_gets_it(proxy, name, url, client, small, write, models):
    """Ingest and migration send no vector as numbers; what is stored is what other servers get, bit for bit."""
    proxy.rules.append(server_39("<"))
    collection, plain = Collection(name, proxy.url), Collection(f"{name}-plain", url)
    file = write([paper(n) for n in range(4)])
    for one in (collection, plain):
        one.ingest(file, small)
    assert collection._searcher.targets()["chunks"].meta.provenance["vectors"] == "base64"
    assert "vectors" not in plain._searcher.targets()["chunks"].meta.provenance
    bulks = [request.body for request in proxy.seen if "_bulk" in request.path]
    assert sum(len(PACKED.findall(body)) for body in bulks) == sum(row.documents for row in collection.status())
    assert not any(b'"embedding":[' in body for body in bulks)
    assert stored(client, collection) == stored(client, plain)
    for one in (collection, plain):
        one.migrate(str(models.mirror), gate=GateOptions(skip=True), gentle=False)
    assert stored(client, collection) == stored(client, plain)
    assert not any(b'"embedding":[' in request.body for request in proxy.seen if "_bulk" in request.path)
    assert collection.verify(full=True).passed
    assert not client.indices.exists(index="osembed-probe")


def stored(client, collection):
    """The vectors of a collection by document, as they are stored."""
    indexes = [target.index for target in collection._searcher.resolve().values()]
    client.indices.refresh(index=indexes)
    return {key: doc["embedding"] for index in indexes for key, doc in everything(client, index)}


@pytest.mark.parametrize("order", [">", ""])
def test_a_server_that_reads_it_otherwise_gets_numbers(order, proxy, name, client, small, write):
    """The other byte order would be a wrong vector without any error; a refusal would cost every document. Both are found beforehand."""
    proxy.rules.append(server_39(order))
    collection = Collection(name, proxy.url)
    assert collection.ingest(write([paper(1)]), small).indexed == 1
    assert "vectors" not in collection._searcher.targets()["papers"].meta.provenance
    assert sum(b"osembed-probe" in request.path.encode() for request in proxy.seen) > 2
    assert collection.verify(full=True).passed
    assert not client.indices.exists(index="osembed-probe")
