"""The embedding of bytes, fused with the update of its table; twin of embedding.py and join_positions.

What every front of a network needs stands here as well: the look-up, the largest gradient, the sums by
symbol and the table's update.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..workspace import Workspace
from . import elements
from .elements import CHAINED, follow

__all__ = [
    "BLOCK",
    "ROWS",
    "WARPS",
    "FusedEmbedding",
    "TableUpdate",
    "Triple",
    "add_by_symbol",
    "add_largest",
    "clear",
    "find_largest",
    "load_largest",
    "load_symbols",
    "look_up",
    "padded_embedding",
    "part",
    "update",
    "update_table",
]

Triple = tuple[Tensor, Tensor, Tensor]
"""A parameter: its weight, first and second moment, float32 of one shape."""

BLOCK = 1024
"""Elements to a program where each is on its own."""

ROWS = 128
"""Embedded bytes to a program that sums by symbol."""

WARPS = 8
"""Warps to a program of many products."""

_TABLE_BLOCK = 256
_SYMBOLS = 256
_GRADIENT_MOST = tl.constexpr(1 << 20)
_GRADIENT_DIGITS = tl.constexpr(3)


class TableUpdate:
    """The update of a table by the gradient of what was looked up in it; three kernels a step."""

    def __init__(
        self,
        table: Triple,
        history: Tensor,
        position: Tensor,
        context: int,
        size: Tensor,
        epsilon: float,
        workspace: Workspace,
        squashed: bool,
    ) -> None:
        """Take what FusedEmbedding takes; where `squashed`, the sigmoid of the table was looked up."""
        self._table = table
        self._history = history
        self._position = position
        self._context = context
        self._size = size
        self._epsilon = epsilon
        self._squashed = squashed
        self._lanes, self._embedding = history.shape[1], table[0].shape[1]
        # The sums by symbol, then the bits of the largest gradient.
        self.sums = workspace.take("embedding sums", (_SYMBOLS * self._embedding + 1,), torch.int64)
        """What a step sets to zero before it calls `backward`; see `clear`."""
        self._largest = self.sums[-1:]

    def backward(self, gradient: Tensor) -> None:
        """Update the table by a gradient, contiguous float32 [lanes, context * values].

        The first of a byte's values are those of its embedding.
        """
        values = gradient.shape[1] // self._context
        count = self._lanes * self._context * self._embedding
        find_largest[(triton.cdiv(count, BLOCK),)](
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
        table = self._table[0]
        _update_embedding[(triton.cdiv(table.numel(), _TABLE_BLOCK),)](
            *self._table,
            self.sums,
            self._largest,
            self._size,
            self._epsilon,
            table.numel(),
            self._squashed,
            _TABLE_BLOCK,
            **CHAINED,
        )


class FusedEmbedding:
    """The embedded bytes of the context side by side, and the update of their table.

    Its bits are those of `sigmoid_embedding` or, not `squashed`, `embedding`, and `adam`; with positions,
    of `join_positions` behind them. Four kernels a step: one forward, three backward.
    """

    def __init__(
        self,
        table: Triple,
        history: Tensor,
        position: Tensor,
        context: int,
        size: Tensor,
        epsilon: float,
        workspace: Workspace,
        positions: Tensor | None = None,
        squashed: bool = True,
    ) -> None:
        """Take the table's triple, each [256, embedding], and where a step finds the rest.

        `history` is uint8 [rows, lanes], of which a step reads `context` rows from row `position` on, int64
        [1]; `size`, float32 [1], and `epsilon` are those of `adam`; `positions` float32 [context, more]. All
        tensors are read when a step runs.
        """
        self._table = table[0]
        self._history = history
        self._position = position
        self._context = context
        self._squashed = squashed
        self._lanes, self._embedding = history.shape[1], table[0].shape[1]
        self._update = TableUpdate(table, history, position, context, size, epsilon, workspace, squashed)
        self._more = 0 if positions is None else positions.shape[1]
        self._positions = table[0] if positions is None else positions.contiguous()
        values = self._embedding + self._more
        self._out = workspace.take("embedding", (self._lanes, context * values))

    def forward(self) -> Tensor:
        """Return [lanes, context * (embedding + more)], the oldest byte first; valid until the next step."""
        count = self._out.numel()
        programs = triton.cdiv(count, BLOCK)
        sums = self._update.sums
        _embed[(programs,)](
            self._table,
            self._positions,
            self._history,
            self._position,
            self._out,
            sums,
            sums.numel(),
            self._lanes,
            count,
            self._context,
            self._embedding,
            self._more,
            self._squashed,
            BLOCK,
            part(sums, programs),
            **CHAINED,
        )
        return self._out

    def backward(self, gradient: Tensor) -> None:
        """Update the table by the gradient of the last forward pass's result, contiguous, of its shape."""
        self._update.backward(gradient.view(self._out.shape))


def part(numbers: Tensor, programs: int) -> int:
    """Return how many numbers each program clears."""
    return int(triton.next_power_of_2(triton.cdiv(numbers.numel(), programs)))


def padded_embedding(embedding: int) -> int:
    """Return the columns of a product's tile for this size of embedding."""
    return max(16, int(triton.next_power_of_2(embedding)))


@triton.jit
def load_symbols(history, position, byte, lane, lanes, inside):
    """Return the context's bytes, int32, by their number from the oldest and their lane."""
    place = (tl.load(position) + byte) * lanes + lane
    return tl.load(history + place, mask=inside, other=0).to(tl.int32)


@triton.jit
def look_up(table, symbol, column, embedding, inside):
    """Return the embedded bytes: sigmoid(table) at each byte's row and the column."""
    return elements.sigmoid(tl.load(table + symbol * embedding + column, mask=inside, other=0.0))


@triton.jit
def clear(numbers, count, PART: tl.constexpr):
    """Set int64 `numbers` to zero, each program PART of them; see `part`."""
    place = tl.program_id(0) * PART + tl.arange(0, PART)
    tl.store(numbers + place, tl.zeros([PART], tl.int64), mask=place < count)


@triton.jit
def add_largest(largest, x):
    """Take the sizes of a block of floats into the largest so far, which is kept as bits in an int64."""
    bits = tl.max(elements.size_bits(x), 0)
    tl.atomic_max(largest, bits.to(tl.int64), sem="relaxed")


@triton.jit
def load_largest(largest):
    """Return what `add_largest` made of all blocks, float32."""
    return elements.from_bits(tl.load(largest).to(tl.int32))


@triton.jit
def find_largest(x, largest, count, embedding: tl.constexpr, values: tl.constexpr, BLOCK: tl.constexpr):
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
def update(weight, first, second, place, inside, old, gradient, size, epsilon):
    """Move the elements of a parameter at `place`, of which `old` are the weights, by one update of Adam."""
    w, m, v = elements.adam(
        old,
        tl.load(first + place, mask=inside, other=0.0),
        tl.load(second + place, mask=inside, other=0.0),
        gradient,
        tl.load(size),
        epsilon,
    )
    tl.store(weight + place, w, mask=inside)
    tl.store(first + place, m, mask=inside)
    tl.store(second + place, v, mask=inside)


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
def _embed(
    table,
    positions,
    history,
    position,
    out,
    sums,
    sums_count,
    lanes,
    count,
    context: tl.constexpr,
    embedding: tl.constexpr,
    more: tl.constexpr,
    squashed: tl.constexpr,
    BLOCK: tl.constexpr,
    PART: tl.constexpr,
):
    follow()
    clear(sums, sums_count, PART)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    row, column = place // (embedding + more), place % (embedding + more)
    symbol = load_symbols(history, position, row % context, row // context, lanes, inside)
    is_byte = inside & (column < embedding)
    if squashed:
        x = look_up(table, symbol, column, embedding, is_byte)
    else:
        x = tl.load(table + symbol * embedding + column, mask=is_byte, other=0.0)
    if more > 0:
        where = (row % context) * more + column - embedding
        x = tl.where(is_byte, x, tl.load(positions + where, mask=inside & (column >= embedding), other=0.0))
    tl.store(out + place, x, mask=inside)


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
