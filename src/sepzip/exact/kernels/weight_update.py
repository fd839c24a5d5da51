"""The gradient by a weight that all lanes share and its Adam update in one: no such gradient is ever stored.

Each update writes the int8 weights of the next step as well, or leaves what that needs. Twins of the backward
pass of linear.py and of adam.py.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..quantise import INT8_MOST
from .digits import Digits
from .elements import (
    CHAINED,
    adam,
    follow,
    from_bits,
    row_scale,
    size_bits,
    whole_number,
)
from .parameters import Learner, Parameter
from .products import combined, sum_of_splits
from .quantise import store_layouts

__all__ = [
    "WHOLE_COLUMNS",
    "summed_update",
    "weight_gradient",
    "weight_parts",
    "weight_sums",
    "weight_update",
]

_INT8_MOST = tl.constexpr(INT8_MOST)

WHOLE_COLUMNS = 256
"""Up to so many inputs a program sees whole columns of a weight and can quantise them at once."""

_PART_ROWS, _PART_COLUMNS = 64, 64
"""The tile of a weight of which one program sums a part of the lanes."""

_PART_LANES = 256
"""The fewest lanes of a part."""

_MANY_LANES = 1024
"""So many lanes or more are summed in parts."""

_MOST_TILES = 64
"""Weights of more tiles give enough programs that sum over all lanes."""


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
def weight_gradient(
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
    gradient = weight_gradient(x, high, low, scale, row, column, lanes, inputs, outputs, SPLIT, INNER)
    if twice:
        gradient += weight_gradient(
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
        store_layouts(whole, row, column, weight_place, inside, by_input, by_output, inputs)
        tl.store(scale_weight + column, unit, mask=column_inside)
    else:
        tl.atomic_max(column_largest + column, bits, mask=column_inside, sem="relaxed")


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
    store_layouts(whole, row, column, place, inside, by_input, by_output, inputs)
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
