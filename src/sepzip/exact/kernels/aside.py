"""Work beside the main stream: updates that nothing waits for before a step's end, or part of the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["CAPTURE_PRIORITY", "Aside"]

CAPTURE_PRIORITY = -2
"""The priority of the stream on which steps are captured: their kernels go before those of branches."""

_PRIORITY = -1


class Aside:
    """Parallel branches of the graphs that steps are captured in; where nothing is captured, nothing at all.

    Without `forks` all stays in the current stream. A branch is of a stream that others may use as well, but
    only for branches: graphs are captured one at a time.
    """

    def __init__(self, device: torch.device, forks: bool = True) -> None:
        self._stream = (
            torch.cuda.Stream(device, priority=_PRIORITY) if forks and device.type == "cuda" else None
        )
        self._has_forked = False

    @contextmanager
    def branch(self) -> Iterator[None]:
        """Run what is launched inside after all that was launched so far, beside what is launched next."""
        if self._stream is None or not torch.cuda.is_current_stream_capturing():
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        self._has_forked = True
        with torch.cuda.stream(self._stream):
            yield

    def join(self) -> None:
        """Let what is launched next wait for every branch; due before a capture ends."""
        if self._stream is not None and self._has_forked:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
            self._has_forked = False
