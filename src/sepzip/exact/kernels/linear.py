"""Products of the layers that all lanes share: the twins of linear.py and gelu.py, fused.

Sums are of whole numbers in int32, so tiles, splits of the summed axis and atomic additions change no bit.
Weights come as int8 in both layouts, `by_input` [inputs, outputs] and `by_output` [outputs, inputs]: in
each product the summed axis is then the one that is contiguous, which is what tensor cores read.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..quantise import INT8_MOST, INT16_MOST
from .elements import EXACT, gelu, gelu_slope, high_digit, quantised, row_scale

__all__ = [
    "activated_sums",
    "combined",
    "from_bits",
    "gradient_sums",
    "hidden_gradient",
    "linear_forward",
    "size_bits",
]

_INT8_MOST = tl.constexpr(INT8_MOST)
_INT16_MOST = tl.constexpr(INT16_MOST)


@triton.jit
def size_bits(x):
    """Return the bits of |x|, int32: they are ordered as the sizes are."""
    return tl.abs(x).to(tl.int32, bitcast=True)


@triton.jit
def from_bits(bits):
    """Return the float32 number of these bits."""
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def combined(high, low):
    """Return 256 high + low, int32 each, rounded once to float32."""
    return (high.to(tl.int64) * 256 + low.to(tl.int64)).to(tl.float32)


def _tile(rows: int, columns: int, most: int) -> tuple[int, int, int]:
    """Return a tile's rows and columns, and its warps: the largest that still gives enough programs."""
    for size in (128, 64):
        if size <= most and triton.cdiv(rows, size) * triton.cdiv(columns, size) >= 64:
            return size, size, 8 if size == 128 else 4
    return 32, 32, 4


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
    INNER: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row_inside, column_inside = row < lanes, column < outputs
    sums = tl.zeros((ROWS, COLUMNS), tl.int32)
    for start in range(0, inputs, INNER):
        inner = start + tl.arange(0, INNER)
        inside = inner < inputs
        a = tl.load(
            x + row[:, None] * inputs + inner[None, :], mask=row_inside[:, None] & inside[None, :], other=0
        )
        b = tl.load(
            weight + column[None, :] * inputs + inner[:, None],
            mask=column_inside[None, :] & inside[:, None],
            other=0,
        )
        sums = tl.dot(a, b, sums, out_dtype=tl.int32)
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
    rows, columns, warps = _tile(lanes, outputs, 128)
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
        64,
        num_warps=warps,
        **EXACT,
    )


@triton.jit
def _activated_sums(
    x,
    largest,
    weight,
    whole,
    sums,
    column_largest,
    lanes,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    SPLIT: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    row_inside, column_inside = row < lanes, column < outputs
    factor, _ = row_scale(from_bits(tl.load(largest + row, mask=row_inside, other=0)), _INT8_MOST)
    result = tl.zeros((ROWS, COLUMNS), tl.int32)
    for start in range(0, SPLIT, INNER):
        inner = tl.program_id(1) * SPLIT + start + tl.arange(0, INNER)
        inside = inner < inputs
        z = tl.load(
            x + row[:, None] * inputs + inner[None, :], mask=row_inside[:, None] & inside[None, :], other=0.0
        )
        a = quantised(gelu(z), factor[:, None]).to(tl.int8)
        if tl.program_id(2) == 0:
            tl.store(
                whole + inner[None, :] * lanes + row[:, None],
                a,
                mask=row_inside[:, None] & inside[None, :],
            )
        b = tl.load(
            weight + column[None, :] * inputs + inner[:, None],
            mask=column_inside[None, :] & inside[:, None],
            other=0,
        )
        result = tl.dot(a, b, result, out_dtype=tl.int32)
    tl.atomic_add(
        sums + row[:, None] * outputs + column[None, :],
        result,
        mask=row_inside[:, None] & column_inside[None, :],
        sem="relaxed",
    )
    if (tl.program_id(0) == 0) & (tl.program_id(1) == 0):
        tl.store(column_largest + column, tl.zeros((COLUMNS,), tl.int32), mask=column_inside)


def activated_sums(
    x: Tensor, largest: Tensor, weight: Tensor, whole: Tensor, sums: Tensor, column_largest: Tensor
) -> None:
    """Add the integer sums of quantised gelu(x) @ weight to `sums`, int32 [lanes, outputs], set to 0 before.

    x is float32 [lanes, inputs], `largest` the bits of each lane's largest |gelu(x)|, `weight` int8 by
    output. The quantised activations go to `whole`, int8 [inputs, lanes]; `column_largest`, int32
    [outputs], is set to 0 for the update of this weight.
    """
    (lanes, inputs), outputs = x.shape, len(weight)
    columns = min(256, max(32, triton.next_power_of_2(outputs)))
    rows, split = (64, 256) if lanes * inputs >= 64 * 64 * 256 else (32, 64)
    _activated_sums[(triton.cdiv(lanes, rows), triton.cdiv(inputs, split), triton.cdiv(outputs, columns))](
        x,
        largest,
        weight,
        whole,
        sums,
        column_largest,
        lanes,
        inputs,
        outputs,
        rows,
        columns,
        64,
        split,
        num_warps=8 if columns == 256 else 4,
        **EXACT,
    )


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
    lanes,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row_inside, column_inside = row < lanes, column < inputs
    inside = row_inside[:, None] & column_inside[None, :]
    high_sums = tl.zeros((ROWS, COLUMNS), tl.int32)
    low_sums = tl.zeros((ROWS, COLUMNS), tl.int32)
    for start in range(0, outputs, INNER):
        inner = start + tl.arange(0, INNER)
        there = inner < outputs
        digit = row[:, None] * outputs + inner[None, :]
        digit_inside = row_inside[:, None] & there[None, :]
        b = tl.load(
            weight + column[None, :] * outputs + inner[:, None],
            mask=column_inside[None, :] & there[:, None],
            other=0,
        )
        high_sums = tl.dot(
            tl.load(high + digit, mask=digit_inside, other=0), b, high_sums, out_dtype=tl.int32
        )
        low_sums = tl.dot(tl.load(low + digit, mask=digit_inside, other=0), b, low_sums, out_dtype=tl.int32)
    by_row = tl.load(scale + row, mask=row_inside, other=0.0)
    place = row[:, None] * inputs + column[None, :]
    z = tl.load(x + place, mask=inside, other=0.0)
    result = gelu_slope(z) * (combined(high_sums, low_sums) * by_row[:, None])
    tl.store(gradient + place, result, mask=inside)
    by_column = tl.load(next_scale + column, mask=column_inside, other=0.0)
    bits = tl.max(tl.where(inside, size_bits(result * by_column[None, :]), 0), 1)
    tl.atomic_max(largest + row, bits, mask=row_inside, sem="relaxed")


def hidden_gradient(
    high: Tensor,
    low: Tensor,
    scale: Tensor,
    weight: Tensor,
    x: Tensor,
    gradient: Tensor,
    next_scale: Tensor,
    largest: Tensor,
) -> None:
    """Write the gradient by x, float32 [lanes, inputs], of a layer `weight` that takes gelu(x).

    `high` and `low`, int8 [lanes, outputs], and `scale`, float32 [lanes], are the quantised gradient by the
    layer's result, `weight` is int8 by input. The bits of each lane's largest |gradient * next_scale| are
    left in `largest`, int32 [lanes], set to 0 before; `next_scale` is the scales, [inputs], of the weight
    that made x.
    """
    (lanes, outputs), inputs = high.shape, len(weight)
    rows, columns, warps = _tile(lanes, inputs, 128)
    _hidden_gradient[(triton.cdiv(lanes, rows), triton.cdiv(inputs, columns))](
        high,
        low,
        scale,
        weight,
        x,
        gradient,
        next_scale,
        largest,
        lanes,
        inputs,
        outputs,
        rows,
        columns,
        64,
        num_warps=warps,
        **EXACT,
    )


@triton.jit
def _gradient_sums(
    gradient,
    scale_weight,
    largest,
    weight,
    high_sums,
    low_sums,
    lanes,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    find_largest: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    SPLIT: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    row_inside, column_inside = row < lanes, column < inputs
    if find_largest:
        bits = tl.zeros((ROWS,), tl.int32)
        for start in range(0, outputs, INNER):
            inner = start + tl.arange(0, INNER)
            g = tl.load(
                gradient + row[:, None] * outputs + inner[None, :],
                mask=row_inside[:, None] & (inner < outputs)[None, :],
                other=0.0,
            )
            by_inner = tl.load(scale_weight + inner, mask=inner < outputs, other=0.0)
            bits = tl.maximum(bits, tl.max(size_bits(g * by_inner[None, :]), 1))
        if tl.program_id(2) == 0:
            tl.store(largest + row, bits, mask=row_inside)
    else:
        bits = tl.load(largest + row, mask=row_inside, other=0)
    factor, _ = row_scale(from_bits(bits), _INT16_MOST)
    high_result = tl.zeros((ROWS, COLUMNS), tl.int32)
    low_result = tl.zeros((ROWS, COLUMNS), tl.int32)
    for start in range(0, SPLIT, INNER):
        inner = tl.program_id(1) * SPLIT + start + tl.arange(0, INNER)
        inside = inner < outputs
        g = tl.load(
            gradient + row[:, None] * outputs + inner[None, :],
            mask=row_inside[:, None] & inside[None, :],
            other=0.0,
        )
        by_inner = tl.load(scale_weight + inner, mask=inside, other=0.0)
        whole = quantised(g * by_inner[None, :], factor[:, None])
        high = high_digit(whole)
        b = tl.load(
            weight + column[None, :] * outputs + inner[:, None],
            mask=column_inside[None, :] & inside[:, None],
            other=0,
        )
        high_result = tl.dot(high.to(tl.int8), b, high_result, out_dtype=tl.int32)
        low_result = tl.dot((whole - high * 256.0).to(tl.int8), b, low_result, out_dtype=tl.int32)
    place = row[:, None] * inputs + column[None, :]
    inside = row_inside[:, None] & column_inside[None, :]
    tl.atomic_add(high_sums + place, high_result, mask=inside, sem="relaxed")
    tl.atomic_add(low_sums + place, low_result, mask=inside, sem="relaxed")


def gradient_sums(
    gradient: Tensor,
    scale_weight: Tensor,
    largest: Tensor,
    weight: Tensor,
    high_sums: Tensor,
    low_sums: Tensor,
    find_largest: bool = False,
) -> None:
    """Add the integer sums of the gradient by a layer's input to `high_sums` and `low_sums`.

    `gradient` is the one by the layer's result, float32 [lanes, outputs], `scale_weight` float32 [outputs],
    `weight` int8 by input; both sums are int32 [lanes, inputs], set to 0 before, one for each digit.
    `largest` holds the bits of each lane's largest |gradient * scale_weight|, or gets them where
    `find_largest` is set, for layers of at most 512 outputs.
    """
    (lanes, outputs), inputs = gradient.shape, len(weight)
    columns = min(256, max(32, triton.next_power_of_2(inputs)))
    rows, split = (64, 256) if lanes * outputs >= 64 * 64 * 256 else (32, 64)
    _gradient_sums[(triton.cdiv(lanes, rows), triton.cdiv(outputs, split), triton.cdiv(inputs, columns))](
        gradient,
        scale_weight,
        largest,
        weight,
        high_sums,
        low_sums,
        lanes,
        inputs,
        outputs,
        find_largest,
        rows,
        columns,
        64,
        split,
        num_warps=8 if columns == 256 else 4,
        **EXACT,
    )
