"""Steps captured as a CUDA graph."""

from __future__ import annotations

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
    # Other threads may be at work on streams of their own meanwhile.
    with _capturing, torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        for _ in range(steps):
            step()
    return graph
