"""The update of what each lane has of its own: the twin of the backward pass of `lane_linear`, and of Adam.

The gradient by a lane's matrix, of one row times one column, is made where it is learnt and never stored.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..quantise import INT8_MOST
from .elements import CHAINED, adam, beside_floats, follow, row_scale, whole_number
from .parameters import Learner, Parameter

__all__ = ["lane_update"]

_INT8_MOST = tl.constexpr(INT8_MOST)


@triton.jit
def _update_tile(
    tile,
    x,
    gradient,
    weight,
    first,
    second,
    bias,
    bias_first,
    bias_second,
    step_size,
    epsilon,
    whole_weight,
    scale_weight,
    width: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Update COLUMNS whole columns of a lane's matrix."""
    parts: tl.constexpr = (width + COLUMNS - 1) // COLUMNS
    lane = tile // parts
    row = tl.arange(0, ROWS)
    column = (tile % parts) * COLUMNS + tl.arange(0, COLUMNS)
    column_inside = column < width
    inside = (row < width)[:, None] & column_inside[None, :]
    start = lane.to(tl.int64) * width * width
    place = row[:, None] * width + column[None, :]
    # Read and written once a step: they must not drive from the cache what is needed sooner.
    w = tl.load(weight + start + place, mask=inside, other=0.0, eviction_policy="evict_first")
    m = tl.load(first + start + place, mask=inside, other=0.0, eviction_policy="evict_first")
    v = tl.load(second + start + place, mask=inside, other=0.0, eviction_policy="evict_first")
    g = tl.load(gradient + lane * width + column, mask=column_inside, other=0.0)
    by_row = tl.load(x + lane * width + row, mask=row < width, other=0.0)
    w, m, v = adam(w, m, v, by_row[:, None] * g[None, :], step_size, epsilon)
    tl.store(weight + start + place, w, mask=inside, eviction_policy="evict_first")
    tl.store(first + start + place, m, mask=inside, eviction_policy="evict_first")
    tl.store(second + start + place, v, mask=inside, eviction_policy="evict_first")
    factor, scale = row_scale(tl.max(tl.where(inside, tl.abs(w), 0.0), 0), _INT8_MOST)
    whole = whole_number(w, factor[None, :]).to(tl.int8)
    tl.store(beside_floats(whole_weight + start, place), whole, mask=inside)
    bias_place = lane * width + column
    tl.store(scale_weight + bias_place, scale, mask=column_inside)
    w, m, v = adam(
        tl.load(bias + bias_place, mask=column_inside, other=0.0),
        tl.load(bias_first + bias_place, mask=column_inside, other=0.0),
        tl.load(bias_second + bias_place, mask=column_inside, other=0.0),
        g,
        step_size,
        epsilon,
    )
    tl.store(bias + bias_place, w, mask=column_inside)
    tl.store(bias_first + bias_place, m, mask=column_inside)
    tl.store(bias_second + bias_place, v, mask=column_inside)


@triton.jit
def _lane_update(
    x,
    gradient,
    weight,
    first,
    second,
    bias,
    bias_first,
    bias_second,
    size,
    epsilon,
    whole_weight,
    scale_weight,
    tiles,
    width: tl.constexpr,
    few: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    follow()
    step_size = tl.load(size)
    if few:
        for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), num_stages=2):
            _update_tile(
                tile,
                x,
                gradient,
                weight,
                first,
                second,
                bias,
                bias_first,
                bias_second,
                step_size,
                epsilon,
                whole_weight,
                scale_weight,
                width,
                ROWS,
                COLUMNS,
            )
    else:
        _update_tile(
            tl.program_id(0),
            x,
            gradient,
            weight,
            first,
            second,
            bias,
            bias_first,
            bias_second,
            step_size,
            epsilon,
            whole_weight,
            scale_weight,
            width,
            ROWS,
            COLUMNS,
        )


def lane_update(
    x: Tensor,
    gradient: Tensor,
    weight: Parameter,
    bias: Parameter,
    learner: Learner,
    whole_weight: Tensor,
    scale_weight: Tensor,
    programs: int | None = None,
) -> None:
    """Update every lane's own weight [lanes, width, width] and bias [lanes, width].

    x and `gradient`, float32 [lanes, width], are the layer's input and the gradient by its result; the next
    step's weights go to `whole_weight`, int8 like the weight, and `scale_weight`, float32 [lanes, width].
    By so many `programs`, each of which takes as much of a multiprocessor as there is, it leaves the other
    multiprocessors to what runs beside.
    """
    lanes, width = x.shape
    rows = triton.next_power_of_2(width)
    # Whole columns, so that their scales are known at once, in few enough registers; programs that run
    # side by side work on one lane's neighbouring columns.
    columns = min(rows, 32)
    if programs is not None:
        # What a program asks for ahead lies in shared memory.
        columns = min(columns, max(1, 8192 // rows))
    tiles = lanes * triton.cdiv(width, columns)
    _lane_update[(tiles if programs is None else min(tiles, programs),)](
        x,
        gradient,
        weight.weight,
        weight.first,
        weight.second,
        bias.weight,
        bias.first,
        bias.second,
        learner.size,
        learner.epsilon,
        whole_weight,
        scale_weight,
        tiles,
        width,
        programs is not None,
        rows,
        columns,
        num_warps=max(1, min(4 if programs is None else 8, rows * columns // 64)),
        **CHAINED,
    )
