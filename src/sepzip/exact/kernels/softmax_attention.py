"""Attention by softmax: the twin of softmax_attention.py without distances, a program for a lane and head.

A program holds a head's queries, keys and values of all tokens. All sums of products fit int32 for up to 32
tokens and heads of up to 32 values, but for one.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

from ..attention import MOST
from ..functions import LOG2_E
from ..quantise import INT16_MOST
from .elements import CHAINED, exp2, follow, round_even, row_scale, size_bits, split_digits, whole_number

__all__ = ["attend", "attend_backward"]

_MOST = tl.constexpr(MOST)
_INT16_MOST = tl.constexpr(INT16_MOST)
_LOG2_E = tl.constexpr(LOG2_E)

_SIZE = 32
"""Tokens, and values of a head, that a program holds: the shortest inner dimension of an int8 product."""

_WARPS = 4


@triton.jit
def _product(a, b):
    """Return a @ b, int32, of int32 whole numbers up to INT16_MOST whose sums fit."""
    a_high, a_low = split_digits(a)
    b_high, b_low = split_digits(b)
    high = tl.dot(a_high, b_high, out_dtype=tl.int32)
    middle = tl.dot(a_high, b_low, out_dtype=tl.int32)
    middle = tl.dot(a_low, b_high, middle, out_dtype=tl.int32)
    low = tl.dot(a_low, b_low, out_dtype=tl.int32)
    return (high << 16) + (middle << 8) + low


@triton.jit
def _group(x, most: tl.constexpr):
    """Return x as int32 whole numbers with one scale."""
    factor, scale = row_scale(tl.max(tl.max(tl.abs(x), 1), 0), most)
    return whole_number(x, factor), scale


@triton.jit
def _rows(x, most: tl.constexpr):
    """Return x as int32 whole numbers with a scale for each row."""
    factor, scale = row_scale(tl.max(tl.abs(x), 1), most)
    return whole_number(x, factor[:, None]), scale


@triton.jit
def _weigh(whole_query, scale_query, whole_key, scale_key, there, steepness: tl.constexpr):
    """Return the weights of each query's keys, float32 whole numbers, and 1 over their sum."""
    scores = _product(whole_query, tl.trans(whole_key)).to(tl.float32) * scale_query[:, None]
    scores = (scores * scale_key) * steepness
    highest = tl.max(tl.where(there[None, :], scores, float("-inf")), 1)
    weight = round_even(exp2((scores - highest[:, None]) * _LOG2_E) * _MOST)
    weight = tl.where(there[None, :], weight, 0.0)
    return weight, tl.div_rn(1.0, tl.sum(weight.to(tl.int32), 1).to(tl.float32))


@triton.jit
def _places(
    tokens: tl.constexpr, heads: tl.constexpr, size: tl.constexpr, TOKENS: tl.constexpr, SIZE: tl.constexpr
):
    """Return a program's rows and columns, which of both and of the tile are inside, and the tile's places.

    These are where queries and keys lie; values lie behind the keys.
    """
    width: tl.constexpr = heads * size
    lane, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    token, value = tl.arange(0, TOKENS), tl.arange(0, SIZE)
    row, column = lane * tokens + token, head * size + value
    place = row[:, None] * width + column[None, :]
    both_place = row[:, None] * (2 * width) + column[None, :]
    there, column_inside = token < tokens, value < size
    inside = there[:, None] & column_inside[None, :]
    return row, column, there, column_inside, inside, place, both_place


@triton.jit
def _load_head(query, key_value, place, both_place, inside, width: tl.constexpr):
    """Return a head's queries, keys and values as whole numbers, each with its scales."""
    whole_query, scale_query = _rows(tl.load(query + place, mask=inside, other=0.0), _MOST)
    whole_key, scale_key = _group(tl.load(key_value + both_place, mask=inside, other=0.0), _MOST)
    whole_value, scale_value = _group(tl.load(key_value + both_place + width, mask=inside, other=0.0), _MOST)
    return whole_query, scale_query, whole_key, scale_key, whole_value, scale_value


@triton.jit
def _attend(
    query,
    key_value,
    out,
    tokens: tl.constexpr,
    heads: tl.constexpr,
    size: tl.constexpr,
    steepness: tl.constexpr,
    TOKENS: tl.constexpr,
    SIZE: tl.constexpr,
):
    follow()
    width: tl.constexpr = heads * size
    _, _, there, _, inside, place, both_place = _places(tokens, heads, size, TOKENS, SIZE)
    whole_query, scale_query, whole_key, scale_key, whole_value, scale_value = _load_head(
        query, key_value, place, both_place, inside, width
    )
    weight, inverse = _weigh(whole_query, scale_query, whole_key, scale_key, there, steepness)
    mean = _product(weight.to(tl.int32), whole_value).to(tl.float32)
    tl.store(out + place, (mean * inverse[:, None]) * scale_value, mask=inside)


def attend(query: Tensor, key_value: Tensor, out: Tensor, lanes: int, heads: int) -> None:
    """Write what each token gets from all tokens of its lane to `out`, float32 like `query`.

    query [lanes * tokens, width], key_value [lanes * tokens, 2 * width], as `softmax_attention` takes them;
    at most 32 tokens a lane, and 32 values a head.
    """
    sizes = _sizes(query, lanes, heads)
    _attend[(lanes * heads,)](query, key_value, out, *sizes, num_warps=_WARPS, **CHAINED)


@triton.jit
def _add_row_largest(largest, row, there, x):
    tl.atomic_max(largest + row, tl.max(size_bits(x), 1), mask=there, sem="relaxed")


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
    tokens: tl.constexpr,
    heads: tl.constexpr,
    size: tl.constexpr,
    steepness: tl.constexpr,
    TOKENS: tl.constexpr,
    SIZE: tl.constexpr,
):
    follow()
    width: tl.constexpr = heads * size
    row, column, there, column_inside, inside, place, both_place = _places(tokens, heads, size, TOKENS, SIZE)
    whole_query, scale_query, whole_key, scale_key, whole_value, scale_value = _load_head(
        query, key_value, place, both_place, inside, width
    )
    weight, inverse = _weigh(whole_query, scale_query, whole_key, scale_key, there, steepness)
    g = tl.load(gradient + place, mask=inside, other=0.0)

    whole, scale = _group(g * inverse[:, None], _INT16_MOST)
    result = _product(tl.trans(weight.to(tl.int32)), whole).to(tl.float32) * scale
    tl.store(by_key_value + both_place + width, result, mask=inside)
    next_scale = tl.load(scale_key_value_weight + width + column, mask=column_inside, other=0.0)
    _add_row_largest(key_value_largest, row, there, result * next_scale[None, :])

    whole, scale = _rows(g, _INT16_MOST)
    along = _product(whole, tl.trans(whole_value))
    weighed = tl.sum(weight.to(tl.int64) * along.to(tl.int64), 1).to(tl.float32) * inverse
    share = (weight * inverse[:, None]) * steepness
    by_score = (along.to(tl.float32) - weighed[:, None]) * (scale * scale_value)[:, None] * share

    whole, scale = _rows(by_score, _INT16_MOST)
    result = _product(whole, whole_key).to(tl.float32) * (scale * scale_key)[:, None]
    tl.store(by_query + place, result, mask=inside)
    next_scale = tl.load(scale_query_weight + column, mask=column_inside, other=0.0)
    _add_row_largest(query_largest, row, there, result * next_scale[None, :])

    whole, scale = _group(by_score * scale_query[:, None], _INT16_MOST)
    result = _product(tl.trans(whole), whole_query).to(tl.float32) * scale
    tl.store(by_key_value + both_place, result, mask=inside)
    next_scale = tl.load(scale_key_value_weight + column, mask=column_inside, other=0.0)
    _add_row_largest(key_value_largest, row, there, result * next_scale[None, :])


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
    [lanes * tokens], set to 0 before.
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
        *_sizes(query, lanes, heads),
        num_warps=_WARPS,
        **CHAINED,
    )


def _sizes(query: Tensor, lanes: int, heads: int) -> tuple[int | float, ...]:
    """Return tokens a lane, heads, a head's values, the scores' factor, and the padded tokens and values."""
    size = query.shape[1] // heads
    return query.shape[0] // lanes, heads, size, 1.0 / math.sqrt(size), _SIZE, _SIZE
