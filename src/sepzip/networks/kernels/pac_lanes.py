"""PAC's kernels of one program for each lane; pac.py puts them together.

A block is a layer of the lane's own, over its newest values, and a feed-forward layer of all lanes behind it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...exact.kernels.elements import follow, gelu, gelu_slope, row_scale, whole_number
from ...exact.kernels.layer_norm import normalised, normalised_backward
from ...exact.quantise import INT8_MOST, INT16_MOST
from .rows import product_gradient, product_result, store_digits, store_quantised

__all__ = ["end_backward_kernel", "end_kernel", "start_backward_kernel", "start_kernel"]

_INT8_MOST = tl.constexpr(INT8_MOST)
_INT16_MOST = tl.constexpr(INT16_MOST)

_STAGES = tl.constexpr(3)
"""Parts of a lane's matrix that are on their way at a time, and one."""


@triton.jit
def _scaled_norm(
    x,
    lane,
    place,
    column,
    inside,
    gain,
    offset,
    normal_out,
    slope_out,
    width: tl.constexpr,
    most: tl.constexpr,
):
    """Return a lane's normalised x times gain plus offset, and store what the backward pass needs."""
    normal, slope = normalised(x, inside, width, most)
    tl.store(normal_out + place, normal, mask=inside)
    tl.store(slope_out + lane, slope)
    return normal * tl.load(gain + column, mask=inside, other=0.0) + tl.load(
        offset + column, mask=inside, other=0.0
    )


@triton.jit
def _feed_forward_end(
    lane,
    column,
    inside,
    sums,
    hidden_largest,
    scale_weight,
    bias,
    gain,
    offset,
    skip,
    normal_out,
    slope_out,
    lanes,
    width: tl.constexpr,
    most: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """Return the block's result from the integer sums of its second product."""
    place = lane * width + column
    inner = product_result(
        sums, hidden_largest, scale_weight, bias, lane, column, inside, lanes, width, SPLITS
    )
    x = _scaled_norm(inner, lane, place, column, inside, gain, offset, normal_out, slope_out, width, most)
    return (tl.load(skip + place, mask=inside, other=0.0) + gelu(x)) * 0.5


@triton.jit
def end_kernel(
    sums,
    hidden_largest,
    scale_weight,
    bias,
    gain,
    offset,
    skip,
    normal_out,
    slope_out,
    whole,
    scale_out,
    lanes,
    width: tl.constexpr,
    most: tl.constexpr,
    SPLITS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The end of the last block, quantised for the output layer."""
    follow()
    lane = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    x = _feed_forward_end(
        lane,
        column,
        inside,
        sums,
        hidden_largest,
        scale_weight,
        bias,
        gain,
        offset,
        skip,
        normal_out,
        slope_out,
        lanes,
        width,
        most,
        SPLITS,
    )
    store_quantised(x, lane, column, inside, whole, scale_out, width)


@triton.jit
def start_kernel(
    # The end of the block before, or, without one, the front's values in `rows`.
    sums,
    before_largest,
    before_scale_weight,
    before_bias,
    before_gain,
    before_offset,
    before_skip,
    before_normal_out,
    before_slope_out,
    rows,
    # The lane layer.
    lane_gain_in,
    lane_offset_in,
    lane_weight,
    lane_scale_weight,
    lane_bias,
    lane_gain,
    lane_offset,
    lane_skip,
    lane_normal_in,
    lane_slope_in,
    lane_whole,
    lane_normal_out,
    lane_slope_out,
    ring,
    steps,
    # The feed-forward layer.
    gain_in,
    offset_in,
    skip,
    normal_in,
    slope_in,
    whole,
    scale_x,
    hidden_largest,
    lanes,
    width: tl.constexpr,
    lane_width: tl.constexpr,
    most: tl.constexpr,
    lane_most: tl.constexpr,
    first: tl.constexpr,
    SPLITS: tl.constexpr,
    WIDTH: tl.constexpr,
    LANE_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):
    """The end of the block before, this block's lane layer, and the norm before its feed-forward layer."""
    follow()
    lane = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    place = lane * width + column
    if not first:
        before = _feed_forward_end(
            lane,
            column,
            inside,
            sums,
            before_largest,
            before_scale_weight,
            before_bias,
            before_gain,
            before_offset,
            before_skip,
            before_normal_out,
            before_slope_out,
            lanes,
            width,
            most,
            SPLITS,
        )
        tl.store(rows + place, before, mask=inside)
        tl.debug_barrier()

    # The lane layer, over the newest values.
    own = tl.arange(0, LANE_WIDTH)
    own_inside = own < lane_width
    own_place = lane * lane_width + own
    x = tl.load(rows + lane * width + (width - lane_width) + own, mask=own_inside, other=0.0)
    normal, slope = normalised(x, own_inside, lane_width, lane_most)
    tl.store(lane_normal_in + own_place, normal, mask=own_inside)
    tl.store(lane_slope_in + lane, slope)
    x = normal
    if first:
        x = normal * tl.load(lane_gain_in + own, mask=own_inside, other=0.0) + tl.load(
            lane_offset_in + own, mask=own_inside, other=0.0
        )
    tl.store(lane_skip + own_place, x, mask=own_inside)
    factor, scale = row_scale(tl.max(tl.abs(x), 0), _INT8_MOST)
    tl.store(lane_whole + lane * width + own, whole_number(x, factor).to(tl.int8), mask=own_inside)
    # Read again by other threads of the program.
    tl.debug_barrier()
    products = tl.zeros((ROWS, LANE_WIDTH), tl.int32)
    weight_start = lane.to(tl.int64) * lane_width * lane_width
    for first_row in tl.range(0, lane_width, ROWS, num_stages=_STAGES):
        row = first_row + tl.arange(0, ROWS)
        row_inside = row < lane_width
        a = tl.load(lane_whole + lane * width + row, mask=row_inside, other=0).to(tl.int32)
        b = tl.load(
            lane_weight + weight_start + row[:, None] * lane_width + own[None, :],
            mask=row_inside[:, None] & own_inside[None, :],
            other=0,
        ).to(tl.int32)
        products += a[:, None] * b
    inner = tl.sum(products, 0).to(tl.float32) * scale
    inner = inner * tl.load(lane_scale_weight + own_place, mask=own_inside, other=0.0)
    inner = inner + tl.load(lane_bias + own_place, mask=own_inside, other=0.0)
    z = _scaled_norm(
        inner,
        lane,
        own_place,
        own,
        own_inside,
        lane_gain,
        lane_offset,
        lane_normal_out,
        lane_slope_out,
        lane_width,
        lane_most,
    )
    # The ring holds the newest `width` outputs; the newest of them take the oldest's places.
    oldest = ((tl.load(steps) * lane_width) % width).to(tl.int32)
    tl.store(ring + lane * width + (oldest + own) % width, (x + gelu(z)) * 0.5, mask=own_inside)
    tl.debug_barrier()
    x = tl.load(ring + lane * width + (oldest + lane_width + column) % width, mask=inside, other=0.0)

    # The norm before the feed-forward layer.
    x = _scaled_norm(x, lane, place, column, inside, gain_in, offset_in, normal_in, slope_in, width, most)
    tl.store(skip + place, x, mask=inside)
    store_quantised(x, lane, column, inside, whole, scale_x, width)
    tl.store(hidden_largest + lane, 0)


@triton.jit
def _feed_forward_end_backward(
    gradient,
    lane,
    column,
    inside,
    half,
    gain,
    offset,
    normal_out,
    slope_out,
    scale_weight,
    by_norm,
    by_inner,
    high,
    low,
    digit_scale,
    largest,
    width: tl.constexpr,
):
    """Take the gradient by the block's result back to the one by its second product, quantised."""
    place = lane * width + column
    gradient = gradient * 0.5
    tl.store(half + place, gradient, mask=inside)
    by_column = tl.load(gain + column, mask=inside, other=0.0)
    normal = tl.load(normal_out + place, mask=inside, other=0.0)
    x = normal * by_column + tl.load(offset + column, mask=inside, other=0.0)
    gradient = gelu_slope(x) * gradient
    tl.store(by_norm + place, gradient, mask=inside)
    gradient = normalised_backward(gradient * by_column, normal, tl.load(slope_out + lane), width)
    tl.store(by_inner + place, gradient, mask=inside)
    gradient = gradient * tl.load(scale_weight + column, mask=inside, other=0.0)
    store_digits(gradient, lane, column, inside, high, low, digit_scale, width)
    tl.store(largest + lane, 0)


@triton.jit
def end_backward_kernel(
    high_sums,
    low_sums,
    largest,
    half,
    gain,
    offset,
    normal_out,
    slope_out,
    scale_weight,
    by_norm,
    by_inner,
    high,
    low,
    digit_scale,
    lanes,
    width: tl.constexpr,
    SPLITS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Back from the output layer's input to the last block's second product."""
    follow()
    lane = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    gradient = product_gradient(
        lane, lane * width + column, inside, high_sums, low_sums, largest, lanes * width, SPLITS
    )
    tl.debug_barrier()
    _feed_forward_end_backward(
        gradient,
        lane,
        column,
        inside,
        half,
        gain,
        offset,
        normal_out,
        slope_out,
        scale_weight,
        by_norm,
        by_inner,
        high,
        low,
        digit_scale,
        largest,
        width,
    )


@triton.jit
def start_backward_kernel(
    # The feed-forward layer.
    high_sums,
    low_sums,
    largest,
    half,
    gain_in,
    normal_in,
    slope_in,
    by_skip,
    rows,
    # The lane layer.
    lane_gain_in,
    lane_weight,
    lane_scale_weight,
    lane_gain,
    lane_offset,
    lane_normal_in,
    lane_slope_in,
    lane_normal_out,
    lane_slope_out,
    lane_by_norm,
    lane_by_inner,
    lane_by_skip,
    lane_rows,
    # The update of the lane layer may last until this step's size is another.
    size,
    step_size,
    # The end of the block before.
    before_gain,
    before_offset,
    before_normal_out,
    before_slope_out,
    before_scale_weight,
    before_by_norm,
    before_by_inner,
    high,
    low,
    digit_scale,
    lanes,
    width: tl.constexpr,
    lane_width: tl.constexpr,
    first: tl.constexpr,
    SPLITS: tl.constexpr,
    WIDTH: tl.constexpr,
    LANE_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Back from a block's first product, through its lane layer, to the second product of the one before."""
    follow()
    lane = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    place = lane * width + column
    if lane == 0:
        tl.store(step_size, tl.load(size))
    by_product = product_gradient(lane, place, inside, high_sums, low_sums, largest, lanes * width, SPLITS)
    gradient = tl.load(half + place, mask=inside, other=0.0) + by_product
    tl.store(by_skip + place, gradient, mask=inside)
    normal = tl.load(normal_in + place, mask=inside, other=0.0)
    gradient = normalised_backward(
        gradient * tl.load(gain_in + column, mask=inside, other=0.0),
        normal,
        tl.load(slope_in + lane),
        width,
    )
    tl.store(rows + place, gradient, mask=inside)
    tl.debug_barrier()

    # The lane layer: only the newest values were its own.
    own = tl.arange(0, LANE_WIDTH)
    own_inside = own < lane_width
    own_place = lane * lane_width + own
    newest = lane * width + (width - lane_width) + own
    own_half = tl.load(rows + newest, mask=own_inside, other=0.0) * 0.5
    by_column = tl.load(lane_gain + own, mask=own_inside, other=0.0)
    normal = tl.load(lane_normal_out + own_place, mask=own_inside, other=0.0)
    x = normal * by_column + tl.load(lane_offset + own, mask=own_inside, other=0.0)
    gradient = gelu_slope(x) * own_half
    tl.store(lane_by_norm + own_place, gradient, mask=own_inside)
    gradient = normalised_backward(gradient * by_column, normal, tl.load(lane_slope_out + lane), lane_width)
    gradient = tl.where(own_inside, gradient, 0.0)
    tl.store(lane_by_inner + own_place, gradient, mask=own_inside)
    gradient = gradient * tl.load(lane_scale_weight + own_place, mask=own_inside, other=0.0)
    factor, scale = row_scale(tl.max(tl.abs(gradient), 0), _INT16_MOST)
    # Below 2^31 for widths up to 512: 127 * 32639 * 512 is 2.12e9.
    whole = whole_number(gradient, factor)
    weight_start = lane.to(tl.int64) * lane_width * lane_width
    for first_row in tl.range(0, lane_width, ROWS, num_stages=_STAGES):
        row = first_row + tl.arange(0, ROWS)
        row_inside = row < lane_width
        a = tl.load(
            lane_weight + weight_start + row[:, None] * lane_width + own[None, :],
            mask=row_inside[:, None] & own_inside[None, :],
            other=0,
        ).to(tl.int32)
        products = tl.sum(a * whole[None, :], 1).to(tl.float32) * scale
        tl.store(lane_rows + lane * lane_width + row, products, mask=row_inside)
    tl.debug_barrier()
    gradient = own_half + tl.load(lane_rows + own_place, mask=own_inside, other=0.0)
    if first:
        tl.store(lane_by_skip + own_place, gradient, mask=own_inside)
        gradient = gradient * tl.load(lane_gain_in + own, mask=own_inside, other=0.0)
    normal = tl.load(lane_normal_in + own_place, mask=own_inside, other=0.0)
    gradient = normalised_backward(gradient, normal, tl.load(lane_slope_in + lane), lane_width)
    tl.store(rows + newest, gradient, mask=own_inside)
    tl.debug_barrier()
    is_newest = inside & (column >= width - lane_width)
    gradient = tl.load(rows + place, mask=is_newest, other=0.0)
    if first:
        tl.store(rows + place, gradient, mask=inside)
    else:
        _feed_forward_end_backward(
            gradient,
            lane,
            column,
            inside,
            half,
            before_gain,
            before_offset,
            before_normal_out,
            before_slope_out,
            before_scale_weight,
            before_by_norm,
            before_by_inner,
            high,
            low,
            digit_scale,
            largest,
            width,
        )
