"""exp2, reciprocal square root, sigmoid and tanh, built from operations that every device rounds alike."""

from __future__ import annotations

import torch
from torch import Tensor

from .constants import constant

__all__ = ["EXP2", "LOG2_E", "exp2", "reciprocal_sqrt", "reciprocal_sqrt_guess", "sigmoid", "tanh"]

LOG2_E = 1.4426950408889634

# Minimax fit of 2^f on [0, 1] with the ends exact, so that exp2 is continuous; relative error 3.4e-6.
EXP2 = (0.6930321174189655, 0.2413797721529717, 0.05203236617165998, 0.013555744256402734)


def exp2(x: Tensor) -> Tensor:
    """Return 2 to the power x, float32, of x clamped to [-126, 126]; relative error below 4e-6."""
    x = x.clamp(-126.0, 126.0)
    whole = x.floor()
    fraction = x.sub_(whole)
    result = fraction * constant(EXP2[3])
    for coefficient in EXP2[2::-1]:
        result.add_(constant(coefficient)).mul_(fraction)
    result.add_(constant(1.0))
    power = whole.to(torch.int32).add_(127).mul_(1 << 23).view(torch.float32)
    return result.mul_(power)


def reciprocal_sqrt(x: Tensor) -> Tensor:
    """Return 1/sqrt(x), float32, of x > 0 and normal; relative error below 5e-6.

    The guess and two Newton steps.
    """
    guess = reciprocal_sqrt_guess(x)
    half = x * constant(-0.5)
    for _ in range(2):
        guess.mul_((guess * guess).mul_(half).add_(constant(1.5)))
    return guess


def reciprocal_sqrt_guess(x: Tensor) -> Tensor:
    """Return 1/sqrt(x) to within 4 %, from the bit pattern of x; where a Newton step begins."""
    return (x.view(torch.int32) >> 1).neg_().add_(0x5F375A86).view(torch.float32)


def sigmoid(x: Tensor) -> Tensor:
    """Return 1/(1 + exp(-x)), float32."""
    return exp2(x * constant(-LOG2_E)).add_(constant(1.0)).reciprocal_()


def tanh(x: Tensor) -> Tensor:
    """Return 2 sigmoid(2 x) - 1, which is tanh(x), float32; absolute error below 1e-5."""
    return sigmoid(x * constant(2.0)).mul_(constant(2.0)).sub_(constant(1.0))
