"""Rows of a large table, of which a step reads and moves only a few."""

from __future__ import annotations

import torch
from torch import Tensor

from .constants import constant
from .functions import reciprocal_sqrt
from .quantise import exact_sum, quantise
from .tape import Node, Tape

__all__ = ["EPSILON", "EXPERIENCES", "GRADIENT_MOST", "LEAST_EXPONENT", "Rows"]

EXPERIENCES = 32
"""Classes of rows by how much they have learned."""

GRADIENT_MOST = 1 << 20
"""The largest gradient of a step as a whole number."""

EPSILON = 1e-6
"""Added to the mean of squares, which it keeps a normal number."""

LEAST_EXPONENT = 107
"""Of a sum of squares of 2^-20, as it stands in the bits: below that a row counts as new."""


class Rows:
    """A table, float32 [count, size], that starts as zeros and learns by Adagrad (Duchi et al., 2011).

    Each row has one sum of squares, `squares` float32 [count, 1]: of each update's mean over its values. What
    a step costs depends on the rows that it looks up, not on their count. No shape depends on what the table
    holds, so that a step can be captured.
    """

    def __init__(self, count: int, size: int, rate: float, device: torch.device) -> None:
        self.data = torch.zeros((count, size), device=device)
        self.squares = torch.zeros((count, 1), device=device)
        self.sums = torch.zeros((count, size), dtype=torch.int64, device=device)
        self.rate = rate
        self._share = constant(1.0 / size)

    def experience(self, slots: Tensor) -> Tensor:
        """Return the classes of these rows, int64 [n] below EXPERIENCES, from slots int64 [n].

        They are the powers of two that the sums of squares have reached.
        """
        exponent = self.squares.index_select(0, slots).view(-1).view(torch.int32) >> 23
        return exponent.sub_(LEAST_EXPONENT).clamp_(0, EXPERIENCES - 1).to(torch.int64)

    def look_up(self, tape: Tape, slots: Tensor) -> Node:
        """Return the rows [n, size] of these slots, int64 [n]; the backward pass moves them at once.

        The gradients of equal slots are summed as whole numbers, multiples of the largest of all over 2^20,
        and make one update of their row.
        """
        out = Node(self.data.index_select(0, slots))

        def backward() -> None:
            whole, scale = quantise(out.take_gradient(), None, GRADIENT_MOST)
            whole_sums = whole.to(torch.int64)
            self.sums.index_add_(0, slots, whole_sums)
            gradient = self.sums.index_select(0, slots).to(torch.float32).mul_(scale)
            self.sums.index_copy_(0, slots, whole_sums.zero_())
            mean = exact_sum(gradient * gradient, 1).mul_(self._share)
            squares = self.squares.index_select(0, slots).add_(mean)
            factor = reciprocal_sqrt(squares + constant(EPSILON)).mul_(constant(self.rate))
            moved = self.data.index_select(0, slots).sub_(gradient.mul_(factor))
            # Equal slots write equal bits, in whatever order.
            self.squares.index_copy_(0, slots, squares)
            self.data.index_copy_(0, slots, moved)

        tape.record(backward)
        return out
