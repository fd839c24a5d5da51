"""Overlapping patches of embedded bytes, and their weighted sum over the patch axis."""

from __future__ import annotations

import torch
from torch import Tensor

from .embedding import sum_by_symbol
from .functions import sigmoid
from .product import product_16x16
from .quantise import INT16_MOST, quantise
from .tape import Node, Tape

__all__ = ["fuse_into_tokens", "fuse_patches"]

_UNIT = float(1 << 15)


def fuse_patches(tape: Tape, table: Node, context: Tensor, weight: Node, bias: Node, patch: int) -> Node:
    """Return the sum over all patches of weight times patch, plus bias, of bytes looked up in sigmoid(table).

    table [256, size]; context int64 [bytes, lanes]; weight [patches] with patches = bytes - patch + 1,
    bias [1]; patch number i covering the bytes i to i + patch - 1; the result is [lanes, patch * size].
    No patch is ever laid out: the sum over patches is one product with a banded matrix [patch, bytes]
    that holds weight[i] at (j, i + j).
    """
    size = table.data.shape[1]
    length, lanes = context.shape
    patches = length - patch + 1
    squashed = sigmoid(table.data)
    whole_table = (squashed * _UNIT).round_()
    whole_weight, weight_scale = quantise(weight.data, None, INT16_MOST)
    positions = _band(patch, patches, context.device)
    band = torch.zeros(patch * length, dtype=torch.float32, device=context.device)
    band.index_copy_(0, positions.view(-1), whole_weight.repeat(patch))
    band = band.view(patch, length)
    symbols = context.reshape(-1)
    embedded = whole_table.index_select(0, symbols).view(length, lanes * size)
    fused = product_16x16(band, embedded).to(torch.float32).mul_(weight_scale * (1.0 / _UNIT))
    fused.add_(bias.data)
    out = Node(fused.view(patch, lanes, size).transpose(0, 1).reshape(lanes, patch * size))

    def backward() -> None:
        gradient = out.take_gradient().view(lanes, patch, size).transpose(0, 1)
        whole, scale = quantise(gradient.reshape(patch, lanes * size), None, INT16_MOST)
        bias.add_gradient(whole.to(torch.int64).sum().to(torch.float32).mul(scale).view(1))
        by_band = product_16x16(whole, embedded.t()).reshape(-1)
        sums = by_band.index_select(0, positions.view(-1)).view(patch, patches).sum(0)
        weight.add_gradient(sums.to(torch.float32).mul_(scale * (1.0 / _UNIT)))
        by_byte = product_16x16(band.t(), whole)
        sums_by_symbol = sum_by_symbol(by_byte.view(length * lanes, size), symbols)
        table.add_gradient(sums_by_symbol.mul_(scale * weight_scale).mul_(squashed).mul_(1.0 - squashed))

    tape.record(backward)
    return out


def fuse_into_tokens(tape: Tape, x: Node, weight: Node, bias: Node, patch: int) -> Node:
    """Return sums over all patches, as many as tokens: each of weight times patch, value by value, plus bias.

    x [lanes, bytes * size]; weight [patches, tokens, patch * size] with patches = bytes - patch + 1, bias
    [tokens]; patch number i covering the bytes i to i + patch - 1; the result is [lanes * tokens, patch *
    size], each lane's first token first. Nor is a patch laid out here: for each of a byte's values the sums
    are one product with a banded matrix [bytes, tokens * patch].
    """
    patches, tokens, values = weight.data.shape
    size = values // patch
    lanes, length = x.data.shape[0], patches + patch - 1
    whole_x, scale_x = quantise(x.data, None, INT16_MOST)
    by_value = whole_x.view(lanes, length, size).permute(2, 0, 1)
    whole_weight, scale_weight = quantise(weight.data, None, INT16_MOST)
    positions = _token_bands(patches, tokens, patch, size, x.data.device)
    flat = torch.zeros(size * length * tokens * patch, dtype=torch.float32, device=x.data.device)
    flat.index_copy_(0, positions, whole_weight.view(-1))
    bands = flat.view(size, length, tokens * patch)
    sums = product_16x16(by_value, bands).to(torch.float32).mul_(scale_x * scale_weight)
    fused = sums.permute(1, 2, 0).reshape(lanes, tokens, values).add_(bias.data.unsqueeze(1))
    out = Node(fused.view(lanes * tokens, values))

    def backward() -> None:
        whole, scale = quantise(out.take_gradient(), None, INT16_MOST)
        sums = whole.view(lanes, tokens, values).to(torch.int64).sum((0, 2))
        bias.add_gradient(sums.to(torch.float32).mul_(scale))
        whole = whole.view(lanes, tokens * patch, size).permute(2, 0, 1)
        by_bands = product_16x16(by_value.transpose(1, 2), whole).view(-1).index_select(0, positions)
        weight.add_gradient(by_bands.to(torch.float32).mul_(scale * scale_x).view(weight.data.shape))
        by_x = product_16x16(whole, bands.transpose(1, 2)).to(torch.float32).mul_(scale * scale_weight)
        x.add_gradient(by_x.permute(1, 2, 0).reshape(lanes, length * size))

    tape.record(backward)
    return out


def _token_bands(patches: int, tokens: int, patch: int, size: int, device: torch.device) -> Tensor:
    """Return the flat positions of weight[i, t, (j, e)] in the matrices: [e, i + j, t, j]."""
    i = torch.arange(patches, device=device).view(-1, 1, 1, 1)
    t = torch.arange(tokens, device=device).view(-1, 1, 1)
    j = torch.arange(patch, device=device).view(-1, 1)
    e = torch.arange(size, device=device)
    return (((e * (patches + patch - 1) + i + j) * tokens + t) * patch + j).view(-1)


def _band(patch: int, patches: int, device: torch.device) -> Tensor:
    """Return the flat positions [patch, patches] of weight[i] in the banded matrix."""
    rows = torch.arange(patch, device=device).unsqueeze(1)
    return rows * (patch + patches - 1) + rows + torch.arange(patches, device=device)
