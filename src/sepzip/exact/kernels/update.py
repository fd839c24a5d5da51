"""Weight gradients and their Adam updates in one: no gradient of a weight is ever stored.

Each writes the int8 weights of the next step as well, or leaves what that needs. Twins of the backward
passes of linear.py and layer_norm.py and of adam.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..layer_norm import GRADIENT_MOST
from ..quantise import INT8_MOST, INT16_MOST, SUM_MOST
from .elements import EXACT, adam, high_digit, quantised, row_scale
from .layer_norm import whole_normal
from .linear import combined, from_bits, size_bits

__all__ = ["ColumnTasks", "Learner", "Parameter", "lane_update", "quantise_weight", "weight_update"]

_INT8_MOST = tl.constexpr(INT8_MOST)
_INT16_MOST = tl.constexpr(INT16_MOST)
_SUM_MOST = tl.constexpr(SUM_MOST)
_NORMAL_UNIT = tl.constexpr(2.0**-11)

if SUM_MOST != GRADIENT_MOST:
    raise AssertionError("sums over lanes have one unit")

_COLUMNS = 16
"""Columns of one program that sums over lanes."""

_LANES = 64
"""Lanes that such a program takes at a time."""


def _chunks(lanes: int) -> int:
    """Return how often, rounded up to a power of two: every number is a kernel to compile."""
    return triton.next_power_of_2(triton.cdiv(lanes, _LANES))


@dataclass(frozen=True)
class Parameter:
    """A weight and its moments, float32 of one shape, each a view that keeps its address."""

    weight: Tensor
    first: Tensor
    second: Tensor


@dataclass(frozen=True)
class Learner:
    """What all updates of a step share: the step size, float32 [1] on the device, and Adam's epsilon."""

    size: Tensor
    epsilon: float


@triton.jit
def _weight_update(
    x,
    scale_x,
    x_largest: tl.constexpr,
    gradient,
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
    whole_columns: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row_inside, column_inside = row < inputs, column < outputs
    bits = tl.zeros((COLUMNS,), tl.int32)
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
        bits = tl.maximum(bits, tl.max(size_bits(g * by_lane[:, None]), 0))
    factor, scale = row_scale(from_bits(bits), _INT16_MOST)
    high_sums = tl.zeros((ROWS, COLUMNS), tl.int32)
    low_sums = tl.zeros((ROWS, COLUMNS), tl.int32)
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
        whole = quantised(g * by_lane[:, None], factor[None, :])
        high = high_digit(whole)
        a = tl.load(
            x + row[:, None] * lanes + lane[None, :], mask=row_inside[:, None] & there[None, :], other=0
        )
        high_sums = tl.dot(a, high.to(tl.int8), high_sums, out_dtype=tl.int32)
        low_sums = tl.dot(a, (whole - high * 256.0).to(tl.int8), low_sums, out_dtype=tl.int32)
    place = row[:, None] * outputs + column[None, :]
    inside = row_inside[:, None] & column_inside[None, :]
    w, m, v = adam(
        tl.load(weight + place, mask=inside, other=0.0),
        tl.load(first + place, mask=inside, other=0.0),
        tl.load(second + place, mask=inside, other=0.0),
        combined(high_sums, low_sums) * scale[None, :],
        tl.load(size),
        epsilon,
    )
    tl.store(weight + place, w, mask=inside)
    tl.store(first + place, m, mask=inside)
    tl.store(second + place, v, mask=inside)
    bits = tl.max(tl.where(inside, size_bits(w), 0), 0)
    if whole_columns:
        factor, scale = row_scale(from_bits(bits), _INT8_MOST)
        whole = quantised(w, factor[None, :]).to(tl.int8)
        tl.store(by_input + place, whole, mask=inside)
        tl.store(by_output + column[None, :] * inputs + row[:, None], whole, mask=inside)
        tl.store(scale_weight + column, scale, mask=column_inside)
    else:
        tl.atomic_max(column_largest + column, bits, mask=column_inside, sem="relaxed")


def weight_update(
    x: Tensor,
    scale_x: Tensor,
    gradient: Tensor,
    parameter: Parameter,
    learner: Learner,
    by_input: Tensor,
    by_output: Tensor,
    scale_weight: Tensor,
    column_largest: Tensor,
) -> None:
    """Update a weight [inputs, outputs] that all lanes share.

    x is the layer's int8 input [inputs, lanes] with its scales float32 [lanes], or the bits, int32 [lanes],
    of the largest sizes that they come from; `gradient` float32 [lanes, outputs] is by the layer's result.
    Up to 256 inputs, the next step's int8 weights and scales are written in both layouts; beyond, the bits
    of each output's largest weight are left in `column_largest`, int32 [outputs], set to 0 before, for
    `quantise_weight`.
    """
    (inputs, lanes), outputs = x.shape, gradient.shape[1]
    whole_columns = inputs <= 256
    if whole_columns:
        rows, columns = max(32, triton.next_power_of_2(inputs)), 32
    else:
        rows, columns = 128, 64 if outputs > 32 else 32
    _weight_update[(triton.cdiv(inputs, rows), triton.cdiv(outputs, columns))](
        x,
        scale_x,
        scale_x.dtype == torch.int32,
        gradient,
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
        whole_columns,
        rows,
        columns,
        _LANES,
        _chunks(lanes),
        num_warps=8,
        **EXACT,
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
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    column_inside = column < outputs
    inside = (row < inputs)[:, None] & column_inside[None, :]
    place = row[:, None] * outputs + column[None, :]
    bits = tl.load(column_largest + column, mask=column_inside, other=0)
    factor, scale = row_scale(from_bits(bits), _INT8_MOST)
    whole = quantised(tl.load(weight + place, mask=inside, other=0.0), factor[None, :]).to(tl.int8)
    tl.store(by_input + place, whole, mask=inside)
    tl.store(by_output + column[None, :] * inputs + row[:, None], whole, mask=inside)
    if tl.program_id(0) == 0:
        tl.store(scale_weight + column, scale, mask=column_inside)


def quantise_weight(
    weight: Tensor, column_largest: Tensor, by_input: Tensor, by_output: Tensor, scale_weight: Tensor
) -> None:
    """Write a weight [inputs, outputs] as int8 in both layouts, given the bits of its columns' largest."""
    inputs, outputs = weight.shape
    _quantise_weight[(triton.cdiv(inputs, 64), triton.cdiv(outputs, 64))](
        weight, column_largest, by_input, by_output, scale_weight, inputs, outputs, 64, 64, **EXACT
    )


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
    width: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):
    lane = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    column_inside = column < width
    start = lane.to(tl.int64) * width * width
    step_size = tl.load(size)
    g = tl.load(gradient + lane * width + column, mask=column_inside, other=0.0)
    largest = tl.zeros((ROWS, WIDTH), tl.float32)
    for first_row in range(0, width, ROWS):
        row = first_row + tl.arange(0, ROWS)
        inside = (row < width)[:, None] & column_inside[None, :]
        place = start + row[:, None] * width + column[None, :]
        by_row = tl.load(x + lane * width + row, mask=row < width, other=0.0)
        w, m, v = adam(
            tl.load(weight + place, mask=inside, other=0.0),
            tl.load(first + place, mask=inside, other=0.0),
            tl.load(second + place, mask=inside, other=0.0),
            by_row[:, None] * g[None, :],
            step_size,
            epsilon,
        )
        tl.store(weight + place, w, mask=inside)
        tl.store(first + place, m, mask=inside)
        tl.store(second + place, v, mask=inside)
        largest = tl.maximum(largest, tl.where(inside, tl.abs(w), 0.0))
    factor, scale = row_scale(tl.max(largest, 0), _INT8_MOST)
    tl.store(scale_weight + lane * width + column, scale, mask=column_inside)
    place = lane * width + column
    w, m, v = adam(
        tl.load(bias + place, mask=column_inside, other=0.0),
        tl.load(bias_first + place, mask=column_inside, other=0.0),
        tl.load(bias_second + place, mask=column_inside, other=0.0),
        g,
        step_size,
        epsilon,
    )
    tl.store(bias + place, w, mask=column_inside)
    tl.store(bias_first + place, m, mask=column_inside)
    tl.store(bias_second + place, v, mask=column_inside)
    # What was stored above is read again by other threads of the program.
    tl.debug_barrier()
    for first_row in range(0, width, ROWS):
        row = first_row + tl.arange(0, ROWS)
        inside = (row < width)[:, None] & column_inside[None, :]
        place = start + row[:, None] * width + column[None, :]
        whole = quantised(tl.load(weight + place, mask=inside, other=0.0), factor[None, :])
        tl.store(whole_weight + place, whole.to(tl.int8), mask=inside)


def lane_update(
    x: Tensor,
    gradient: Tensor,
    weight: Parameter,
    bias: Parameter,
    learner: Learner,
    whole_weight: Tensor,
    scale_weight: Tensor,
) -> None:
    """Update every lane's own weight [lanes, width, width] and bias [lanes, width].

    x and `gradient`, float32 [lanes, width], are the layer's input and the gradient by its result; the next
    step's weights go to `whole_weight`, int8 like the weight, and `scale_weight`, float32 [lanes, width].
    """
    lanes, width = x.shape
    padded = triton.next_power_of_2(width)
    _lane_update[(lanes,)](
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
        width,
        padded,
        max(1, min(padded, 4096 // padded)),
        num_warps=min(8, max(1, padded * padded // 512)),
        **EXACT,
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
    task = tasks + tl.program_id(0) * ENTRIES
    gradient = _address(task, 0)
    normal = _address(task, 1)
    width = tl.load(task + 2)
    column = tl.arange(0, COLUMNS)
    column_inside = column < tl.load(task + 3)
    has_gain = tl.load(task + 4) != 0
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
        whole = quantised(tl.load(gradient + place, mask=inside, other=0.0), factor[None, :]).to(tl.int64)
        sums += whole
        values = tl.load(normal + place, mask=inside & has_gain, other=0.0)
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
            _LANES,
            _chunks(self._lanes),
            num_warps=4,
            **EXACT,
        )
