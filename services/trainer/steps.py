"""How a fit's steps reach the device: one by one, or on a GPU recorded once and replayed; never what a step is.

A step of this network is some fifty kernels of a few microseconds each: launched one by one from Python the GPU waits for most
of the time. Recorded as a CUDA graph the same kernels in the same order come out of one launch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

# What PyTorch asks for before a recording: libraries choose their work space and autograd its streams in the first runs.
_WARM_UP_STEPS = 3

Step = Callable[[Tensor], None]


def recorded(step: Step, network: nn.Module, optimiser: torch.optim.Optimizer, index: Tensor) -> Step:
    """`step`, recorded with as many rows as `index` (int64, on the GPU) names; called with another count of rows it is not replayed.

    Weights and the optimiser's state are afterwards as they were: what warming up has learned is taken back. The optimiser's
    state must live on the GPU (`capturable`).
    """
    rows = index.clone()
    weights = copy.deepcopy(network.state_dict())
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(_WARM_UP_STEPS):
            step(rows)
    torch.cuda.current_stream().wait_stream(beside)
    optimiser.zero_grad()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(rows)
    with torch.no_grad():
        network.load_state_dict(weights)
        for state in optimiser.state.values():
            for value in state.values():
                value.zero_()

    def replayed(now: Tensor) -> None:
        if len(now) != len(rows):
            step(now)
            return
        rows.copy_(now)
        graph.replay()

    return replayed
