"""Softmax in whole numbers: what frequencies are made of, and the gradient of the log-loss."""

from __future__ import annotations

import torch
from torch import Tensor

from .constants import constant
from .functions import LOG2_E, exp2

__all__ = ["EXPONENTIAL_BITS", "exponentials", "loss_gradient"]

EXPONENTIAL_BITS = 24


def exponentials(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return exp(logit - largest logit of the lane) in units of 2^-24 as int64, and their sums.

    logits [lanes, 256]; the results are [lanes, 256], each at most 2^24, and [lanes, 1].
    """
    shifted = (logits - logits.amax(1, keepdim=True)).mul_(constant(LOG2_E))
    whole = exp2(shifted).mul_(constant(float(1 << EXPONENTIAL_BITS))).to(torch.int64)
    return whole, whole.sum(1, keepdim=True)


def loss_gradient(whole: Tensor, total: Tensor, symbols: Tensor) -> Tensor:
    """Return the gradient of the lanes' summed log-loss (nats) by the logits, [lanes, 256].

    `whole` and `total` are from `exponentials`, `symbols` int64 [lanes] are the true bytes. Each lane
    counts whole, whatever the number of lanes.
    """
    probability = whole.to(torch.float32).mul_(total.to(torch.float32).reciprocal_())
    true = symbols.unsqueeze(1)
    return probability.scatter_(1, true, probability.gather(1, true).sub_(1.0))
