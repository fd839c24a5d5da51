"""Rows that pass learned gates."""

from __future__ import annotations

import torch
from torch import Tensor

from .quantise import exact_sum, quantise
from .rows import GRADIENT_MOST
from .tape import Node, Tape

__all__ = ["gated"]


def gated(tape: Tape, rows: Node, which: Tensor, gates: Node) -> Node:
    """Return each row times its gate; rows [n, size], which int64 [n], gates [count].

    The rows get the gradient as if their gates were 1: those behind a closed gate go on learning.
    """
    wide = gates.data.index_select(0, which).unsqueeze(1)
    out = Node(rows.data * wide)

    def backward() -> None:
        gradient = out.take_gradient()
        rows.add_gradient(gradient)
        by_row = exact_sum(gradient * rows.data, 1).view(-1)
        whole, scale = quantise(by_row, None, GRADIENT_MOST)
        sums = torch.zeros(gates.data.shape, dtype=torch.int64, device=which.device)
        sums.index_add_(0, which, whole.to(torch.int64))
        gates.add_gradient(sums.to(torch.float32).mul_(scale))

    tape.record(backward)
    return out
