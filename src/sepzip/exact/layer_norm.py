"""Layer normalisation whose sums are of whole numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from .constants import constant
from .functions import reciprocal_sqrt
from .quantise import quantise
from .tape import Node, Tape

__all__ = ["EPSILON", "GRADIENT_MOST", "NORMAL_MOST", "layer_norm", "statistics_most"]

EPSILON = 1e-5
GRADIENT_MOST = 1 << 20
NORMAL_MOST = 1 << 16

_FLOAT64_ROWS = 1 << 16
"""The most rows for which float64 sums of gradients times normalised values are exact."""


def layer_norm(tape: Tape, x: Node, gain: Node | None = None, offset: Node | None = None) -> Node:
    """Return (x - mean) / sqrt(variance + 1e-5) of each lane, times gain plus offset where given.

    x is [lanes, width], or has a row for every token of a lane; gain and offset are [width]. Each row is
    first rounded to whole multiples of its largest element over 2^18 (fewer bits for widths above 256), so
    that mean and variance are exact.
    """
    width = x.data.shape[1]
    most = statistics_most(width)
    whole, scale = quantise(x.data, 1, most)
    wide = whole.to(torch.float64)
    total = wide.sum(1, keepdim=True)
    # Whole numbers below 2^53: the float64 arithmetic up to the last conversion is exact.
    spread = (wide * wide).sum(1, keepdim=True).mul_(width).sub_(total * total).to(torch.float32)
    mean = total.to(torch.float32).mul_(constant(1.0 / width))
    # All in units of the scale; an all-zero lane has scale near 0, and epsilon then dominates.
    inverse_scale = scale.clamp(min=2.0**-50).reciprocal()
    variance = spread.mul_(constant(1.0 / (width * width))).add_(
        (inverse_scale * inverse_scale).mul_(constant(EPSILON))
    )
    inverse_deviation = reciprocal_sqrt(variance)
    normal = (whole - mean).mul_(inverse_deviation)
    # d normal / d x, with the quantisation seen through.
    slope = inverse_deviation * inverse_scale
    out = Node(normal)
    if gain is not None and offset is not None:
        out = Node((normal * gain.data).add_(offset.data))

    def backward() -> None:
        gradient = out.take_gradient()
        # Multiples of 2^-11: with gradients of 20 bits and widths below 2^16 every sum stays below 2^53.
        whole_normal = (
            (normal * constant(2.0**11)).round_().clamp_(-NORMAL_MOST, NORMAL_MOST).to(torch.float64)
        )
        if gain is not None and offset is not None:
            columns, scale = quantise(gradient, 0, GRADIENT_MOST)
            wide = columns.to(torch.float64)
            offset.add_gradient(_scaled(wide.sum(0), scale.squeeze(0)))
            products = wide.mul_(whole_normal)
            if len(products) > _FLOAT64_ROWS:
                products = products.to(torch.int64)
            gain.add_gradient(_scaled(products.sum(0), scale.squeeze(0)).mul_(constant(2.0**-11)))
            gradient = gradient * gain.data
        rows, scale = quantise(gradient, 1, GRADIENT_MOST)
        wide = rows.to(torch.float64)
        mean = _scaled(wide.sum(1, keepdim=True), scale).mul_(constant(1.0 / width))
        along = _scaled(wide.mul_(whole_normal).sum(1, keepdim=True), scale).mul_(constant(2.0**-11 / width))
        x.add_gradient((gradient - mean).sub_(normal * along).mul_(slope))

    tape.record(backward)
    return out


def _scaled(sums: Tensor, scale: Tensor) -> Tensor:
    return sums.to(torch.float32).mul_(scale)


def statistics_most(width: int) -> int:
    """Return the largest whole number for which width^2 * whole^2 stays below 2^53, at most 2^18."""
    return 1 << min(18, 26 - (width - 1).bit_length())
