"""What the kernels of networks share: a front, layers of all lanes, norms and digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ...exact.kernels.digits import Digits
from ...exact.kernels.parameters import Learner, Parameter
from ...exact.kernels.quantise import quantise_weight
from ...exact.kernels.weight_update import (
    WHOLE_COLUMNS,
    summed_update,
    weight_parts,
    weight_sums,
    weight_update,
)
from ...exact.tape import ParameterNode
from ...exact.workspace import Workspace

__all__ = [
    "FusedFront",
    "Norm",
    "Parameters",
    "Shared",
    "new_digits",
    "new_row_digits",
]


class FusedFront(Protocol):
    """What stands before the network, as kernels."""

    def forward(self) -> Tensor:
        """Return the network's input, float32 [lanes, width], for the context of this step."""

    def backward(self, gradient: Tensor) -> None:
        """Learn from the gradient by what `forward` returned."""


class Shared:
    """A weight [inputs, outputs] of all lanes, as float32 and, in both layouts, as int8."""

    def __init__(self, weight: Parameter, bias: Parameter, workspace: Workspace | None = None) -> None:
        """Take a weight and its bias; where there are many rows, updates need a workspace."""
        self.weight = weight
        self.bias = bias
        self._workspace = workspace
        device = weight.weight.device
        inputs, outputs = weight.weight.shape
        self.by_input = torch.empty((inputs, outputs), dtype=torch.int8, device=device)
        self.by_output = torch.empty((outputs, inputs), dtype=torch.int8, device=device)
        self.scale = torch.empty(outputs, device=device)
        largest = weight.weight.abs().amax(0)
        self.largest = largest.view(torch.int32)
        quantise_weight(weight.weight, self.largest, self.by_input, self.by_output, self.scale)

    def update(
        self, x: Tensor, digits: Digits, learner: Learner, other: tuple[Tensor, Digits] | None = None
    ) -> None:
        """Learn from the layer's int8 input [inputs, lanes] and the gradient by its result.

        Where the layer is used twice in a step, `other` is both of the other use.
        """
        inputs, outputs = self.by_input.shape
        parts = weight_parts(inputs, outputs, x.shape[1])
        if self._workspace is not None and other is None and parts > 1:
            # Too few programs would have too many rows to sum each.
            shape = (parts, inputs, outputs)
            high = self._workspace.take("weight sums", shape, torch.int32)
            low = self._workspace.take("low weight sums", shape, torch.int32)
            weight_sums(x, digits, high, low)
            summed_update(
                high,
                low,
                digits.scale,
                self.weight,
                learner,
                self.by_input,
                self.by_output,
                self.scale,
            )
            return
        weight_update(
            x, digits, self.weight, learner, self.by_input, self.by_output, self.scale, self.largest, other
        )
        if inputs > WHOLE_COLUMNS:
            quantise_weight(self.weight.weight, self.largest, self.by_input, self.by_output, self.scale)


@dataclass(frozen=True)
class Norm:
    """The gain and offset of a layer norm."""

    gain: Parameter
    offset: Parameter


class Parameters(Protocol):
    """Where the network's parameters are found with their moments."""

    def __call__(self, node: ParameterNode) -> Parameter:
        """Return the parameter as views that keep their addresses."""


def new_digits(workspace: Workspace, name: str, lanes: int, outputs: int) -> Digits:
    """Return room for a gradient [lanes, outputs] as digits."""
    shape = (outputs, lanes)
    return Digits(
        workspace.take(f"{name}.high", shape, torch.int8),
        workspace.take(f"{name}.low", shape, torch.int8),
        workspace.take(f"{name}.scale", (outputs,)),
    )


def new_row_digits(workspace: Workspace, name: str, rows: int, outputs: int) -> tuple[Tensor, Tensor]:
    """Return room for a gradient [rows, outputs] as the digits, high and low, of rows."""
    shape = (rows, outputs)
    high = workspace.take(f"{name}.row_high", shape, torch.int8)
    return high, workspace.take(f"{name}.row_low", shape, torch.int8)
