"""Hashes of 32 bits."""

from __future__ import annotations

import numba
import numpy as np

from .profiles import FIELDS

__all__ = ["MULTIPLIERS", "NIBBLE", "WORD", "finished"]

NIBBLE = 0x9E3779B1
WORD = 0x2F0B4C47


@numba.njit(cache=True, inline="always")
def finished(x):
    """Return x, of 32 bits, with every bit spread over all."""
    x ^= x >> 15
    x = (x * 0x85EBCA6B) & 0xFFFFFFFF
    x ^= x >> 13
    x = (x * 0xC2B2AE35) & 0xFFFFFFFF
    return x ^ (x >> 16)


MULTIPLIERS = np.array([finished.py_func(i + 1) | 1 for i in range(FIELDS)], np.uint32)
"""uint32 [fields]: odd, and as good as independent."""
