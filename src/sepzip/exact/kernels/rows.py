"""Rows of hashed contexts behind gates, and what they learn: the twin of contexts.py, rows.py and gates.py.

A lookup is one context of one lane; those of a lane stand side by side. Lookups of several lanes may be of
the same row, and sum their gradients there as whole numbers. What a lookup has found is kept for the
backward pass, where the row may have been moved already by another one.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..adagrad import Slowing
from ..contexts import MULTIPLIERS, Contexts
from ..quantise import INT8_MOST, SUM_MOST
from ..rows import EPSILON, EXPERIENCES, GRADIENT_MOST, LEAST_EXPONENT, Rows
from ..workspace import Workspace
from .elements import CHAINED, add_largest, follow, load_largest, reciprocal_sqrt, row_scale, whole_number
from .slowing import slowed
from .symbols import load_symbols

__all__ = ["FusedRows"]

_INT8_MOST = tl.constexpr(INT8_MOST)
_SUM_MOST = tl.constexpr(SUM_MOST)
_GRADIENT_MOST = tl.constexpr(GRADIENT_MOST)
_EPSILON = tl.constexpr(EPSILON)
_EXPERIENCES = tl.constexpr(EXPERIENCES)
_LEAST_EXPONENT = tl.constexpr(LEAST_EXPONENT)
_MASK32 = tl.constexpr((1 << 32) - 1)
(_SHIFT_1, _MULTIPLIER_1), (_SHIFT_2, _MULTIPLIER_2) = (
    (tl.constexpr(shift), tl.constexpr(multiplier)) for shift, multiplier in MULTIPLIERS
)

_VALUES = 1024
"""Values of the rows that a program of the backward pass holds."""


class FusedRows:
    """The rows that a step looks up, as the int8 input of a layer, and the updates of rows and gates.

    One kernel forward, four backward.
    """

    def __init__(
        self,
        contexts: Contexts,
        rows: Rows,
        gates: Slowing,
        history: Tensor,
        position: Tensor,
        workspace: Workspace,
    ) -> None:
        """Take the plain twins, whose tensors are read and written when a step runs.

        `history` is uint8 [rows, lanes]; a step reads `contexts.depth` rows of it from row `position` on,
        int64 [1].
        """
        self._factors, self._bits, self._depth = contexts.factors, contexts.bits, contexts.depth
        self._rows, self._gates = rows, gates
        self._history, self._position = history, position
        self._lanes, self._count = lanes, count = history.shape[1], len(contexts.factors)
        self._size = size = rows.data.shape[1]
        self._tile = max(1, _VALUES // int(triton.next_power_of_2(size)))
        self._programs = triton.cdiv(lanes * count, self._tile)

        def take(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return workspace.take(f"rows.{name}", shape, dtype)

        self._slots = take("slots", lanes * count, dtype=torch.int64)
        self._which = take("gates", lanes * count, dtype=torch.int32)
        self._found = take("found", lanes * count, size)
        self._found_squares = take("squares", lanes * count)
        self._by_gate = take("by_gate", lanes * count)
        self._gate_sums = take("gate_sums", count * EXPERIENCES, dtype=torch.int64)
        # The bits of the largest gradients of rows and of gates.
        self._largest = take("largest", 2, dtype=torch.int64)
        self.whole = take("whole", lanes, count * size, dtype=torch.int8)
        """The gated rows of each lane, quantised by lane."""
        self.scale = take("scale", lanes)
        """Their scales, float32 [lanes]."""

    def forward(self) -> None:
        """Look up the rows of this step's contexts: writes `whole` and `scale`."""
        _look_up_rows[(self._lanes,)](
            self._history,
            self._position,
            self._factors,
            self._rows.data,
            self._rows.squares,
            self._gates.node.data,
            self._slots,
            self._which,
            self._found,
            self._found_squares,
            self.whole,
            self.scale,
            self._largest,
            self._gate_sums,
            self._lanes,
            self._count,
            self._depth,
            self._size,
            self._bits,
            triton.next_power_of_2(self._count),
            triton.next_power_of_2(self._depth),
            triton.next_power_of_2(self._size),
            num_warps=2,
            **CHAINED,
        )

    def backward(self, gradient: Tensor) -> None:
        """Move rows and gates by the gradient by the gated rows, contiguous float32 [lanes, count * size]."""
        lookups, size, columns = self._lanes * self._count, self._size, triton.next_power_of_2(self._size)
        tile = (lookups, size, self._tile, columns)
        _find_largest[(self._programs,)](
            gradient, self._found, self._by_gate, self._largest, *tile, **CHAINED
        )
        _add_gradients[(self._programs,)](
            gradient,
            self._by_gate,
            self._largest,
            self._slots,
            self._which,
            self._rows.sums,
            self._gate_sums,
            *tile,
            **CHAINED,
        )
        _move_rows[(self._programs,)](
            self._found,
            self._found_squares,
            self._largest,
            self._slots,
            self._rows.sums,
            self._rows.data,
            self._rows.squares,
            self._rows.rate,
            *tile,
            **CHAINED,
        )
        gates = self._gates
        _finish[(self._programs,)](
            self._largest,
            self._slots,
            self._rows.sums,
            self._gate_sums,
            gates.node.data,
            gates.squares,
            gates.rate,
            self._gate_sums.numel(),
            triton.next_power_of_2(self._gate_sums.numel()),
            *tile,
            **CHAINED,
        )


@triton.jit
def _hashed(history, position, factors, lane, lanes, which, count, depth: tl.constexpr, DEPTH: tl.constexpr):
    """Return the hashes, int64 below 2^32, of a lane's contexts `which`."""
    place = tl.arange(0, DEPTH)
    # Bytes of places that are no part of a context, or beyond all of them, have the factor 0.
    byte = load_symbols(history, position, place, lane, lanes, place < depth).to(tl.int64) + 1
    inside = (which < count)[:, None] & (place < depth)[None, :]
    factor = tl.load(factors + which[:, None] * depth + place[None, :], mask=inside, other=0)
    hashed = tl.sum(byte[None, :] * factor, 1) & _MASK32
    hashed = ((hashed ^ (hashed >> _SHIFT_1)) * _MULTIPLIER_1) & _MASK32
    return ((hashed ^ (hashed >> _SHIFT_2)) * _MULTIPLIER_2) & _MASK32


@triton.jit
def _look_up_rows(
    history,
    position,
    factors,
    table,
    squares,
    gates,
    slots,
    which_gate,
    found,
    found_squares,
    whole,
    scale,
    largest,
    gate_sums,
    lanes,
    count: tl.constexpr,
    depth: tl.constexpr,
    size: tl.constexpr,
    bits: tl.constexpr,
    COUNT: tl.constexpr,
    DEPTH: tl.constexpr,
    SIZE: tl.constexpr,
):
    follow()
    lane = tl.program_id(0)
    which, column = tl.arange(0, COUNT), tl.arange(0, SIZE)
    there = which < count
    hashed = _hashed(history, position, factors, lane, lanes, which, count, depth, DEPTH)
    slot = (hashed >> (32 - bits)) + (which.to(tl.int64) << bits)
    lookup = lane * count + which
    square = tl.load(squares + slot, mask=there, other=0.0)
    exponent = (square.to(tl.int32, bitcast=True) >> 23) - _LEAST_EXPONENT
    gate = tl.minimum(tl.maximum(exponent, 0), _EXPERIENCES - 1) + which * _EXPERIENCES
    inside = there[:, None] & (column < size)[None, :]
    row = tl.load(table + slot[:, None] * size + column[None, :], mask=inside, other=0.0)
    passed = row * tl.load(gates + gate, mask=there, other=0.0)[:, None]
    factor, unit = row_scale(tl.max(tl.max(tl.abs(passed), 1), 0), _INT8_MOST)
    place = lookup[:, None] * size + column[None, :]
    tl.store(whole + place, whole_number(passed, factor).to(tl.int8), mask=inside)
    tl.store(scale + lane, unit)
    tl.store(slots + lookup, slot, mask=there)
    tl.store(which_gate + lookup, gate, mask=there)
    tl.store(found + place, row, mask=inside)
    tl.store(found_squares + lookup, square, mask=there)
    if lane == 0:
        # What the backward pass adds to.
        tl.store(largest + tl.arange(0, 2), tl.zeros((2,), tl.int64))
        sums = which[:, None] * _EXPERIENCES + tl.arange(0, _EXPERIENCES)[None, :]
        tl.store(gate_sums + sums, tl.zeros((COUNT, _EXPERIENCES), tl.int64), mask=there[:, None])


@triton.jit
def _tile(lookups, size: tl.constexpr, ROWS: tl.constexpr, SIZE: tl.constexpr):
    """Return a program's lookups, which are inside, their columns, and which values are inside."""
    lookup, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, SIZE)
    there = lookup < lookups
    return lookup, there, column, there[:, None] & (column < size)[None, :]


@triton.jit
def _exact_sum(x):
    """Return the sums of rows of x; twin of quantise.exact_sum."""
    factor, unit = row_scale(tl.max(tl.abs(x), 1), _SUM_MOST)
    return tl.sum(whole_number(x, factor[:, None]).to(tl.int64), 1).to(tl.float32) * unit


@triton.jit
def _find_largest(
    gradient, found, by_gate, largest, lookups, size: tl.constexpr, ROWS: tl.constexpr, SIZE: tl.constexpr
):
    follow()
    lookup, there, column, inside = _tile(lookups, size, ROWS, SIZE)
    place = lookup[:, None] * size + column[None, :]
    g = tl.load(gradient + place, mask=inside, other=0.0)
    by_row = _exact_sum(g * tl.load(found + place, mask=inside, other=0.0))
    tl.store(by_gate + lookup, by_row, mask=there)
    add_largest(largest, tl.max(tl.abs(g), 1))
    add_largest(largest + 1, by_row)


@triton.jit
def _add_gradients(
    gradient,
    by_gate,
    largest,
    slots,
    which_gate,
    sums,
    gate_sums,
    lookups,
    size: tl.constexpr,
    ROWS: tl.constexpr,
    SIZE: tl.constexpr,
):
    follow()
    lookup, there, column, inside = _tile(lookups, size, ROWS, SIZE)
    slot = tl.load(slots + lookup, mask=there, other=0)
    g = tl.load(gradient + lookup[:, None] * size + column[None, :], mask=inside, other=0.0)
    factor, _ = row_scale(load_largest(largest), _GRADIENT_MOST)
    whole = whole_number(g, factor).to(tl.int64)
    tl.atomic_add(sums + slot[:, None] * size + column[None, :], whole, mask=inside, sem="relaxed")
    gate = tl.load(which_gate + lookup, mask=there, other=0)
    factor, _ = row_scale(load_largest(largest + 1), _GRADIENT_MOST)
    whole = whole_number(tl.load(by_gate + lookup, mask=there, other=0.0), factor).to(tl.int64)
    tl.atomic_add(gate_sums + gate, whole, mask=there, sem="relaxed")


@triton.jit
def _move_rows(
    found,
    found_squares,
    largest,
    slots,
    sums,
    table,
    squares,
    rate,
    lookups,
    size: tl.constexpr,
    ROWS: tl.constexpr,
    SIZE: tl.constexpr,
):
    follow()
    lookup, there, column, inside = _tile(lookups, size, ROWS, SIZE)
    slot = tl.load(slots + lookup, mask=there, other=0)
    place = slot[:, None] * size + column[None, :]
    _, unit = row_scale(load_largest(largest), _GRADIENT_MOST)
    gradient = tl.load(sums + place, mask=inside, other=0).to(tl.float32) * unit
    mean = _exact_sum(gradient * gradient) * (1.0 / size)
    square = tl.load(found_squares + lookup, mask=there, other=0.0) + mean
    factor = reciprocal_sqrt(square + _EPSILON) * rate
    old = tl.load(found + lookup[:, None] * size + column[None, :], mask=inside, other=0.0)
    # Lookups of one row write the same bits, in whatever order.
    tl.store(table + place, old - gradient * factor[:, None], mask=inside)
    tl.store(squares + slot, square, mask=there)


@triton.jit
def _finish(
    largest,
    slots,
    sums,
    gate_sums,
    gates,
    gate_squares,
    rate,
    gates_count,
    GATES: tl.constexpr,
    lookups,
    size: tl.constexpr,
    ROWS: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Set the sums of the rows that were moved to zero, and move the gates."""
    follow()
    lookup, there, column, inside = _tile(lookups, size, ROWS, SIZE)
    slot = tl.load(slots + lookup, mask=there, other=0)
    tl.store(sums + slot[:, None] * size + column[None, :], tl.zeros((ROWS, SIZE), tl.int64), mask=inside)
    if tl.program_id(0) == 0:
        gate = tl.arange(0, GATES)
        is_gate = gate < gates_count
        _, unit = row_scale(load_largest(largest + 1), _GRADIENT_MOST)
        gradient = tl.load(gate_sums + gate, mask=is_gate, other=0).to(tl.float32) * unit
        old = tl.load(gates + gate, mask=is_gate, other=0.0)
        square = tl.load(gate_squares + gate, mask=is_gate, other=0.0)
        moved, square = slowed(old, square, gradient, rate)
        tl.store(gates + gate, moved, mask=is_gate)
        tl.store(gate_squares + gate, square, mask=is_gate)
