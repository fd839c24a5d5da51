"""Exact products of matrices of whole numbers.

The result is the integer sum, rounded once to float32, so it does not depend on how it is computed.
What computes it is chosen by speed: int8 products with int32 sums where the processor has them,
float32 products while every partial sum stays below 2^24, and otherwise float64 ones, which are exact
below 2^53.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from .constants import constant
from .quantise import INT8_MOST

__all__ = ["product_8x8", "product_8x16", "product_16x8", "product_16x16", "split_digits"]

_FLOAT32_INNER = (1 << 24) // (128 * 128)
"""The longest inner dimension for which sums of int8 products are exact in float32."""

_INT32_INNER = (1 << 31) // (128 * 128) - 1
"""The longest inner dimension for which sums of int8 products fit int32."""


def product_8x8(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b as float32; a [m, k] and b [k, n] hold whole numbers within int8."""
    if a.is_cuda or not _has_int8_products(a.shape[0], a.shape[1], b.shape[1]):
        return _float_product(a, b)
    return torch._int_mm(_int8(a), _int8(b)).to(torch.float32)


def product_16x8(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b as float32; a [m, k] holds whole numbers up to INT16_MOST, b [k, n] within int8."""
    if a.is_cuda or not _has_int8_products(a.shape[0], a.shape[1], b.shape[1]):
        return _wide_product(a, b)
    narrow = _int8(b)
    high, low = (torch._int_mm(_int8(digit), narrow) for digit in split_digits(a))
    return _combine(high, low, a.shape[1])


def product_8x16(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b as float32; a [m, k] holds whole numbers within int8, b [k, n] up to INT16_MOST."""
    if a.is_cuda or not _has_int8_products(a.shape[0], a.shape[1], b.shape[1]):
        return _wide_product(a, b)
    narrow = _int8(a)
    high, low = (torch._int_mm(narrow, _int8(digit)) for digit in split_digits(b))
    return _combine(high, low, a.shape[1])


def product_16x16(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b as float64, exact; a and b hold whole numbers below 2^16 (inner size up to 2^21)."""
    return a.to(torch.float64) @ b.to(torch.float64)


def split_digits(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return (high, low), float32 whole numbers within int8, with x = 256 high + low."""
    high = (x * constant(1.0 / 256)).add_(constant(0.5)).floor_()
    return high, x - high * constant(256.0)


def _combine(high: Tensor, low: Tensor, inner: int) -> Tensor:
    """Return 256 high + low, int32 each, rounded once to float32; `inner` numbers were summed."""
    if inner <= _FLOAT32_INNER:
        # Both sums are then below 2^24: exact as float32.
        return high.to(torch.float32).mul_(constant(256.0)).add_(low)
    return high.to(torch.int64).mul_(256).add_(low).to(torch.float32)


def _float_product(a: Tensor, b: Tensor) -> Tensor:
    if a.shape[-1] <= _FLOAT32_INNER:
        return a @ b
    return _wide_product(a, b)


def _wide_product(a: Tensor, b: Tensor) -> Tensor:
    return (a.to(torch.float64) @ b.to(torch.float64)).to(torch.float32)


def _int8(x: Tensor) -> Tensor:
    """Return x as int8, row after row: torch's int8 product misreads some other layouts."""
    return torch.empty(x.shape, dtype=torch.int8).copy_(x)


@cache
def _has_int8_products(rows: int, inner: int, columns: int) -> bool:
    """Return whether this processor's int8 products of this size were seen to be exact.

    Kernels for processors without the right instructions may saturate 16-bit intermediate sums, which
    the largest operands show, and some sizes are computed wrongly, which varied operands show.
    """
    if inner > _INT32_INNER:
        return False
    if not (torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"):
        return False
    varied = [
        (torch.arange(shape[0] * shape[1]) * 2654435761 % 251 - 125).view(shape).to(torch.int8)
        for shape in ((rows, inner), (inner, columns))
    ]
    trials = [(varied[0], varied[1])]
    for left in (INT8_MOST, -128):
        for right in (INT8_MOST, -128):
            trials.append((torch.full_like(varied[0], left), torch.full_like(varied[1], right)))
    return all(
        torch.equal(torch._int_mm(a, b).to(torch.float64), a.to(torch.float64) @ b.to(torch.float64))
        for a, b in trials
    )
