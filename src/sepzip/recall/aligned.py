"""Arrays that begin where a line of a processor's cache does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["aligned_zeros"]

_LINE = 64
"""Bytes of a line."""


def aligned_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return zeros of this shape and type, the first of which begins a line."""
    count, size = math.prod(shape), np.dtype(dtype).itemsize
    room = np.zeros(count + _LINE // size, dtype)
    first = -room.ctypes.data % _LINE // size
    return room[first : first + count].reshape(shape)
