"""Parameters that learn from sums over the rows of one or several gradients: biases and norms.

A row stands for a lane's token. column_sums.py finds the largest size of each column first, then sums whole
numbers, both by many programs. A kernel here adds up what a parameter that is used twice got from each use,
and learns. Twins of the backward passes of linear.py and layer_norm.py, and of adam.py.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..quantise import SUM_MOST
from ..workspace import Workspace
from .elements import CHAINED, follow, from_bits, row_scale
from .parameters import Learner, Parameter, learn

__all__ = ["ColumnSums", "Columns"]

_SUM_MOST = tl.constexpr(SUM_MOST)
_NORMAL_UNIT = tl.constexpr(2.0**-11)

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
    learn(
        _address(task, 2, tl.float32),
        _address(task, 3, tl.float32),
        _address(task, 4, tl.float32),
        column,
        inside,
        gradient,
        size,
        epsilon,
    )
