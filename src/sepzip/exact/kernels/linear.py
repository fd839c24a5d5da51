"""Products of the layers that all lanes share: the twins of linear.py and gelu.py, fused.

Sums are of whole numbers in int32, so tiles and splits of the summed axis change no bit. Weights come as
int8 in both layouts, `by_input` [inputs, outputs] and `by_output` [outputs, inputs], and so do activations
and gradients: in each product the summed axis is the contiguous one, which is what tensor cores read.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..quantise import INT8_MOST, INT16_MOST
from .elements import (
    CHAINED,
    beside_floats,
    follow,
    from_bits,
    gelu,
    gelu_slope,
    row_scale,
    size_bits,
    split_digits,
    whole_number,
)

__all__ = [
    "activate",
    "combined",
    "combined_sums",
    "gradient_sums",
    "hidden_gradient",
    "input_gradient",
    "linear_forward",
    "linear_sums",
    "product_of_digits",
    "row_digits",
    "splits",
    "sum_of_splits",
    "transpose",
]

_INT8_MOST = tl.constexpr(INT8_MOST)
_INT16_MOST = tl.constexpr(INT16_MOST)
_FLOAT32_INNER = tl.constexpr(1 << 10)


_MANY_PROGRAMS = 512
"""So many programs keep a large device busy."""

_MANY_ROWS = 4096
"""From so many rows on, the largest tiles of a sum in parts give enough programs."""


@triton.jit
def combined(high, low):
    """Return 256 high + low, int32 each, rounded once to float32."""
    return (high.to(tl.int64) * 256 + low.to(tl.int64)).to(tl.float32)


@triton.jit
def combined_sums(high, low, inner: tl.constexpr):
    """Return the same of sums of `inner` products of two bytes each."""
    if inner <= _FLOAT32_INNER:
        # Both are then below 2^24, exact as float32: 64-bit numbers take many times as long.
        return high.to(tl.float32) * 256.0 + low.to(tl.float32)
    else:
        return combined(high, low)


@triton.jit
def product(a, b, rows, columns, row, column, start, inner_size, SPLIT: tl.constexpr, INNER: tl.constexpr):
    """Return a tile of the integer sums of a [rows, inner_size] times b [columns, inner_size], transposed.

    Both are int8 and row-major; `row` and `column` are the tile's, and the SPLIT inner places from `start`
    on are summed.
    """
    sums = tl.zeros((row.shape[0], column.shape[0]), tl.int32)
    row_inside, column_inside = row < rows, column < columns
    for chunk in range(SPLIT // INNER):
        inner = start + chunk * INNER + tl.arange(0, INNER)
        inside = inner < inner_size
        left = tl.load(
            a + row[:, None] * inner_size + inner[None, :],
            mask=row_inside[:, None] & inside[None, :],
            other=0,
        )
        right = tl.load(
            b + column[None, :] * inner_size + inner[:, None],
            mask=column_inside[None, :] & inside[:, None],
            other=0,
        )
        sums = tl.dot(left, right, sums, out_dtype=tl.int32)
    return sums


@triton.jit
def product_of_digits(
    high, low, b, rows, columns, row, column, start, inner_size, SPLIT: tl.constexpr, INNER: tl.constexpr
):
    """Return the tiles (of high, of low) of `product` for two left operands and one right."""
    high_sums = tl.zeros((row.shape[0], column.shape[0]), tl.int32)
    low_sums = tl.zeros((row.shape[0], column.shape[0]), tl.int32)
    row_inside, column_inside = row < rows, column < columns
    for chunk in range(SPLIT // INNER):
        inner = start + chunk * INNER + tl.arange(0, INNER)
        inside = inner < inner_size
        place = row[:, None] * inner_size + inner[None, :]
        place_inside = row_inside[:, None] & inside[None, :]
        right = tl.load(
            b + column[None, :] * inner_size + inner[:, None],
            mask=column_inside[None, :] & inside[:, None],
            other=0,
        )
        left = tl.load(high + place, mask=place_inside, other=0)
        high_sums = tl.dot(left, right, high_sums, out_dtype=tl.int32)
        left = tl.load(low + place, mask=place_inside, other=0)
        low_sums = tl.dot(left, right, low_sums, out_dtype=tl.int32)
    return high_sums, low_sums


def _tile(rows: int, columns: int) -> tuple[int, int, int]:
    """Return a tile's rows and columns, and its warps: the largest that still gives enough programs."""
    if triton.cdiv(rows, 64) * triton.cdiv(columns, 128) >= _MANY_PROGRAMS:
        return 64, 128, 8
    size = 64 if triton.cdiv(rows, 64) * triton.cdiv(columns, 64) >= 64 else 32
    return size, size, 4


def _inner(size: int) -> tuple[int, int]:
    """Return the inner places that a whole sum of `size` takes, and how many of them at a time."""
    step = min(128, max(32, int(triton.next_power_of_2(size))))
    return -(-size // step) * step, step


def _split(inner_size: int, lanes: int) -> int:
    """Return how many inner places one program sums where the sum is split: the more, the more lanes."""
    padded = int(triton.next_power_of_2(inner_size))
    longer = max(1, int(triton.next_power_of_2(lanes)) // (512 if lanes < _MANY_ROWS else 1024))
    return max(64, min(padded, min(512, padded // 8) * longer))


def splits(inner_size: int, lanes: int) -> int:
    """Return into how many parts `linear_sums` and `gradient_sums` split a sum of `inner_size` places."""
    return -(-inner_size // _split(inner_size, lanes))


@triton.jit
def sum_of_splits(sums, place, inside, stride, SPLITS: tl.constexpr):
    """Return the int32 sums of the parts that lie `stride` apart."""
    total = tl.load(sums + place, mask=inside, other=0)
    # Unrolled, so that no load waits for another.
    for split in tl.static_range(1, SPLITS):
        total += tl.load(sums + split * stride + place, mask=inside, other=0)
    return total


@triton.jit
def _linear_forward(
    x,
    weight,
    scale_x,
    scale_weight,
    bias,
    out,
    largest,
    lanes,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    activation: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPLIT: tl.constexpr,
    INNER: tl.constexpr,
):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row_inside, column_inside = row < lanes, column < outputs
    sums = product(x, weight, lanes, outputs, row, column, 0, inputs, SPLIT, INNER)
    by_row = tl.load(scale_x + row, mask=row_inside, other=0.0)
    by_column = tl.load(scale_weight + column, mask=column_inside, other=0.0)
    added = tl.load(bias + column, mask=column_inside, other=0.0)
    result = (sums.to(tl.float32) * by_row[:, None]) * by_column[None, :] + added[None, :]
    inside = row_inside[:, None] & column_inside[None, :]
    tl.store(out + row[:, None] * outputs + column[None, :], result, mask=inside)
    if activation:
        bits = tl.max(tl.where(inside, size_bits(gelu(result)), 0), 1)
        tl.atomic_max(largest + row, bits, mask=row_inside, sem="relaxed")


def linear_forward(
    x: Tensor,
    weight: Tensor,
    scale_x: Tensor,
    scale_weight: Tensor,
    bias: Tensor,
    out: Tensor,
    largest: Tensor | None = None,
) -> None:
    """Write x @ weight + bias to `out`, float32 [lanes, outputs].

    x is int8 [lanes, inputs], `weight` int8 by output [outputs, inputs]; the scales are float32 [lanes]
    and [outputs]. With `largest`, int32 [lanes], set to 0 before, the bits of the largest |gelu(out)| of
    each lane are left there.
    """
    (lanes, inputs), outputs = x.shape, len(weight)
    rows, columns, warps = _tile(lanes, outputs)
    _linear_forward[(triton.cdiv(lanes, rows), triton.cdiv(outputs, columns))](
        x,
        weight,
        scale_x,
        scale_weight,
        bias,
        out,
        x if largest is None else largest,
        lanes,
        inputs,
        outputs,
        largest is not None,
        rows,
        columns,
        *_inner(inputs),
        num_warps=warps,
        **CHAINED,
    )


@triton.jit
def _activate(
    x,
    largest,
    whole,
    whole_by_input,
    lanes,
    width: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row_inside = row < lanes
    inside = row_inside[:, None] & (column < width)[None, :]
    factor, _ = row_scale(from_bits(tl.load(largest + row, mask=row_inside, other=0)), _INT8_MOST)
    place = row[:, None] * width + column[None, :]
    values = whole_number(gelu(tl.load(x + place, mask=inside, other=0.0)), factor[:, None]).to(tl.int8)
    tl.store(beside_floats(whole, place), values, mask=inside)
    tl.store(whole_by_input + column[None, :] * lanes + row[:, None], values, mask=inside)


def activate(x: Tensor, largest: Tensor, whole: Tensor, whole_by_input: Tensor) -> None:
    """Write gelu(x), quantised by lane, to `whole`, int8 [lanes, width], and [width, lanes].

    x is float32 [lanes, width], `largest` int32 [lanes] the bits of each lane's largest |gelu(x)|.
    """
    lanes, width = x.shape
    rows = columns = 64 if lanes * width >= 1 << 20 else 32
    _activate[(triton.cdiv(lanes, rows), triton.cdiv(width, columns))](
        x, largest, whole, whole_by_input, lanes, width, rows, columns, num_warps=4, **CHAINED
    )


@triton.jit
def _transpose(x, out, lanes, width: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < lanes)[:, None] & (column < width)[None, :]
    values = tl.load(x + row[:, None] * width + column[None, :], mask=inside, other=0)
    tl.store(out + column[None, :] * lanes + row[:, None], values, mask=inside)


def transpose(x: Tensor, out: Tensor) -> None:
    """Write int8 x [lanes, width] to `out` [width, lanes]."""
    lanes, width = x.shape
    _transpose[(triton.cdiv(lanes, 64), triton.cdiv(width, 32))](
        x, out, lanes, width, 64, 32, num_warps=4, **CHAINED
    )


@triton.jit
def _linear_sums(
    x,
    weight,
    sums,
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
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    start = tl.program_id(1) * SPLIT
    result = product(x, weight, lanes, outputs, row, column, start, inputs, SPLIT, INNER)
    place = (tl.program_id(1) * lanes + row[:, None]) * outputs + column[None, :]
    tl.store(sums + place, result, mask=(row < lanes)[:, None] & (column < outputs)[None, :])


def linear_sums(x: Tensor, weight: Tensor, sums: Tensor) -> None:
    """Write the integer sums of x @ weight in parts to `sums`, int32 [splits(inputs, lanes), lanes, outputs].

    x is int8 [lanes, inputs], `weight` int8 by output.
    """
    (lanes, inputs), outputs = x.shape, len(weight)
    rows, columns, warps = _wide_tile(lanes, outputs)
    split = _split(inputs, lanes)
    _linear_sums[(triton.cdiv(lanes, rows), splits(inputs, lanes), triton.cdiv(outputs, columns))](
        x,
        weight,
        sums,
        lanes,
        inputs,
        outputs,
        rows,
        columns,
        split,
        min(128, split),
        num_warps=warps,
        **CHAINED,
    )


def _wide_tile(rows: int, columns: int) -> tuple[int, int, int]:
    """Return a tile's rows and columns, and its warps, where splits of the sum give enough programs."""
    if rows >= _MANY_ROWS and columns >= 128:
        return 128, 128, 8
    return 64 if rows > 32 else 32, min(64, max(32, int(triton.next_power_of_2(columns)))), 4


@triton.jit
def _hidden_gradient(
    high,
    low,
    scale,
    weight,
    x,
    gradient,
    next_scale,
    largest,
    scale_x,
    column_largest,
    product_largest,
    lanes,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    by_columns: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPLIT: tl.constexpr,
    INNER: tl.constexpr,
):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row_inside, column_inside = row < lanes, column < inputs
    inside = row_inside[:, None] & column_inside[None, :]
    high_sums, low_sums = product_of_digits(
        high, low, weight, lanes, inputs, row, column, 0, outputs, SPLIT, INNER
    )
    by_row = tl.load(scale + row, mask=row_inside, other=0.0)
    place = row[:, None] * inputs + column[None, :]
    z = tl.load(x + place, mask=inside, other=0.0)
    result = gelu_slope(z) * (combined_sums(high_sums, low_sums, outputs) * by_row[:, None])
    tl.store(gradient + place, result, mask=inside)
    by_column = tl.load(next_scale + column, mask=column_inside, other=0.0)
    bits = tl.max(tl.where(inside, size_bits(result * by_column[None, :]), 0), 1)
    tl.atomic_max(largest + row, bits, mask=row_inside, sem="relaxed")
    if by_columns:
        bits = tl.max(tl.where(inside, size_bits(result), 0), 0)
        tl.atomic_max(column_largest + column, bits, mask=column_inside, sem="relaxed")
        by_row = tl.load(scale_x + row, mask=row_inside, other=0.0)
        bits = tl.max(tl.where(inside, size_bits(result * by_row[:, None]), 0), 0)
        tl.atomic_max(product_largest + column, bits, mask=column_inside, sem="relaxed")


def hidden_gradient(
    high: Tensor,
    low: Tensor,
    scale: Tensor,
    weight: Tensor,
    x: Tensor,
    gradient: Tensor,
    next_scale: Tensor,
    largest: Tensor,
    columns: tuple[Tensor, Tensor, Tensor] | None = None,
) -> None:
    """Write the gradient by x, float32 [lanes, inputs], of a layer `weight` that takes gelu(x).

    `high` and `low`, int8 [lanes, outputs], and `scale`, float32 [lanes], are the quantised gradient by the
    layer's result, `weight` is int8 by input. The bits of each lane's largest |gradient * next_scale| are
    left in `largest`, int32 [lanes], set to 0 before; `next_scale` is the scales, [inputs], of the weight
    that made x. With `columns`, the scales, float32 [lanes], of what x was made of, and two int32 [inputs],
    set to 0 before, the bits of each column's largest |gradient| and |gradient * scale| are left in these.
    """
    (lanes, outputs), inputs = high.shape, len(weight)
    # Each value takes two sums: with the largest tile all took a third longer.
    rows, tile_columns, warps = min(_tile(lanes, inputs), (64, 64, 4))
    _hidden_gradient[(triton.cdiv(lanes, rows), triton.cdiv(inputs, tile_columns))](
        high,
        low,
        scale,
        weight,
        x,
        gradient,
        next_scale,
        largest,
        *(columns or (next_scale, largest, largest)),
        lanes,
        inputs,
        outputs,
        columns is not None,
        rows,
        tile_columns,
        *_inner(outputs),
        num_warps=warps,
        **CHAINED,
    )


@triton.jit
def _input_gradient(
    high,
    low,
    scale,
    weight,
    added,
    out,
    lanes,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    is_largest: tl.constexpr,
    adds: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPLIT: tl.constexpr,
    INNER: tl.constexpr,
):
    follow()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row_inside = row < lanes
    inside = row_inside[:, None] & (column < inputs)[None, :]
    high_sums, low_sums = product_of_digits(
        high, low, weight, lanes, inputs, row, column, 0, outputs, SPLIT, INNER
    )
    if is_largest:
        _, by_row = row_scale(from_bits(tl.load(scale + row, mask=row_inside, other=0)), _INT16_MOST)
    else:
        by_row = tl.load(scale + row, mask=row_inside, other=0.0)
    result = combined_sums(high_sums, low_sums, outputs) * by_row[:, None]
    place = row[:, None] * inputs + column[None, :]
    if adds:
        result = tl.load(added + place, mask=inside, other=0.0) + result
    tl.store(out + place, result, mask=inside)


def input_gradient(
    high: Tensor, low: Tensor, scale: Tensor, weight: Tensor, out: Tensor, added: Tensor | None = None
) -> None:
    """Write the gradient by a layer's input, float32 [lanes, inputs], to `out`, behind `added` if given.

    `high` and `low`, int8 [lanes, outputs], are the quantised gradient by the layer's result, `scale` their
    scales, float32 [lanes], or the bits, int32 [lanes], of the largest sizes that these come from; `weight`
    is int8 by input.
    """
    (lanes, outputs), inputs = high.shape, len(weight)
    rows, columns, warps = _tile(lanes, inputs)
    _input_gradient[(triton.cdiv(lanes, rows), triton.cdiv(inputs, columns))](
        high,
        low,
        scale,
        weight,
        out if added is None else added,
        out,
        lanes,
        inputs,
        outputs,
        scale.dtype == torch.int32,
        added is not None,
        rows,
        columns,
        *_inner(outputs),
        num_warps=warps,
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


@triton.jit
def _gradient_sums(
    high,
    low,
    weight,
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
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    start = tl.program_id(1) * SPLIT
    high_result, low_result = product_of_digits(
        high, low, weight, lanes, inputs, row, column, start, outputs, SPLIT, INNER
    )
    place = (tl.program_id(1) * lanes + row[:, None]) * inputs + column[None, :]
    inside = (row < lanes)[:, None] & (column < inputs)[None, :]
    tl.store(high_sums + place, high_result, mask=inside)
    tl.store(low_sums + place, low_result, mask=inside)


def gradient_sums(high: Tensor, low: Tensor, weight: Tensor, high_sums: Tensor, low_sums: Tensor) -> None:
    """Write the integer sums of the gradient by a layer's input, in parts, for each digit.

    `high` and `low`, int8 [lanes, outputs], are the quantised gradient by the layer's result, `weight` is
    int8 by input; both results are int32 [splits(outputs, lanes), lanes, inputs].
    """
    (lanes, outputs), inputs = high.shape, len(weight)
    rows, columns, warps = _wide_tile(lanes, inputs)
    split = _split(outputs, lanes)
    _gradient_sums[(triton.cdiv(lanes, rows), splits(outputs, lanes), triton.cdiv(inputs, columns))](
        high,
        low,
        weight,
        high_sums,
        low_sums,
        lanes,
        inputs,
        outputs,
        rows,
        columns,
        split,
        min(128, split),
        num_warps=warps,
        **CHAINED,
    )
