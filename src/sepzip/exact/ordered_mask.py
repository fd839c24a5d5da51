"""A mask that rises from the oldest position to the newest, however it is learned."""

from __future__ import annotations

import torch

from .quantise import SUM_MOST, exact_sum, quantise
from .softmax import exponentials
from .tape import Node, Tape

__all__ = ["ordered_mask"]


def ordered_mask(tape: Tape, x: Node, weight: Node) -> Node:
    """Return each position's values times the position's importance, of the shape of x.

    x [lanes, positions * size], the oldest position first; weight [positions], at most 4096 of them. The
    importance is the cumulative sum of softmax(weight): it never falls towards the newest position, whose own
    is 1. The exponentials are whole multiples of 2^-24, so that the sums are exact; backward, those over
    lanes and values are of whole multiples of the largest product / 2^20.
    """
    lanes, positions = x.data.shape[0], weight.data.shape[0]
    whole, total = exponentials(weight.data.view(1, positions))
    inverse = total.to(torch.float32).reciprocal_()
    share = whole.to(torch.float32).mul_(inverse).view(positions)
    importance = whole.cumsum(1).to(torch.float32).mul_(inverse).view(positions)
    by_position = x.data.view(lanes, positions, -1)
    out = Node((by_position * importance.unsqueeze(1)).view(x.data.shape))

    def backward() -> None:
        gradient = out.take_gradient().view(by_position.shape)
        products, scale = quantise(gradient * by_position, None, SUM_MOST)
        sums = products.to(torch.int64).sum((0, 2))
        # A weight raises the importance of its position and of the newer ones, and lowers all in proportion.
        newer = (sums.sum() - sums.cumsum(0) + sums).to(torch.float32)
        along = exact_sum(sums.to(torch.float32).mul_(importance), 0)
        weight.add_gradient((newer - along).mul_(share).mul_(scale))
        x.add_gradient((gradient * importance.unsqueeze(1)).view(x.data.shape))

    tape.record(backward)
    return out
