"""A parameter and what all updates of a step share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

__all__ = ["Learner", "Parameter"]


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
