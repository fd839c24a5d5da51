"""The layer that mixes a lane's tokens, value by value, as fused kernels: the twin of trace.Mixture.

Its hidden values are far more numerous than all others of a step, and each takes a few additions to make.
So none is ever stored: every pass makes them anew.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...exact.kernels.columns import Columns
from ...exact.kernels.elements import (
    EXACT,
    adam,
    from_bits,
    gelu,
    gelu_slope,
    row_scale,
    size_bits,
    whole_number,
)
from ...exact.kernels.update import Learner
from ...exact.quantise import INT8_MOST, INT16_MOST, SUM_MOST
from ...exact.workspace import Workspace
from ..trace import Mixture
from .shared import Parameters

__all__ = ["FusedMixture"]

_INT8_MOST = tl.constexpr(INT8_MOST)
_INT16_MOST = tl.constexpr(INT16_MOST)
_SUM_MOST = tl.constexpr(SUM_MOST)

_TILE = 2048
"""Hidden values that a program holds at a time."""

_WARPS = 4

_MOST_VALUES = 512
"""The most products of 8 by 16 bits whose sum fits 32."""


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
        self._padded = int(triton.next_power_of_2(self._mixing))
        self._values = max(1, min(int(triton.next_power_of_2(width)), _TILE // self._padded, _MOST_VALUES))
        self._out = workspace.take("mixed", (lanes, width))
        self._by_x = workspace.take("by_mixture", (lanes * self._tokens, width))
        # The sums of the gradients by the two weights, set to zero in the forward pass.
        self._sums = workspace.take("mixture sums", ((self._tokens + 1) * self._mixing,), torch.int64)

    @property
    def _weights(self) -> tuple[Tensor, ...]:
        return self._weight.weight, self._bias.weight, self._out_weight.weight, self._out_bias.weight

    @property
    def _sizes(self) -> tuple[int, ...]:
        return self._width, self._tokens, self._mixing, self._values, self._padded

    def forward(self, x: Tensor) -> Tensor:
        """Return [lanes, width] from [lanes * tokens, width]; valid until the next step."""
        self._sums.zero_()
        blocks = triton.cdiv(self._width, self._values)
        _mix[(self._lanes, blocks)](x, *self._weights, self._out, *self._sizes, num_warps=_WARPS, **EXACT)
        return self._out

    def backward(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient by x, [lanes * tokens, width], from the one by the result, [lanes, width]."""
        _mix_backward[(self._lanes,)](
            x,
            gradient,
            *self._weights,
            self._by_x,
            self._columns.largest,
            self._columns.product_largest,
            self._out_columns.largest,
            self._out_columns.product_largest,
            *self._sizes,
            num_warps=_WARPS,
            **EXACT,
        )
        return self._by_x

    def learn(self, x: Tensor, gradient: Tensor) -> None:
        """Update the weights, and sum up what the biases learn from; after `backward` of the same numbers."""
        columns, out_columns = self._columns, self._out_columns
        _sum_mixture[(self._lanes,)](
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
            int(triton.next_power_of_2(self._tokens)),
            num_warps=_WARPS,
            **EXACT,
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
            num_warps=_WARPS,
            **EXACT,
        )


@triton.jit
def _load_weights(weight, out_weight, column, inside, tokens: tl.constexpr, mixing: tl.constexpr):
    """Return (factor, scale) of the first weight's columns, and the second as whole numbers and its scale."""
    largest = tl.zeros(column.shape, tl.float32)
    for token in range(tokens):
        numbers = tl.load(weight + token * mixing + column, mask=inside, other=0.0)
        largest = tl.maximum(largest, tl.abs(numbers))
    factor, scale = row_scale(largest, _INT8_MOST)
    out = tl.load(out_weight + column, mask=inside, other=0.0)
    out_factor, out_scale = row_scale(tl.max(tl.abs(out), 0), _INT8_MOST)
    return factor, scale, whole_number(out, out_factor), out_scale


@triton.jit
def _whole_token(x, row, value, value_inside, factor, width: tl.constexpr):
    """Return a token's values as whole numbers."""
    numbers = tl.load(x + row * width + value, mask=value_inside, other=0.0)
    return whole_number(numbers, factor)


@triton.jit
def _whole_weight(weight, token, column, inside, factor, mixing: tl.constexpr):
    """Return a token's weights as whole numbers."""
    numbers = tl.load(weight + token * mixing + column, mask=inside, other=0.0)
    return whole_number(numbers, factor)


@triton.jit
def _hidden(
    x,
    weight,
    bias,
    lane,
    value,
    value_inside,
    column,
    inside,
    weight_factor,
    weight_scale,
    width: tl.constexpr,
    tokens: tl.constexpr,
    mixing: tl.constexpr,
):
    """Return the hidden values [VALUES, MIXING], not yet activated, and (factor, scale) of the tokens."""
    largest = tl.zeros(value.shape, tl.float32)
    for token in range(tokens):
        numbers = tl.load(x + (lane * tokens + token) * width + value, mask=value_inside, other=0.0)
        largest = tl.maximum(largest, tl.abs(numbers))
    factor, scale = row_scale(largest, _INT8_MOST)
    sums = tl.zeros((value.shape[0], column.shape[0]), tl.int32)
    for token in range(tokens):
        whole = _whole_token(x, lane * tokens + token, value, value_inside, factor, width)
        sums += whole[:, None] * _whole_weight(weight, token, column, inside, weight_factor, mixing)[None, :]
    added = tl.load(bias + column, mask=inside, other=0.0)
    hidden = (sums.to(tl.float32) * scale[:, None]) * weight_scale[None, :] + added[None, :]
    return hidden, factor, scale


@triton.jit
def _mix(
    x,
    weight,
    bias,
    out_weight,
    out_bias,
    out,
    width: tl.constexpr,
    tokens: tl.constexpr,
    mixing: tl.constexpr,
    VALUES: tl.constexpr,
    MIXING: tl.constexpr,
):
    lane = tl.program_id(0)
    value = tl.program_id(1) * VALUES + tl.arange(0, VALUES)
    value_inside = value < width
    column = tl.arange(0, MIXING)
    inside = column < mixing
    weight_factor, weight_scale, whole_out, out_scale = _load_weights(
        weight, out_weight, column, inside, tokens, mixing
    )
    hidden, _, _ = _hidden(
        x,
        weight,
        bias,
        lane,
        value,
        value_inside,
        column,
        inside,
        weight_factor,
        weight_scale,
        width,
        tokens,
        mixing,
    )
    activated = gelu(hidden)
    factor, scale = row_scale(tl.max(tl.abs(activated), 1), _INT8_MOST)
    whole = whole_number(activated, factor[:, None])
    total = tl.sum(whole * whole_out[None, :], 1).to(tl.float32)
    tl.store(out + lane * width + value, (total * scale) * out_scale + tl.load(out_bias), mask=value_inside)


@triton.jit
def _by_hidden(hidden, gradient, whole_out, out_scale):
    """Return the gradient by the hidden values from the one by the result, [VALUES]."""
    scaled = gradient * out_scale
    factor, scale = row_scale(tl.abs(scaled), _INT16_MOST)
    whole = whole_number(scaled, factor)
    return gelu_slope(hidden) * ((whole[:, None] * whole_out[None, :]).to(tl.float32) * scale[:, None])


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
    width: tl.constexpr,
    tokens: tl.constexpr,
    mixing: tl.constexpr,
    VALUES: tl.constexpr,
    MIXING: tl.constexpr,
):
    lane = tl.program_id(0)
    column = tl.arange(0, MIXING)
    inside = column < mixing
    weight_factor, weight_scale, whole_out, out_scale = _load_weights(
        weight, out_weight, column, inside, tokens, mixing
    )
    bits = tl.zeros((MIXING,), tl.int32)
    product_bits = tl.zeros((MIXING,), tl.int32)
    out_bits = tl.zeros((VALUES,), tl.int32)
    out_product_bits = tl.zeros((VALUES,), tl.int32)
    for block in range((width + VALUES - 1) // VALUES):
        value = block * VALUES + tl.arange(0, VALUES)
        value_inside = value < width
        hidden, _, scale_x = _hidden(
            x,
            weight,
            bias,
            lane,
            value,
            value_inside,
            column,
            inside,
            weight_factor,
            weight_scale,
            width,
            tokens,
            mixing,
        )
        _, scale = row_scale(tl.max(tl.abs(gelu(hidden)), 1), _INT8_MOST)
        g = tl.load(gradient + lane * width + value, mask=value_inside, other=0.0)
        out_bits = tl.maximum(out_bits, size_bits(g))
        out_product_bits = tl.maximum(out_product_bits, size_bits(g * scale))
        by_hidden = _by_hidden(hidden, g, whole_out, out_scale)
        bits = tl.maximum(bits, tl.max(size_bits(by_hidden), 0))
        product_bits = tl.maximum(product_bits, tl.max(size_bits(by_hidden * scale_x[:, None]), 0))
        scaled = by_hidden * weight_scale[None, :]
        factor, scale = row_scale(tl.max(tl.abs(scaled), 1), _INT16_MOST)
        whole = whole_number(scaled, factor[:, None])
        for token in range(tokens):
            whole_weight = _whole_weight(weight, token, column, inside, weight_factor, mixing)
            total = tl.sum(whole * whole_weight[None, :], 1).to(tl.float32)
            tl.store(by_x + (lane * tokens + token) * width + value, total * scale, mask=value_inside)
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
    width: tl.constexpr,
    tokens: tl.constexpr,
    mixing: tl.constexpr,
    VALUES: tl.constexpr,
    MIXING: tl.constexpr,
    TOKENS: tl.constexpr,
):
    lane = tl.program_id(0)
    column = tl.arange(0, MIXING)
    inside = column < mixing
    weight_factor, weight_scale, whole_out, out_scale = _load_weights(
        weight, out_weight, column, inside, tokens, mixing
    )
    to_bias, _ = row_scale(from_bits(tl.load(largest + column, mask=inside, other=0)), _SUM_MOST)
    to_weight, _ = row_scale(from_bits(tl.load(product_largest + column, mask=inside, other=0)), _INT16_MOST)
    to_out_bias, _ = row_scale(from_bits(tl.load(out_largest)), _SUM_MOST)
    to_out_weight, _ = row_scale(from_bits(tl.load(out_product_largest)), _INT16_MOST)
    order = tl.arange(0, TOKENS)
    by_weight = tl.zeros((TOKENS, MIXING), tl.int64)
    by_bias = tl.zeros((MIXING,), tl.int64)
    by_out_weight = tl.zeros((MIXING,), tl.int64)
    by_out_bias = tl.zeros((VALUES,), tl.int64)
    for block in range((width + VALUES - 1) // VALUES):
        value = block * VALUES + tl.arange(0, VALUES)
        value_inside = value < width
        hidden, factor_x, scale_x = _hidden(
            x,
            weight,
            bias,
            lane,
            value,
            value_inside,
            column,
            inside,
            weight_factor,
            weight_scale,
            width,
            tokens,
            mixing,
        )
        activated = gelu(hidden)
        factor, scale = row_scale(tl.max(tl.abs(activated), 1), _INT8_MOST)
        whole = whole_number(activated, factor[:, None])
        g = tl.load(gradient + lane * width + value, mask=value_inside, other=0.0)
        by_out_bias += whole_number(g, to_out_bias).to(tl.int64)
        whole_gradient = whole_number(g * scale, to_out_weight)
        by_out_weight += tl.sum(whole * whole_gradient[:, None], 0).to(tl.int64)
        by_hidden = _by_hidden(hidden, g, whole_out, out_scale)
        by_bias += tl.sum(whole_number(by_hidden, to_bias[None, :]), 0).to(tl.int64)
        whole = whole_number(by_hidden * scale_x[:, None], to_weight[None, :])
        for token in range(tokens):
            whole_token = _whole_token(x, lane * tokens + token, value, value_inside, factor_x, width)
            total = tl.sum(whole_token[:, None] * whole, 0).to(tl.int64)
            by_weight += tl.where((order == token)[:, None], total[None, :], 0)
    place = order[:, None] * mixing + column[None, :]
    there = (order < tokens)[:, None] & inside[None, :]
    tl.atomic_add(sums + place, by_weight, mask=there, sem="relaxed")
    tl.atomic_add(sums + tokens * mixing + column, by_out_weight, mask=inside, sem="relaxed")
    tl.atomic_add(bias_sums + column, by_bias, mask=inside, sem="relaxed")
    tl.atomic_add(out_bias_sum, tl.sum(by_out_bias, 0), sem="relaxed")


@triton.jit
def _update_row(weight, first, second, place, inside, gradient, size, epsilon):
    w, m, v = adam(
        tl.load(weight + place, mask=inside, other=0.0),
        tl.load(first + place, mask=inside, other=0.0),
        tl.load(second + place, mask=inside, other=0.0),
        gradient,
        tl.load(size),
        epsilon,
    )
    tl.store(weight + place, w, mask=inside)
    tl.store(first + place, m, mask=inside)
    tl.store(second + place, v, mask=inside)


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
    token = tl.program_id(0)
    column = tl.arange(0, MIXING)
    inside = column < mixing
    place = token * mixing + column
    total = tl.load(sums + place, mask=inside, other=0).to(tl.float32)
    _, unit = row_scale(from_bits(tl.load(product_largest + column, mask=inside, other=0)), _INT16_MOST)
    _, out_unit = row_scale(from_bits(tl.load(out_product_largest)), _INT16_MOST)
    if token < tokens:
        _update_row(weight, first, second, place, inside, total * unit, size, epsilon)
    else:
        _update_row(out_weight, out_first, out_second, column, inside, total * out_unit, size, epsilon)
