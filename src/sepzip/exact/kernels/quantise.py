"""Rows and weights as int8, with their scales: twins of quantise.py."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..quantise import INT8_MOST
from .elements import CHAINED, beside_floats, follow, from_bits, row_scale, whole_number

__all__ = [
    "ROW_WARPS",
    "quantise_rows",
    "quantise_weight",
    "row_places",
    "row_tile",
    "scale_of_rows",
    "store_layouts",
    "store_rows",
]

_INT8_MOST = tl.constexpr(INT8_MOST)

_VALUES = 2048
"""Values of the rows that a program holds whole."""

ROW_WARPS = 4
"""Warps of such a program."""


def row_tile(width: int) -> tuple[int, int]:
    """Return how many rows a program holds, and their padded width."""
    padded = int(triton.next_power_of_2(width))
    return max(1, min(16, _VALUES // padded)), padded


@triton.jit
def scale_of_rows(scale_x, row, there, x_largest: tl.constexpr):
    """Return the scales of the layer's input."""
    if x_largest:
        _, scale = row_scale(from_bits(tl.load(scale_x + row, mask=there, other=0)), _INT8_MOST)
    else:
        scale = tl.load(scale_x + row, mask=there, other=0.0)
    return scale


@triton.jit
def row_places(rows, width: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Return whole rows and their columns, which rows, columns and places are inside, and the places."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    there, column_inside = row < rows, column < width
    inside = there[:, None] & column_inside[None, :]
    place = row[:, None] * width + column[None, :]
    return row, column, there, column_inside, inside, place


@triton.jit
def store_rows(x, row, there, place, inside, whole, scale_out):
    """Store rows as int8, and their scales."""
    factor, scale = row_scale(tl.max(tl.abs(x), 1), _INT8_MOST)
    tl.store(beside_floats(whole, place), whole_number(x, factor[:, None]).to(tl.int8), mask=inside)
    tl.store(scale_out + row, scale, mask=there)


@triton.jit
def _quantise_rows(
    x,
    whole,
    scale,
    largest,
    other_largest,
    rows,
    width: tl.constexpr,
    clears: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    follow()
    row, _, there, _, inside, place = row_places(rows, width, ROWS, WIDTH)
    store_rows(tl.load(x + place, mask=inside, other=0.0), row, there, place, inside, whole, scale)
    if clears:
        tl.store(largest + row, tl.zeros((ROWS,), tl.int32), mask=there)
        tl.store(other_largest + row, tl.zeros((ROWS,), tl.int32), mask=there)


def quantise_rows(
    x: Tensor, whole: Tensor, scale: Tensor, largest: tuple[Tensor, Tensor] | None = None
) -> None:
    """Write x, float32 [rows, width], as int8 `whole` with `scale`, float32 [rows]; set both `largest` to 0.

    These, int32 [rows], are what the backward pass finds the rows' largest gradients in.
    """
    rows, width = x.shape
    each, padded = row_tile(width)
    _quantise_rows[(triton.cdiv(rows, each),)](
        x,
        whole,
        scale,
        *(largest or (scale, scale)),
        rows,
        width,
        largest is not None,
        each,
        padded,
        num_warps=ROW_WARPS,
        **CHAINED,
    )


@triton.jit
def store_layouts(whole, row, column, place, inside, by_input, by_output, inputs: tl.constexpr):
    """Store a tile of a weight's int8 numbers by input, at `place`, and by output."""
    tl.store(beside_floats(by_input, place), whole, mask=inside)
    tl.store(by_output + column[None, :] * inputs + row[:, None], whole, mask=inside)


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
    store_layouts(whole, row, column, place, inside, by_input, by_output, inputs)
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
