"""Embed tokens: divide them into batches, run the forward pass, pool, normalise."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from osembed.embed.native.forward import forward
from osembed.embed.native.graphs import Graphs
from osembed.embed.native.layout import Attention, Block, Groups, Layout, Varlen, bucket_of, varlen_kernel
from osembed.embed.native.threads import worker_threads
from osembed.embed.native.weights import read_weights
from osembed.embed.protocol import LocalEncoder, Vectors
from osembed.models.spec import Model
from osembed.passages.tokens import Tokens

Rows = list[list[int]]
Result = TypeVar("Result")

_CPU_BUDGET = 1536  # tokens per batch, so that activations stay in the cache
_LEAST = 256  # batches smaller than this many tokens are not divided among cores
_LARGE = 64 * 2**20  # weights of more bytes do not fit a cache, so all cores read them for a single batch
_GPU_BUDGET = 65536  # tokens per batch
_GPU_FLIGHTS = 2  # batches between launch and result
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class _Flight:
    """A batch in progress: the places of its texts, and its vectors on the host with the event after which they are valid."""

    places: list[int]
    vectors: Future[tuple[Tensor, torch.cuda.Event | None]]

    def land(self) -> Vectors:
        """Wait for the vectors and return them. Raises the error of their forward pass."""
        vectors, landed = self.vectors.result()
        if landed:
            landed.synchronize()
        return np.asarray(vectors.numpy())


class BatchEncoder(LocalEncoder):
    """Cuts tokenised texts into batches and runs them side by side; how a batch is laid out and computed is said by its children.

    Between calls its only state is its token budget and the waiting queries.
    """

    _graphs: Graphs | None = None
    _blocks = False
    _is_large = False

    def __init__(self, model: Model, device: str, precision: str) -> None:
        super().__init__(model, device, precision)
        self._budget = _GPU_BUDGET if device == "cuda" else _CPU_BUDGET
        self._launching = threading.Lock()

    @abstractmethod
    def _lay_out(self, rows: Rows) -> Layout:
        """Lay a batch out in memory."""

    @abstractmethod
    def _hidden(self, layout: Layout) -> Tensor:
        """Return the hidden states of a batch: [tokens, hidden]."""

    def embed(self, tokens: Tokens, stopped: Callable[[], bool] = lambda: False) -> Vectors:
        """Embed tokenised texts: float32 [texts, dimension], in their order, normalised where the model says so.

        Raises InterruptedError between two batches once `stopped` says so.

        A CPU works on a batch per core; with a large model, all cores work on a single batch. A GPU works on one batch while the next one is
        launched and the last one is copied back. If it runs out of memory, the batch and the budget of later batches are halved.
        """
        vectors = np.empty((len(tokens), self.model.spec.dimension), dtype=np.float32)
        waiting, flights = self._batches(tokens)[::-1], deque[_Flight]()
        threads = worker_threads(together=len(waiting) == 1 and self._is_large) if self.device != "cuda" else None
        most = torch.get_num_threads() + 1 if threads else _GPU_FLIGHTS
        while waiting or flights:
            if stopped():
                raise InterruptedError("The embedding was stopped.")
            if waiting and len(flights) < most:
                places = waiting.pop()
                flights.append(_Flight(places, _start(threads, self._fly, [tokens.ids[place] for place in places])))
                continue
            flight = flights.popleft()
            try:
                vectors[flight.places] = flight.land()
            except torch.OutOfMemoryError:
                middle = len(flight.places) // 2
                if not middle:
                    raise
                self._budget = max(self._budget // 2, self.model.spec.max_length)
                torch.cuda.empty_cache()
                waiting += [flight.places[middle:], flight.places[:middle]]
        return vectors

    def _batches(self, tokens: Tokens) -> list[list[int]]:
        """Divide the places of texts, sorted by length, into batches of at most the token budget, with at least one text each."""
        lengths = [len(ids) for ids in tokens.ids]
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        if not self._blocks:
            share = self._budget if self.device == "cuda" else max(_LEAST, -(-sum(lengths) // torch.get_num_threads()))
            return list(_by_tokens(order, lengths, min(self._budget, share)))
        longest, batches = self.model.spec.max_length, []
        for bucket, same in groupby(order, key=lambda place: bucket_of(lengths[place], longest)):
            places, most = list(same), max(1, self._budget // bucket)
            batches += [places[start : start + most] for start in range(0, len(places), most)]
        return batches

    @torch.inference_mode()
    def _fly(self, rows: Rows) -> tuple[Tensor, torch.cuda.Event | None]:
        """Run the forward pass of one batch. On a GPU, only start it and the copy of its vectors to the host."""
        if self.device != "cuda":
            return self._run(self._lay_out(rows)), None
        with self._launching:  # CUDA graphs have only one set of buffers
            layout = self._lay_out(rows)
            pooled = self._graphs(layout) if self._graphs and isinstance(layout, Block) else self._run(layout)
            vectors = torch.empty(pooled.shape, pin_memory=True).copy_(pooled, non_blocking=True)
            landed = torch.cuda.Event()  # type: ignore[no-untyped-call]
            landed.record()
            return vectors, landed

    def _run(self, layout: Layout) -> Tensor:
        """Return the vectors of a batch, where it is: float32 [texts, dimension]."""
        spec = self.model.spec
        pooled = layout.pool(self._hidden(layout), spec.pooling)
        return torch.nn.functional.normalize(pooled, dim=-1) if spec.normalize else pooled


class NativeEncoder(BatchEncoder):
    """A model whose forward osembed computes itself, on a CPU or a GPU."""

    def __init__(self, model: Model, device: str, precision: str) -> None:
        super().__init__(model, device, precision)
        self._weights = read_weights(model, DTYPES[precision], device)
        self._is_large = self._weights.layer_bytes > _LARGE
        self._varlen: Attention | None = None
        if device == "cuda":
            self._varlen = varlen_kernel() if precision != "fp32" and self._weights.bias is None else None
            self._blocks, self._graphs = self._varlen is None, Graphs(self._run)

    @property
    def backend(self) -> str:
        """The backend in words, as provenance and messages name it."""
        return f"torch {self.precision} on {self.device}"

    def _lay_out(self, rows: Rows) -> Layout:
        if self._varlen:
            return Varlen(rows, self.device, self._varlen)
        if self._blocks:
            return Block(rows, self.device, bucket_of(max(map(len, rows)), self.model.spec.max_length))
        return Groups(rows, pad=self.precision == "bf16")

    def _hidden(self, layout: Layout) -> Tensor:
        return forward(self._weights, layout)


def _start(threads: ThreadPoolExecutor | None, work: Callable[[Rows], Result], rows: Rows) -> Future[Result]:
    """Run work in one of the threads, or immediately in this thread if there are none."""
    if threads:
        return threads.submit(work, rows)
    done = Future[Result]()
    try:
        done.set_result(work(rows))
    except torch.OutOfMemoryError as error:
        done.set_exception(error)
    return done


def _by_tokens(order: list[int], lengths: list[int], budget: int) -> Iterator[list[int]]:
    batch: list[int] = []
    size = 0
    for index in order:
        length = lengths[index]
        if batch and size + length > budget:
            yield batch
            batch, size = [], 0
        batch.append(index)
        size += length
    if batch:
        yield batch
