"""Material for the coder's tests: tables of starts and the intervals of symbols in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["TOTAL", "intervals", "tables"]

TOTAL = 1 << 24

Integers = NDArray[np.int64]


def tables(generator: np.random.Generator, steps: int, lanes: int, skew: float) -> Integers:
    """Return starts [steps, lanes, 256] of random frequencies that sum to the total."""
    weights = generator.random((steps, lanes, 256)) ** skew
    ends = np.cumsum(weights, 2)
    shares = np.floor(ends / ends[:, :, -1:] * (TOTAL - 256)).astype(np.int64)
    return np.concatenate([np.zeros((steps, lanes, 1), np.int64), shares[:, :, :-1]], 2) + np.arange(256)


def intervals(starts: Integers, symbols: Integers) -> tuple[Integers, Integers]:
    """Return the starts and the frequencies of these symbols, [steps, lanes]."""
    true = symbols[:, :, None]
    widths = np.diff(starts, axis=2, append=TOTAL)
    return (
        np.take_along_axis(starts, true, 2).squeeze(2),
        np.take_along_axis(widths, true, 2).squeeze(2),
    )
