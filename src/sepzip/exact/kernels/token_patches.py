"""The semantics enhancement block that makes several tokens, fused with the update of its weights.

Twin of semantics.TokenSemantics and of `fuse_into_tokens`, whose products token_bands.py makes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..quantise import INT16_MOST, SUM_MOST
from ..workspace import Workspace
from . import elements
from .elements import CHAINED, add_largest, follow, load_largest
from .masks import find_fused_largest, load_mask
from .parameters import Learner, Parameter, update
from .products import SHORTEST_INNER
from .symbols import load_symbols, look_up
from .table_update import BLOCK, WARPS, TableUpdate
from .token_bands import fuse_tokens_kernel, scale_of_values, sum_products_kernel

__all__ = ["FusedTokenSemantics"]

_MOST = tl.constexpr(INT16_MOST)
_SUM_MOST = tl.constexpr(SUM_MOST)


class FusedTokenSemantics:
    """The block and the update of its weights.

    Its bits are those of `TokenSemantics` and `adam`. Eight kernels a step: two forward, six backward.
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
        positions: Tensor,
        history: Tensor,
        position: Tensor,
        learner: Learner,
        workspace: Workspace,
    ) -> None:
        """Take the parameters and where a step finds the rest.

        table [256, embedding], weight [patches, tokens], bias [tokens], mask [patches, patch * values];
        `kept`, bool [patches], says which patches are kept whole, and `sharpness` is the block's;
        `positions`, float32 [context, values - embedding], from 0 to 1, lie behind the embedded bytes.
        `history` is uint8 [rows, lanes], of which a step reads patches + patch - 1 rows from row `position`
        on, int64 [1]. All tensors are read when a step runs.
        """
        self._table, self._weight, self._bias, self._mask = table, weight, bias, mask
        self._kept = kept
        self._sharpness = sharpness
        self._history, self._position = history, position
        self._learner = learner
        self._positions = positions.contiguous()
        self._lanes, self._embedding = history.shape[1], table.weight.shape[1]
        self._patches, self._tokens = weight.weight.shape
        self._patch = patch
        self._context = context = self._patches + patch - 1
        self._values = self._embedding + positions.shape[1]
        outputs = self._tokens * patch
        self._padded_context = max(SHORTEST_INNER, int(triton.next_power_of_2(context)))
        self._padded_outputs = max(SHORTEST_INNER, int(triton.next_power_of_2(outputs)))
        self._lanes_each = 64 if self._lanes > 32 else 32
        self._grid = (triton.cdiv(self._lanes, self._lanes_each), self._values)
        self._update = TableUpdate(table, history, position, context, learner, workspace, squashed=True)
        shape = (self._lanes * self._tokens, patch * self._values)
        self._fused, self._out = workspace.take("tokens fused", shape), workspace.take("tokens", shape)
        self._bands = workspace.take("tokens bands", (self._values, context, outputs), torch.int16)
        self._by_bytes = workspace.take("tokens by bytes", (self._lanes, context * self._embedding))
        # Set to zero in the forward pass: sums, and the bits of the largest value, weight and gradient.
        lengths = (self._values * context * outputs, self._tokens, 1, 1, 1)
        self._words = workspace.take("tokens sums", (sum(lengths),), torch.int64)
        parts = self._words.split(lengths)
        self._by_bands, self._bias_sums, self._largest_value, self._largest_weight, self._largest = parts
        largest = self._positions.amax() if self._positions.numel() else torch.zeros((), device=kept.device)
        self._largest_position = largest.view(1)

    def forward(self) -> Tensor:
        """Return [lanes * tokens, patch * values]; valid until the next step."""
        self._words.zero_()
        self._update.sums.zero_()
        weights = self._patches * self._tokens * self._patch * self._values
        embedded = self._lanes * self._context * self._embedding
        of_weights = triton.cdiv(weights, BLOCK)
        _find_both_largest[(of_weights + triton.cdiv(embedded, BLOCK),)](
            self._table.weight,
            self._weight.weight,
            self._mask.weight,
            self._kept,
            self._sharpness,
            self._history,
            self._position,
            self._largest_value,
            self._largest_weight,
            self._lanes,
            of_weights,
            weights,
            embedded,
            self._context,
            self._embedding,
            self._tokens,
            self._patch * self._values,
            BLOCK,
            **CHAINED,
        )
        fuse_tokens_kernel[self._grid](
            self._table.weight,
            self._weight.weight,
            self._bias.weight,
            self._mask.weight,
            self._kept,
            self._sharpness,
            self._positions,
            self._history,
            self._position,
            self._largest_value,
            self._largest_position,
            self._largest_weight,
            self._bands,
            self._fused,
            self._out,
            self._lanes,
            self._patches,
            self._patch,
            self._tokens,
            self._embedding,
            self._values,
            self._padded_context,
            self._padded_outputs,
            self._lanes_each,
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
        sum_products_kernel[self._grid](
            gradient,
            self._fused,
            self._table.weight,
            self._positions,
            self._history,
            self._position,
            self._largest,
            self._largest_value,
            self._largest_position,
            self._largest_weight,
            self._bands,
            self._by_bands,
            self._bias_sums,
            self._by_bytes,
            self._lanes,
            self._patches,
            self._patch,
            self._tokens,
            self._embedding,
            self._values,
            self._padded_context,
            self._padded_outputs,
            self._lanes_each,
            num_warps=WARPS,
            **CHAINED,
        )
        width = self._patch * self._values
        _update_weights[(1 + self._patches,)](
            *self._weight,
            *self._bias,
            *self._mask,
            self._kept,
            self._sharpness,
            self._largest,
            self._largest_value,
            self._largest_position,
            self._by_bands,
            self._bias_sums,
            self._learner.size,
            self._learner.epsilon,
            self._patches,
            self._patch,
            self._tokens,
            self._values,
            int(triton.next_power_of_2(self._tokens)),
            int(triton.next_power_of_2(width)),
            num_warps=WARPS,
            **CHAINED,
        )
        self._update.backward(self._by_bytes)


@triton.jit
def _find_both_largest(
    table,
    weight,
    mask,
    kept,
    sharpness,
    history,
    position,
    largest_value,
    largest_weight,
    lanes,
    of_weights,
    weights,
    embedded,
    context: tl.constexpr,
    embedding: tl.constexpr,
    tokens: tl.constexpr,
    width: tl.constexpr,
    BLOCK: tl.constexpr,
):
    follow()
    program = tl.program_id(0)
    if program < of_weights:
        place = program * BLOCK + tl.arange(0, BLOCK)
        inside = place < weights
        row, column = place // width, place % width
        patch = row // tokens
        _, _, _, masks = load_mask(mask, kept, patch * width + column, patch, inside, sharpness)
        add_largest(largest_weight, tl.load(weight + row, mask=inside, other=0.0) * masks)
    else:
        place = (program - of_weights) * BLOCK + tl.arange(0, BLOCK)
        inside = place < embedded
        row, column = place // embedding, place % embedding
        symbol = load_symbols(history, position, row % context, row // context, lanes, inside)
        # Outside, the sigmoid of 0 must not count.
        value = look_up(table, symbol, column, embedding, inside)
        add_largest(largest_value, tl.where(inside, value, 0.0))


@triton.jit
def _update_weights(
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
    largest,
    largest_value,
    largest_position,
    by_bands,
    bias_sums,
    size,
    epsilon,
    patches: tl.constexpr,
    patch: tl.constexpr,
    tokens: tl.constexpr,
    values: tl.constexpr,
    TOKENS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    follow()
    context: tl.constexpr = patches + patch - 1
    width: tl.constexpr = patch * values
    number = tl.program_id(0)
    token = tl.arange(0, TOKENS)
    there = token < tokens
    _, scale = elements.row_scale(load_largest(largest), _MOST)
    if number == patches:
        by_bias = tl.load(bias_sums + token, mask=there, other=0).to(tl.float32) * scale
        old_bias = tl.load(bias + token, mask=there, other=0.0)
        update(bias, bias_first, bias_second, token, there, old_bias, by_bias, size, epsilon)
    else:
        column = tl.arange(0, WIDTH)
        column_inside = column < width
        lag, value = column // values, column % values
        place = ((value * context + number + lag) * (tokens * patch) + lag)[None, :] + (token * patch)[
            :, None
        ]
        inside = there[:, None] & column_inside[None, :]
        _, value_scale = scale_of_values(largest_value, largest_position)
        gradient = tl.load(by_bands + place, mask=inside, other=0).to(tl.float32) * (scale * value_scale)
        mask_place = number * width + column
        patch_number = number + column * 0
        whole_patch, old_mask, learned, masks = load_mask(
            mask, kept, mask_place, patch_number, column_inside, sharpness
        )
        weight_place = number * tokens + token
        old = tl.load(weight + weight_place, mask=there, other=0.0)

        products = gradient * masks[None, :]
        factor, unit = elements.row_scale(tl.max(tl.abs(products), 1), _SUM_MOST)
        whole = elements.whole_number(products, factor[:, None]).to(tl.int64)
        by_weight = tl.sum(whole, 1).to(tl.float32) * unit

        products = gradient * old[:, None]
        factor, unit = elements.row_scale(tl.max(tl.abs(products), 0), _SUM_MOST)
        whole = elements.whole_number(products, factor[None, :]).to(tl.int64)
        slope = ((masks * (1.0 - masks)) * (learned * (1.0 - learned))) * sharpness
        by_mask = tl.where(whole_patch, 0.0, (tl.sum(whole, 0).to(tl.float32) * unit) * slope)
        # Both gradients take in what both updates overwrite, and threads may hold copies of it.
        tl.debug_barrier()
        update(weight, weight_first, weight_second, weight_place, there, old, by_weight, size, epsilon)
        update(mask, mask_first, mask_second, mask_place, column_inside, old_mask, by_mask, size, epsilon)
