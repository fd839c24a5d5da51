"""Batch normalisation, between what stands before it and behind it: the twin of batch_norm.py.

A column's sums over all rows are made by many programs. What the sums come to is worked out anew by every
program that needs it, for far more rows than it costs.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..batch_norm import EPSILON, FEW_ROWS, BatchStatistics, statistics_most
from ..quantise import INT8_MOST, INT16_MOST, SUM_MOST
from ..workspace import Workspace
from .columns import COLUMN_ROWS, Columns, column_tile, scale_of_rows
from .elements import (
    CHAINED,
    beside_floats,
    follow,
    from_bits,
    reciprocal_sqrt,
    row_scale,
    size_bits,
    split_digits,
    whole_number,
)
from .parameters import Parameter
from .products import combined, sum_of_splits

__all__ = ["FusedBatchNorm", "add_layer", "add_newest", "add_product", "quantise_rows"]

_INT8_MOST = tl.constexpr(INT8_MOST)
_INT16_MOST = tl.constexpr(INT16_MOST)
_SUM_MOST = tl.constexpr(SUM_MOST)
_EPSILON = tl.constexpr(EPSILON)
_NORMAL_UNIT = tl.constexpr(2.0**-11)

_VALUES = 2048
"""Values of the rows that a program holds whole."""

_WARPS = 4


@triton.jit
def _store_rows(x, row, there, place, inside, whole, scale_out):
    """Store rows as int8, and their scales."""
    factor, scale = row_scale(tl.max(tl.abs(x), 1), _INT8_MOST)
    tl.store(beside_floats(whole, place), whole_number(x, factor[:, None]).to(tl.int8), mask=inside)
    tl.store(scale_out + row, scale, mask=there)


@triton.jit
def _quantise_rows(
    x,
    whole,
    scale,
    largest,
    other_largest,
    rows,
    width: tl.constexpr,
    clears: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    there = row < rows
    inside = there[:, None] & (column < width)[None, :]
    place = row[:, None] * width + column[None, :]
    _store_rows(tl.load(x + place, mask=inside, other=0.0), row, there, place, inside, whole, scale)
    if clears:
        tl.store(largest + row, tl.zeros((ROWS,), tl.int32), mask=there)
        tl.store(other_largest + row, tl.zeros((ROWS,), tl.int32), mask=there)


def quantise_rows(
    x: Tensor, whole: Tensor, scale: Tensor, largest: tuple[Tensor, Tensor] | None = None
) -> None:
    """Write x, float32 [rows, width], as int8 `whole` with `scale`, float32 [rows]; set both `largest` to 0.

    These, int32 [rows], are what the backward pass finds the rows' largest gradients in.
    """
    rows, width = x.shape
    each, padded = _row_tile(width)
    _quantise_rows[(triton.cdiv(rows, each),)](
        x,
        whole,
        scale,
        *(largest or (scale, scale)),
        rows,
        width,
        largest is not None,
        each,
        padded,
        num_warps=_WARPS,
        **CHAINED,
    )


def _row_tile(width: int) -> tuple[int, int]:
    """Return how many rows a program holds, and their padded width."""
    padded = int(triton.next_power_of_2(width))
    return max(1, min(16, _VALUES // padded)), padded


@triton.jit
def _add_layer(
    x,
    sums,
    scale_x,
    scale_weight,
    bias,
    out,
    largest,
    rows,
    width: tl.constexpr,
    x_largest: tl.constexpr,
    SPLITS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there, column_inside = row < rows, column < width
    inside = there[:, None] & column_inside[None, :]
    place = row[:, None] * width + column[None, :]
    by_row = scale_of_rows(scale_x, row, there, x_largest)
    by_column = tl.load(scale_weight + column, mask=column_inside, other=0.0)
    layer = sum_of_splits(sums, place, inside, rows * width, SPLITS).to(tl.float32) * by_row[:, None]
    layer = layer * by_column[None, :]
    layer = layer + tl.load(bias + column, mask=column_inside, other=0.0)[None, :]
    result = tl.load(x + place, mask=inside, other=0.0) + layer
    tl.store(out + place, result, mask=inside)
    bits = tl.max(tl.where(inside, size_bits(result), 0), 0)
    tl.atomic_max(largest + column, bits, mask=column_inside, sem="relaxed")


def add_layer(
    x: Tensor,
    sums: Tensor,
    splits: int,
    scale_x: Tensor,
    scale_weight: Tensor,
    bias: Tensor,
    out: Tensor,
    largest: Tensor,
) -> None:
    """Write x plus what a layer made, from the integer sums of its product in parts, to `out`.

    x and out are float32 [rows, width]; `scale_x` is as `layer_columns` takes it. The bits of each column's
    largest size are left in `largest`, int32 [width], set to 0 before.
    """
    rows, width = x.shape
    tile = column_tile(width)
    _add_layer[(triton.cdiv(rows, COLUMN_ROWS), triton.cdiv(width, tile))](
        x,
        sums,
        scale_x,
        scale_weight,
        bias,
        out,
        largest,
        rows,
        width,
        scale_x.dtype == torch.int32,
        splits,
        COLUMN_ROWS,
        tile,
        num_warps=_WARPS,
        **CHAINED,
    )


@triton.jit
def _add_product(
    added,
    high_sums,
    low_sums,
    row_largest,
    newest,
    out,
    largest,
    rows,
    width: tl.constexpr,
    tokens: tl.constexpr,
    SPLITS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there, column_inside = row < rows, column < width
    inside = there[:, None] & column_inside[None, :]
    place = row[:, None] * width + column[None, :]
    if SPLITS > 0:
        _, scale = row_scale(from_bits(tl.load(row_largest + row, mask=there, other=0)), _INT16_MOST)
        high = sum_of_splits(high_sums, place, inside, rows * width, SPLITS)
        low = sum_of_splits(low_sums, place, inside, rows * width, SPLITS)
        more = combined(high, low) * scale[:, None]
    else:
        of_lane = (row // tokens)[:, None] * width + column[None, :]
        is_newest = inside & (row % tokens == tokens - 1)[:, None]
        more = tl.load(newest + of_lane, mask=is_newest, other=0.0)
    # Zeros are added as in the plain twin: they turn a negative zero into a positive one.
    result = tl.load(added + place, mask=inside, other=0.0) + more
    tl.store(out + place, result, mask=inside)
    bits = tl.max(size_bits(result), 0)
    tl.atomic_max(largest + column, bits, mask=column_inside, sem="relaxed")


def add_product(
    added: Tensor, sums: tuple[Tensor, Tensor], splits: int, row_largest: Tensor, out: Tensor, largest: Tensor
) -> None:
    """Write `added` plus the gradient by a layer's input, from `gradient_sums`, to `out`, [rows, width].

    `row_largest` is the bits of the rows' largest sizes that the digits' scales come from, and the columns'
    are left in `largest`, set to 0 before.
    """
    rows, width = added.shape
    tile = column_tile(width)
    _add_product[(triton.cdiv(rows, COLUMN_ROWS), triton.cdiv(width, tile))](
        added,
        *sums,
        row_largest,
        added,
        out,
        largest,
        rows,
        width,
        1,
        splits,
        COLUMN_ROWS,
        tile,
        num_warps=_WARPS,
        **CHAINED,
    )


def add_newest(added: Tensor, newest: Tensor, out: Tensor, largest: Tensor) -> None:
    """Write `added`, float32 [lanes * tokens, width], to `out`, plus `newest`, [lanes, width], at the newest.

    The bits of the columns' largest sizes are left in `largest`, set to 0 before.
    """
    rows, width = added.shape
    tile = column_tile(width)
    _add_product[(triton.cdiv(rows, COLUMN_ROWS), triton.cdiv(width, tile))](
        added,
        added,
        added,
        largest,
        newest,
        out,
        largest,
        rows,
        width,
        rows // len(newest),
        0,
        COLUMN_ROWS,
        tile,
        num_warps=_WARPS,
        **CHAINED,
    )


class FusedBatchNorm:
    """The norm, whose gain and offset learn from sums over columns; see `Columns`."""

    def __init__(
        self,
        name: str,
        gain: Parameter,
        offset: Parameter,
        kept: BatchStatistics,
        rows: int,
        columns: Columns,
        workspace: Workspace,
    ) -> None:
        """Carry on from `kept`, with steps of so many rows."""
        self._gain, self._offset, self._kept = gain.weight, offset.weight, kept
        self._rows, self._width = rows, len(gain.weight)
        self._statistics = columns.new(self._width)
        self.columns = columns.new(self._width)
        """The sums of the gradient by the result, and of that times what was normalised."""
        columns.learn(offset, (self.columns,))
        columns.learn(gain, (self.columns,), along=True)
        self._mean, self._slope = (
            workspace.take(f"{name}.{part}", (self._width,)) for part in ("mean", "slope")
        )
        self.normal = workspace.take(f"{name}.normal", (rows, self._width))
        """First what is normalised, [rows, width], then that normalised."""
        self._share = min(1.0, rows / FEW_ROWS)

    @property
    def largest(self) -> Tensor:
        """Where the bits of each column's largest of `normal` are found."""
        return self._statistics.largest

    def _measure(self) -> None:
        """Work out mean and slope of the columns, and keep what the next step may need."""
        rows, width, most = self._rows, self._width, statistics_most(self._rows)
        tile = column_tile(width)
        sums = self._statistics
        _sum_squares[(triton.cdiv(rows, COLUMN_ROWS), triton.cdiv(width, tile))](
            self.normal,
            sums.largest,
            sums.sums,
            sums.along,
            rows,
            width,
            most,
            COLUMN_ROWS,
            tile,
            num_warps=_WARPS,
            **CHAINED,
        )
        share = self._share
        _measure[(triton.cdiv(width, tile),)](
            sums.largest,
            sums.sums,
            sums.along,
            self._kept.mean,
            self._kept.variance,
            self._mean,
            self._slope,
            rows,
            1.0 / rows,
            1.0 / (rows * rows),
            share,
            1.0 - share,
            share * (1.0 - share),
            width,
            most,
            share < 1.0,
            tile,
            num_warps=2,
            **CHAINED,
        )

    def forward(
        self,
        out: Tensor | None,
        whole: Tensor | None = None,
        scale: Tensor | None = None,
        largest: Tensor | None = None,
        newest_normal: Tensor | None = None,
    ) -> None:
        """Normalise what stands in `normal`, with its columns' `largest`, and write what is given.

        `out`, float32 [rows, width], is the result; `whole`, int8, and `scale`, float32, the same quantised
        by row; `largest`, int32 [rows], is set to 0. With `newest_normal`, [lanes, width], the quantised rows
        are the newest of each lane alone, of which what was normalised goes there.
        """
        self._measure()
        each, padded = _row_tile(self._width)
        nothing = self._mean
        tokens = 1 if newest_normal is None else self._rows // len(newest_normal)
        _normalise[(triton.cdiv(self._rows, each),)](
            self.normal,
            self._mean,
            self._slope,
            self._gain,
            self._offset,
            nothing if out is None else out,
            nothing if whole is None else whole,
            nothing if scale is None else scale,
            nothing if largest is None else largest,
            nothing if newest_normal is None else newest_normal,
            self._rows,
            self._width,
            tokens,
            out is not None,
            whole is not None,
            largest is not None,
            newest_normal is not None,
            each,
            padded,
            num_warps=_WARPS,
            **CHAINED,
        )

    def backward(
        self,
        gradient: Tensor,
        by_x: Tensor,
        scale_weight: Tensor,
        digits: tuple[Tensor, Tensor],
        digit_scale: Tensor,
        next_largest: Tensor | None = None,
    ) -> None:
        """Write the gradient by what was normalised, and its digits by row for the layer before.

        `gradient`, by the result, is float32 [rows, width], or [lanes, width] of the newest rows; it has been
        summed up in `columns`. `scale_weight` is that layer's weight's scales, which are multiplied in first,
        `digits` int8 [rows, width] each, `digit_scale` float32 [rows]. `next_largest`, int32 [rows], is set
        to 0.
        """
        each, padded = _row_tile(self._width)
        sums = self.columns
        _backward[(triton.cdiv(self._rows, each),)](
            gradient,
            self.normal,
            sums.largest,
            sums.sums,
            sums.along,
            self._slope,
            self._gain,
            scale_weight,
            by_x,
            *digits,
            digit_scale,
            digit_scale if next_largest is None else next_largest,
            self._rows,
            self._share / self._rows,
            self._width,
            self._rows // len(gradient),
            next_largest is not None,
            each,
            padded,
            num_warps=_WARPS,
            **CHAINED,
        )


@triton.jit
def _sum_squares(
    x,
    largest,
    sums,
    squares,
    rows,
    width: tl.constexpr,
    most: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    column_inside = column < width
    inside = (row < rows)[:, None] & column_inside[None, :]
    factor, _ = row_scale(from_bits(tl.load(largest + column, mask=column_inside, other=0)), most)
    values = tl.load(x + row[:, None] * width + column[None, :], mask=inside, other=0.0)
    whole = whole_number(values, factor[None, :])
    tl.atomic_add(sums + column, tl.sum(whole, 0).to(tl.int64), mask=column_inside, sem="relaxed")
    wide = whole.to(tl.int64)
    tl.atomic_add(squares + column, tl.sum(wide * wide, 0), mask=column_inside, sem="relaxed")


@triton.jit
def _measure(
    largest,
    sums,
    squares,
    kept_mean,
    kept_variance,
    mean_out,
    slope_out,
    rows,
    by_rows,
    by_pairs,
    share,
    rest,
    both,
    width: tl.constexpr,
    most: tl.constexpr,
    few: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    follow()
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    total = tl.load(sums + column, mask=inside, other=0)
    spread = (tl.load(squares + column, mask=inside, other=0) * rows - total * total).to(tl.float32)
    _, scale = row_scale(from_bits(tl.load(largest + column, mask=inside, other=0)), most)
    mean = (total.to(tl.float32) * scale) * by_rows
    variance = ((spread * by_pairs) * scale) * scale
    if few:
        before = tl.load(kept_mean + column, mask=inside, other=0.0)
        apart = mean - before
        variance = variance * share + tl.load(kept_variance + column, mask=inside, other=1.0) * rest
        variance = variance + (apart * apart) * both
        mean = apart * share + before
        tl.debug_barrier()
    tl.store(kept_mean + column, mean, mask=inside)
    tl.store(kept_variance + column, variance, mask=inside)
    tl.store(mean_out + column, mean, mask=inside)
    tl.store(slope_out + column, reciprocal_sqrt(variance + _EPSILON), mask=inside)


@triton.jit
def _normalise(
    normal,
    mean,
    slope,
    gain,
    offset,
    out,
    whole,
    scale,
    largest,
    newest_normal,
    rows,
    width: tl.constexpr,
    tokens: tl.constexpr,
    keeps: tl.constexpr,
    quantises: tl.constexpr,
    clears: tl.constexpr,
    newest: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    there, column_inside = row < rows, column < width
    inside = there[:, None] & column_inside[None, :]
    place = row[:, None] * width + column[None, :]
    middle = tl.load(mean + column, mask=column_inside, other=0.0)
    steep = tl.load(slope + column, mask=column_inside, other=0.0)
    values = (tl.load(normal + place, mask=inside, other=0.0) - middle[None, :]) * steep[None, :]
    result = values * tl.load(gain + column, mask=column_inside, other=0.0)[None, :]
    result = result + tl.load(offset + column, mask=column_inside, other=0.0)[None, :]
    # It takes the place of what was loaded, of which threads may hold copies.
    tl.debug_barrier()
    tl.store(normal + place, values, mask=inside)
    if keeps:
        tl.store(out + place, result, mask=inside)
    if clears:
        tl.store(largest + row, tl.zeros((ROWS,), tl.int32), mask=there)
    if quantises:
        if newest:
            there = there & (row % tokens == tokens - 1)
            inside = there[:, None] & column_inside[None, :]
            row = row // tokens
            place = row[:, None] * width + column[None, :]
            tl.store(newest_normal + place, values, mask=inside)
        _store_rows(result, row, there, place, inside, whole, scale)


@triton.jit
def _backward(
    gradient,
    normal,
    largest,
    sums,
    along,
    slope,
    gain,
    scale_weight,
    by_x,
    high,
    low,
    digit_scale,
    next_largest,
    rows,
    part,
    width: tl.constexpr,
    tokens: tl.constexpr,
    clears: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    there, column_inside = row < rows, column < width
    inside = there[:, None] & column_inside[None, :]
    place = row[:, None] * width + column[None, :]
    _, unit = row_scale(from_bits(tl.load(largest + column, mask=column_inside, other=0)), _SUM_MOST)
    by_offset = tl.load(sums + column, mask=column_inside, other=0).to(tl.float32) * unit
    by_gain = (tl.load(along + column, mask=column_inside, other=0).to(tl.float32) * unit) * _NORMAL_UNIT
    level, tilt = by_offset * part, by_gain * part
    steep = tl.load(slope + column, mask=column_inside, other=0.0)
    steep = steep * tl.load(gain + column, mask=column_inside, other=0.0)
    if tokens > 1:
        newest = inside & (row % tokens == tokens - 1)[:, None]
        g = tl.load(gradient + (row // tokens)[:, None] * width + column[None, :], mask=newest, other=0.0)
    else:
        g = tl.load(gradient + place, mask=inside, other=0.0)
    values = tl.load(normal + place, mask=inside, other=0.0)
    result = ((g - level[None, :]) - values * tilt[None, :]) * steep[None, :]
    tl.store(by_x + place, result, mask=inside)

    by_column = tl.load(scale_weight + column, mask=column_inside, other=0.0)
    scaled = tl.where(inside, result * by_column[None, :], 0.0)
    bits = tl.max(size_bits(scaled), 1)
    factor, scale = row_scale(from_bits(bits), _INT16_MOST)
    top, bottom = split_digits(whole_number(scaled, factor[:, None]))
    tl.store(beside_floats(high, place), top, mask=inside)
    tl.store(beside_floats(low, place), bottom, mask=inside)
    tl.store(digit_scale + row, scale, mask=there)
    if clears:
        tl.store(next_largest + row, tl.zeros((ROWS,), tl.int32), mask=there)
