"""What one program does for a row that it holds whole: a lane, or a token of a lane."""

from __future__ import annotations

import triton
import triton.language as tl

from ...exact.kernels.elements import from_bits, row_scale, split_digits, whole_number
from ...exact.kernels.products import combined, sum_of_splits
from ...exact.quantise import INT8_MOST, INT16_MOST

__all__ = ["product_gradient", "product_result", "row_launch", "store_digits", "store_quantised"]

_INT8_MOST = tl.constexpr(INT8_MOST)
_INT16_MOST = tl.constexpr(INT16_MOST)


def row_launch(width: int) -> tuple[int, int]:
    """Return the padded width of a row, and the warps of a program that holds one."""
    padded = int(triton.next_power_of_2(width))
    return padded, max(1, min(4, padded // 128))


@triton.jit
def product_result(
    sums,
    largest,
    scale_weight,
    bias,
    row,
    column,
    inside,
    rows,
    width: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """Return a layer's result from its integer sums; `largest` has the bits of its input's largest size."""
    place = row * width + column
    _, scale = row_scale(from_bits(tl.load(largest + row)), _INT8_MOST)
    result = sum_of_splits(sums, place, inside, rows * width, SPLITS).to(tl.float32) * scale
    result = result * tl.load(scale_weight + column, mask=inside, other=0.0)
    return result + tl.load(bias + column, mask=inside, other=0.0)


@triton.jit
def store_quantised(x, lane, column, inside, whole, scale_out, width: tl.constexpr):
    """Store a lane's x as int8, and its scale."""
    factor, scale = row_scale(tl.max(tl.abs(x), 0), _INT8_MOST)
    values = whole_number(x, factor).to(tl.int8)
    tl.store(whole + lane * width + column, values, mask=inside)
    tl.store(scale_out + lane, scale)


@triton.jit
def store_digits(x, row, column, inside, high, low, scale_out, width: tl.constexpr):
    """Store a row's x as the digits, int8, of whole numbers of 16 bits, and their scale."""
    factor, scale = row_scale(tl.max(tl.abs(x), 0), _INT16_MOST)
    whole = whole_number(x, factor)
    top, bottom = split_digits(whole)
    place = row * width + column
    tl.store(high + place, top, mask=inside)
    tl.store(low + place, bottom, mask=inside)
    tl.store(scale_out + row, scale)


@triton.jit
def product_gradient(lane, place, inside, high_sums, low_sums, largest, stride, SPLITS: tl.constexpr):
    """Return the gradient by a layer's input from its integer sums."""
    _, scale = row_scale(from_bits(tl.load(largest + lane)), _INT16_MOST)
    high = sum_of_splits(high_sums, place, inside, stride, SPLITS)
    low = sum_of_splits(low_sums, place, inside, stride, SPLITS)
    return combined(high, low) * scale
