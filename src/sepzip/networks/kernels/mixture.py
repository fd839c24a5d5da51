"""The layer that mixes a lane's tokens, value by value, as fused kernels: the twin of trace.Mixture.

Its hidden values are far more numerous than all others of a step, and a product over few tokens makes each.
So none is ever stored: every pass makes them anew. A program takes tiles of lanes' values one after another.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...exact.kernels.columns import Columns
from ...exact.kernels.elements import (
    CHAINED,
    follow,
    from_bits,
    gelu,
    gelu_slope,
    quantised,
    row_scale,
    size_bits,
    split_digits,
    whole_number,
)
from ...exact.kernels.parameters import Learner, learn
from ...exact.quantise import INT8_MOST, INT16_MOST, SUM_MOST
from ...exact.workspace import Workspace
from ..trace import Mixture
from .shared import Parameters

__all__ = ["FusedMixture"]

_INT8_MOST = tl.constexpr(INT8_MOST)
_INT16_MOST = tl.constexpr(INT16_MOST)
_SUM_MOST = tl.constexpr(SUM_MOST)

_TILE = 4096
"""Hidden values that a program holds at a time."""

_MOST_VALUES = 64
"""The most values of a tile."""

_TOKENS = 32
"""The padded tokens: the shortest inner dimension of an int8 product."""

# As many programs as a device of 132 multiprocessors runs at once: each loads the weights but once.
_FORWARD_PROGRAMS = 528
_BACKWARD_PROGRAMS = 396
_SUM_PROGRAMS = 264


class FusedMixture:
    """The mixture of a lane's tokens, and the update of its weights: one kernel forward, three backward."""

    def __init__(
        self,
        plain: Mixture,
        state: Parameters,
        learner: Learner,
        lanes: int,
        width: int,
        columns: Columns,
        workspace: Workspace,
    ) -> None:
        """Take over from `plain`; its biases learn with `columns`, which this asks for sums."""
        self._learner = learner
        self._lanes, self._width = lanes, width
        self._weight, self._bias = state(plain.into_mixing.weight), state(plain.into_mixing.bias)
        self._out_weight, self._out_bias = state(plain.out_of_mixing.weight), state(plain.out_of_mixing.bias)
        self._tokens, self._mixing = self._weight.weight.shape
        self._columns, self._out_columns = columns.new(self._mixing), columns.new(1)
        columns.learn(self._bias, (self._columns,))
        columns.learn(self._out_bias, (self._out_columns,))
        # Products sum over values and over hidden values: over at least 32, and over up to 512 in 32 bits.
        self._padded = max(32, int(triton.next_power_of_2(self._mixing)))
        fitting = min(int(triton.next_power_of_2(width)), _TILE // self._padded, _MOST_VALUES)
        self._values = max(32, fitting)
        self._tiles = lanes * triton.cdiv(width, self._values)
        self._warps = max(4, min(16, self._padded * self._values // 1024))
        self._out = workspace.take("mixed", (lanes, width))
        self._by_x = workspace.take("by_mixture", (lanes * self._tokens, width))
        # The sums of the gradients by the two weights, set to zero in the forward pass.
        self._sums = workspace.take("mixture sums", ((self._tokens + 1) * self._mixing,), torch.int64)

    @property
    def _weights(self) -> tuple[Tensor, ...]:
        return self._weight.weight, self._bias.weight, self._out_weight.weight, self._out_bias.weight

    @property
    def _sizes(self) -> tuple[int, ...]:
        return self._tiles, self._width, self._tokens, self._mixing, self._values, self._padded, _TOKENS

    def forward(self, x: Tensor) -> Tensor:
        """Return [lanes, width] from [lanes * tokens, width]; valid until the next step."""
        self._sums.zero_()
        _mix[(min(self._tiles, _FORWARD_PROGRAMS),)](
            x, *self._weights, self._out, *self._sizes, num_warps=self._warps, **CHAINED
        )
        return self._out

    def backward(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient by x, [lanes * tokens, width], from the one by the result, [lanes, width]."""
        _mix_backward[(min(self._tiles, _BACKWARD_PROGRAMS),)](
            x,
            gradient,
            *self._weights,
            self._by_x,
            self._columns.largest,
            self._columns.product_largest,
            self._out_columns.largest,
            self._out_columns.product_largest,
            *self._sizes,
            num_warps=self._warps,
            **CHAINED,
        )
        return self._by_x

    def learn(self, x: Tensor, gradient: Tensor) -> None:
        """Update the weights, and sum up what the biases learn from; after `backward` of the same numbers."""
        columns, out_columns = self._columns, self._out_columns
        _sum_mixture[(min(self._tiles, _SUM_PROGRAMS),)](
            x,
            gradient,
            *self._weights,
            columns.largest,
            columns.product_largest,
            out_columns.largest,
            out_columns.product_largest,
            columns.sums,
            out_columns.sums,
            self._sums,
            *self._sizes,
            num_warps=self._warps,
            **CHAINED,
        )
        _update_mixture[(self._tokens + 1,)](
            *self._weight,
            *self._out_weight,
            self._sums,
            columns.product_largest,
            out_columns.product_largest,
            self._learner.size,
            self._learner.epsilon,
            self._tokens,
            self._mixing,
            self._padded,
            num_warps=4,
            **CHAINED,
        )


@triton.jit
def _load_weight(weight, column, inside, tokens: tl.constexpr, mixing: tl.constexpr, TOKENS: tl.constexpr):
    """Return the first weight as int8 [TOKENS, MIXING], and its scales."""
    token = tl.arange(0, TOKENS)
    place = token[:, None] * mixing + column[None, :]
    numbers = tl.load(weight + place, mask=(token < tokens)[:, None] & inside[None, :], other=0.0)
    factor, scale = row_scale(tl.max(tl.abs(numbers), 0), _INT8_MOST)
    return whole_number(numbers, factor[None, :]).to(tl.int8), scale


@triton.jit
def _load_weights(
    weight,
    bias,
    out_weight,
    column,
    inside,
    tokens: tl.constexpr,
    mixing: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Return what `_load_weight` does, the bias, and the second weight as whole float32, with its scale."""
    whole_weight, weight_scale = _load_weight(weight, column, inside, tokens, mixing, TOKENS)
    numbers = tl.load(out_weight + column, mask=inside, other=0.0)
    factor, out_scale = row_scale(tl.max(tl.abs(numbers), 0), _INT8_MOST)
    whole_out = quantised(numbers, factor)
    added = tl.load(bias + column, mask=inside, other=0.0)
    return whole_weight, weight_scale, added, whole_out, out_scale


@triton.jit
def _load_tile(
    x, tile, width: tl.constexpr, tokens: tl.constexpr, VALUES: tl.constexpr, TOKENS: tl.constexpr
):
    """Return a tile's tokens as int8 [TOKENS, VALUES] and their scales, and its lane and values."""
    blocks: tl.constexpr = (width + VALUES - 1) // VALUES
    lane = tile // blocks
    value = (tile % blocks) * VALUES + tl.arange(0, VALUES)
    token = tl.arange(0, TOKENS)
    inside = (token < tokens)[:, None] & (value < width)[None, :]
    place = (lane * tokens + token)[:, None] * width + value[None, :]
    numbers = tl.load(x + place, mask=inside, other=0.0)
    factor, scale = row_scale(tl.max(tl.abs(numbers), 0), _INT8_MOST)
    return whole_number(numbers, factor[None, :]).to(tl.int8), scale, lane, value


@triton.jit
def _hidden(whole_x, scale_x, whole_weight, weight_scale, added):
    """Return the hidden values of a tile, not yet activated, [MIXING, VALUES]."""
    sums = tl.dot(tl.trans(whole_weight), whole_x, out_dtype=tl.int32).to(tl.float32)
    return (sums * scale_x[None, :]) * weight_scale[:, None] + added[:, None]


@triton.jit
def _mix(
    x,
    weight,
    bias,
    out_weight,
    out_bias,
    out,
    tiles,
    width: tl.constexpr,
    tokens: tl.constexpr,
    mixing: tl.constexpr,
    VALUES: tl.constexpr,
    MIXING: tl.constexpr,
    TOKENS: tl.constexpr,
):
    follow()
    column = tl.arange(0, MIXING)
    inside = column < mixing
    whole_weight, weight_scale, added, whole_out, out_scale = _load_weights(
        weight, bias, out_weight, column, inside, tokens, mixing, TOKENS
    )
    out_added = tl.load(out_bias)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        whole_x, scale_x, lane, value = _load_tile(x, tile, width, tokens, VALUES, TOKENS)
        activated = gelu(_hidden(whole_x, scale_x, whole_weight, weight_scale, added))
        factor, scale = row_scale(tl.max(tl.abs(activated), 0), _INT8_MOST)
        # Whole numbers below 2^24 in all: their sum is exact in any order.
        total = tl.sum(quantised(activated, factor[None, :]) * whole_out[:, None], 0)
        tl.store(out + lane * width + value, (total * scale) * out_scale + out_added, mask=value < width)


@triton.jit
def _by_hidden(hidden, gradient, whole_out, out_scale):
    """Return the gradient by the hidden values from the one by the result, [VALUES]."""
    scaled = gradient * out_scale
    factor, scale = row_scale(tl.abs(scaled), _INT16_MOST)
    whole = quantised(scaled, factor)
    # The product of two whole numbers is below 2^24, and exact.
    return gelu_slope(hidden) * ((whole[None, :] * whole_out[:, None]) * scale[None, :])


@triton.jit
def _mix_backward(
    x,
    gradient,
    weight,
    bias,
    out_weight,
    out_bias,
    by_x,
    largest,
    product_largest,
    out_largest,
    out_product_largest,
    tiles,
    width: tl.constexpr,
    tokens: tl.constexpr,
    mixing: tl.constexpr,
    VALUES: tl.constexpr,
    MIXING: tl.constexpr,
    TOKENS: tl.constexpr,
):
    follow()
    column = tl.arange(0, MIXING)
    inside = column < mixing
    whole_weight, weight_scale, added, whole_out, out_scale = _load_weights(
        weight, bias, out_weight, column, inside, tokens, mixing, TOKENS
    )
    # With more rows the product back is one of the fast ones.
    back_weight, _ = _load_weight(weight, column, inside, tokens, mixing, 2 * TOKENS)
    token = tl.arange(0, 2 * TOKENS)
    bits = tl.zeros((MIXING,), tl.int32)
    product_bits = tl.zeros((MIXING,), tl.int32)
    out_bits = tl.zeros((VALUES,), tl.int32)
    out_product_bits = tl.zeros((VALUES,), tl.int32)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        whole_x, scale_x, lane, value = _load_tile(x, tile, width, tokens, VALUES, TOKENS)
        hidden = _hidden(whole_x, scale_x, whole_weight, weight_scale, added)
        factor, scale = row_scale(tl.max(tl.abs(gelu(hidden)), 0), _INT8_MOST)
        g = tl.load(gradient + lane * width + value, mask=value < width, other=0.0)
        out_bits = tl.maximum(out_bits, size_bits(g))
        out_product_bits = tl.maximum(out_product_bits, size_bits(g * scale))
        by_hidden = _by_hidden(hidden, g, whole_out, out_scale)
        bits = tl.maximum(bits, tl.max(size_bits(by_hidden), 1))
        product_bits = tl.maximum(product_bits, tl.max(size_bits(by_hidden * scale_x[None, :]), 1))
        scaled = by_hidden * weight_scale[:, None]
        factor, scale = row_scale(tl.max(tl.abs(scaled), 0), _INT16_MOST)
        high, low = split_digits(whole_number(scaled, factor[None, :]))
        total = tl.dot(back_weight, high, out_dtype=tl.int32) * 256
        total += tl.dot(back_weight, low, out_dtype=tl.int32)
        place = (lane * tokens + token)[:, None] * width + value[None, :]
        there = (token < tokens)[:, None] & (value < width)[None, :]
        tl.store(by_x + place, total.to(tl.float32) * scale[None, :], mask=there)
    tl.atomic_max(largest + column, bits, mask=inside, sem="relaxed")
    tl.atomic_max(product_largest + column, product_bits, mask=inside, sem="relaxed")
    tl.atomic_max(out_largest, tl.max(out_bits, 0), sem="relaxed")
    tl.atomic_max(out_product_largest, tl.max(out_product_bits, 0), sem="relaxed")


@triton.jit
def _sum_mixture(
    x,
    gradient,
    weight,
    bias,
    out_weight,
    out_bias,
    largest,
    product_largest,
    out_largest,
    out_product_largest,
    bias_sums,
    out_bias_sum,
    sums,
    tiles,
    width: tl.constexpr,
    tokens: tl.constexpr,
    mixing: tl.constexpr,
    VALUES: tl.constexpr,
    MIXING: tl.constexpr,
    TOKENS: tl.constexpr,
):
    follow()
    column = tl.arange(0, MIXING)
    inside = column < mixing
    whole_weight, weight_scale, added, whole_out, out_scale = _load_weights(
        weight, bias, out_weight, column, inside, tokens, mixing, TOKENS
    )
    to_bias, _ = row_scale(from_bits(tl.load(largest + column, mask=inside, other=0)), _SUM_MOST)
    to_weight, _ = row_scale(from_bits(tl.load(product_largest + column, mask=inside, other=0)), _INT16_MOST)
    to_out_bias, _ = row_scale(from_bits(tl.load(out_largest)), _SUM_MOST)
    to_out_weight, _ = row_scale(from_bits(tl.load(out_product_largest)), _INT16_MOST)
    by_weight = tl.zeros((MIXING, TOKENS), tl.int64)
    by_bias = tl.zeros((MIXING,), tl.int64)
    by_out_weight = tl.zeros((MIXING,), tl.int64)
    by_out_bias = tl.zeros((VALUES,), tl.int64)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        whole_x, scale_x, lane, value = _load_tile(x, tile, width, tokens, VALUES, TOKENS)
        hidden = _hidden(whole_x, scale_x, whole_weight, weight_scale, added)
        activated = gelu(hidden)
        factor, scale = row_scale(tl.max(tl.abs(activated), 0), _INT8_MOST)
        g = tl.load(gradient + lane * width + value, mask=value < width, other=0.0)
        by_out_bias += whole_number(g, to_out_bias).to(tl.int64)
        of_gradient = whole_number(g * scale, to_out_weight)
        by_out_weight += tl.sum(whole_number(activated, factor[None, :]) * of_gradient[None, :], 1).to(
            tl.int64
        )
        by_hidden = _by_hidden(hidden, g, whole_out, out_scale)
        by_bias += tl.sum(whole_number(by_hidden, to_bias[:, None]), 1).to(tl.int64)
        high, low = split_digits(whole_number(by_hidden * scale_x[None, :], to_weight[:, None]))
        total = tl.dot(high, tl.trans(whole_x), out_dtype=tl.int32) * 256
        total += tl.dot(low, tl.trans(whole_x), out_dtype=tl.int32)
        by_weight += total.to(tl.int64)
    token = tl.arange(0, TOKENS)
    place = token[None, :] * mixing + column[:, None]
    tl.atomic_add(sums + place, by_weight, mask=(token < tokens)[None, :] & inside[:, None], sem="relaxed")
    tl.atomic_add(sums + tokens * mixing + column, by_out_weight, mask=inside, sem="relaxed")
    tl.atomic_add(bias_sums + column, by_bias, mask=inside, sem="relaxed")
    tl.atomic_add(out_bias_sum, tl.sum(by_out_bias, 0), sem="relaxed")


@triton.jit
def _update_mixture(
    weight,
    first,
    second,
    out_weight,
    out_first,
    out_second,
    sums,
    product_largest,
    out_product_largest,
    size,
    epsilon,
    tokens: tl.constexpr,
    mixing: tl.constexpr,
    MIXING: tl.constexpr,
):
    follow()
    token = tl.program_id(0)
    column = tl.arange(0, MIXING)
    inside = column < mixing
    place = token * mixing + column
    total = tl.load(sums + place, mask=inside, other=0).to(tl.float32)
    _, unit = row_scale(from_bits(tl.load(product_largest + column, mask=inside, other=0)), _INT16_MOST)
    _, out_unit = row_scale(from_bits(tl.load(out_product_largest)), _INT16_MOST)
    if token < tokens:
        learn(weight, first, second, place, inside, total * unit, size, epsilon)
    else:
        learn(out_weight, out_first, out_second, column, inside, total * out_unit, size, epsilon)
