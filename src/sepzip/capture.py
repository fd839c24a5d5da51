"""Steps captured as CUDA graphs, and copies of what they leave."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from .exact.kernels.aside import CAPTURE_PRIORITY

__all__ = ["STEPS_A_GRAPH", "Stepper", "captured", "pinned_copy"]

STEPS_A_GRAPH = 16

_capturing = threading.Lock()
"""Held while a graph is captured: one thread at a time."""


def captured(
    step: Callable[[], None], steps: int, device: torch.device, end: Callable[[], None] | None = None
) -> torch.cuda.CUDAGraph:
    """Return a graph of so many calls of `step` and one of `end` behind them: none has run by that."""
    torch.cuda.current_stream(device).synchronize()
    stream = torch.cuda.Stream(device, priority=CAPTURE_PRIORITY)
    graph = torch.cuda.CUDAGraph()
    with _capturing:
        collects = gc.isenabled()
        # A collection could free what another segment has left on the device, which ends a capture.
        gc.disable()
        try:
            # Other threads may be at work on streams of their own meanwhile.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                for _ in range(steps):
                    step()
                if end is not None:
                    end()
        finally:
            if collects:
                gc.enable()
    return graph


class Stepper:
    """Runs a step again and again, as captured graphs of one step and of many, each with `end` behind it.

    Each is queued inside what `turn` returns: a step may work in what others work in too.
    """

    def __init__(
        self,
        step: Callable[[], None],
        device: torch.device,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
        end: Callable[[], None] | None = None,
        lengths: tuple[int, ...] = (STEPS_A_GRAPH, 1),
    ) -> None:
        """Make graphs of as many steps as `lengths` say, the most first and one last."""
        self._lengths = lengths
        self._step = step
        self._end = end
        self._device = device
        self._turn = turn
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._is_warm = False

    def forget(self) -> None:
        """Capture the step anew before it runs again: it is another one from now on."""
        self._graphs.clear()
        self._is_warm = False

    def run(self, steps: int) -> None:
        """Queue this many steps on the current stream."""
        while steps:
            with self._turn():
                if not self._is_warm:
                    # Kernels are compiled and tables copied in their first calls, which must not be captured.
                    self._step()
                    self._is_warm = True
                    steps -= 1
                    continue
                count = next(length for length in self._lengths if length <= steps)
                if count not in self._graphs:
                    self._graphs[count] = captured(self._step, count, self._device, self._end)
                self._graphs[count].replay()
                steps -= count


def pinned_copy(x: Tensor) -> Tensor:
    """Return a copy of x in pinned memory, queued on the current stream."""
    copy = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    return copy.copy_(x, non_blocking=True)
