"""Linear layers: int8 forward, int16 gradients (docs/numerics.md, 'Products')."""

from __future__ import annotations

import torch

from .constants import constant
from .product import product_8x8, product_8x16, product_16x8, split_digits
from .quantise import INT8_MOST, INT16_MOST, exact_sum, quantise
from .tape import Node, Tape

__all__ = ["lane_linear", "linear"]


def linear(tape: Tape, x: Node, weight: Node, bias: Node) -> Node:
    """Return x @ weight + bias; x [lanes, inputs], weight [inputs, outputs], bias [outputs].

    Activations are quantised by lane, weights by output. Backward, the scales of the operand that is
    summed over are multiplied into the gradient first, so that the int8 numbers of the forward pass
    serve again.
    """
    whole_x, scale_x = quantise(x.data, 1, INT8_MOST)
    whole_weight, scale_weight = quantise(weight.data, 0, INT8_MOST)
    out = Node(product_8x8(whole_x, whole_weight).mul_(scale_x).mul_(scale_weight).add_(bias.data))

    def backward() -> None:
        gradient = out.take_gradient()
        bias.add_gradient(exact_sum(gradient, 0).squeeze(0))
        by_output, scale = quantise(gradient * scale_x, 0, INT16_MOST)
        weight.add_gradient(product_8x16(whole_x.t(), by_output).mul_(scale))
        by_lane, scale = quantise(gradient * scale_weight, 1, INT16_MOST)
        x.add_gradient(product_16x8(by_lane, whole_weight.t()).mul_(scale))

    tape.record(backward)
    return out


def lane_linear(tape: Tape, x: Node, weight: Node, bias: Node) -> Node:
    """Return each lane's x @ weight + bias; x [lanes, d], weight [lanes, d, d], bias [lanes, d].

    A lane's weight gradient is a single product per element, so it needs no sum and no quantising.
    """
    whole_x, scale_x = quantise(x.data, 1, INT8_MOST)
    whole_weight, scale_weight = quantise(weight.data, 1, INT8_MOST)
    sums = torch.bmm(whole_x.unsqueeze(1), whole_weight).squeeze(1)
    out = Node(sums.mul_(scale_x).mul_(scale_weight.squeeze(1)).add_(bias.data))

    def backward() -> None:
        gradient = out.take_gradient()
        bias.add_gradient(gradient)
        weight.add_gradient(x.data.unsqueeze(2) * gradient.unsqueeze(1))
        whole, scale = quantise(gradient * scale_weight.squeeze(1), 1, INT16_MOST)
        digits = torch.stack(split_digits(whole), 1)
        sums = torch.bmm(digits, whole_weight.transpose(1, 2))
        x.add_gradient((sums[:, 0] * constant(256.0)).add_(sums[:, 1]).mul_(scale))

    tape.record(backward)
    return out
