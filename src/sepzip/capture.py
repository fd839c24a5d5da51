"""Steps captured as a CUDA graph."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import torch

__all__ = ["captured"]

_capturing = threading.Lock()
"""Held while a graph is captured: one thread at a time."""


def captured(step: Callable[[], None], steps: int, device: torch.device) -> torch.cuda.CUDAGraph:
    """Return a graph of so many calls of `step` on the current stream, none of which has run by that."""
    stream = torch.cuda.current_stream(device)
    stream.synchronize()
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
        finally:
            if collects:
                gc.enable()
    return graph
