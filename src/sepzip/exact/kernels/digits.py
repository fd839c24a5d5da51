"""The gradient by a linear layer's result as digits, int8, that products take; and its bias's update.

Twin of what the backward pass of linear.py does before its products, and of adam.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..quantise import INT16_MOST, SUM_MOST
from .column_tasks import lane_chunks
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
from .parameters import Learner, Parameter
from .quantise import scale_of_rows

__all__ = ["Digits", "RowDigits", "gradient_digits", "row_digits"]

_INT16_MOST = tl.constexpr(INT16_MOST)
_SUM_MOST = tl.constexpr(SUM_MOST)


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
        by_lane = scale_of_rows(scale_x, lane, there, x_largest)
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
        by_lane = scale_of_rows(scale_x, lane, there, x_largest)
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
        *lane_chunks(lanes, 64 if columns == 32 else 256),
        num_warps=8 if columns == 32 else 4,
        **CHAINED,
    )


@triton.jit
def _row_digits(gradient, scale_weight, high, low, largest, width: tl.constexpr, WIDTH: tl.constexpr):
    follow()
    lane = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    place = lane * width + column
    g = tl.load(gradient + place, mask=inside, other=0.0)
    g = g * tl.load(scale_weight + column, mask=inside, other=0.0)
    bits = tl.max(size_bits(g), 0)
    factor, _ = row_scale(from_bits(bits), _INT16_MOST)
    whole = whole_number(g, factor)
    top, bottom = split_digits(whole)
    tl.store(high + place, top, mask=inside)
    tl.store(low + place, bottom, mask=inside)
    tl.store(largest + lane, bits)


def row_digits(gradient: Tensor, scale_weight: Tensor, high: Tensor, low: Tensor, largest: Tensor) -> None:
    """Write gradient * scale_weight, quantised by lane, as digits `high` and `low`, int8 [lanes, outputs].

    `gradient` is float32 [lanes, outputs], `scale_weight` float32 [outputs]; `largest`, int32 [lanes], gets
    the bits of each lane's largest size.
    """
    lanes, width = gradient.shape
    padded = triton.next_power_of_2(width)
    _row_digits[(lanes,)](
        gradient,
        scale_weight,
        high,
        low,
        largest,
        width,
        padded,
        num_warps=max(1, min(8, padded // 256)),
        **CHAINED,
    )
