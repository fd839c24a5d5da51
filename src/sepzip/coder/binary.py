"""An arithmetic coder of bits, each lane with its own: what a memory of contexts predicts by.

A lane's number is between `low` and `high`, 32 bits each; bytes on which both agree leave it. A block's
payload is the lengths of the lanes' bytes, then those bytes, lane after lane.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_BYTES_A_STEP", "LaneCoders", "decode_bit", "encode_bit"]

MOST_BYTES_A_STEP = 16
"""Bytes that a lane can emit in a step of eight bits, and four more: a bit costs at most 12 bits."""

_TOP = 0xFF000000
_ALL = 0xFFFFFFFF


class LaneCoders(NamedTuple):
    """The coders' state, int64 [lanes]; `data` is uint8, room for what is emitted or the payload.

    A lane's next byte is at `at` in it, and `end` is where the lane's bytes end.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    code: NDArray[np.int64]
    at: NDArray[np.int64]
    end: NDArray[np.int64]
    data: NDArray[np.uint8]


@numba.njit(cache=True, nogil=True, inline="always")
def _middle(low, high, probability):
    """Return the last number of a 1, whose probability is in 65536ths."""
    width = high - low
    return low + (width >> 16) * probability + ((width & 0xFFFF) * probability >> 16)


@numba.njit(cache=True, nogil=True)
def encode_bit(coder: LaneCoders, lane, probability, bit):
    """Code a bit of the lane."""
    low, high = coder.low[lane], coder.high[lane]
    middle = _middle(low, high, probability)
    if bit:
        high = middle
    else:
        low = middle + 1
    at = coder.at[lane]
    while (low ^ high) & _TOP == 0:
        coder.data[at] = high >> 24
        at += 1
        low = low << 8 & _ALL
        high = (high << 8 & _ALL) | 255
    coder.low[lane], coder.high[lane], coder.at[lane] = low, high, at


@numba.njit(cache=True, nogil=True)
def decode_bit(coder: LaneCoders, lane, probability):
    """Return the next bit of the lane; past its end its bytes count as zeros."""
    low, high, code = coder.low[lane], coder.high[lane], coder.code[lane]
    middle = _middle(low, high, probability)
    bit = np.int64(1) if code <= middle else np.int64(0)
    if bit:
        high = middle
    else:
        low = middle + 1
    while (low ^ high) & _TOP == 0:
        at = coder.at[lane]
        following = np.int64(coder.data[at]) if at < coder.end[lane] else np.int64(0)
        coder.at[lane] = at + 1
        low = low << 8 & _ALL
        high = (high << 8 & _ALL) | 255
        code = (code << 8 & _ALL) | following
    coder.low[lane], coder.high[lane], coder.code[lane] = low, high, code
    return bit
