"""N-grams beside a network as fused kernels: the twin of ngrams.py.

They stand beside the network in branches of a step's graph: what they look up is there before the logits
are, and their updates run beside the network's backward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...exact.kernels.aside import Aside
from ...exact.kernels.digits import gradient_digits, row_digits
from ...exact.kernels.linear import linear_forward, transpose
from ...exact.kernels.linear_backward import input_gradient
from ...exact.kernels.own_loss import FusedOwnLoss
from ...exact.kernels.parameters import Learner
from ...exact.kernels.quantise import quantise_weight
from ...exact.kernels.rows import FusedRows
from ...exact.kernels.slowing import slowing_update
from ...exact.workspace import Workspace
from ...ngrams import NGrams
from .shared import Parameters, new_digits, new_row_digits

__all__ = ["FusedNGrams"]


class FusedNGrams:
    """The n-grams of a plain network, which learn in place."""

    def __init__(
        self,
        plain: NGrams,
        by_network: Tensor,
        state: Parameters,
        learner: Learner,
        history: Tensor,
        position: Tensor,
        context: int,
        workspace: Workspace,
    ) -> None:
        """Take the plain n-grams, and where the network wants the gradient by its logits.

        A step's true bytes are row context + position[0] of `history`, uint8 [rows, lanes], and the `context`
        rows before it what was seen; `position` is int64 [1].
        """
        self._learner = learner
        self._history, self._position, self._context = history, position, context
        self._by_network = by_network
        lanes = history.shape[1]
        seen = history[context - plain.contexts.depth :]
        self._rows = FusedRows(plain.contexts, plain.rows, plain.gates, seen, position, workspace)
        self._weight, self._bias = plain.weight, state(plain.bias)
        inputs, outputs = plain.weight.node.data.shape
        device = workspace.device
        self._by_input = torch.empty((inputs, outputs), dtype=torch.int8, device=device)
        self._by_output = torch.empty((outputs, inputs), dtype=torch.int8, device=device)
        self._weight_scale = torch.empty(outputs, device=device)
        weight = plain.weight.node.data
        largest = weight.abs().amax(0).view(torch.int32)
        quantise_weight(weight, largest, self._by_input, self._by_output, self._weight_scale)

        def take(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return workspace.take(f"ngrams.{name}", shape, dtype)

        self._own_loss: FusedOwnLoss | None = None
        self.by_logits = by_network
        """Where the gradient by the sum is to be written before `backward`."""
        if plain.own_loss is not None:
            self._own_loss = FusedOwnLoss(plain.own_loss, lanes, workspace)
            self.by_logits = take("by_logits", lanes, outputs)
        self._added = take("added", lanes, outputs)
        self._largest = take("largest", lanes, dtype=torch.int32)
        self._row_digits = new_row_digits(workspace, "ngrams", lanes, outputs)
        self._by_rows = take("by_rows", lanes, inputs)
        self._digits = new_digits(workspace, "ngrams", lanes, outputs)
        self._transposed = take("transposed", inputs, lanes, dtype=torch.int8)
        self._lookups, self._layer = Aside(device), Aside(device)

    def forward(self) -> Tensor:
        """Return what is to be added to the logits, float32 [lanes, 256]; valid after `join`."""
        rows = self._rows
        with self._lookups.branch():
            rows.forward()
            if self._own_loss is not None:
                self._own_loss.clear()
            linear_forward(
                rows.whole, self._by_output, rows.scale, self._weight_scale, self._bias.weight, self._added
            )
        return self._added

    def backward(self, logits: Tensor) -> None:
        """Learn from `by_logits`, and write the gradient by the network's own `logits` where it wants it."""
        if self._own_loss is not None:
            self._own_loss.gradient(
                logits, self.by_logits, self._history, self._position, self._context, self._by_network
            )
        gradient, rows = self.by_logits, self._rows
        with self._lookups.branch():
            row_digits(gradient, self._weight_scale, *self._row_digits, self._largest)
            input_gradient(*self._row_digits, self._largest, self._by_input, self._by_rows)
            # The layer's weight moves once it has been read.
            with self._layer.branch():
                gradient_digits(gradient, rows.scale, self._digits, self._bias, self._learner)
                transpose(rows.whole, self._transposed)
                slowing_update(
                    self._transposed,
                    self._digits,
                    self._weight,
                    self._by_input,
                    self._by_output,
                    self._weight_scale,
                )
            rows.backward(self._by_rows)
            if self._own_loss is not None:
                self._own_loss.finish()

    def join(self) -> None:
        """Let what is launched next wait for all that was launched here."""
        self._lookups.join()
        self._layer.join()
