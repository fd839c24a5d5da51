"""Sums over the rows of a gradient, for more rows than one program should read alone; see columns.py."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..quantise import INT16_MOST, SUM_MOST
from .columns import ColumnSums
from .digits import Digits, RowDigits
from .elements import (
    CHAINED,
    beside_floats,
    follow,
    from_bits,
    row_scale,
    size_bits,
    split_digits,
    whole_number,
)
from .layer_norm import whole_normal
from .quantise import scale_of_rows

__all__ = ["COLUMN_ROWS", "column_places", "column_tile", "layer_columns", "norm_columns"]

_INT16_MOST = tl.constexpr(INT16_MOST)
_SUM_MOST = tl.constexpr(SUM_MOST)

COLUMN_ROWS = 64
"""Rows of a program."""


def column_tile(width: int) -> int:
    """Return the columns of a program."""
    return min(64, int(triton.next_power_of_2(width)))


@triton.jit
def column_places(rows, width: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return a tile's rows and columns, which rows, columns and places are inside, and the places."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there, column_inside = row < rows, column < width
    inside = there[:, None] & column_inside[None, :]
    place = row[:, None] * width + column[None, :]
    return row, column, there, column_inside, inside, place


@triton.jit
def _find_largest(
    gradient,
    scale_x,
    largest,
    product_largest,
    rows,
    width: tl.constexpr,
    has_scale: tl.constexpr,
    x_largest: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there, column_inside = row < rows, column < width
    g = tl.load(
        gradient + row[:, None] * width + column[None, :],
        mask=there[:, None] & column_inside[None, :],
        other=0.0,
    )
    tl.atomic_max(largest + column, tl.max(size_bits(g), 0), mask=column_inside, sem="relaxed")
    if has_scale:
        scale = scale_of_rows(scale_x, row, there, x_largest)
        bits = tl.max(size_bits(g * scale[:, None]), 0)
        tl.atomic_max(product_largest + column, bits, mask=column_inside, sem="relaxed")


@triton.jit
def _column_scale(largest, column, width: tl.constexpr, most: tl.constexpr, COLUMNS: tl.constexpr):
    """Return (factor, scale) of columns from the bits of their largest sizes.

    By way of two copies, whose largest is taken, so that a column is divided for by few threads and handed
    on. Otherwise every thread would divide for all columns of which it holds a row.
    """
    copies = column[:, None] + tl.zeros((COLUMNS, 2), tl.int32)
    bits = tl.load(largest + copies, mask=copies < width, other=0)
    factor, scale = row_scale(from_bits(bits), most)
    return tl.max(factor, 1), tl.max(scale, 1)


@triton.jit
def _layer_columns(
    gradient,
    scale_x,
    largest,
    product_largest,
    sums,
    high,
    low,
    scale,
    scale_weight,
    row_largest,
    row_high,
    row_low,
    rows,
    width: tl.constexpr,
    x_largest: tl.constexpr,
    by_row: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    follow()
    row, column, there, column_inside, inside, place = column_places(rows, width, ROWS, COLUMNS)
    g = tl.load(gradient + place, mask=inside, other=0.0)

    if by_row:
        # For the gradient by the layer's input.
        by_column = tl.load(scale_weight + column, mask=column_inside, other=0.0)
        factor, _ = row_scale(from_bits(tl.load(row_largest + row, mask=there, other=0)), _INT16_MOST)
        whole = whole_number(g * by_column[None, :], factor[:, None])
        top, bottom = split_digits(whole)
        tl.store(beside_floats(row_high, place), top, mask=inside)
        tl.store(beside_floats(row_low, place), bottom, mask=inside)

    # For the weight's.
    factor, unit = _column_scale(product_largest, column, width, _INT16_MOST, COLUMNS)
    scale_row = scale_of_rows(scale_x, row, there, x_largest)
    whole = whole_number(g * scale_row[:, None], factor[None, :])
    top, bottom = split_digits(whole)
    place = column[None, :] * rows + row[:, None]
    tl.store(high + place, top, mask=inside)
    tl.store(low + place, bottom, mask=inside)
    if tl.program_id(0) == 0:
        tl.store(scale + column, unit, mask=column_inside)

    # For the bias's.
    factor, _ = _column_scale(largest, column, width, _SUM_MOST, COLUMNS)
    total = tl.sum(whole_number(g, factor[None, :]), 0).to(tl.int64)
    tl.atomic_add(sums + column, total, mask=column_inside, sem="relaxed")


def layer_columns(
    gradient: Tensor,
    scale_x: Tensor,
    columns: ColumnSums,
    digits: Digits,
    rows: RowDigits | None = None,
    found: bool = False,
) -> None:
    """Write a linear layer's gradient, float32 [rows, outputs], as `digits`, and sum it up.

    `scale_x` is the scales of the layer's input, float32 [rows], or the bits, int32 [rows], of the largest
    sizes that they come from; `columns` were set to zero before, or hold the largest sizes where these were
    `found` already. With `rows` those digits are written too.
    """
    count, outputs = gradient.shape
    is_largest = scale_x.dtype == torch.int32
    tile = column_tile(outputs)
    grid = (triton.cdiv(count, COLUMN_ROWS), triton.cdiv(outputs, tile))
    if not found:
        _find_largest[grid](
            gradient,
            scale_x,
            columns.largest,
            columns.product_largest,
            count,
            outputs,
            True,
            is_largest,
            COLUMN_ROWS,
            tile,
            num_warps=4,
            **CHAINED,
        )
    _layer_columns[grid](
        gradient,
        scale_x,
        columns.largest,
        columns.product_largest,
        columns.sums,
        digits.high,
        digits.low,
        digits.scale,
        digits.scale if rows is None else rows.scale_weight,
        digits.scale if rows is None else rows.largest,
        digits.high if rows is None else rows.high,
        digits.low if rows is None else rows.low,
        count,
        outputs,
        is_largest,
        rows is not None,
        COLUMN_ROWS,
        tile,
        num_warps=4,
        **CHAINED,
    )


@triton.jit
def _norm_columns(
    gradient,
    normal,
    largest,
    sums,
    along,
    rows,
    width: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    column_inside = column < width
    inside = (row < rows)[:, None] & column_inside[None, :]
    place = row[:, None] * width + column[None, :]
    factor, _ = row_scale(from_bits(tl.load(largest + column, mask=column_inside, other=0)), _SUM_MOST)
    whole = whole_number(tl.load(gradient + place, mask=inside, other=0.0), factor[None, :])
    total = tl.sum(whole, 0).to(tl.int64)
    tl.atomic_add(sums + column, total, mask=column_inside, sem="relaxed")
    values = whole_normal(tl.load(normal + place, mask=inside, other=0.0)).to(tl.int64)
    total = tl.sum(whole.to(tl.int64) * values, 0)
    tl.atomic_add(along + column, total, mask=column_inside, sem="relaxed")


def norm_columns(gradient: Tensor, normal: Tensor, columns: ColumnSums, found: bool = False) -> None:
    """Sum up what a norm's gain and offset learn from: the gradient by its result, and times `normal`.

    Both are float32 [rows, width]; `columns` are as `layer_columns` takes them.
    """
    rows, width = gradient.shape
    tile = column_tile(width)
    grid = (triton.cdiv(rows, COLUMN_ROWS), triton.cdiv(width, tile))
    if not found:
        _find_largest[grid](
            gradient,
            gradient,
            columns.largest,
            columns.largest,
            rows,
            width,
            False,
            False,
            COLUMN_ROWS,
            tile,
            num_warps=4,
            **CHAINED,
        )
    _norm_columns[grid](
        gradient,
        normal,
        columns.largest,
        columns.sums,
        columns.along,
        rows,
        width,
        COLUMN_ROWS,
        tile,
        num_warps=4,
        **CHAINED,
    )
