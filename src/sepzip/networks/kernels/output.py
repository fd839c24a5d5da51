"""The last layer of a network, which makes the logits."""

from __future__ import annotations

import torch
from torch import Tensor

from ...exact.kernels.digits import gradient_digits, row_digits
from ...exact.kernels.linear import linear_forward, transpose
from ...exact.kernels.parameters import Learner
from ...exact.workspace import Workspace
from .shared import Shared, new_digits, new_row_digits

__all__ = ["OutputLayer"]


class OutputLayer:
    """A layer of one row for each lane: its weight, its int8 input, the logits and the gradient by them."""

    def __init__(
        self, weight: Shared, lanes: int, largest: Tensor, transposed: Tensor, workspace: Workspace
    ) -> None:
        """Make room for it, but for two tensors that others may use as well.

        `largest`, int32 [lanes], is for the bits of the lanes' largest gradients, `transposed`, int8 [inputs,
        lanes], for the input as the update takes it.
        """
        inputs, outputs = weight.by_input.shape
        self.weight, self.largest, self._transposed = weight, largest, transposed
        self.whole = workspace.take("out_whole", (lanes, inputs), torch.int8)
        """The input, with `scale`, float32 [lanes]: to be written before `forward`."""
        self.scale = workspace.take("out_scale", (lanes,))
        self._logits = workspace.take("logits", (lanes, outputs))
        self.by_logits = workspace.take("by_logits", (lanes, outputs))
        """The gradient by the logits: to be written before `quantise_gradient`."""
        self.row_digits = new_row_digits(workspace, "out", lanes, outputs)
        """The digits, high and low, that `quantise_gradient` makes; their scales come from `largest`."""
        self._digits = new_digits(workspace, "out_digits", lanes, outputs)

    def forward(self) -> Tensor:
        """Return logits, float32 [lanes, outputs]; valid until the next step."""
        weight = self.weight
        linear_forward(
            self.whole, weight.by_output, self.scale, weight.scale, weight.bias.weight, self._logits
        )
        return self._logits

    def quantise_gradient(self) -> None:
        """Make of the gradient by the logits what the gradient by the input is made of."""
        row_digits(self.by_logits, self.weight.scale, *self.row_digits, self.largest)

    def update(self, learner: Learner) -> None:
        """Learn the weight and the bias from the gradient by the logits."""
        gradient_digits(self.by_logits, self.scale, self._digits, self.weight.bias, learner)
        transpose(self.whole, self._transposed)
        self.weight.update(self._transposed, self._digits, learner)
