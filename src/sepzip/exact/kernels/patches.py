"""The semantics enhancement block, fused with the update of its weights.

Twin of semantics.py and of patches.py, whose banded matrix is what the kernels multiply by as well.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..quantise import INT16_MOST
from ..workspace import Workspace
from . import elements
from .elements import CHAINED, follow, load_largest
from .masks import find_fused_largest, load_mask
from .parameters import Learner, Parameter, update
from .products import SHORTEST_INNER, product_16x16
from .symbols import load_symbols, look_up
from .table_update import (
    BLOCK,
    ROWS,
    SYMBOLS,
    TABLE_BLOCK,
    WARPS,
    add_by_symbol,
    clear,
    padded_embedding,
    part,
    update_table,
)

__all__ = ["FusedSemantics"]

_MOST = tl.constexpr(INT16_MOST)
_UNIT = tl.constexpr(float(1 << 15))
"""What an embedded byte is a whole multiple of, as a part of 1: that of patches.py."""

_MIDDLE = tl.constexpr(1 << 14)
"""What is taken off an embedded byte, so that what is left fits 16 bits with a sign."""

_BY_BYTE_DIGITS = tl.constexpr(5)


class FusedSemantics:
    """The semantics enhancement block and the update of its weights.

    Its bits are those of `SemanticsEnhancement` and `adam`. Four kernels a step: one forward, three backward.
    """

    def __init__(
        self,
        table: Parameter,
        weight: Parameter,
        bias: Parameter,
        mask: Parameter,
        kept: Tensor,
        sharpness: float,
        patch: int,
        history: Tensor,
        position: Tensor,
        learner: Learner,
        workspace: Workspace,
    ) -> None:
        """Take the parameters and where a step finds the rest.

        table [256, embedding], weight and mask [patches], bias [1]; `kept`, bool [patches], says which
        patches are kept whole, and `sharpness` is the block's. `history` is uint8 [rows, lanes], of which a
        step reads patches + patch - 1 rows from row `position` on, int64 [1]. All tensors are read when a
        step runs.
        """
        self._table = table
        self._weight = weight
        self._bias = bias
        self._mask = mask
        self._kept = kept
        self._sharpness = sharpness
        self._patch = patch
        self._history = history
        self._position = position
        self._learner = learner
        self._lanes = history.shape[1]
        self._embedding = table.weight.shape[1]
        self._patches = weight.weight.shape[0]
        self._context = self._patches + patch - 1
        # Powers of two, and long enough for the products whose inner dimension they are.
        self._padded_context = max(SHORTEST_INNER, int(triton.next_power_of_2(self._context)))
        self._padded_patch = max(16, int(triton.next_power_of_2(patch)))
        self._padded_embedding = padded_embedding(self._embedding)
        self._lanes_each = max(1, ROWS // self._padded_context, SHORTEST_INNER // self._padded_embedding)
        self._programs = int(triton.cdiv(self._lanes, self._lanes_each))
        width = patch * self._embedding
        self._fused = workspace.take("semantics fused", (self._lanes, width))
        self._out = workspace.take("semantics", (self._lanes, width))
        # What the backward pass needs of the forward pass: whole numbers, and the scale of those of weights.
        self._embedded = workspace.take(
            "semantics embedded", (self._context, self._lanes * self._embedding), torch.int16
        )
        self._band = workspace.take("semantics band", (patch, self._context), torch.int16)
        self._weight_scale = workspace.take("semantics weight scale", (1,))
        # The forward pass clears all of these.
        lengths = (SYMBOLS * self._embedding, patch * self._context, 1, 1)
        self._sums = workspace.take("semantics sums", (sum(lengths),), torch.int64)
        self._by_symbol, self._by_band, self._bias_sum, self._largest = self._sums.split(lengths)

    def forward(self) -> Tensor:
        """Return [lanes, patch * embedding]; valid until the next step."""
        _fuse[(self._programs,)](
            self._table.weight,
            self._weight.weight,
            self._bias.weight,
            self._mask.weight,
            self._kept,
            self._sharpness,
            self._history,
            self._position,
            self._embedded,
            self._band,
            self._weight_scale,
            self._fused,
            self._out,
            self._sums,
            self._sums.numel(),
            self._lanes,
            self._patches,
            self._patch,
            self._embedding,
            self._padded_context,
            self._padded_patch,
            self._lanes_each,
            self._padded_embedding,
            part(self._sums, self._programs),
            num_warps=WARPS,
            **CHAINED,
        )
        return self._out

    def backward(self, gradient: Tensor) -> None:
        """Update the weights by the gradient of the last forward pass's result, contiguous, of its shape."""
        count = gradient.numel()
        find_fused_largest[(triton.cdiv(count, BLOCK),)](
            self._fused, gradient, self._largest, count, BLOCK, **CHAINED
        )
        _sum_products[(self._programs,)](
            gradient,
            self._fused,
            self._largest,
            self._history,
            self._position,
            self._embedded,
            self._band,
            self._by_symbol,
            self._by_band,
            self._bias_sum,
            self._lanes,
            self._patches,
            self._patch,
            self._embedding,
            self._padded_context,
            max(SHORTEST_INNER, self._padded_patch),
            self._lanes_each,
            self._padded_embedding,
            num_warps=WARPS,
            **CHAINED,
        )
        count = self._table.weight.numel()
        _update_semantics[(1 + triton.cdiv(count, TABLE_BLOCK),)](
            *self._table,
            *self._weight,
            *self._bias,
            *self._mask,
            self._kept,
            self._sharpness,
            self._weight_scale,
            self._largest,
            self._by_symbol,
            self._by_band,
            self._bias_sum,
            self._learner.size,
            self._learner.epsilon,
            count,
            self._patches,
            self._patch,
            int(triton.next_power_of_2(self._patches)),
            self._padded_patch,
            TABLE_BLOCK,
            **CHAINED,
        )


@triton.jit
def _fuse(
    table,
    weight,
    bias,
    mask,
    kept,
    sharpness,
    history,
    position,
    embedded,
    band,
    weight_scale,
    fused,
    out,
    sums,
    sums_count,
    lanes,
    patches: tl.constexpr,
    patch: tl.constexpr,
    embedding: tl.constexpr,
    CONTEXT: tl.constexpr,
    PATCH: tl.constexpr,
    LANES: tl.constexpr,
    SIZE: tl.constexpr,
    PART: tl.constexpr,
):
    follow()
    context: tl.constexpr = patches + patch - 1
    clear(sums, sums_count, PART)
    byte = tl.arange(0, CONTEXT)
    lag = tl.arange(0, PATCH)

    # Every program makes the banded matrix, [PATCH, CONTEXT], for itself: that takes less time than a
    # kernel that makes it for all. It holds every weight, so its largest element is the largest weight.
    number = byte[None, :] - lag[:, None]
    inside = (number >= 0) & (number < patches) & (lag < patch)[:, None]
    _, _, _, masks = load_mask(mask, kept, number, number, inside, sharpness)
    # Outside, a weight of 0 times a mask, which is finite, leaves 0.
    masked = tl.load(weight + number, mask=inside, other=0.0) * masks
    factor, scale = elements.row_scale(tl.max(tl.max(tl.abs(masked), 1), 0), _MOST)
    weights = elements.whole_number(masked, factor)
    if tl.program_id(0) == 0:
        place = lag[:, None] * context + byte[None, :]
        tl.store(band + place, weights.to(tl.int16), mask=(lag < patch)[:, None] & (byte < context)[None, :])
        tl.store(weight_scale, scale)

    # Embedded bytes, [CONTEXT, LANES * SIZE].
    column = tl.arange(0, LANES * SIZE)
    lane = tl.program_id(0) * LANES + column // SIZE
    component = column % SIZE
    used = (lane < lanes) & (component < embedding)
    inside = (byte < context)[:, None] & used[None, :]
    symbol = load_symbols(history, position, byte[:, None], lane[None, :], lanes, inside)
    squashed = look_up(table, symbol, component[None, :], embedding, inside)
    whole = elements.whole_number(squashed, _UNIT) - _MIDDLE
    place = byte[:, None] * (lanes * embedding) + (lane * embedding + component)[None, :]
    tl.store(embedded + place, whole.to(tl.int16), mask=inside)

    # A row of the band holds every weight once, so what was taken off comes back as their sum.
    total = product_16x16(weights, whole) + tl.sum(weights, 1).to(tl.int64)[:, None] * _MIDDLE
    x = total.to(tl.float32) * (scale * (1.0 / _UNIT)) + tl.load(bias)
    place = (lane * (patch * embedding) + component)[None, :] + (lag * embedding)[:, None]
    inside = (lag < patch)[:, None] & used[None, :]
    tl.store(fused + place, x, mask=inside)
    tl.store(out + place, elements.gelu(x), mask=inside)


@triton.jit
def _sum_products(
    gradient,
    fused,
    largest,
    history,
    position,
    embedded,
    band,
    by_symbol,
    by_band,
    bias_sum,
    lanes,
    patches: tl.constexpr,
    patch: tl.constexpr,
    embedding: tl.constexpr,
    CONTEXT: tl.constexpr,
    PATCH: tl.constexpr,
    LANES: tl.constexpr,
    SIZE: tl.constexpr,
):
    follow()
    context: tl.constexpr = patches + patch - 1
    byte = tl.arange(0, CONTEXT)
    lag = tl.arange(0, PATCH)
    column = tl.arange(0, LANES * SIZE)
    lane = tl.program_id(0) * LANES + column // SIZE
    component = column % SIZE
    used = (lane < lanes) & (component < embedding)

    # The gradient by `fused` as whole numbers, [PATCH, LANES * SIZE].
    place = (lane * (patch * embedding) + component)[None, :] + (lag * embedding)[:, None]
    inside = (lag < patch)[:, None] & used[None, :]
    slope = elements.gelu_slope(tl.load(fused + place, mask=inside, other=0.0))
    factor, _ = elements.row_scale(load_largest(largest), _MOST)
    x = slope * tl.load(gradient + place, mask=inside, other=0.0)
    whole = elements.whole_number(x, factor)
    tl.atomic_add(bias_sum, tl.sum(tl.sum(whole, 1).to(tl.int64), 0), sem="relaxed")

    # By the banded matrix, [PATCH, CONTEXT]; embedded bytes are still less 2^14.
    place = byte[:, None] * (lanes * embedding) + (lane * embedding + component)[None, :]
    inside = (byte < context)[:, None] & used[None, :]
    embedded_bytes = tl.load(embedded + place, mask=inside, other=0).to(tl.int32)
    sums = product_16x16(whole, tl.trans(embedded_bytes))
    number = byte[None, :] - lag[:, None]
    place = lag[:, None] * context + byte[None, :]
    inside = (number >= 0) & (number < patches) & (lag < patch)[:, None]
    tl.atomic_add(by_band + place, sums, mask=inside, sem="relaxed")

    # By each embedded byte, [CONTEXT, LANES * SIZE].
    place = lag[None, :] * context + byte[:, None]
    inside = (lag < patch)[None, :] & (byte < context)[:, None]
    sums = product_16x16(tl.load(band + place, mask=inside, other=0).to(tl.int32), whole)
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    inside = (byte < context)[:, None] & (lane < lanes)[None, :]
    symbol = load_symbols(history, position, byte[:, None], lane[None, :], lanes, inside)
    # Bytes that are not inside must not stand before one that is: they get a symbol of their own.
    symbol = tl.where(inside, symbol, -1)
    add_by_symbol(
        by_symbol,
        tl.reshape(symbol, [CONTEXT * LANES]),
        tl.reshape(symbol, [CONTEXT * LANES]) >= 0,
        tl.reshape(sums, [CONTEXT * LANES, SIZE]),
        embedding,
        CONTEXT * LANES,
        SIZE,
        _BY_BYTE_DIGITS,
    )


@triton.jit
def _update_semantics(
    table,
    table_first,
    table_second,
    weight,
    weight_first,
    weight_second,
    bias,
    bias_first,
    bias_second,
    mask,
    mask_first,
    mask_second,
    kept,
    sharpness,
    weight_scale,
    largest,
    by_symbol,
    by_band,
    bias_sum,
    size,
    epsilon,
    count,
    patches: tl.constexpr,
    patch: tl.constexpr,
    PATCHES: tl.constexpr,
    PATCH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    follow()
    _, scale = elements.row_scale(load_largest(largest), _MOST)
    if tl.program_id(0) > 0:
        place = (tl.program_id(0) - 1) * BLOCK + tl.arange(0, BLOCK)
        table_scale = scale * tl.load(weight_scale)
        update_table(
            table, table_first, table_second, by_symbol, place, place < count, table_scale, size, epsilon
        )
    else:
        one = tl.arange(0, 1)
        total = tl.load(bias_sum + one)
        everywhere = one == 0
        old_bias = tl.load(bias + one)
        by_bias = total.to(tl.float32) * scale
        update(bias, bias_first, bias_second, one, everywhere, old_bias, by_bias, size, epsilon)

        # Element (lag, number + lag) of the band is weight `number`.
        number = tl.arange(0, PATCHES)
        lag = tl.arange(0, PATCH)
        inside = number < patches
        sums = tl.load(
            by_band + number[:, None] + (lag * (patches + patch))[None, :],
            mask=inside[:, None] & (lag < patch)[None, :],
            other=0,
        )
        sums = tl.sum(sums, 1) + total * _MIDDLE
        gradient = sums.to(tl.float32) * (scale * (1.0 / _UNIT))
        whole, old_mask, learned, masks = load_mask(mask, kept, number, number, inside, sharpness)
        old = tl.load(weight + number, mask=inside, other=0.0)
        slope = ((masks * (1.0 - masks)) * (learned * (1.0 - learned))) * sharpness
        by_mask = tl.where(whole, 0.0, (gradient * old) * slope)
        # Both gradients take in what both updates overwrite, and threads may hold copies of it.
        tl.debug_barrier()
        update(weight, weight_first, weight_second, number, inside, old, gradient * masks, size, epsilon)
        update(mask, mask_first, mask_second, number, inside, old_mask, by_mask, size, epsilon)
