"""Logits with something added, behind which a network learns by its own loss while that adds little."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .constants import constant
from .quantise import SUM_MOST
from .softmax import exponentials, loss_gradient
from .tape import Node, Tape

__all__ = ["KEPT", "NONE", "SMALLEST", "WHOLE", "OwnLoss"]

KEPT = 0.98
"""What a step keeps of the mean gain."""

WHOLE, NONE = 0.12, 0.2
"""The mean gains up to which the network learns by its own loss alone, and from which on by the joint one."""

SMALLEST = 2.0**-24
"""Added to the sum of two probabilities, which it keeps from zero."""


class OwnLoss:
    """The mean gain of what is added to a network's logits, `gain` float32 [1], and what follows from it.

    A byte's gain is (q - p) / (q + p + 2^-24), p being its probability by the network alone and q that with
    what is added: half the difference of their logarithms, where it is small. In a mean over the rows each is
    a whole multiple of 2^-20.
    """

    def __init__(self, device: torch.device) -> None:
        self.gain = torch.zeros(1, device=device)

    def add(self, tape: Tape, logits: Node, added: Node, true: Callable[[], Tensor]) -> Node:
        """Return logits + added, [rows, 256]; what is added learns by the loss of both.

        `true` returns the true bytes, int64 [rows], in the backward pass. There the network gets its own
        gradient times a share, and the joint one for the rest: all of its own where little is gained.
        """
        out = Node(logits.data + added.data)

        def backward() -> None:
            joint = out.take_gradient()
            symbols = true()
            own = loss_gradient(*exponentials(logits.data), symbols)
            place = symbols.unsqueeze(1)
            alone, together = own.gather(1, place).add_(1.0), joint.gather(1, place).add_(1.0)
            ratio = (together - alone) / (together + alone).add_(constant(SMALLEST))
            whole = ratio.mul_(constant(float(SUM_MOST))).round_().to(torch.int64).sum().to(torch.float32)
            mean = whole.mul_(constant(1.0 / (SUM_MOST * len(symbols))))
            self.gain.mul_(constant(KEPT)).add_(mean.mul_(constant(1.0 - KEPT)))
            share = (constant(NONE) - self.gain).mul_(constant(1.0 / (NONE - WHOLE))).clamp_(0.0, 1.0)
            logits.add_gradient(own.mul_(share).add_(joint * (1.0 - share)))
            added.add_gradient(joint)

        tape.record(backward)
        return out
