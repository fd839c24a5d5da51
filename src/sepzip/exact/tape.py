"""Reverse-mode differentiation in a defined order.

A framework's own automatic differentiation may add the gradients of a value that is used three times
in any order, and float addition is not associative. Here they are added in the reverse of the order
in which the operations were recorded, always.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..semantics import Semantics

__all__ = ["Node", "ParameterNode", "Parameters", "Tape"]


class Node:
    """A float32 tensor with the gradient of the loss by it, None until something adds to it."""

    __slots__ = ("data", "grad")

    def __init__(self, data: Tensor, grad: Tensor | None = None) -> None:
        self.data = data
        self.grad = grad

    def add_gradient(self, gradient: Tensor) -> None:
        """Add `gradient`, of the shape of `data`; the first one is kept without a copy."""
        self.grad = gradient if self.grad is None else self.grad + gradient

    def take_gradient(self) -> Tensor:
        """Return the gradient and forget it, so that its memory can be reused."""
        gradient = self.grad
        if gradient is None:
            raise RuntimeError("an operation's output was never used: its gradient is missing")
        self.grad = None
        return gradient


class Tape:
    """The operations of one step, to be undone in reverse."""

    def __init__(self) -> None:
        self._backward: list[Callable[[], None]] = []

    def record(self, backward: Callable[[], None]) -> None:
        """Remember how an operation turns its output's gradient into its inputs' gradients."""
        self._backward.append(backward)

    def run_backward(self) -> None:
        """Run what was recorded, the newest first, and forget it."""
        while self._backward:
            self._backward.pop()()


class Parameters:
    """All weights of a model as views into one flat float32 buffer, and their gradients likewise.

    One buffer lets the optimizer treat every weight in one pass. Each parameter begins at a multiple of
    ALIGNMENT numbers, so that kernels can read it in wide words; what lies between is zero and stays so.
    `tables` hold what is learnt by rules of their own, a few places in a step; `semantics` is the SEB, where
    there is one.
    """

    ALIGNMENT = 64

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.nodes: list[ParameterNode] = []
        self.data = torch.empty(0)
        self.grad = torch.empty(0)
        self.tables: list[torch.Tensor] = []
        self.semantics: Semantics | None = None

    def add(self, initial: Tensor) -> ParameterNode:
        """Return a parameter that starts as `initial`; usable once `seal` has been called."""
        node = ParameterNode(initial)
        self.nodes.append(node)
        return node

    def seal(self) -> None:
        """Lay all parameters out in the flat buffer; none can be added afterwards."""
        total = 0
        for node in self.nodes:
            node.offset = total
            total += -(-node.data.numel() // self.ALIGNMENT) * self.ALIGNMENT
        self.data = torch.zeros(total, dtype=torch.float32, device=self.device)
        for node in self.nodes:
            initial = node.data
            node.data = node.part_of(self.data)
            node.data.copy_(initial)
            # Whoever needs gradients asks for room; as large as all weights, nothing else may stay.
            node.gradient_view = torch.empty(0)

    def make_gradients(self) -> None:
        """Make room for the gradients: needed wherever they are not used up as they arise."""
        self.grad = torch.zeros_like(self.data)
        for node in self.nodes:
            node.gradient_view = node.part_of(self.grad)

    def begin_step(self) -> None:
        """Mark every gradient as not yet written in this step."""
        for node in self.nodes:
            node.written = False

    def end_step(self) -> None:
        """Check that every parameter got a gradient: a stale one would be learnt from again."""
        if not all(node.written for node in self.nodes):
            raise RuntimeError("a parameter got no gradient in this step")


class ParameterNode(Node):
    """A parameter; its gradient is written into the flat buffer."""

    __slots__ = ("gradient_view", "offset", "written")

    def __init__(self, initial: Tensor) -> None:
        super().__init__(initial)
        self.gradient_view = initial
        self.offset = 0
        self.written = False

    def part_of(self, flat: Tensor) -> Tensor:
        """Return the parameter's part of a buffer that is laid out like all parameters."""
        return flat[self.offset : self.offset + self.data.numel()].view(self.data.shape)

    def add_gradient(self, gradient: Tensor) -> None:
        """Write the step's first gradient over the last step's, add any further one."""
        if self.written:
            self.gradient_view.add_(gradient)
        else:
            self.gradient_view.copy_(gradient)
            self.written = True
