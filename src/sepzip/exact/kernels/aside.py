"""Work beside the main stream: updates that nothing waits for before the step's end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["Aside"]


class Aside:
    """A second CUDA stream that is forked from the current one and joined again; on a CPU, nothing at all.

    Captured in a graph, the two become parallel branches. Without `forks` all stays in the current stream.
    """

    def __init__(self, device: torch.device, forks: bool = True) -> None:
        self._stream = torch.cuda.Stream(device) if forks and device.type == "cuda" else None

    @contextmanager
    def branch(self) -> Iterator[None]:
        """Run what is launched inside after all that was launched so far, beside what is launched next."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            yield

    def join(self) -> None:
        """Let what is launched next wait for every branch."""
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
