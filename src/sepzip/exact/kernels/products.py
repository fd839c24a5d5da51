"""Products of whole numbers, tile by whole_tile, and into which tiles and parts they are cut.

Sums are of whole numbers in int32, so tiles and splits of the summed axis change no bit. Weights come as
int8 in both layouts, `by_input` [inputs, outputs] and `by_output` [outputs, inputs], and so do activations
and gradients: in each product the summed axis is the contiguous one, which is what tensor cores read.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "SHORTEST_INNER",
    "combined",
    "combined_sums",
    "product",
    "product_16x16",
    "product_of_digits",
    "split_inner",
    "split_tile",
    "splits",
    "sum_of_splits",
    "whole_inner",
    "whole_tile",
]

SHORTEST_INNER = 32
"""The shortest inner dimension of an int8 product on tensor cores."""

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


@triton.jit
def product_16x16(a, b):
    """Return a @ b, int64, exact; int32 whole numbers up to INT16_MOST, the inner dimension below 2^15."""
    # Balanced digits, base 256; the high one fits int8 as well.
    a_high = (a + 128) >> 8
    b_high = (b + 128) >> 8
    a_low = (a - a_high * 256).to(tl.int8)
    b_low = (b - b_high * 256).to(tl.int8)
    a_high = a_high.to(tl.int8)
    b_high = b_high.to(tl.int8)
    high = tl.dot(a_high, b_high, out_dtype=tl.int32)
    middle = tl.dot(a_high, b_low, out_dtype=tl.int32)
    middle = tl.dot(a_low, b_high, middle, out_dtype=tl.int32)
    low = tl.dot(a_low, b_low, out_dtype=tl.int32)
    return (high.to(tl.int64) << 16) + (middle.to(tl.int64) << 8) + low.to(tl.int64)


@triton.jit
def sum_of_splits(sums, place, inside, stride, SPLITS: tl.constexpr):
    """Return the int32 sums of the parts that lie `stride` apart."""
    total = tl.load(sums + place, mask=inside, other=0)
    # Unrolled, so that no load waits for another.
    for split in tl.static_range(1, SPLITS):
        total += tl.load(sums + split * stride + place, mask=inside, other=0)
    return total


def whole_tile(rows: int, columns: int) -> tuple[int, int, int]:
    """Return a tile's rows and columns, and its warps: the largest that still gives enough programs."""
    if triton.cdiv(rows, 64) * triton.cdiv(columns, 128) >= _MANY_PROGRAMS:
        return 64, 128, 8
    size = 64 if triton.cdiv(rows, 64) * triton.cdiv(columns, 64) >= 64 else 32
    return size, size, 4


def split_tile(rows: int, columns: int) -> tuple[int, int, int]:
    """Return a tile's rows and columns, and its warps, where splits of the sum give enough programs."""
    if rows >= _MANY_ROWS and columns >= 128:
        return 128, 128, 8
    return 64 if rows > 32 else 32, min(64, max(32, int(triton.next_power_of_2(columns)))), 4


def whole_inner(size: int) -> tuple[int, int]:
    """Return the inner places that a whole sum of `size` takes, and how many of them at a time."""
    step = min(128, max(32, int(triton.next_power_of_2(size))))
    return -(-size // step) * step, step


def split_inner(inner_size: int, lanes: int) -> tuple[int, int]:
    """Return the inner places that a part of a sum takes, the more, the more lanes; and so many at a time."""
    padded = int(triton.next_power_of_2(inner_size))
    longer = max(1, int(triton.next_power_of_2(lanes)) // (512 if lanes < _MANY_ROWS else 1024))
    places = max(64, min(padded, min(512, padded // 8) * longer))
    return places, min(128, places)


def splits(inner_size: int, lanes: int) -> int:
    """Return into how many parts `linear_sums` and `gradient_sums` split a sum of `inner_size` places."""
    return -(-inner_size // split_inner(inner_size, lanes)[0])
