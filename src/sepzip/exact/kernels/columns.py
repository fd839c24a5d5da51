"""Sums over the rows of one or several gradients, where a row stands for a lane's token: biases and norms.

Twins of the backward passes of linear.py and layer_norm.py, for more rows than one program should read
alone. The largest size of each column is found first, then whole numbers are summed, both by many programs;
a last kernel adds up what a parameter that is used twice got from each use, and learns.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..quantise import INT8_MOST, INT16_MOST, SUM_MOST
from ..workspace import Workspace
from .digits import Digits, RowDigits
from .elements import (
    CHAINED,
    adam,
    beside_floats,
    follow,
    from_bits,
    row_scale,
    size_bits,
    split_digits,
    whole_number,
)
from .layer_norm import whole_normal
from .parameters import Learner, Parameter

__all__ = [
    "COLUMN_ROWS",
    "ColumnSums",
    "Columns",
    "column_places",
    "column_tile",
    "layer_columns",
    "norm_columns",
    "scale_of_rows",
]

_INT8_MOST = tl.constexpr(INT8_MOST)
_INT16_MOST = tl.constexpr(INT16_MOST)
_SUM_MOST = tl.constexpr(SUM_MOST)
_NORMAL_UNIT = tl.constexpr(2.0**-11)

COLUMN_ROWS = 64
"""Rows of a program."""

_LEARNT = 64
"""Columns of a program that learns."""


class ColumnSums:
    """What is summed up of each column of a gradient, and set to zero before.

    `sums` and `along`, int64 [width], are the gradient's and that of gradient times normalised values;
    `largest` and `product_largest`, int32 [width], the bits of the largest gradient and of the largest
    product with the scale of its row.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.sums = self.along = self.largest = self.product_largest = torch.empty(0)

    def lie_in(self, words: Tensor) -> None:
        """Take int64 [3 * width] of memory."""
        self.sums, self.along, largest = words.split(self.width)
        self.largest, self.product_largest = largest.view(torch.int32).split(self.width)


class Columns:
    """All sums over columns of a step, and the parameters that learn from them.

    All are made by `new`, and parameters named by `learn`; then `seal` lays the sums out.
    """

    _ENTRIES = 9

    def __init__(self) -> None:
        self._parts: list[ColumnSums] = []
        self._tasks: list[tuple[Parameter, bool, tuple[ColumnSums, ...]]] = []
        self._words = torch.empty(0)
        self._table: Tensor | None = None

    def new(self, width: int) -> ColumnSums:
        """Return sums of a gradient of so many columns."""
        self._parts.append(ColumnSums(width))
        return self._parts[-1]

    def learn(self, parameter: Parameter, uses: tuple[ColumnSums, ...], along: bool = False) -> None:
        """Let a parameter [width] learn from the sums of one or two uses, or from those `along` normals."""
        self._tasks.append((parameter, along, uses))

    def seal(self, workspace: Workspace) -> None:
        """Lay out all that was asked for."""
        sizes = [3 * part.width for part in self._parts]
        self._words = workspace.take("column sums", (sum(sizes),), torch.int64)
        for part, words in zip(self._parts, self._words.split(sizes), strict=True):
            part.lie_in(words)

    def clear(self) -> None:
        """Set all sums to zero."""
        self._words.zero_()

    def run(self, learner: Learner) -> None:
        """Do all updates; the first call must not be captured, as it copies the list to the device."""
        if self._table is None:
            self._table = torch.tensor(self._list(), dtype=torch.int64).to(self._words.device)
        _learn_columns[(len(self._table) // self._ENTRIES,)](
            self._table, learner.size, learner.epsilon, self._ENTRIES, _LEARNT, num_warps=2, **CHAINED
        )

    def _list(self) -> list[int]:
        entries = []
        for parameter, along, uses in self._tasks:
            for first in range(0, len(parameter.weight), _LEARNT):
                entries += [min(_LEARNT, len(parameter.weight) - first), int(along)]
                for tensor in (parameter.weight, parameter.first, parameter.second):
                    entries.append(tensor.data_ptr() + 4 * first)
                for use in (uses[0], uses[-1]):
                    sums = use.along if along else use.sums
                    entries += [sums.data_ptr() + 8 * first, use.largest.data_ptr() + 4 * first]
        return entries


@triton.jit
def scale_of_rows(scale_x, row, there, x_largest: tl.constexpr):
    """Return the scales of the layer's input."""
    if x_largest:
        _, scale = row_scale(from_bits(tl.load(scale_x + row, mask=there, other=0)), _INT8_MOST)
    else:
        scale = tl.load(scale_x + row, mask=there, other=0.0)
    return scale


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


def column_tile(width: int) -> int:
    """Return the columns of a program."""
    return min(64, int(triton.next_power_of_2(width)))


@triton.jit
def _address(table, place, kind: tl.constexpr):
    return tl.load(table + place).to(tl.pointer_type(kind))


@triton.jit
def _gradient(task, place, column, inside, along):
    """Return the gradient that one use leaves."""
    total = tl.load(_address(task, place, tl.int64) + column, mask=inside, other=0).to(tl.float32)
    bits = tl.load(_address(task, place + 1, tl.int32) + column, mask=inside, other=0)
    _, scale = row_scale(from_bits(bits), _SUM_MOST)
    result = total * scale
    return tl.where(along, result * _NORMAL_UNIT, result)


@triton.jit
def _learn_columns(tasks, size, epsilon, ENTRIES: tl.constexpr, COLUMNS: tl.constexpr):
    follow()
    task = tasks + tl.program_id(0) * ENTRIES
    column = tl.arange(0, COLUMNS)
    inside = column < tl.load(task)
    # The same for every column; a single number would be no mask in all versions of the interpreter.
    everywhere = tl.zeros((COLUMNS,), tl.int32)
    along = tl.load(task + 1 + everywhere) != 0
    twice = tl.load(task + 5 + everywhere) != tl.load(task + 7 + everywhere)
    gradient = _gradient(task, 5, column, inside, along)
    gradient = tl.where(twice, gradient + _gradient(task, 7, column, inside, along), gradient)
    weight = _address(task, 2, tl.float32) + column
    first = _address(task, 3, tl.float32) + column
    second = _address(task, 4, tl.float32) + column
    w, m, v = adam(
        tl.load(weight, mask=inside, other=0.0),
        tl.load(first, mask=inside, other=0.0),
        tl.load(second, mask=inside, other=0.0),
        gradient,
        tl.load(size),
        epsilon,
    )
    tl.store(weight, w, mask=inside)
    tl.store(first, m, mask=inside)
    tl.store(second, v, mask=inside)
