"""Rows of floats as whole numbers with a scale: the way into every sum across elements."""

from __future__ import annotations

import torch
from torch import Tensor

from .constants import constant

__all__ = ["INT8_MOST", "INT16_MOST", "SUM_MOST", "exact_sum", "quantise"]

INT8_MOST = 127
# The largest value whose balanced low digit, base 256, still leaves a high digit that fits int8.
INT16_MOST = 127 * 256 + 127
SUM_MOST = 1 << 20

# Rows that are smaller than this everywhere count as zero; its reciprocal must stay finite.
_SMALLEST = 2.0**-80


def quantise(x: Tensor, dim: int | None, most: int) -> tuple[Tensor, Tensor]:
    """Return whole numbers of at most `most` as float32, of the shape of x, and their scale.

    The scale is one number for all elements along `dim` (kept, size 1), or for all of x if `dim` is
    None; whole * scale is x to within half a scale.
    """
    if dim is None:
        largest = x.abs().amax().clamp_(min=_SMALLEST)
    else:
        largest = x.abs().amax(dim, keepdim=True).clamp_(min=_SMALLEST)
    whole = (x * (constant(float(most)) / largest)).round_()
    return whole, largest.mul_(constant(1.0 / most))


def exact_sum(x: Tensor, dim: int) -> Tensor:
    """Return the sum of x along `dim`, kept as size 1, float32.

    Elements are rounded to whole multiples of the largest along `dim` over 2^20 and summed as int64.
    """
    whole, scale = quantise(x, dim, SUM_MOST)
    return whole.to(torch.int64).sum(dim, keepdim=True).to(torch.float32).mul_(scale)
