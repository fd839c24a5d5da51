"""A parameter, what all updates share, and the update of some of its elements: the twin of adam.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from .elements import adam

__all__ = ["Learner", "Parameter", "learn", "update"]


class Parameter(NamedTuple):
    """A weight and its moments, float32 of one shape, each a view that keeps its address."""

    weight: Tensor
    first: Tensor
    second: Tensor

    def after(self, rows: int) -> Parameter:
        """Return what comes after the first `rows` rows."""
        return Parameter(self.weight[rows:], self.first[rows:], self.second[rows:])


@dataclass(frozen=True)
class Learner:
    """What all updates of a step share: the step size, float32 [1] on the device, and Adam's epsilon."""

    size: Tensor
    epsilon: float


@triton.jit
def update(weight, first, second, place, inside, old, gradient, size, epsilon):
    """Move the elements of a parameter at `place`, of which `old` are the weights, by one update of Adam."""
    w, m, v = adam(
        old,
        tl.load(first + place, mask=inside, other=0.0),
        tl.load(second + place, mask=inside, other=0.0),
        gradient,
        tl.load(size),
        epsilon,
    )
    tl.store(weight + place, w, mask=inside)
    tl.store(first + place, m, mask=inside)
    tl.store(second + place, v, mask=inside)


@triton.jit
def learn(weight, first, second, place, inside, gradient, size, epsilon):
    """Move the elements of a parameter at `place`, whose weights are not at hand, by one update of Adam."""
    old = tl.load(weight + place, mask=inside, other=0.0)
    update(weight, first, second, place, inside, old, gradient, size, epsilon)
