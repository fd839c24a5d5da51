"""The products of the semantics enhancement block that makes tokens, with a banded matrix of each value.

A program makes one of a byte's values in all tokens of several lanes. What is multiplied, embedded bytes and
positions, is looked up where it is needed and nowhere stored.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..quantise import INT16_MOST
from . import elements
from .elements import follow, load_largest
from .masks import load_mask
from .products import product_16x16
from .symbols import load_symbols, look_up

__all__ = ["fuse_tokens_kernel", "scale_of_values", "sum_products_kernel"]

_MOST = tl.constexpr(INT16_MOST)


@triton.jit
def _load_values(
    table,
    positions,
    history,
    position,
    factor,
    byte,
    lane,
    value,
    lanes,
    context: tl.constexpr,
    embedding: tl.constexpr,
    values: tl.constexpr,
):
    """Return one of a byte's values as whole numbers, int32, for each of `byte` and of `lane`."""
    inside = (byte < context) & (lane < lanes)
    is_byte = inside & (value < embedding)
    symbol = load_symbols(history, position, byte, lane, lanes, is_byte)
    x = look_up(table, symbol, value, embedding, is_byte)
    if values > embedding:
        place = byte * (values - embedding) + value - embedding
        x = tl.where(is_byte, x, tl.load(positions + place, mask=inside & (value >= embedding), other=0.0))
    return elements.whole_number(tl.where(inside, x, 0.0), factor)


@triton.jit
def scale_of_values(largest_value, largest_position):
    """Return (factor, scale) of all embedded bytes and positions."""
    return elements.row_scale(tl.maximum(load_largest(largest_value), tl.load(largest_position)), _MOST)


@triton.jit
def _places(patch: tl.constexpr, CONTEXT: tl.constexpr, OUTPUTS: tl.constexpr, LANES: tl.constexpr):
    """Return a program's value, bytes, outputs, these as tokens and bytes of a patch, and lanes."""
    value = tl.program_id(1)
    byte = tl.arange(0, CONTEXT)
    output = tl.arange(0, OUTPUTS)
    token, lag = output // patch, output % patch
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    return value, byte, output, token, lag, lane


@triton.jit
def _fused_places(
    lane, output, token, lag, lanes, outputs, patch: tl.constexpr, tokens: tl.constexpr, values: tl.constexpr
):
    """Return where the first value of outputs lies in what all lanes make, and which are inside."""
    place = (lane * tokens)[:, None] * (patch * values) + (token * (patch * values) + lag * values)[None, :]
    return place, (lane < lanes)[:, None] & (output < outputs)[None, :]


@triton.jit
def _band_places(value, byte, output, context: tl.constexpr, outputs: tl.constexpr):
    """Return where the banded matrix of a value lies, and which places are inside."""
    place = (value * context + byte)[:, None] * outputs + output[None, :]
    return place, (byte < context)[:, None] & (output < outputs)[None, :]


@triton.jit
def fuse_tokens_kernel(
    table,
    weight,
    bias,
    mask,
    kept,
    sharpness,
    positions,
    history,
    position,
    largest_value,
    largest_position,
    largest_weight,
    bands,
    fused,
    out,
    lanes,
    patches: tl.constexpr,
    patch: tl.constexpr,
    tokens: tl.constexpr,
    embedding: tl.constexpr,
    values: tl.constexpr,
    CONTEXT: tl.constexpr,
    OUTPUTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """The values of all tokens, before and behind the activation, and the banded matrices."""
    follow()
    context: tl.constexpr = patches + patch - 1
    outputs: tl.constexpr = tokens * patch
    value, byte, output, token, lag, lane = _places(patch, CONTEXT, OUTPUTS, LANES)

    # The banded matrix, [CONTEXT, OUTPUTS].
    number = byte[:, None] - lag[None, :]
    inside = (number >= 0) & (number < patches) & (output < outputs)[None, :]
    place = number * (patch * values) + (lag * values + value)[None, :]
    _, _, _, masks = load_mask(mask, kept, place, number, inside, sharpness)
    # Outside, a weight of 0 times a mask, which is finite, leaves 0.
    masked = tl.load(weight + number * tokens + token[None, :], mask=inside, other=0.0) * masks
    factor, weight_scale = elements.row_scale(load_largest(largest_weight), _MOST)
    weights = elements.whole_number(masked, factor)
    if tl.program_id(0) == 0:
        place, there = _band_places(value, byte, output, context, outputs)
        tl.store(bands + place, weights.to(tl.int16), mask=there)

    factor, value_scale = scale_of_values(largest_value, largest_position)
    whole = _load_values(
        table,
        positions,
        history,
        position,
        factor,
        byte[None, :],
        lane[:, None],
        value,
        lanes,
        context,
        embedding,
        values,
    )
    x = product_16x16(whole, weights).to(tl.float32) * (value_scale * weight_scale)
    x = x + tl.load(bias + token, mask=output < outputs, other=0.0)[None, :]
    place, inside = _fused_places(lane, output, token, lag, lanes, outputs, patch, tokens, values)
    tl.store(fused + place + value, x, mask=inside)
    tl.store(out + place + value, elements.gelu(x), mask=inside)


@triton.jit
def sum_products_kernel(
    gradient,
    fused,
    table,
    positions,
    history,
    position,
    largest,
    largest_value,
    largest_position,
    largest_weight,
    bands,
    by_bands,
    bias_sums,
    by_bytes,
    lanes,
    patches: tl.constexpr,
    patch: tl.constexpr,
    tokens: tl.constexpr,
    embedding: tl.constexpr,
    values: tl.constexpr,
    CONTEXT: tl.constexpr,
    OUTPUTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """The sums of the gradients by the banded matrices and the bias, and the gradients by embedded bytes."""
    follow()
    context: tl.constexpr = patches + patch - 1
    outputs: tl.constexpr = tokens * patch
    value, byte, output, token, lag, lane = _places(patch, CONTEXT, OUTPUTS, LANES)

    # The gradient by `fused` as whole numbers, [LANES, OUTPUTS].
    place, inside = _fused_places(lane, output, token, lag, lanes, outputs, patch, tokens, values)
    slope = elements.gelu_slope(tl.load(fused + place + value, mask=inside, other=0.0))
    factor, scale = elements.row_scale(load_largest(largest), _MOST)
    x = slope * tl.load(gradient + place + value, mask=inside, other=0.0)
    whole = elements.whole_number(x, factor)
    tl.atomic_add(bias_sums + token, tl.sum(whole, 0).to(tl.int64), mask=output < outputs, sem="relaxed")

    # By the banded matrix, [CONTEXT, OUTPUTS].
    factor, _ = scale_of_values(largest_value, largest_position)
    seen = _load_values(
        table,
        positions,
        history,
        position,
        factor,
        byte[:, None],
        lane[None, :],
        value,
        lanes,
        context,
        embedding,
        values,
    )
    place, there = _band_places(value, byte, output, context, outputs)
    tl.atomic_add(by_bands + place, product_16x16(seen, whole), mask=there, sem="relaxed")

    # By each embedded byte, [LANES, CONTEXT].
    _, weight_scale = elements.row_scale(load_largest(largest_weight), _MOST)
    if value < embedding:
        weights = tl.load(
            bands + (value * context + byte)[None, :] * outputs + output[:, None],
            mask=(byte < context)[None, :] & (output < outputs)[:, None],
            other=0,
        ).to(tl.int32)
        by_x = product_16x16(whole, weights).to(tl.float32) * (scale * weight_scale)
        tl.store(
            by_bytes + (lane * context)[:, None] * embedding + (byte * embedding + value)[None, :],
            by_x,
            mask=(lane < lanes)[:, None] & (byte < context)[None, :],
        )
