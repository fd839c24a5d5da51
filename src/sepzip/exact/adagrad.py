"""Weights that learn by Adagrad (Duchi et al., 2011): fast at first, then ever more slowly."""

from __future__ import annotations

import torch
from torch import Tensor

from .constants import constant
from .functions import reciprocal_sqrt
from .tape import Node, Tape

__all__ = ["EPSILON", "Slowing"]

EPSILON = 1e-6
"""Added to the sum of squares, which it keeps a normal number."""


class Slowing:
    """A weight, `node`, of any shape, with the sum of the squares of its gradients, `squares`.

    An update subtracts gradient * rate / sqrt(sum of squares + 10^-6). It is none of the optimizer's.
    """

    def __init__(self, initial: Tensor, rate: float) -> None:
        self.node = Node(initial)
        self.squares = torch.zeros_like(initial)
        self.rate = rate

    def on(self, tape: Tape) -> Node:
        """Return the weight for one use; the backward pass moves it when that use is undone."""

        def backward() -> None:
            gradient = self.node.take_gradient()
            self.squares.add_(gradient * gradient)
            factor = reciprocal_sqrt(self.squares + constant(EPSILON)).mul_(constant(self.rate))
            self.node.data.sub_(gradient.mul(factor))

        tape.record(backward)
        return self.node
