"""Steps captured as CUDA graphs, and copies of what they leave."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from .exact.kernels.aside import CAPTURE_PRIORITY

__all__ = ["Stepper", "captured", "pinned_copy"]

_capturing = threading.Lock()
"""Held while a graph is captured: one thread at a time."""


def captured(
    step: Callable[[], None], steps: int, device: torch.device, end: Callable[[], None] | None = None
) -> torch.cuda.CUDAGraph:
    """Return a graph of so many calls of `step` and one of `end` behind them: none has run by that.

    The device goes on with what was queued: torch.cuda.graph would wait for all of it, of all threads, and
    then give back memory that they are about to ask for again.
    """
    stream = torch.cuda.Stream(device, priority=CAPTURE_PRIORITY)
    graph = torch.cuda.CUDAGraph()
    with _capturing, torch.cuda.stream(stream):
        collects = gc.isenabled()
        # A collection could free what another segment has left on the device, which ends a capture.
        gc.disable()
        try:
            # Other threads may be at work on streams of their own meanwhile.
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                for _ in range(steps):
                    step()
                if end is not None:
                    end()
            finally:
                graph.capture_end()
        finally:
            if collects:
                gc.enable()
    return graph


class Stepper:
    """Runs a step again and again, as captured graphs of one step and of many, each with `end` behind it.

    Steps are queued inside what `turn` returns: they may work in what others work in too. Nothing is captured
    there, so that nobody waits for that.
    """

    def __init__(
        self,
        step: Callable[[], None],
        device: torch.device,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
        end: Callable[[], None] | None = None,
        lengths: tuple[int, ...] = (16, 1),
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
        if steps and not self._is_warm:
            # Kernels are compiled and tables copied in their first calls, which must not be captured.
            with self._turn():
                self._step()
            self._is_warm = True
            steps -= 1
        counts: list[int] = []
        for length in self._lengths:
            times, steps = divmod(steps, length)
            counts += [length] * times
        for count in counts:
            if count not in self._graphs:
                self._graphs[count] = captured(self._step, count, self._device, self._end)
        if counts:
            with self._turn():
                for count in counts:
                    self._graphs[count].replay()


def pinned_copy(x: Tensor) -> Tensor:
    """Return a copy of x in pinned memory, queued on the current stream."""
    copy = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    return copy.copy_(x, non_blocking=True)
