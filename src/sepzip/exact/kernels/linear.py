"""The forward passes of layers that all lanes share: the twins of linear.py and gelu.py, fused."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..quantise import INT8_MOST
from .elements import CHAINED, beside_floats, follow, from_bits, gelu, row_scale, size_bits, whole_number
from .products import product, split_inner, split_tile, splits, whole_inner, whole_tile

__all__ = ["activate", "linear_forward", "linear_sums", "transpose"]

_INT8_MOST = tl.constexpr(INT8_MOST)


@triton.jit
def _linear_forward(
    x,
    weight,
    scale_x,
    scale_weight,
    bias,
    out,
    largest,
    lanes,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    activation: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPLIT: tl.constexpr,
    INNER: tl.constexpr,
):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row_inside, column_inside = row < lanes, column < outputs
    sums = product(x, weight, lanes, outputs, row, column, 0, inputs, SPLIT, INNER)
    by_row = tl.load(scale_x + row, mask=row_inside, other=0.0)
    by_column = tl.load(scale_weight + column, mask=column_inside, other=0.0)
    added = tl.load(bias + column, mask=column_inside, other=0.0)
    result = (sums.to(tl.float32) * by_row[:, None]) * by_column[None, :] + added[None, :]
    inside = row_inside[:, None] & column_inside[None, :]
    tl.store(out + row[:, None] * outputs + column[None, :], result, mask=inside)
    if activation:
        bits = tl.max(tl.where(inside, size_bits(gelu(result)), 0), 1)
        tl.atomic_max(largest + row, bits, mask=row_inside, sem="relaxed")


def linear_forward(
    x: Tensor,
    weight: Tensor,
    scale_x: Tensor,
    scale_weight: Tensor,
    bias: Tensor,
    out: Tensor,
    largest: Tensor | None = None,
) -> None:
    """Write x @ weight + bias to `out`, float32 [lanes, outputs].

    x is int8 [lanes, inputs], `weight` int8 by output [outputs, inputs]; the scales are float32 [lanes]
    and [outputs]. With `largest`, int32 [lanes], set to 0 before, the bits of the largest |gelu(out)| of
    each lane are left there.
    """
    (lanes, inputs), outputs = x.shape, len(weight)
    rows, columns, warps = whole_tile(lanes, outputs)
    _linear_forward[(triton.cdiv(lanes, rows), triton.cdiv(outputs, columns))](
        x,
        weight,
        scale_x,
        scale_weight,
        bias,
        out,
        x if largest is None else largest,
        lanes,
        inputs,
        outputs,
        largest is not None,
        rows,
        columns,
        *whole_inner(inputs),
        num_warps=warps,
        **CHAINED,
    )


@triton.jit
def _linear_sums(
    x,
    weight,
    sums,
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
    result = product(x, weight, lanes, outputs, row, column, start, inputs, SPLIT, INNER)
    place = (tl.program_id(1) * lanes + row[:, None]) * outputs + column[None, :]
    tl.store(sums + place, result, mask=(row < lanes)[:, None] & (column < outputs)[None, :])


def linear_sums(x: Tensor, weight: Tensor, sums: Tensor) -> None:
    """Write the integer sums of x @ weight in parts to `sums`, int32 [splits(inputs, lanes), lanes, outputs].

    x is int8 [lanes, inputs], `weight` int8 by output.
    """
    (lanes, inputs), outputs = x.shape, len(weight)
    rows, columns, warps = split_tile(lanes, outputs)
    _linear_sums[(triton.cdiv(lanes, rows), splits(inputs, lanes), triton.cdiv(outputs, columns))](
        x,
        weight,
        sums,
        lanes,
        inputs,
        outputs,
        rows,
        columns,
        *split_inner(inputs, lanes),
        num_warps=warps,
        **CHAINED,
    )


@triton.jit
def _activate(
    x,
    largest,
    whole,
    whole_by_input,
    lanes,
    width: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row_inside = row < lanes
    inside = row_inside[:, None] & (column < width)[None, :]
    factor, _ = row_scale(from_bits(tl.load(largest + row, mask=row_inside, other=0)), _INT8_MOST)
    place = row[:, None] * width + column[None, :]
    values = whole_number(gelu(tl.load(x + place, mask=inside, other=0.0)), factor[:, None]).to(tl.int8)
    tl.store(beside_floats(whole, place), values, mask=inside)
    tl.store(whole_by_input + column[None, :] * lanes + row[:, None], values, mask=inside)


def activate(x: Tensor, largest: Tensor, whole: Tensor, whole_by_input: Tensor) -> None:
    """Write gelu(x), quantised by lane, to `whole`, int8 [lanes, width], and [width, lanes].

    x is float32 [lanes, width], `largest` int32 [lanes] the bits of each lane's largest |gelu(x)|.
    """
    lanes, width = x.shape
    rows = columns = 64 if lanes * width >= 1 << 20 else 32
    _activate[(triton.cdiv(lanes, rows), triton.cdiv(width, columns))](
        x, largest, whole, whole_by_input, lanes, width, rows, columns, num_warps=4, **CHAINED
    )


@triton.jit
def _transpose(x, out, lanes, width: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < lanes)[:, None] & (column < width)[None, :]
    values = tl.load(x + row[:, None] * width + column[None, :], mask=inside, other=0)
    tl.store(out + column[None, :] * lanes + row[:, None], values, mask=inside)


def transpose(x: Tensor, out: Tensor) -> None:
    """Write int8 x [lanes, width] to `out` [width, lanes]."""
    lanes, width = x.shape
    _transpose[(triton.cdiv(lanes, 64), triton.cdiv(width, 32))](
        x, out, lanes, width, 64, 32, num_warps=4, **CHAINED
    )
