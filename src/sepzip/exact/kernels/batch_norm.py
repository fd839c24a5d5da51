"""Batch normalisation and what stands behind it: the twin of batch_norm.py.

A column's sums over all rows are made by many programs. What the sums come to is worked out anew by every
program that needs it, for far more rows than it costs.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..batch_norm import EPSILON, FEW_ROWS, BatchStatistics, statistics_most
from ..quantise import INT16_MOST, SUM_MOST
from ..workspace import Workspace
from .column_sums import COLUMN_ROWS, column_tile
from .columns import Columns
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
from .quantise import ROW_WARPS, row_places, row_tile, store_rows

__all__ = ["FusedBatchNorm"]

_INT16_MOST = tl.constexpr(INT16_MOST)
_SUM_MOST = tl.constexpr(SUM_MOST)
_EPSILON = tl.constexpr(EPSILON)
_NORMAL_UNIT = tl.constexpr(2.0**-11)


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
            num_warps=4,
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
        each, padded = row_tile(self._width)
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
            num_warps=ROW_WARPS,
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
        each, padded = row_tile(self._width)
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
            num_warps=ROW_WARPS,
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
    row, column, there, column_inside, inside, place = row_places(rows, width, ROWS, WIDTH)
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
        store_rows(result, row, there, place, inside, whole, scale)


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
    row, column, there, column_inside, inside, place = row_places(rows, width, ROWS, WIDTH)
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
