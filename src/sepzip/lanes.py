"""A segment as lanes: its bytes cut into runs that are coded side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["LaneJoiner", "longer_lanes", "split_lanes", "steps_for"]

Bytes = NDArray[np.uint8]


def steps_for(size: int, lanes: int) -> int:
    """Return the steps that a segment of `size` bytes takes: the bytes of its longest lane."""
    return -(-size // lanes)


def longer_lanes(size: int, lanes: int) -> int:
    """Return how many lanes, the first ones, have a byte in the last step; the others are one shorter."""
    return size - (steps_for(size, lanes) - 1) * lanes if size else 0


def split_lanes(data: Bytes, lanes: int) -> Bytes:
    """Return the bytes as [steps, lanes]; places of the last step without a byte hold 0."""
    steps, longer = steps_for(len(data), lanes), longer_lanes(len(data), lanes)
    matrix = np.zeros((steps, lanes), np.uint8)
    cut = longer * steps
    matrix[:, :longer] = data[:cut].reshape(longer, steps).T
    if longer < lanes:
        matrix[: steps - 1, longer:] = data[cut:].reshape(lanes - longer, steps - 1).T
    return matrix


class LaneJoiner:
    """Puts a segment together from its steps, a chunk at a time."""

    def __init__(self, size: int, lanes: int) -> None:
        self._steps = steps_for(size, lanes)
        self._longer = longer_lanes(size, lanes)
        self._cut = self._longer * self._steps
        self._done = 0
        self.data = bytearray()
        self._size = size

    def add(self, chunk: Bytes) -> None:
        """Take the next steps, [steps, lanes]; places of the last step without a byte are passed over."""
        if not self.data:
            self.data = bytearray(self._size)
        data = np.frombuffer(self.data, np.uint8)
        longer, end = self._longer, self._done + len(chunk)
        first = data[: self._cut].reshape(longer, self._steps)
        first[:, self._done : end] = chunk[:, :longer].T
        if longer < chunk.shape[1] and self._steps > 1:
            rest = data[self._cut :].reshape(-1, self._steps - 1)
            kept = min(end, self._steps - 1) - self._done
            rest[:, self._done : self._done + kept] = chunk[:kept, longer:].T
        self._done = end
