"""What is added up around a layer, and the largest of its columns, which the norm behind it asks for.

Twins of linear.py and of additions; sums by column are those of columns.py.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..quantise import INT16_MOST
from .column_sums import COLUMN_ROWS, column_places, column_tile
from .elements import CHAINED, follow, from_bits, row_scale, size_bits
from .products import combined, sum_of_splits
from .quantise import scale_of_rows

__all__ = ["add_layer", "add_newest", "add_product"]

_INT16_MOST = tl.constexpr(INT16_MOST)

_WARPS = 4


@triton.jit
def _add_layer(
    x,
    sums,
    scale_x,
    scale_weight,
    bias,
    out,
    largest,
    rows,
    width: tl.constexpr,
    x_largest: tl.constexpr,
    SPLITS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    follow()
    row, column, there, column_inside, inside, place = column_places(rows, width, ROWS, COLUMNS)
    by_row = scale_of_rows(scale_x, row, there, x_largest)
    by_column = tl.load(scale_weight + column, mask=column_inside, other=0.0)
    layer = sum_of_splits(sums, place, inside, rows * width, SPLITS).to(tl.float32) * by_row[:, None]
    layer = layer * by_column[None, :]
    layer = layer + tl.load(bias + column, mask=column_inside, other=0.0)[None, :]
    result = tl.load(x + place, mask=inside, other=0.0) + layer
    tl.store(out + place, result, mask=inside)
    bits = tl.max(tl.where(inside, size_bits(result), 0), 0)
    tl.atomic_max(largest + column, bits, mask=column_inside, sem="relaxed")


def add_layer(
    x: Tensor,
    sums: Tensor,
    splits: int,
    scale_x: Tensor,
    scale_weight: Tensor,
    bias: Tensor,
    out: Tensor,
    largest: Tensor,
) -> None:
    """Write x plus what a layer made, from the integer sums of its product in parts, to `out`.

    x and out are float32 [rows, width]; `scale_x` is as `layer_columns` takes it. The bits of each column's
    largest size are left in `largest`, int32 [width], set to 0 before.
    """
    rows, width = x.shape
    tile = column_tile(width)
    _add_layer[(triton.cdiv(rows, COLUMN_ROWS), triton.cdiv(width, tile))](
        x,
        sums,
        scale_x,
        scale_weight,
        bias,
        out,
        largest,
        rows,
        width,
        scale_x.dtype == torch.int32,
        splits,
        COLUMN_ROWS,
        tile,
        num_warps=_WARPS,
        **CHAINED,
    )


@triton.jit
def _add_product(
    added,
    high_sums,
    low_sums,
    row_largest,
    newest,
    out,
    largest,
    rows,
    width: tl.constexpr,
    tokens: tl.constexpr,
    SPLITS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    follow()
    row, column, there, column_inside, inside, place = column_places(rows, width, ROWS, COLUMNS)
    if SPLITS > 0:
        _, scale = row_scale(from_bits(tl.load(row_largest + row, mask=there, other=0)), _INT16_MOST)
        high = sum_of_splits(high_sums, place, inside, rows * width, SPLITS)
        low = sum_of_splits(low_sums, place, inside, rows * width, SPLITS)
        more = combined(high, low) * scale[:, None]
    else:
        of_lane = (row // tokens)[:, None] * width + column[None, :]
        is_newest = inside & (row % tokens == tokens - 1)[:, None]
        more = tl.load(newest + of_lane, mask=is_newest, other=0.0)
    # Zeros are added as in the plain twin: they turn a negative zero into a positive one.
    result = tl.load(added + place, mask=inside, other=0.0) + more
    tl.store(out + place, result, mask=inside)
    bits = tl.max(size_bits(result), 0)
    tl.atomic_max(largest + column, bits, mask=column_inside, sem="relaxed")


def add_product(
    added: Tensor, sums: tuple[Tensor, Tensor], splits: int, row_largest: Tensor, out: Tensor, largest: Tensor
) -> None:
    """Write `added` plus the gradient by a layer's input, from `gradient_sums`, to `out`, [rows, width].

    `row_largest` is the bits of the rows' largest sizes that the digits' scales come from, and the columns'
    are left in `largest`, set to 0 before.
    """
    rows, width = added.shape
    tile = column_tile(width)
    _add_product[(triton.cdiv(rows, COLUMN_ROWS), triton.cdiv(width, tile))](
        added,
        *sums,
        row_largest,
        added,
        out,
        largest,
        rows,
        width,
        1,
        splits,
        COLUMN_ROWS,
        tile,
        num_warps=_WARPS,
        **CHAINED,
    )


def add_newest(added: Tensor, newest: Tensor, out: Tensor, largest: Tensor) -> None:
    """Write `added`, float32 [lanes * tokens, width], to `out`, plus `newest`, [lanes, width], at the newest.

    The bits of the columns' largest sizes are left in `largest`, set to 0 before.
    """
    rows, width = added.shape
    tile = column_tile(width)
    _add_product[(triton.cdiv(rows, COLUMN_ROWS), triton.cdiv(width, tile))](
        added,
        added,
        added,
        largest,
        newest,
        out,
        largest,
        rows,
        width,
        rows // len(newest),
        0,
        COLUMN_ROWS,
        tile,
        num_warps=_WARPS,
        **CHAINED,
    )
