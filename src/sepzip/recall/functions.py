"""The memory's functions of one number, most as tables of integers that are the same everywhere.

A probability is 16 bits, that of a 1; its *stretch* is ln(p / (1 - p)) in 256ths, and *squash* the inverse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["SQUASH_MOST", "Functions", "finished", "functions"]

SQUASH_MOST = 3071
"""The largest size of a number that is squashed."""

_MOST_COUNT = 1 << 15
_MOST_DIVISOR = 1 << 14

_UNSURE = 1e-3
"""How near to the middle between two integers a library's exp or log is not trusted."""


class Functions(NamedTuple):
    """The tables.

    `stretch` is int16 [4096], of a probability's upper 12 bits; `squash` int32 [6144], of a number + 3072;
    `root` int32 [2^15], 4096 over the square root of a count; `reciprocal` int64 [2^14], 2^32 over a number.
    """

    stretch: NDArray[np.int16]
    squash: NDArray[np.int32]
    root: NDArray[np.int32]
    reciprocal: NDArray[np.int64]


def finished(x: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return numbers, uint32, as good as independent of those of other x: the last step of a hash."""
    x = (x ^ x >> np.uint32(15)) * np.uint32(0x85EBCA6B)
    x = (x ^ x >> np.uint32(13)) * np.uint32(0xC2B2AE35)
    return x ^ x >> np.uint32(16)


@cache
def functions() -> Functions:
    """Return the tables. Decimal arithmetic rounds correctly, so no library's exp or log decides."""
    # Odd about the middle: the lower half mirrors the upper.
    upper = [
        _rounded(256 * math.log((4097 + 2 * i) / (4095 - 2 * i)), _logistic_inverse, i) for i in range(2048)
    ]
    squashed = [_rounded(65536 / (1 + math.exp(-x / 256)), _logistic, x) for x in range(3072)]
    stretch = [-x for x in reversed(upper)] + upper
    squash = [1] + [max(65536 - p, 1) for p in reversed(squashed[1:])] + [min(p, 65535) for p in squashed]
    # Square roots are rounded correctly everywhere.
    roots = np.sqrt((1 << 24) // np.arange(1, _MOST_COUNT)).astype(np.int32)
    reciprocals = (1 << 32) // np.arange(1, _MOST_DIVISOR, dtype=np.int64)
    return Functions(
        np.array(stretch, np.int16),
        np.array(squash, np.int32),
        np.concatenate([[4096], np.maximum(roots, 1)]).astype(np.int32),
        np.concatenate([[0], reciprocals]),
    )


def _logistic_inverse(i: int) -> Decimal:
    return 256 * (Decimal(4097 + 2 * i) / Decimal(4095 - 2 * i)).ln()


def _logistic(x: int) -> Decimal:
    return 65536 / (1 + (Decimal(-x) / 256).exp())


def _rounded(roughly: float, exactly: Callable[[int], Decimal], at: int) -> int:
    """Return the integer next to a number, computed exactly only where it may lie between two of them."""
    if abs(roughly % 1 - 0.5) > _UNSURE:
        return round(roughly)
    with localcontext() as context:
        context.prec = 20
        return int(exactly(at).to_integral_value())
