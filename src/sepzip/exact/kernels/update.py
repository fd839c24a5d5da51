"""Weight gradients and their Adam updates in one: no gradient of a weight is ever stored.

Each writes the int8 weights of the next step as well, or leaves what that needs. Twins of the backward
passes of linear.py and layer_norm.py and of adam.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..layer_norm import GRADIENT_MOST
from ..quantise import INT8_MOST, INT16_MOST, SUM_MOST
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
from .linear import combined, sum_of_splits

__all__ = [
    "WHOLE_COLUMNS",
    "ColumnTasks",
    "Digits",
    "Learner",
    "Parameter",
    "RowDigits",
    "gradient_digits",
    "lane_update",
    "quantise_weight",
    "summed_update",
    "weight_parts",
    "weight_sums",
    "weight_update",
]

_INT8_MOST = tl.constexpr(INT8_MOST)
_INT16_MOST = tl.constexpr(INT16_MOST)
_SUM_MOST = tl.constexpr(SUM_MOST)
_NORMAL_UNIT = tl.constexpr(2.0**-11)

if SUM_MOST != GRADIENT_MOST:
    raise AssertionError("sums over lanes have one unit")

_COLUMNS = 16
"""Columns of one program that sums over lanes."""

_PART_ROWS, _PART_COLUMNS = 64, 64
"""The tile of a weight of which one program sums a part of the lanes."""

_PART_LANES = 256
"""The fewest lanes of a part."""

_MANY_LANES = 1024
"""So many lanes or more are summed in parts."""

_MOST_TILES = 64
"""Weights of more tiles give enough programs that sum over all lanes."""


def _chunks(lanes: int, most: int) -> tuple[int, int]:
    """Return how many lanes, up to `most`, such a program takes at a time, and how often.

    Both are rounded up to powers of two: every pair is a kernel to compile.
    """
    step = min(most, max(32, triton.next_power_of_2(lanes)))
    return step, triton.next_power_of_2(triton.cdiv(lanes, step))


class Parameter(NamedTuple):
    """A weight and its moments, float32 of one shape, each a view that keeps its address."""

    weight: Tensor
    first: Tensor
    second: Tensor

    def after(self, rows: int) -> Parameter:
        """Return what comes after the first `rows` rows."""
        return Parameter(self.weight[rows:], self.first[rows:], self.second[rows:])


@dataclass(frozen=True)
class Learner:
    """What all updates of a step share: the step size, float32 [1] on the device, and Adam's epsilon."""

    size: Tensor
    epsilon: float


@triton.jit
def _gradient_digits(
    gradient,
    scale_x,
    x_largest: tl.constexpr,
    scale_weight,
    largest,
    row_high,
    row_low,
    high,
    low,
    scale,
    bias,
    first,
    second,
    size,
    epsilon,
    lanes,
    outputs: tl.constexpr,
    by_row: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    follow()
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    column_inside = column < outputs
    largest_sum = tl.zeros((INNER, COLUMNS), tl.float32)
    largest_product = tl.zeros((INNER, COLUMNS), tl.float32)
    for chunk in range(CHUNKS):
        lane = chunk * INNER + tl.arange(0, INNER)
        there = lane < lanes
        g = tl.load(
            gradient + lane[:, None] * outputs + column[None, :],
            mask=there[:, None] & column_inside[None, :],
            other=0.0,
        )
        if x_largest:
            _, by_lane = row_scale(from_bits(tl.load(scale_x + lane, mask=there, other=0)), _INT8_MOST)
        else:
            by_lane = tl.load(scale_x + lane, mask=there, other=0.0)
        largest_sum = tl.maximum(largest_sum, tl.abs(g))
        largest_product = tl.maximum(largest_product, tl.abs(g * by_lane[:, None]))
    sum_factor, sum_scale = row_scale(tl.max(largest_sum, 0), _SUM_MOST)
    factor, unit = row_scale(tl.max(largest_product, 0), _INT16_MOST)
    tl.store(scale + column, unit, mask=column_inside)
    by_column = tl.load(scale_weight + column, mask=column_inside, other=0.0)
    sums = tl.zeros((INNER, COLUMNS), tl.int64)
    for chunk in range(CHUNKS):
        lane = chunk * INNER + tl.arange(0, INNER)
        there = lane < lanes
        inside = there[:, None] & column_inside[None, :]
        g = tl.load(gradient + lane[:, None] * outputs + column[None, :], mask=inside, other=0.0)
        if x_largest:
            _, by_lane = row_scale(from_bits(tl.load(scale_x + lane, mask=there, other=0)), _INT8_MOST)
        else:
            by_lane = tl.load(scale_x + lane, mask=there, other=0.0)
        sums += whole_number(g, sum_factor[None, :]).to(tl.int64)
        whole = whole_number(g * by_lane[:, None], factor[None, :])
        top, bottom = split_digits(whole)
        place = column[None, :] * lanes + lane[:, None]
        tl.store(high + place, top, mask=inside)
        tl.store(low + place, bottom, mask=inside)
        if by_row:
            row_factor, _ = row_scale(from_bits(tl.load(largest + lane, mask=there, other=0)), _INT16_MOST)
            whole = whole_number(g * by_column[None, :], row_factor[:, None])
            top, bottom = split_digits(whole)
            place = lane[:, None] * outputs + column[None, :]
            tl.store(beside_floats(row_high, place), top, mask=inside)
            tl.store(beside_floats(row_low, place), bottom, mask=inside)
    w, m, v = adam(
        tl.load(bias + column, mask=column_inside, other=0.0),
        tl.load(first + column, mask=column_inside, other=0.0),
        tl.load(second + column, mask=column_inside, other=0.0),
        tl.sum(sums, 0).to(tl.float32) * sum_scale,
        tl.load(size),
        epsilon,
    )
    tl.store(bias + column, w, mask=column_inside)
    tl.store(first + column, m, mask=column_inside)
    tl.store(second + column, v, mask=column_inside)


@dataclass(frozen=True)
class Digits:
    """A gradient as digits for a weight's update: `high`, `low` int8 [outputs, lanes], `scale` [outputs]."""

    high: Tensor
    low: Tensor
    scale: Tensor


@dataclass(frozen=True)
class RowDigits:
    """The same gradient for the one by the layer's input.

    `scale_weight` float32 [outputs] is multiplied in first; `largest` int32 [lanes] has the bits of each
    lane's largest product; `high` and `low` int8 [lanes, outputs] are written.
    """

    scale_weight: Tensor
    largest: Tensor
    high: Tensor
    low: Tensor


def gradient_digits(
    gradient: Tensor,
    scale_x: Tensor,
    digits: Digits,
    bias: Parameter,
    learner: Learner,
    rows: RowDigits | None = None,
) -> None:
    """Write a linear layer's gradient, float32 [lanes, outputs], as `digits`, and update its bias.

    `scale_x` is the scales of the layer's input, float32 [lanes], or the bits, int32 [lanes], of the
    largest sizes that they come from. With `rows` those digits are written too.
    """
    lanes, outputs = gradient.shape
    columns = 32 if outputs > 1024 else 8
    _gradient_digits[(triton.cdiv(outputs, columns),)](
        gradient,
        scale_x,
        scale_x.dtype == torch.int32,
        digits.scale if rows is None else rows.scale_weight,
        digits.scale if rows is None else rows.largest,
        digits.high if rows is None else rows.high,
        digits.low if rows is None else rows.low,
        digits.high,
        digits.low,
        digits.scale,
        bias.weight,
        bias.first,
        bias.second,
        learner.size,
        learner.epsilon,
        lanes,
        outputs,
        rows is not None,
        columns,
        *_chunks(lanes, 64 if columns == 32 else 256),
        num_warps=8 if columns == 32 else 4,
        **CHAINED,
    )


@triton.jit
def _gradient_of_digits(
    x,
    high,
    low,
    row,
    column,
    start,
    lanes,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    SPLIT: tl.constexpr,
    INNER: tl.constexpr,
):
    """Return the integer sums (of high, of low) of a tile of the gradient by a weight, over SPLIT lanes."""
    row_inside, column_inside = row < inputs, column < outputs
    high_sums = tl.zeros((row.shape[0], column.shape[0]), tl.int32)
    low_sums = tl.zeros((row.shape[0], column.shape[0]), tl.int32)
    for chunk in range(SPLIT // INNER):
        lane = start + chunk * INNER + tl.arange(0, INNER)
        there = lane < lanes
        left = tl.load(
            x + row[:, None] * lanes + lane[None, :], mask=row_inside[:, None] & there[None, :], other=0
        )
        place = column[None, :] * lanes + lane[:, None]
        place_inside = column_inside[None, :] & there[:, None]
        right = tl.load(high + place, mask=place_inside, other=0)
        high_sums = tl.dot(left, right, high_sums, out_dtype=tl.int32)
        right = tl.load(low + place, mask=place_inside, other=0)
        low_sums = tl.dot(left, right, low_sums, out_dtype=tl.int32)
    return high_sums, low_sums


@triton.jit
def _weight_gradient(
    x,
    high,
    low,
    scale,
    row,
    column,
    lanes,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    SPLIT: tl.constexpr,
    INNER: tl.constexpr,
):
    """Return a tile of the gradient by a weight."""
    high_sums, low_sums = _gradient_of_digits(
        x, high, low, row, column, 0, lanes, inputs, outputs, SPLIT, INNER
    )
    unit = tl.load(scale + column, mask=column < outputs, other=0.0)
    return combined(high_sums, low_sums) * unit[None, :]


@triton.jit
def _weight_update(
    x,
    high,
    low,
    scale,
    other_x,
    other_high,
    other_low,
    other_scale,
    weight,
    first,
    second,
    size,
    epsilon,
    by_input,
    by_output,
    scale_weight,
    column_largest,
    lanes,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    twice: tl.constexpr,
    whole_columns: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPLIT: tl.constexpr,
    INNER: tl.constexpr,
):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row_inside, column_inside = row < inputs, column < outputs
    weight_place = row[:, None] * outputs + column[None, :]
    inside = row_inside[:, None] & column_inside[None, :]
    if not twice:
        # Asked for ahead: they arrive while the product is made. Two products need the registers.
        w = tl.load(weight + weight_place, mask=inside, other=0.0, eviction_policy="evict_first")
        m = tl.load(first + weight_place, mask=inside, other=0.0, eviction_policy="evict_first")
        v = tl.load(second + weight_place, mask=inside, other=0.0, eviction_policy="evict_first")
    gradient = _weight_gradient(x, high, low, scale, row, column, lanes, inputs, outputs, SPLIT, INNER)
    if twice:
        gradient += _weight_gradient(
            other_x, other_high, other_low, other_scale, row, column, lanes, inputs, outputs, SPLIT, INNER
        )
        w = tl.load(weight + weight_place, mask=inside, other=0.0, eviction_policy="evict_first")
        m = tl.load(first + weight_place, mask=inside, other=0.0, eviction_policy="evict_first")
        v = tl.load(second + weight_place, mask=inside, other=0.0, eviction_policy="evict_first")
    w, m, v = adam(w, m, v, gradient, tl.load(size), epsilon)
    tl.store(weight + weight_place, w, mask=inside)
    tl.store(first + weight_place, m, mask=inside, eviction_policy="evict_first")
    tl.store(second + weight_place, v, mask=inside, eviction_policy="evict_first")
    bits = tl.max(tl.where(inside, size_bits(w), 0), 0)
    if whole_columns:
        factor, unit = row_scale(from_bits(bits), _INT8_MOST)
        whole = whole_number(w, factor[None, :]).to(tl.int8)
        tl.store(beside_floats(by_input, weight_place), whole, mask=inside)
        tl.store(by_output + column[None, :] * inputs + row[:, None], whole, mask=inside)
        tl.store(scale_weight + column, unit, mask=column_inside)
    else:
        tl.atomic_max(column_largest + column, bits, mask=column_inside, sem="relaxed")


WHOLE_COLUMNS = 256
"""Up to so many inputs a program sees whole columns of a weight and can quantise them at once."""


def weight_update(
    x: Tensor,
    digits: Digits,
    parameter: Parameter,
    learner: Learner,
    by_input: Tensor,
    by_output: Tensor,
    scale_weight: Tensor,
    column_largest: Tensor,
    other: tuple[Tensor, Digits] | None = None,
) -> None:
    """Update a weight [inputs, outputs] that all lanes share.

    x is the layer's int8 input [inputs, lanes], `digits` the gradient by its result; where the layer is used
    twice in a step, `other` is both of the other use. Up to 2^17 lanes sums fit int32. Up to WHOLE_COLUMNS
    inputs, the next step's int8 weights and scales are written in both layouts; beyond, the bits of each
    output's largest weight are left in `column_largest`, int32 [outputs], for `quantise_weight`.
    """
    other_x, other_digits = other or (x, digits)
    (inputs, lanes), outputs = x.shape, len(digits.scale)
    whole_columns = inputs <= WHOLE_COLUMNS
    if whole_columns:
        rows, columns = max(32, triton.next_power_of_2(inputs)), 32 if outputs > 1024 else 16
    else:
        rows, columns = 64, 64 if outputs > 32 else 32
        column_largest.zero_()
    inner = min(128, max(32, triton.next_power_of_2(lanes)))
    _weight_update[(triton.cdiv(inputs, rows), triton.cdiv(outputs, columns))](
        x,
        digits.high,
        digits.low,
        digits.scale,
        other_x,
        other_digits.high,
        other_digits.low,
        other_digits.scale,
        parameter.weight,
        parameter.first,
        parameter.second,
        learner.size,
        learner.epsilon,
        by_input,
        by_output,
        scale_weight,
        column_largest,
        lanes,
        inputs,
        outputs,
        other is not None,
        whole_columns,
        rows,
        columns,
        max(inner, triton.next_power_of_2(lanes)),
        inner,
        num_warps=8 if rows >= 128 else 4,
        num_stages=3,
        **CHAINED,
    )


def weight_parts(inputs: int, outputs: int, lanes: int) -> int:
    """Return into how many parts a weight's sums over all lanes are best split; 1 for none."""
    tiles = triton.cdiv(inputs, _PART_ROWS) * triton.cdiv(outputs, _PART_COLUMNS)
    if inputs > WHOLE_COLUMNS or lanes < _MANY_LANES or tiles > _MOST_TILES:
        return 1
    return int(triton.cdiv(lanes, _part(inputs, outputs, lanes)))


def _part(inputs: int, outputs: int, lanes: int) -> int:
    """Return how many lanes each part sums: as few as give some 256 programs."""
    tiles = triton.cdiv(inputs, _PART_ROWS) * triton.cdiv(outputs, _PART_COLUMNS)
    each = triton.next_power_of_2(triton.cdiv(lanes * tiles, 256))
    return max(_PART_LANES, int(each))


@triton.jit
def _weight_sums(
    x,
    high,
    low,
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
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    start = tl.program_id(2) * SPLIT
    high_result, low_result = _gradient_of_digits(
        x, high, low, row, column, start, lanes, inputs, outputs, SPLIT, INNER
    )
    place = (tl.program_id(2) * inputs + row[:, None]) * outputs + column[None, :]
    inside = (row < inputs)[:, None] & (column < outputs)[None, :]
    tl.store(high_sums + place, high_result, mask=inside)
    tl.store(low_sums + place, low_result, mask=inside)


def weight_sums(x: Tensor, digits: Digits, high_sums: Tensor, low_sums: Tensor) -> None:
    """Write the integer sums of the gradient by a weight, in parts, for each digit.

    x is the layer's int8 input [inputs, lanes], `digits` the gradient by its result; both results are int32
    [weight_parts, inputs, outputs].
    """
    (inputs, lanes), outputs = x.shape, len(digits.scale)
    grid = (triton.cdiv(inputs, _PART_ROWS), triton.cdiv(outputs, _PART_COLUMNS), len(high_sums))
    _weight_sums[grid](
        x,
        digits.high,
        digits.low,
        high_sums,
        low_sums,
        lanes,
        inputs,
        outputs,
        _PART_ROWS,
        _PART_COLUMNS,
        _part(inputs, outputs, lanes),
        128,
        num_warps=4,
        **CHAINED,
    )


@triton.jit
def _summed_update(
    high_sums,
    low_sums,
    scale,
    weight,
    first,
    second,
    size,
    epsilon,
    by_input,
    by_output,
    scale_weight,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    SPLITS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    follow()
    row = tl.arange(0, ROWS)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    column_inside = column < outputs
    place = row[:, None] * outputs + column[None, :]
    inside = (row < inputs)[:, None] & column_inside[None, :]
    high = sum_of_splits(high_sums, place, inside, inputs * outputs, SPLITS)
    low = sum_of_splits(low_sums, place, inside, inputs * outputs, SPLITS)
    unit = tl.load(scale + column, mask=column_inside, other=0.0)
    w, m, v = adam(
        tl.load(weight + place, mask=inside, other=0.0),
        tl.load(first + place, mask=inside, other=0.0),
        tl.load(second + place, mask=inside, other=0.0),
        combined(high, low) * unit[None, :],
        tl.load(size),
        epsilon,
    )
    tl.store(weight + place, w, mask=inside)
    tl.store(first + place, m, mask=inside)
    tl.store(second + place, v, mask=inside)
    factor, unit = row_scale(tl.max(tl.where(inside, tl.abs(w), 0.0), 0), _INT8_MOST)
    whole = whole_number(w, factor[None, :]).to(tl.int8)
    tl.store(beside_floats(by_input, place), whole, mask=inside)
    tl.store(by_output + column[None, :] * inputs + row[:, None], whole, mask=inside)
    tl.store(scale_weight + column, unit, mask=column_inside)


def summed_update(
    high_sums: Tensor,
    low_sums: Tensor,
    scale: Tensor,
    parameter: Parameter,
    learner: Learner,
    by_input: Tensor,
    by_output: Tensor,
    scale_weight: Tensor,
) -> None:
    """Update a weight of up to WHOLE_COLUMNS inputs by `weight_sums`, and write its int8 twins and scales.

    `scale`, float32 [outputs], is that of the digits. Up to 2^17 lanes sums fit int32.
    """
    parts, inputs, outputs = high_sums.shape
    columns = 8
    _summed_update[(triton.cdiv(outputs, columns),)](
        high_sums,
        low_sums,
        scale,
        parameter.weight,
        parameter.first,
        parameter.second,
        learner.size,
        learner.epsilon,
        by_input,
        by_output,
        scale_weight,
        inputs,
        outputs,
        parts,
        triton.next_power_of_2(inputs),
        columns,
        num_warps=4,
        **CHAINED,
    )


@triton.jit
def _quantise_weight(
    weight,
    column_largest,
    by_input,
    by_output,
    scale_weight,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    column_inside = column < outputs
    inside = (row < inputs)[:, None] & column_inside[None, :]
    place = row[:, None] * outputs + column[None, :]
    bits = tl.load(column_largest + column, mask=column_inside, other=0)
    factor, scale = row_scale(from_bits(bits), _INT8_MOST)
    whole = whole_number(tl.load(weight + place, mask=inside, other=0.0), factor[None, :]).to(tl.int8)
    tl.store(beside_floats(by_input, place), whole, mask=inside)
    tl.store(by_output + column[None, :] * inputs + row[:, None], whole, mask=inside)
    if tl.program_id(0) == 0:
        tl.store(scale_weight + column, scale, mask=column_inside)


def quantise_weight(
    weight: Tensor, column_largest: Tensor, by_input: Tensor, by_output: Tensor, scale_weight: Tensor
) -> None:
    """Write a weight [inputs, outputs] as int8 in both layouts, given the bits of its columns' largest."""
    inputs, outputs = weight.shape
    _quantise_weight[(triton.cdiv(inputs, 64), triton.cdiv(outputs, 64))](
        weight, column_largest, by_input, by_output, scale_weight, inputs, outputs, 64, 64, **CHAINED
    )


@triton.jit
def _update_tile(
    tile,
    x,
    gradient,
    weight,
    first,
    second,
    bias,
    bias_first,
    bias_second,
    step_size,
    epsilon,
    whole_weight,
    scale_weight,
    width: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Update COLUMNS whole columns of a lane's matrix."""
    parts: tl.constexpr = (width + COLUMNS - 1) // COLUMNS
    lane = tile // parts
    row = tl.arange(0, ROWS)
    column = (tile % parts) * COLUMNS + tl.arange(0, COLUMNS)
    column_inside = column < width
    inside = (row < width)[:, None] & column_inside[None, :]
    start = lane.to(tl.int64) * width * width
    place = row[:, None] * width + column[None, :]
    # Read and written once a step: they must not drive from the cache what is needed sooner.
    w = tl.load(weight + start + place, mask=inside, other=0.0, eviction_policy="evict_first")
    m = tl.load(first + start + place, mask=inside, other=0.0, eviction_policy="evict_first")
    v = tl.load(second + start + place, mask=inside, other=0.0, eviction_policy="evict_first")
    g = tl.load(gradient + lane * width + column, mask=column_inside, other=0.0)
    by_row = tl.load(x + lane * width + row, mask=row < width, other=0.0)
    w, m, v = adam(w, m, v, by_row[:, None] * g[None, :], step_size, epsilon)
    tl.store(weight + start + place, w, mask=inside, eviction_policy="evict_first")
    tl.store(first + start + place, m, mask=inside, eviction_policy="evict_first")
    tl.store(second + start + place, v, mask=inside, eviction_policy="evict_first")
    factor, scale = row_scale(tl.max(tl.where(inside, tl.abs(w), 0.0), 0), _INT8_MOST)
    whole = whole_number(w, factor[None, :]).to(tl.int8)
    tl.store(beside_floats(whole_weight + start, place), whole, mask=inside)
    bias_place = lane * width + column
    tl.store(scale_weight + bias_place, scale, mask=column_inside)
    w, m, v = adam(
        tl.load(bias + bias_place, mask=column_inside, other=0.0),
        tl.load(bias_first + bias_place, mask=column_inside, other=0.0),
        tl.load(bias_second + bias_place, mask=column_inside, other=0.0),
        g,
        step_size,
        epsilon,
    )
    tl.store(bias + bias_place, w, mask=column_inside)
    tl.store(bias_first + bias_place, m, mask=column_inside)
    tl.store(bias_second + bias_place, v, mask=column_inside)


@triton.jit
def _lane_update(
    x,
    gradient,
    weight,
    first,
    second,
    bias,
    bias_first,
    bias_second,
    size,
    epsilon,
    whole_weight,
    scale_weight,
    tiles,
    width: tl.constexpr,
    few: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    follow()
    step_size = tl.load(size)
    if few:
        for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), num_stages=2):
            _update_tile(
                tile,
                x,
                gradient,
                weight,
                first,
                second,
                bias,
                bias_first,
                bias_second,
                step_size,
                epsilon,
                whole_weight,
                scale_weight,
                width,
                ROWS,
                COLUMNS,
            )
    else:
        _update_tile(
            tl.program_id(0),
            x,
            gradient,
            weight,
            first,
            second,
            bias,
            bias_first,
            bias_second,
            step_size,
            epsilon,
            whole_weight,
            scale_weight,
            width,
            ROWS,
            COLUMNS,
        )


def lane_update(
    x: Tensor,
    gradient: Tensor,
    weight: Parameter,
    bias: Parameter,
    learner: Learner,
    whole_weight: Tensor,
    scale_weight: Tensor,
    programs: int | None = None,
) -> None:
    """Update every lane's own weight [lanes, width, width] and bias [lanes, width].

    x and `gradient`, float32 [lanes, width], are the layer's input and the gradient by its result; the next
    step's weights go to `whole_weight`, int8 like the weight, and `scale_weight`, float32 [lanes, width].
    By so many `programs`, each of which takes as much of a multiprocessor as there is, it leaves the other
    multiprocessors to what runs beside.
    """
    lanes, width = x.shape
    rows = triton.next_power_of_2(width)
    # Whole columns, so that their scales are known at once, in few enough registers; programs that run
    # side by side work on one lane's neighbouring columns.
    columns = min(rows, 32)
    if programs is not None:
        # What a program asks for ahead lies in shared memory.
        columns = min(columns, max(1, 8192 // rows))
    tiles = lanes * triton.cdiv(width, columns)
    _lane_update[(tiles if programs is None else min(tiles, programs),)](
        x,
        gradient,
        weight.weight,
        weight.first,
        weight.second,
        bias.weight,
        bias.first,
        bias.second,
        learner.size,
        learner.epsilon,
        whole_weight,
        scale_weight,
        tiles,
        width,
        programs is not None,
        rows,
        columns,
        num_warps=max(1, min(4 if programs is None else 8, rows * columns // 64)),
        **CHAINED,
    )


@triton.jit
def _address(table, place):
    return tl.load(table + place).to(tl.pointer_type(tl.float32))


@triton.jit
def _update_columns(table, place, column, inside, gradient, step_size, epsilon):
    weight = _address(table, place) + column
    first = _address(table, place + 1) + column
    second = _address(table, place + 2) + column
    w, m, v = adam(
        tl.load(weight, mask=inside, other=0.0),
        tl.load(first, mask=inside, other=0.0),
        tl.load(second, mask=inside, other=0.0),
        gradient,
        step_size,
        epsilon,
    )
    tl.store(weight, w, mask=inside)
    tl.store(first, m, mask=inside)
    tl.store(second, v, mask=inside)


@triton.jit
def _column_updates(
    tasks,
    size,
    epsilon,
    lanes,
    ENTRIES: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    follow()
    task = tasks + tl.program_id(0) * ENTRIES
    gradient = _address(task, 0)
    normal = _address(task, 1)
    width = tl.load(task + 2)
    column = tl.arange(0, COLUMNS)
    column_inside = column < tl.load(task + 3)
    # The same for every column; a single number would be no mask in all versions of the interpreter.
    has_gain = tl.load(task + 4 + tl.zeros((COLUMNS,), tl.int32)) != 0
    largest = tl.zeros((INNER, COLUMNS), tl.float32)
    for chunk in range(CHUNKS):
        lane = chunk * INNER + tl.arange(0, INNER)
        inside = (lane < lanes)[:, None] & column_inside[None, :]
        g = tl.load(gradient + lane[:, None] * width + column[None, :], mask=inside, other=0.0)
        largest = tl.maximum(largest, tl.abs(g))
    factor, scale = row_scale(tl.max(largest, 0), _SUM_MOST)
    sums = tl.zeros((INNER, COLUMNS), tl.int64)
    along = tl.zeros((INNER, COLUMNS), tl.int64)
    for chunk in range(CHUNKS):
        lane = chunk * INNER + tl.arange(0, INNER)
        inside = (lane < lanes)[:, None] & column_inside[None, :]
        place = lane[:, None] * width + column[None, :]
        whole = whole_number(tl.load(gradient + place, mask=inside, other=0.0), factor[None, :]).to(tl.int64)
        sums += whole
        values = tl.load(normal + place, mask=inside & has_gain[None, :], other=0.0)
        along += whole * whole_normal(values).to(tl.int64)
    step_size = tl.load(size)
    by_offset = tl.sum(sums, 0).to(tl.float32) * scale
    _update_columns(task, 8, column, column_inside, by_offset, step_size, epsilon)
    by_gain = (tl.sum(along, 0).to(tl.float32) * scale) * _NORMAL_UNIT
    _update_columns(task, 5, column, column_inside & has_gain, by_gain, step_size, epsilon)


class ColumnTasks:
    """Updates of parameters whose gradients are sums over lanes: biases, and gains and offsets of norms.

    All that were added are done by one launch, a program for every 16 columns.
    """

    _ENTRIES = 11

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._tasks: list[list[int]] = []
        self._table: Tensor | None = None

    def add(
        self,
        gradient: Tensor,
        offset: Parameter,
        normal: Tensor | None = None,
        gain: Parameter | None = None,
    ) -> None:
        """Let `offset` [width] be learnt from the sum over lanes of `gradient`, float32 [lanes, width].

        With both, `gain` [width] is learnt from the sum of gradient times `normal`, the normalised values.
        """
        width = gradient.shape[1]
        gain_or_offset = offset if gain is None else gain
        for first in range(0, width, _COLUMNS):
            along = 4 * first
            task = [
                gradient.data_ptr() + along,
                (gradient if normal is None else normal).data_ptr() + along,
                width,
                min(_COLUMNS, width - first),
                int(gain is not None),
            ]
            for parameter in (gain_or_offset, offset):
                for tensor in (parameter.weight, parameter.first, parameter.second):
                    task.append(tensor.data_ptr() + along)
            self._tasks.append(task)
            self._table = None

    def run(self, learner: Learner) -> None:
        """Do all updates; the first call must not be captured, as it copies the list to the device."""
        if self._table is None:
            self._table = torch.tensor(self._tasks, dtype=torch.int64).to(learner.size.device)
        _column_updates[(len(self._tasks),)](
            self._table,
            learner.size,
            learner.epsilon,
            self._lanes,
            self._ENTRIES,
            _COLUMNS,
            *_chunks(self._lanes, 256),
            num_warps=8,
            **CHAINED,
        )
