"""The update of Adam (Kingma and Ba, 2015), in operations that every device rounds alike."""

from __future__ import annotations

from torch import Tensor

from .constants import constant
from .functions import reciprocal_sqrt_guess

__all__ = ["BETA1", "BETA2", "adam"]

BETA1 = 0.9
BETA2 = 0.999


def adam(
    weight: Tensor,
    first: Tensor,
    second: Tensor,
    gradient: Tensor,
    size: Tensor,
    epsilon: float,
    beta1: float = BETA1,
    beta2: float = BETA2,
) -> None:
    """Move `weight` by one update, in place, and the moments with it; all float32 of one shape.

    The moments are kept without their factors (1 - beta), which the step size `size`, one number, takes in
    instead; `epsilon` is added to the second moment so kept.
    """
    first.mul_(constant(beta1)).add_(gradient)
    second.mul_(constant(beta2)).add_(gradient * gradient)
    # One Newton step: the length of an update is right to 0.2 %, which learning does not notice.
    variance = second + constant(epsilon)
    inverse = reciprocal_sqrt_guess(variance)
    variance.mul_(constant(-0.5)).mul_(inverse).mul_(inverse).add_(constant(1.5))
    inverse.mul_(variance).mul_(first)
    weight.sub_(inverse.mul_(size))
