"""The gradients by the inputs of layers that all lanes share: the twins of linear.py and gelu.py, fused."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..quantise import INT16_MOST
from .elements import CHAINED, follow, from_bits, gelu_slope, row_scale, size_bits
from .products import (
    combined_sums,
    product_of_digits,
    split_inner,
    split_tile,
    splits,
    whole_inner,
    whole_tile,
)

__all__ = ["gradient_sums", "hidden_gradient", "input_gradient"]

_INT16_MOST = tl.constexpr(INT16_MOST)


@triton.jit
def _hidden_gradient(
    high,
    low,
    scale,
    weight,
    x,
    gradient,
    next_scale,
    largest,
    scale_x,
    column_largest,
    product_largest,
    lanes,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    by_columns: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPLIT: tl.constexpr,
    INNER: tl.constexpr,
):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row_inside, column_inside = row < lanes, column < inputs
    inside = row_inside[:, None] & column_inside[None, :]
    high_sums, low_sums = product_of_digits(
        high, low, weight, lanes, inputs, row, column, 0, outputs, SPLIT, INNER
    )
    by_row = tl.load(scale + row, mask=row_inside, other=0.0)
    place = row[:, None] * inputs + column[None, :]
    z = tl.load(x + place, mask=inside, other=0.0)
    result = gelu_slope(z) * (combined_sums(high_sums, low_sums, outputs) * by_row[:, None])
    tl.store(gradient + place, result, mask=inside)
    by_column = tl.load(next_scale + column, mask=column_inside, other=0.0)
    bits = tl.max(tl.where(inside, size_bits(result * by_column[None, :]), 0), 1)
    tl.atomic_max(largest + row, bits, mask=row_inside, sem="relaxed")
    if by_columns:
        bits = tl.max(tl.where(inside, size_bits(result), 0), 0)
        tl.atomic_max(column_largest + column, bits, mask=column_inside, sem="relaxed")
        by_row = tl.load(scale_x + row, mask=row_inside, other=0.0)
        bits = tl.max(tl.where(inside, size_bits(result * by_row[:, None]), 0), 0)
        tl.atomic_max(product_largest + column, bits, mask=column_inside, sem="relaxed")


def hidden_gradient(
    high: Tensor,
    low: Tensor,
    scale: Tensor,
    weight: Tensor,
    x: Tensor,
    gradient: Tensor,
    next_scale: Tensor,
    largest: Tensor,
    columns: tuple[Tensor, Tensor, Tensor] | None = None,
) -> None:
    """Write the gradient by x, float32 [lanes, inputs], of a layer `weight` that takes gelu(x).

    `high` and `low`, int8 [lanes, outputs], and `scale`, float32 [lanes], are the quantised gradient by the
    layer's result, `weight` is int8 by input. The bits of each lane's largest |gradient * next_scale| are
    left in `largest`, int32 [lanes], set to 0 before; `next_scale` is the scales, [inputs], of the weight
    that made x. With `columns`, the scales, float32 [lanes], of what x was made of, and two int32 [inputs],
    set to 0 before, the bits of each column's largest |gradient| and |gradient * scale| are left in these.
    """
    (lanes, outputs), inputs = high.shape, len(weight)
    # Each value takes two sums: with the largest tile all took a third longer.
    rows, tile_columns, warps = min(whole_tile(lanes, inputs), (64, 64, 4))
    _hidden_gradient[(triton.cdiv(lanes, rows), triton.cdiv(inputs, tile_columns))](
        high,
        low,
        scale,
        weight,
        x,
        gradient,
        next_scale,
        largest,
        *(columns or (next_scale, largest, largest)),
        lanes,
        inputs,
        outputs,
        columns is not None,
        rows,
        tile_columns,
        *whole_inner(outputs),
        num_warps=warps,
        **CHAINED,
    )


@triton.jit
def _input_gradient(
    high,
    low,
    scale,
    weight,
    added,
    out,
    lanes,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    is_largest: tl.constexpr,
    adds: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPLIT: tl.constexpr,
    INNER: tl.constexpr,
):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row_inside = row < lanes
    inside = row_inside[:, None] & (column < inputs)[None, :]
    high_sums, low_sums = product_of_digits(
        high, low, weight, lanes, inputs, row, column, 0, outputs, SPLIT, INNER
    )
    if is_largest:
        _, by_row = row_scale(from_bits(tl.load(scale + row, mask=row_inside, other=0)), _INT16_MOST)
    else:
        by_row = tl.load(scale + row, mask=row_inside, other=0.0)
    result = combined_sums(high_sums, low_sums, outputs) * by_row[:, None]
    place = row[:, None] * inputs + column[None, :]
    if adds:
        result = tl.load(added + place, mask=inside, other=0.0) + result
    tl.store(out + place, result, mask=inside)


def input_gradient(
    high: Tensor, low: Tensor, scale: Tensor, weight: Tensor, out: Tensor, added: Tensor | None = None
) -> None:
    """Write the gradient by a layer's input, float32 [lanes, inputs], to `out`, behind `added` if given.

    `high` and `low`, int8 [lanes, outputs], are the quantised gradient by the layer's result, `scale` their
    scales, float32 [lanes], or the bits, int32 [lanes], of the largest sizes that these come from; `weight`
    is int8 by input.
    """
    (lanes, outputs), inputs = high.shape, len(weight)
    rows, columns, warps = whole_tile(lanes, inputs)
    _input_gradient[(triton.cdiv(lanes, rows), triton.cdiv(inputs, columns))](
        high,
        low,
        scale,
        weight,
        out if added is None else added,
        out,
        lanes,
        inputs,
        outputs,
        scale.dtype == torch.int32,
        added is not None,
        rows,
        columns,
        *whole_inner(outputs),
        num_warps=warps,
        **CHAINED,
    )


@triton.jit
def _gradient_sums(
    high,
    low,
    weight,
    high_sums,
    low_sums,
    lanes,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPLIT: tl.constexpr,
    INNER: tl.constexpr,
):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    start = tl.program_id(1) * SPLIT
    high_result, low_result = product_of_digits(
        high, low, weight, lanes, inputs, row, column, start, outputs, SPLIT, INNER
    )
    place = (tl.program_id(1) * lanes + row[:, None]) * inputs + column[None, :]
    inside = (row < lanes)[:, None] & (column < inputs)[None, :]
    tl.store(high_sums + place, high_result, mask=inside)
    tl.store(low_sums + place, low_result, mask=inside)


def gradient_sums(high: Tensor, low: Tensor, weight: Tensor, high_sums: Tensor, low_sums: Tensor) -> None:
    """Write the integer sums of the gradient by a layer's input, in parts, for each digit.

    `high` and `low`, int8 [lanes, outputs], are the quantised gradient by the layer's result, `weight` is
    int8 by input; both results are int32 [splits(outputs, lanes), lanes, inputs].
    """
    (lanes, outputs), inputs = high.shape, len(weight)
    rows, columns, warps = split_tile(lanes, inputs)
    _gradient_sums[(triton.cdiv(lanes, rows), splits(outputs, lanes), triton.cdiv(inputs, columns))](
        high,
        low,
        weight,
        high_sums,
        low_sums,
        lanes,
        inputs,
        outputs,
        rows,
        columns,
        *split_inner(outputs, lanes),
        num_warps=warps,
        **CHAINED,
    )
