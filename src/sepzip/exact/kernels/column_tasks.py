"""Updates of parameters whose gradients are sums over lanes, all of which one program reads.

Twins of the backward passes of linear.py and layer_norm.py and of adam.py; columns.py is for more rows.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..layer_norm import GRADIENT_MOST
from ..quantise import SUM_MOST
from .elements import CHAINED, adam, follow, row_scale, whole_number
from .layer_norm import whole_normal
from .parameters import Learner, Parameter

__all__ = ["ColumnTasks", "lane_chunks"]

_SUM_MOST = tl.constexpr(SUM_MOST)
_NORMAL_UNIT = tl.constexpr(2.0**-11)

if SUM_MOST != GRADIENT_MOST:
    raise AssertionError("sums over lanes have one unit")

_COLUMNS = 16
"""Columns of one program that sums over lanes."""


def lane_chunks(lanes: int, most: int) -> tuple[int, int]:
    """Return how many lanes, up to `most`, a program of all lanes takes at a time, and how often.

    Both are rounded up to powers of two: every pair is a kernel to compile.
    """
    step = min(most, max(32, triton.next_power_of_2(lanes)))
    return step, triton.next_power_of_2(triton.cdiv(lanes, step))


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
            *lane_chunks(self._lanes, 256),
            num_warps=8,
            **CHAINED,
        )
