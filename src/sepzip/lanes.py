"""A segment as lanes: its bytes cut into runs that are coded side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["join_lanes", "longer_lanes", "split_lanes", "steps_for"]

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


def join_lanes(matrix: Bytes, size: int) -> Bytes:
    """Return the `size` bytes that `split_lanes` laid out as `matrix` [steps, lanes]."""
    steps, lanes = matrix.shape
    longer = longer_lanes(size, lanes)
    data = np.empty(size, np.uint8)
    cut = longer * steps
    data[:cut].reshape(longer, steps)[:] = matrix[:, :longer].T
    if longer < lanes:
        data[cut:].reshape(lanes - longer, steps - 1)[:] = matrix[: steps - 1, longer:].T
    return data
