"""TRACE's kernels of one program for each row, which is a token of a lane; trace.py puts them together.

A query's row is one of a lane's newest tokens, of which there are `queries`; other rows are of all `tokens`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...exact.kernels.elements import follow
from ...exact.kernels.layer_norm import normalised, normalised_backward
from .rows import product_gradient, product_result, store_digits, store_quantised

__all__ = [
    "attended_kernel",
    "between_kernel",
    "end_backward_kernel",
    "end_kernel",
    "hidden_backward_kernel",
    "mixed_backward_kernel",
    "mixed_kernel",
    "norm_backward_kernel",
    "norm_kernel",
]


@triton.jit
def _token_row(row, queries: tl.constexpr, tokens: tl.constexpr):
    """Return the token's row that the query's row belongs to."""
    return (row // queries) * tokens + (tokens - queries) + row % queries


@triton.jit
def _scaled_norm(
    x, row, column, inside, gain, offset, normal_out, slope_out, width: tl.constexpr, most: tl.constexpr
):
    """Return a row's normalised x times gain plus offset, and store what the backward pass needs."""
    normal, slope = normalised(x, inside, width, most)
    tl.store(normal_out + row * width + column, normal, mask=inside)
    tl.store(slope_out + row, slope)
    return normal * tl.load(gain + column, mask=inside, other=0.0) + tl.load(
        offset + column, mask=inside, other=0.0
    )


@triton.jit
def norm_kernel(
    x,
    gain,
    offset,
    normal_out,
    slope_out,
    whole,
    scale,
    newest_whole,
    newest_scale,
    largest,
    width: tl.constexpr,
    most: tl.constexpr,
    queries: tl.constexpr,
    tokens: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The norm before the attention, of every token; what the newest ones ask with lies apart."""
    follow()
    row = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    values = tl.load(x + row * width + column, mask=inside, other=0.0)
    values = _scaled_norm(values, row, column, inside, gain, offset, normal_out, slope_out, width, most)
    store_quantised(values, row, column, inside, whole, scale, width)
    tl.store(largest + row, 0)
    if queries < tokens:
        query = row % tokens - (tokens - queries)
        if query >= 0:
            newest = (row // tokens) * queries + query
            store_quantised(values, newest, column, inside, newest_whole, newest_scale, width)


@triton.jit
def _into_hidden(
    x,
    row,
    column,
    inside,
    gain,
    offset,
    normal_out,
    slope_out,
    whole,
    scale,
    hidden_largest,
    width: tl.constexpr,
    most: tl.constexpr,
):
    """The norm before the feed-forward layer."""
    values = _scaled_norm(x, row, column, inside, gain, offset, normal_out, slope_out, width, most)
    store_quantised(values, row, column, inside, whole, scale, width)
    tl.store(hidden_largest + row, 0)


@triton.jit
def attended_kernel(
    tokens_in,
    attended,
    x,
    gain,
    offset,
    normal_out,
    slope_out,
    whole,
    scale,
    hidden_largest,
    query_largest,
    width: tl.constexpr,
    most: tl.constexpr,
    queries: tl.constexpr,
    tokens: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The newest tokens plus what they got by attention, and the norm before the feed-forward layer."""
    follow()
    row = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    place = row * width + column
    token = tl.load(tokens_in + _token_row(row, queries, tokens) * width + column, mask=inside, other=0.0)
    values = token + tl.load(attended + place, mask=inside, other=0.0)
    tl.store(x + place, values, mask=inside)
    tl.store(query_largest + row, 0)
    _into_hidden(
        values,
        row,
        column,
        inside,
        gain,
        offset,
        normal_out,
        slope_out,
        whole,
        scale,
        hidden_largest,
        width,
        most,
    )


@triton.jit
def _feed_forward_end(
    x,
    sums,
    hidden_largest,
    scale_weight,
    bias,
    row,
    column,
    inside,
    rows,
    width: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """Return x plus what the feed-forward layer made of it, from the integer sums of its second product."""
    place = row * width + column
    inner = product_result(sums, hidden_largest, scale_weight, bias, row, column, inside, rows, width, SPLITS)
    return tl.load(x + place, mask=inside, other=0.0) + inner


@triton.jit
def between_kernel(
    x_before,
    sums,
    before_largest,
    scale_weight,
    bias,
    x,
    gain,
    offset,
    normal_out,
    slope_out,
    whole,
    scale,
    hidden_largest,
    rows,
    width: tl.constexpr,
    most: tl.constexpr,
    SPLITS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The end of one use of the feed-forward layer and the start of the next."""
    follow()
    row = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    values = _feed_forward_end(
        x_before,
        sums,
        before_largest,
        scale_weight,
        bias,
        row,
        column,
        inside,
        rows,
        width,
        SPLITS,
    )
    tl.store(x + row * width + column, values, mask=inside)
    _into_hidden(
        values,
        row,
        column,
        inside,
        gain,
        offset,
        normal_out,
        slope_out,
        whole,
        scale,
        hidden_largest,
        width,
        most,
    )


@triton.jit
def end_kernel(
    x_before,
    sums,
    before_largest,
    scale_weight,
    bias,
    out,
    whole,
    scale,
    rows,
    width: tl.constexpr,
    mixes: tl.constexpr,
    SPLITS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The end of the last use: for the mixture, or quantised for the output layer."""
    follow()
    row = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    values = _feed_forward_end(
        x_before,
        sums,
        before_largest,
        scale_weight,
        bias,
        row,
        column,
        inside,
        rows,
        width,
        SPLITS,
    )
    if mixes:
        tl.store(out + row * width + column, values, mask=inside)
    else:
        store_quantised(values, row, column, inside, whole, scale, width)


@triton.jit
def mixed_kernel(x, mixed, whole, scale, width: tl.constexpr, tokens: tl.constexpr, WIDTH: tl.constexpr):
    """The newest token plus the mixture of all, quantised for the output layer."""
    follow()
    lane = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    newest = tl.load(x + (lane * tokens + tokens - 1) * width + column, mask=inside, other=0.0)
    values = newest + tl.load(mixed + lane * width + column, mask=inside, other=0.0)
    store_quantised(values, lane, column, inside, whole, scale, width)


@triton.jit
def mixed_backward_kernel(
    high_sums,
    low_sums,
    largest,
    gradient,
    lanes,
    width: tl.constexpr,
    SPLITS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The gradient by the mixture, which is that by the newest token as well."""
    follow()
    lane = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    place = lane * width + column
    result = product_gradient(lane, place, inside, high_sums, low_sums, largest, lanes * width, SPLITS)
    tl.store(gradient + place, result, mask=inside)


@triton.jit
def end_backward_kernel(
    high_sums,
    low_sums,
    largest,
    by_mixed,
    by_tokens,
    scale_weight,
    by_x,
    high,
    low,
    digit_scale,
    rows,
    width: tl.constexpr,
    tokens: tl.constexpr,
    mixes: tl.constexpr,
    SPLITS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The gradient by the last use's result, and its digits for the second product."""
    follow()
    row = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    place = row * width + column
    if mixes:
        newest = inside & (row % tokens == tokens - 1)
        gradient = tl.load(by_tokens + place, mask=inside, other=0.0) + tl.load(
            by_mixed + (row // tokens) * width + column, mask=newest, other=0.0
        )
    else:
        gradient = product_gradient(row, place, inside, high_sums, low_sums, largest, rows * width, SPLITS)
        tl.debug_barrier()
    tl.store(by_x + place, gradient, mask=inside)
    gradient = gradient * tl.load(scale_weight + column, mask=inside, other=0.0)
    store_digits(gradient, row, column, inside, high, low, digit_scale, width)
    tl.store(largest + row, 0)


@triton.jit
def hidden_backward_kernel(
    high_sums,
    low_sums,
    largest,
    by_result,
    gain,
    normal,
    slope,
    by_norm,
    by_x,
    scale_weight,
    high,
    low,
    digit_scale,
    rows,
    width: tl.constexpr,
    first: tl.constexpr,
    SPLITS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Back through the norm before a use of the feed-forward layer, into the use before, if there is one."""
    follow()
    row = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    place = row * width + column
    gradient = product_gradient(row, place, inside, high_sums, low_sums, largest, rows * width, SPLITS)
    tl.debug_barrier()
    tl.store(by_norm + place, gradient, mask=inside)
    gradient = normalised_backward(
        gradient * tl.load(gain + column, mask=inside, other=0.0),
        tl.load(normal + place, mask=inside, other=0.0),
        tl.load(slope + row),
        width,
    )
    gradient = tl.load(by_result + place, mask=inside, other=0.0) + gradient
    tl.store(by_x + place, gradient, mask=inside)
    if not first:
        gradient = gradient * tl.load(scale_weight + column, mask=inside, other=0.0)
        store_digits(gradient, row, column, inside, high, low, digit_scale, width)
        tl.store(largest + row, 0)


@triton.jit
def norm_backward_kernel(
    high_sums,
    low_sums,
    largest,
    query_high_sums,
    query_low_sums,
    query_largest,
    by_x,
    gain,
    normal,
    slope,
    by_norm,
    by_tokens,
    rows,
    query_rows,
    width: tl.constexpr,
    queries: tl.constexpr,
    tokens: tl.constexpr,
    SPLITS: tl.constexpr,
    QUERY_SPLITS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The gradient by every token: through the norm before the attention and, of the newest, beside it."""
    follow()
    row = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    place = row * width + column
    query = row % tokens - (tokens - queries)
    newest = inside & (query >= 0)
    query_row = (row // tokens) * queries + tl.maximum(query, 0)
    query_place = query_row * width + column
    by_query = product_gradient(
        query_row,
        query_place,
        newest,
        query_high_sums,
        query_low_sums,
        query_largest,
        query_rows * width,
        QUERY_SPLITS,
    )
    by_key_value = product_gradient(row, place, inside, high_sums, low_sums, largest, rows * width, SPLITS)
    # Zeros are added as in the plain twin: they turn a negative zero into a positive one.
    gradient = by_query + by_key_value
    tl.store(by_norm + place, gradient, mask=inside)
    gradient = normalised_backward(
        gradient * tl.load(gain + column, mask=inside, other=0.0),
        tl.load(normal + place, mask=inside, other=0.0),
        tl.load(slope + row),
        width,
    )
    tl.store(by_tokens + place, tl.load(by_x + query_place, mask=newest, other=0.0) + gradient, mask=inside)
