"""Queries of many threads share forwards, and each gets its own vector."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from osembed.embed import batching
from osembed.embed.batching import QueryBatcher
from osembed.embed.load import load_encoder
from osembed.models.folder import read_model


def test_what_waits_during_a_forward_shares_the_next():
    """One query is on its way; thirty more arrive: one forward for all of them."""
    sizes, begun, go = [], threading.Event(), threading.Event()

    def embed(texts):
        sizes.append(len(texts))
        begun.set()
        assert go.wait(20)
        return np.array([[float(text)] for text in texts], dtype=np.float32)

    gatherer = QueryBatcher(embed)
    with ThreadPoolExecutor(31) as pool:
        first = pool.submit(gatherer.vector, "0")
        assert begun.wait(20)
        others = [pool.submit(gatherer.vector, str(number)) for number in range(1, 31)]
        while len(gatherer._waiting) < 30:
            threading.Event().wait(0.01)
        go.set()
        assert [float(one.result()[0]) for one in (first, *others)] == list(range(31))
    assert sizes == [1, 30]


def test_an_error_reaches_all_who_shared_it_and_nobody_after():
    """A failed forward is raised in each of its threads; the next query is embedded as if nothing had been."""
    begun, go = threading.Event(), threading.Event()

    def embed(texts):
        begun.set()
        assert go.wait(20)
        if "bad" in texts:
            raise ValueError("no room")
        return np.zeros((len(texts), 1), dtype=np.float32)

    gatherer = QueryBatcher(embed)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(gatherer.vector, "good")
        assert begun.wait(20)
        others = [pool.submit(gatherer.vector, text) for text in ("bad", "beside it", "and it")]
        while len(gatherer._waiting) < 3:
            threading.Event().wait(0.01)
        go.set()
        assert first.result().shape == (1,)
        for one in others:
            with pytest.raises(ValueError, match="no room"):
                one.result()
    assert gatherer.vector("later").shape == (1,)


@pytest.mark.parametrize("called", [False, True])
def test_whoever_is_interrupted_takes_nobody_along(called, monkeypatch):
    """A thread that is interrupted while it waits, called to lead or not, leaves the others to be embedded."""
    begun, go = threading.Event(), threading.Event()

    def embed(texts):
        begun.set()
        assert go.wait(20)
        return np.zeros((len(texts), 1), dtype=np.float32)

    gatherer = QueryBatcher(embed)

    class Interrupted(threading.Event):
        def wait(self, timeout=None):
            if called:
                go.set()
                super().wait(20)
            raise KeyboardInterrupt

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(gatherer.vector, "first")
        assert begun.wait(20)
        asked = batching._Asked("interrupted", Interrupted())
        monkeypatch.setattr(batching, "_Asked", lambda text: asked)
        second = pool.submit(gatherer.vector, "interrupted")
        if not called:
            with pytest.raises(KeyboardInterrupt):
                second.result(20)
        monkeypatch.undo()
        third = pool.submit(gatherer.vector, "third")
        go.set()
        assert [one.result(20).shape for one in (first, third)] == [(1,), (1,)]
        with pytest.raises(KeyboardInterrupt):
            second.result(20)
    assert gatherer.vector("later").shape == (1,)


def test_concurrent_queries_get_the_vectors_of_lone_ones(models):
    """The real encoder under 16 threads: every query's vector is the one that it gets alone, prompt included."""
    encoder = load_encoder(read_model(models.xlmr), device="cpu", precision="fp32")
    queries = [f"ants walk {'home ' * (number % 7)}{number}" for number in range(64)]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(encoder.encode_query, queries))
    alone = encoder.encode([encoder.model.spec.query(query) for query in queries])
    np.testing.assert_allclose(np.stack(together), alone, atol=2e-5)
