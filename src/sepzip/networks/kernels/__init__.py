"""Networks as fused kernels, one a file, equal in every bit to their plain twins in `networks/`."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from .shared import FusedFront

__all__ = ["FusedNetwork"]


class FusedNetwork(Protocol):
    """What the function `fuse` of a network's kernels makes: its forward and backward pass.

    Both launch kernels only; every tensor keeps its address from step to step.
    """

    front: FusedFront
    """What makes the network's input, as the module's function `fuse_front` makes it of the plain network's.

    One with other patches can stand in its place from the next step on.
    """

    by_logits: Tensor
    """Where `backward` wants the gradient by the logits, float32 [lanes, 256]."""

    def forward(self) -> Tensor:
        """Return logits, float32 [lanes, 256], of the next byte; called once a step, in order."""

    def backward(self) -> None:
        """Learn from the gradient in `by_logits`: every weight is updated, if only in the next step."""

    def settle(self) -> None:
        """Let what is launched next wait for all updates; due before a capture ends."""
