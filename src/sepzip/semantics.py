"""The semantics enhancement block (SEB), which stands in front of a base network.

The context becomes overlapping patches of embedded bytes; a learned mask weighs them, with every
stride-th one kept whole; a linear map over the patch axis and a GELU fuse them into what the base
network takes. Source: SEP, 'semantics enhancement block' with 'adaptive stride'.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .exact.functions import sigmoid
from .exact.gelu import gelu
from .exact.initialise import Initialiser
from .exact.patches import fuse_patches
from .exact.tape import Node, Parameters, Tape
from .presets import ModelSettings

__all__ = ["SHARPNESS", "SemanticsEnhancement"]

_DEVIATION = 0.01
SHARPNESS = 10.0


class SemanticsEnhancement:
    """A front of [lanes, patch * embedding] values: one fused patch."""

    def __init__(self, settings: ModelSettings, parameters: Parameters, initialiser: Initialiser) -> None:
        device = parameters.device
        patches = settings.context - settings.patch + 1
        self.patch = settings.patch
        self.table = parameters.add(initialiser.normal((256, settings.embedding), _DEVIATION))
        weight = initialiser.normal((patches,), _DEVIATION)
        # The newest patch starts in full, where SEP starts it near 0 like the others: the base network
        # then learns from the first step on (docs/networks.md).
        weight[-1] += 1.0
        self.weight = parameters.add(weight)
        self.bias = parameters.add(initialiser.normal((1,), _DEVIATION))
        self.mask = parameters.add(torch.zeros(patches, device=device))
        # The newest patch is kept, and every stride-th one before it.
        age = torch.arange(patches - 1, -1, -1, device=device)
        self.kept = age % settings.stride == 0

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return [lanes, patch * embedding] from context, int64 [bytes, lanes]."""
        weight = self._masked_weight(tape)
        fused = fuse_patches(tape, self.table, context, weight, self.bias, self.patch)
        return gelu(tape, fused)

    def _masked_weight(self, tape: Tape) -> Node:
        """Return each patch's weight times its mask, [patches]."""
        learned = sigmoid(self.mask.data)
        mask = sigmoid(torch.where(self.kept, 1.0, learned).sub_(0.5).mul_(SHARPNESS))
        out = Node(self.weight.data * mask)

        def backward() -> None:
            gradient = out.take_gradient()
            self.weight.add_gradient(gradient * mask)
            slope = mask * (1.0 - mask) * (learned * (1.0 - learned)) * SHARPNESS
            self.mask.add_gradient(torch.where(self.kept, 0.0, gradient * self.weight.data * slope))

        tape.record(backward)
        return out
