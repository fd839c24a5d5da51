"""The update of a table by the gradient of what was looked up in it: the twin of embedding.py, backward."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..workspace import Workspace
from . import elements
from .elements import CHAINED, add_largest, follow, load_largest
from .parameters import Learner, Parameter, update
from .symbols import load_symbols

__all__ = [
    "BLOCK",
    "ROWS",
    "SYMBOLS",
    "TABLE_BLOCK",
    "WARPS",
    "TableUpdate",
    "add_by_symbol",
    "clear",
    "padded_embedding",
    "part",
    "update_table",
]

BLOCK = 1024
"""Elements to a program where each is on its own."""

TABLE_BLOCK = 256
"""Elements of a table to a program that updates them."""

ROWS = 128
"""Embedded bytes to a program that sums by symbol."""

WARPS = 8
"""Warps to a program of many products."""

SYMBOLS = 256
_GRADIENT_MOST = tl.constexpr(1 << 20)
_GRADIENT_DIGITS = tl.constexpr(3)


class TableUpdate:
    """The update of a table by the gradient of what was looked up in it; three kernels a step."""

    def __init__(
        self,
        table: Parameter,
        history: Tensor,
        position: Tensor,
        context: int,
        learner: Learner,
        workspace: Workspace,
        squashed: bool,
    ) -> None:
        """Take what FusedEmbedding takes; where `squashed`, the sigmoid of the table was looked up."""
        self._table = table
        self._history = history
        self._position = position
        self._context = context
        self._learner = learner
        self._squashed = squashed
        self._lanes, self._embedding = history.shape[1], table.weight.shape[1]
        # The sums by symbol, then the bits of the largest gradient.
        self.sums = workspace.take("embedding sums", (SYMBOLS * self._embedding + 1,), torch.int64)
        """What a step sets to zero before it calls `backward`; see `clear`."""
        self._largest = self.sums[-1:]

    def backward(self, gradient: Tensor) -> None:
        """Update the table by a gradient, contiguous float32 [lanes, context * values].

        The first of a byte's values are those of its embedding.
        """
        values = gradient.shape[1] // self._context
        count = self._lanes * self._context * self._embedding
        _find_largest[(triton.cdiv(count, BLOCK),)](
            gradient, self._largest, count, self._embedding, values, BLOCK, **CHAINED
        )
        _sum_by_symbol[(triton.cdiv(self._lanes * self._context, ROWS),)](
            gradient,
            self._largest,
            self._history,
            self._position,
            self.sums,
            self._lanes,
            self._context,
            self._embedding,
            values,
            ROWS,
            padded_embedding(self._embedding),
            num_warps=WARPS,
            **CHAINED,
        )
        table = self._table.weight
        _update_embedding[(triton.cdiv(table.numel(), TABLE_BLOCK),)](
            *self._table,
            self.sums,
            self._largest,
            self._learner.size,
            self._learner.epsilon,
            table.numel(),
            self._squashed,
            TABLE_BLOCK,
            **CHAINED,
        )


def part(numbers: Tensor, programs: int) -> int:
    """Return how many numbers each program clears."""
    return int(triton.next_power_of_2(triton.cdiv(numbers.numel(), programs)))


def padded_embedding(embedding: int) -> int:
    """Return the columns of a product's tile for this size of embedding."""
    return max(16, int(triton.next_power_of_2(embedding)))


@triton.jit
def clear(numbers, count, PART: tl.constexpr):
    """Set int64 `numbers` to zero, each program PART of them; see `part`."""
    place = tl.program_id(0) * PART + tl.arange(0, PART)
    tl.store(numbers + place, tl.zeros([PART], tl.int64), mask=place < count)


@triton.jit
def _find_largest(x, largest, count, embedding: tl.constexpr, values: tl.constexpr, BLOCK: tl.constexpr):
    """Take the sizes of the first `embedding` of every so many `values` of x, `count` in all."""
    follow()
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    place = (place // embedding) * values + place % embedding
    add_largest(largest, tl.load(x + place, mask=inside, other=0.0))


@triton.jit
def add_by_symbol(
    sums, symbol, inside, whole, embedding, ROWS: tl.constexpr, SIZE: tl.constexpr, DIGITS: tl.constexpr
):
    """Add each row of `whole`, int64 [ROWS, SIZE], to the row of `sums` that its symbol names.

    `sums` is int64 [256, embedding]; symbols and `inside` are [ROWS], and rows that are not inside hold
    zeros. `whole` is below 2^(8 DIGITS - 1) in size.
    """
    # Few symbols make up most of a text, and the same address takes one addition at a time. So rows of
    # one symbol are summed here, by a product with the matrix that says which rows have the same one.
    row = tl.arange(0, ROWS)
    same = symbol[:, None] == symbol[None, :]
    earlier = tl.sum((same & (row[None, :] < row[:, None])).to(tl.int32), 1)
    left = same.to(tl.int8)
    total = tl.zeros([ROWS, SIZE], tl.int64)
    for digit in tl.static_range(DIGITS):
        low = ((whole + 128) & 255) - 128
        whole = (whole - low) >> 8
        total += tl.dot(left, low.to(tl.int8), out_dtype=tl.int32).to(tl.int64) << (8 * digit)
    column = tl.arange(0, SIZE)
    place = symbol[:, None] * embedding + column[None, :]
    adding = (inside & (earlier == 0))[:, None] & (column < embedding)[None, :]
    tl.atomic_add(sums + place, total, mask=adding, sem="relaxed")


@triton.jit
def update_table(
    table, first, second, sums, place, inside, scale, size, epsilon, squashed: tl.constexpr = True
):
    """Move the table's elements at `place` by the sums by symbol, which are in units of `scale`."""
    total = tl.load(sums + place, mask=inside, other=0).to(tl.float32)
    old = tl.load(table + place, mask=inside, other=0.0)
    gradient = total * scale
    if squashed:
        value = elements.sigmoid(old)
        gradient = (gradient * value) * (1.0 - value)
    update(table, first, second, place, inside, old, gradient, size, epsilon)


@triton.jit
def _sum_by_symbol(
    gradient,
    largest,
    history,
    position,
    sums,
    lanes,
    context: tl.constexpr,
    embedding: tl.constexpr,
    values: tl.constexpr,
    ROWS: tl.constexpr,
    SIZE: tl.constexpr,
):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < lanes * context
    symbol = load_symbols(history, position, row % context, row // context, lanes, inside)
    column = tl.arange(0, SIZE)
    x = tl.load(
        gradient + row[:, None] * values + column[None, :],
        mask=inside[:, None] & (column < embedding)[None, :],
        other=0.0,
    )
    factor, _ = elements.row_scale(load_largest(largest), _GRADIENT_MOST)
    whole = elements.whole_number(x, factor).to(tl.int64)
    # Rows that are not inside must not stand before one that is: they get a symbol of their own.
    symbol = tl.where(inside, symbol, -1)
    add_by_symbol(sums, symbol, inside, whole, embedding, ROWS, SIZE, _GRADIENT_DIGITS)


@triton.jit
def _update_embedding(
    table,
    first,
    second,
    sums,
    largest,
    size,
    epsilon,
    count,
    squashed: tl.constexpr,
    BLOCK: tl.constexpr,
):
    follow()
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    _, scale = elements.row_scale(load_largest(largest), _GRADIENT_MOST)
    update_table(table, first, second, sums, place, place < count, scale, size, epsilon, squashed)
