"""CUDA graphs: the forward pass of a block whose shape was seen before is replayed in one launch instead of a dozen per layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from osembed.embed.native.layout import Block, Layout

_WARM_UPS = 2  # libraries must choose kernels and allocate memory before the capture, because a capture may do neither


class Graphs:
    """One graph per block shape. Not thread-safe: each graph has one input and one output buffer."""

    def __init__(self, run: Callable[[Layout], Tensor]) -> None:
        self._run = run
        self._seen: set[tuple[int, int]] = set()
        self._captured: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, Block, Tensor]] = {}

    def __call__(self, block: Block) -> Tensor:
        """Return the vectors of a block. The next block of the same shape on the current stream overwrites them."""
        shape = (len(block.sizes), block.longest)
        if shape not in self._captured:
            if shape not in self._seen:  # not captured at first sight: the shape of the last batch in a bucket may never recur
                self._seen.add(shape)
                return self._run(block)
            self._captured[shape] = self._capture(block)
        graph, inputs, vectors = self._captured[shape]
        inputs.ids.copy_(block.ids, non_blocking=True)
        inputs.sizes.copy_(block.sizes, non_blocking=True)
        graph.replay()
        return vectors

    def _capture(self, block: Block) -> tuple[torch.cuda.CUDAGraph, Block, Tensor]:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                self._run(block)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            vectors = self._run(block)
        return graph, block, vectors
