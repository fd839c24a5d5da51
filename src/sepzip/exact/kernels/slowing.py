"""A weight that learns by Adagrad, its gradient and update in one: twin of adagrad.py behind linear.py."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..adagrad import EPSILON, Slowing
from ..quantise import INT8_MOST
from .digits import Digits
from .elements import CHAINED, follow, reciprocal_sqrt, row_scale, whole_number
from .quantise import store_layouts
from .weight_update import WHOLE_COLUMNS, weight_gradient

__all__ = ["slowed", "slowing_update"]

_INT8_MOST = tl.constexpr(INT8_MOST)
_EPSILON = tl.constexpr(EPSILON)

_COLUMNS = 16


@triton.jit
def slowed(weight, squares, gradient, rate):
    """Return (weight, squares) after one update; twin of adagrad.Slowing."""
    squares = squares + gradient * gradient
    return weight - gradient * (reciprocal_sqrt(squares + _EPSILON) * rate), squares


@triton.jit
def _slowing_update(
    x,
    high,
    low,
    scale,
    weight,
    squares,
    rate,
    by_input,
    by_output,
    scale_weight,
    lanes,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPLIT: tl.constexpr,
    INNER: tl.constexpr,
):
    follow()
    row = tl.arange(0, ROWS)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    column_inside = column < outputs
    place = row[:, None] * outputs + column[None, :]
    inside = (row < inputs)[:, None] & column_inside[None, :]
    gradient = weight_gradient(x, high, low, scale, row, column, lanes, inputs, outputs, SPLIT, INNER)
    w, s = slowed(
        tl.load(weight + place, mask=inside, other=0.0),
        tl.load(squares + place, mask=inside, other=0.0),
        gradient,
        rate,
    )
    tl.store(weight + place, w, mask=inside)
    tl.store(squares + place, s, mask=inside)
    factor, unit = row_scale(tl.max(tl.where(inside, tl.abs(w), 0.0), 0), _INT8_MOST)
    whole = whole_number(w, factor[None, :]).to(tl.int8)
    store_layouts(whole, row, column, place, inside, by_input, by_output, inputs)
    tl.store(scale_weight + column, unit, mask=column_inside)


def slowing_update(
    x: Tensor, digits: Digits, weight: Slowing, by_input: Tensor, by_output: Tensor, scale_weight: Tensor
) -> None:
    """Update a weight [inputs, outputs] of at most WHOLE_COLUMNS inputs, and write its int8 twins and scales.

    x is the layer's int8 input [inputs, lanes], `digits` the gradient by its result. Up to 2^17 lanes sums
    fit int32.
    """
    (inputs, lanes), outputs = x.shape, len(digits.scale)
    if inputs > WHOLE_COLUMNS:
        raise ValueError(f"{inputs} inputs, at most {WHOLE_COLUMNS}")
    inner = min(128, max(32, triton.next_power_of_2(lanes)))
    _slowing_update[(triton.cdiv(outputs, _COLUMNS),)](
        x,
        digits.high,
        digits.low,
        digits.scale,
        weight.node.data,
        weight.squares,
        weight.rate,
        by_input,
        by_output,
        scale_weight,
        lanes,
        inputs,
        outputs,
        max(32, triton.next_power_of_2(inputs)),
        _COLUMNS,
        max(inner, triton.next_power_of_2(lanes)),
        inner,
        num_warps=8 if inputs > 64 else 4,
        **CHAINED,
    )
