"""Adam over all weights at once, in operations that every device rounds alike."""

from __future__ import annotations

import math
from array import array

import torch

from .exact.adam import adam
from .exact.tape import Parameters
from .presets import ModelSettings

__all__ = ["Adam"]

_EPSILON = 1e-8


class Adam:
    """The optimizer of Kingma and Ba (2015) with bias correction.

    Gradients are summed over lanes where the reference takes their mean; Adam does not see the
    difference but in epsilon, which is scaled by the number of lanes for that. The moments are kept
    without their factors (1 - beta), which the step size takes in instead.
    """

    def __init__(self, parameters: Parameters, settings: ModelSettings, lanes: int) -> None:
        self._parameters = parameters
        self.first = torch.zeros_like(parameters.data)
        self.second = torch.zeros_like(parameters.data)
        self._beta1, self._beta2 = _betas(settings)
        epsilon = _EPSILON * lanes
        self.epsilon = epsilon * epsilon / (1.0 - self._beta2)
        sizes = _step_sizes(settings)
        self.step_sizes = torch.tensor(sizes, dtype=torch.float32, device=parameters.device)
        self._last_step = len(sizes) - 1

    def update(self, step: torch.Tensor) -> None:
        """Move every weight by its gradient; `step` int64 [1] counts the updates made before."""
        gradient, first, second = self._parameters.grad, self.first, self.second
        size = self.step_size(step)
        adam(self._parameters.data, first, second, gradient, size, self.epsilon, self._beta1, self._beta2)

    def step_size(self, step: torch.Tensor) -> torch.Tensor:
        """Return the step size, float32 [1], of the update after `step` others."""
        return self.step_sizes.index_select(0, step.clamp(max=self._last_step))


def _betas(settings: ModelSettings) -> tuple[float, float]:
    """Return how much of the first and of the second moment a step keeps."""
    return settings.beta1 / 1e6, settings.beta2 / 1e6


def _step_sizes(settings: ModelSettings) -> list[float]:
    """Return the factor of each step on first / sqrt(second), until it no longer changes as float32.

    Only correctly rounded float64 operations: the powers are running products.
    """
    sizes = array("f")
    beta1, beta2 = _betas(settings)
    decay1 = decay2 = gap = 1.0
    first, last = settings.learning_rate * 1e-6, settings.learning_rate_last * 1e-6
    shrink = 1.0 - 1.0 / settings.learning_rate_steps
    while max(decay1, decay2, gap) > 2.0**-26:
        decay1 *= beta1
        decay2 *= beta2
        rate = last + (first - last) * gap
        gap *= shrink
        correction = math.sqrt(1.0 - decay2) / (1.0 - decay1)
        sizes.append(rate * (1.0 - beta1) / math.sqrt(1.0 - beta2) * correction)
    return list(sizes)
