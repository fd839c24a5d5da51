"""Linear attention: the twin of attention.py, one program for each lane and head.

A program holds a head's keys and values of all tokens in registers and takes the queries one after another.
All sums of products fit int32 for up to 32 tokens and heads of up to 32 values, but for one.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..attention import EPSILON, MOST
from ..quantise import INT16_MOST
from .elements import CHAINED, follow, row_scale, size_bits, whole_number

__all__ = ["attend", "attend_backward"]

_EPSILON = tl.constexpr(EPSILON)
_MOST = tl.constexpr(MOST)
_INT16_MOST = tl.constexpr(INT16_MOST)


@triton.jit
def _largest(x):
    return tl.max(tl.max(tl.abs(x), 1), 0)


@triton.jit
def _group(x):
    """Return x [TOKENS, SIZE] as int32 whole numbers with one scale."""
    factor, scale = row_scale(_largest(x), _MOST)
    return whole_number(x, factor), scale


@triton.jit
def _score(asked, whole_key, scale_key, seen):
    """Return what a query makes of the keys: its whole squares, their scale, scores, factor and inverse."""
    square = asked * asked
    factor, scale_query = row_scale(tl.max(square, 0), _MOST)
    whole_query = whole_number(square, factor)
    sums = tl.where(seen, tl.sum(whole_key * whole_query[None, :], 1).to(tl.float32), 0.0)
    factor, unit = row_scale(tl.max(sums, 0), _MOST)
    score = whole_number(sums, factor)
    unit = (unit * scale_query) * scale_key
    inverse = tl.div_rn(1.0, tl.sum(score, 0).to(tl.float32) * unit + _EPSILON)
    return whole_query, scale_query, score, unit * inverse, inverse


@triton.jit
def _places(
    tokens: tl.constexpr, heads: tl.constexpr, size: tl.constexpr, TOKENS: tl.constexpr, SIZE: tl.constexpr
):
    """Return a program's lane, tokens, rows and columns, which columns are inside; keys' places and masks.

    Values lie behind the keys.
    """
    lane, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    token, value = tl.arange(0, TOKENS), tl.arange(0, SIZE)
    value_inside = value < size
    column = head * size + value
    row = lane * tokens + token
    place = row[:, None] * (2 * heads * size) + column[None, :]
    inside = (token < tokens)[:, None] & value_inside[None, :]
    return lane, token, row, column, value_inside, place, inside


@triton.jit
def _load_head(key_value, place, inside, width: tl.constexpr):
    """Return a head's keys, and their squares and the values as whole numbers, each with its scale."""
    key = tl.load(key_value + place, mask=inside, other=0.0)
    whole_key, scale_key = _group(key * key)
    whole_value, scale_value = _group(tl.load(key_value + place + width, mask=inside, other=0.0))
    return key, whole_key, scale_key, whole_value, scale_value


@triton.jit
def _attend(
    query,
    key_value,
    out,
    queries: tl.constexpr,
    tokens: tl.constexpr,
    heads: tl.constexpr,
    size: tl.constexpr,
    TOKENS: tl.constexpr,
    SIZE: tl.constexpr,
):
    follow()
    width: tl.constexpr = heads * size
    lane, token, _row, column, value_inside, token_place, inside = _places(tokens, heads, size, TOKENS, SIZE)
    _key, whole_key, scale_key, whole_value, scale_value = _load_head(key_value, token_place, inside, width)
    for number in range(queries):
        place = (lane * queries + number) * width + column
        asked = tl.load(query + place, mask=value_inside, other=0.0)
        seen = token <= tokens - queries + number
        _, _, score, factor, _ = _score(asked, whole_key, scale_key, seen)
        total = tl.sum(score[:, None] * whole_value, 0).to(tl.float32)
        tl.store(out + place, (total * factor) * scale_value, mask=value_inside)


def attend(query: Tensor, key_value: Tensor, out: Tensor, lanes: int, heads: int) -> None:
    """Write what the newest tokens get by causal attention to `out`, float32 like `query`.

    query [lanes * queries, width], key_value [lanes * tokens, 2 * width], as `linear_attention` takes them;
    at most 32 tokens a lane, and 32 values a head.
    """
    sizes = _sizes(query, key_value, lanes, heads)
    _attend[(lanes * heads,)](query, key_value, out, *sizes, num_warps=1, **CHAINED)


@triton.jit
def _by_score(gradient, whole_value, scale_value, score, factor, inverse, seen):
    """Return the gradient by a query's scores."""
    to_whole, scale = row_scale(tl.max(tl.abs(gradient), 0), _INT16_MOST)
    along = tl.sum(whole_number(gradient, to_whole)[None, :] * whole_value, 1)
    weighed = tl.sum(score.to(tl.int64) * along.to(tl.int64), 0).to(tl.float32) * factor
    result = ((along.to(tl.float32) - weighed) * (scale * scale_value)) * inverse
    return tl.where(seen, result, 0.0)


@triton.jit
def _attend_backward(
    gradient,
    query,
    key_value,
    by_query,
    by_key_value,
    scale_query_weight,
    scale_key_value_weight,
    query_largest,
    key_value_largest,
    queries: tl.constexpr,
    tokens: tl.constexpr,
    heads: tl.constexpr,
    size: tl.constexpr,
    TOKENS: tl.constexpr,
    SIZE: tl.constexpr,
):
    follow()
    width: tl.constexpr = heads * size
    lane, token, row, column, value_inside, token_place, inside = _places(tokens, heads, size, TOKENS, SIZE)
    key, whole_key, scale_key, whole_value, scale_value = _load_head(key_value, token_place, inside, width)
    next_scale = tl.load(scale_query_weight + column, mask=value_inside, other=0.0)

    # First what belongs to each query, and the largest of what is summed over all of them.
    largest_value = tl.zeros((SIZE,), tl.float32)
    largest_key = tl.zeros((TOKENS,), tl.float32)
    for number in range(queries):
        place = (lane * queries + number) * width + column
        asked = tl.load(query + place, mask=value_inside, other=0.0)
        g = tl.load(gradient + place, mask=value_inside, other=0.0)
        seen = token <= tokens - queries + number
        _, scale_query, score, factor, inverse = _score(asked, whole_key, scale_key, seen)
        by_score = _by_score(g, whole_value, scale_value, score, factor, inverse, seen)
        largest_value = tl.maximum(largest_value, tl.abs(g * factor))
        largest_key = tl.maximum(largest_key, tl.abs(by_score * scale_query))
        to_whole, scale = row_scale(tl.max(tl.abs(by_score), 0), _INT16_MOST)
        whole = whole_number(by_score, to_whole)
        result = tl.sum(whole[:, None] * whole_key, 0).to(tl.float32) * (scale * scale_key)
        result = (result * asked) * 2.0
        tl.store(by_query + place, result, mask=value_inside)
        bits = tl.max(size_bits(result * next_scale), 0)
        tl.atomic_max(query_largest + lane * queries + number, bits, sem="relaxed")

    # Then the sums over the queries.
    to_value, value_scale = row_scale(tl.max(largest_value, 0), _INT16_MOST)
    to_key, by_key_scale = row_scale(tl.max(largest_key, 0), _INT16_MOST)
    by_value = tl.zeros((TOKENS, SIZE), tl.int32)
    by_key = tl.zeros((TOKENS, SIZE), tl.int32)
    for number in range(queries):
        place = (lane * queries + number) * width + column
        asked = tl.load(query + place, mask=value_inside, other=0.0)
        g = tl.load(gradient + place, mask=value_inside, other=0.0)
        seen = token <= tokens - queries + number
        whole_query, scale_query, score, factor, inverse = _score(asked, whole_key, scale_key, seen)
        by_score = _by_score(g, whole_value, scale_value, score, factor, inverse, seen)
        by_value += score[:, None] * whole_number(g * factor, to_value)[None, :]
        whole = whole_number(by_score * scale_query, to_key)
        by_key += whole[:, None] * whole_query[None, :]
    key_result = ((by_key.to(tl.float32) * by_key_scale) * key) * 2.0
    value_result = by_value.to(tl.float32) * value_scale
    tl.store(by_key_value + token_place, key_result, mask=inside)
    tl.store(by_key_value + token_place + width, value_result, mask=inside)
    next_scale = tl.load(scale_key_value_weight + column, mask=value_inside, other=0.0)
    key_bits = tl.max(size_bits(key_result * next_scale[None, :]), 1)
    next_scale = tl.load(scale_key_value_weight + width + column, mask=value_inside, other=0.0)
    value_bits = tl.max(size_bits(value_result * next_scale[None, :]), 1)
    bits = tl.maximum(key_bits, value_bits)
    tl.atomic_max(key_value_largest + row, bits, mask=token < tokens, sem="relaxed")


def attend_backward(
    gradient: Tensor,
    query: Tensor,
    key_value: Tensor,
    by_query: Tensor,
    by_key_value: Tensor,
    scale_query_weight: Tensor,
    scale_key_value_weight: Tensor,
    query_largest: Tensor,
    key_value_largest: Tensor,
    lanes: int,
    heads: int,
) -> None:
    """Write the gradients by `query` and `key_value`, of their shapes, from the one by the result.

    The two scales are those of the weights, float32 [width] and [2 * width], of the layers that made query
    and key_value; the bits of the largest |gradient * scale| of each row are left in the two `largest`, int32
    [lanes * queries] and [lanes * tokens], set to 0 before.
    """
    _attend_backward[(lanes * heads,)](
        gradient,
        query,
        key_value,
        by_query,
        by_key_value,
        scale_query_weight,
        scale_key_value_weight,
        query_largest,
        key_value_largest,
        *_sizes(query, key_value, lanes, heads),
        num_warps=1,
        **CHAINED,
    )


def _sizes(query: Tensor, key_value: Tensor, lanes: int, heads: int) -> tuple[int, ...]:
    """Return queries and tokens a lane, heads, a head's values, and the padded tokens and values."""
    queries, tokens = query.shape[0] // lanes, key_value.shape[0] // lanes
    size = query.shape[1] // heads
    return queries, tokens, heads, size, triton.next_power_of_2(tokens), triton.next_power_of_2(size)
