"""A layer of long short-term memory (Hochreiter and Schmidhuber, 1997; forget gate: Gers et al., 2000).

The layer runs over a window of bytes, the oldest first. What its input contributes to the gates is a product
of all bytes at once and is made outside; within the window each byte waits for the one before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .constants import constant
from .functions import sigmoid, tanh
from .product import product_8x8, product_8x16, product_16x8
from .quantise import INT8_MOST, INT16_MOST, quantise
from .tape import Node, Tape

__all__ = ["LSTMState", "lstm"]


@dataclass(frozen=True)
class LSTMState:
    """What a layer knows after a byte: its output and its cell, [lanes, hidden] each."""

    output: Tensor
    cell: Tensor


def lstm(tape: Tape, inputs: Node, weight: Node, state: LSTMState) -> tuple[Node, LSTMState]:
    """Return a layer's outputs [bytes * lanes, hidden], and its state after the oldest byte.

    inputs [bytes * lanes, 4 * hidden], the oldest byte's lanes first, are what is added to the gates: of
    input, forget, output and candidate, side by side. weight [hidden, 4 * hidden] takes the layer's output of
    the byte before. `state` came before the oldest byte, and is not learnt through. For each byte

        i, f, o = sigmoid(...), g = tanh(...) of inputs + output @ weight
        cell = f * cell + i * g
        output = o * tanh(cell)

    The weight is quantised once. Its gradient is one product over all bytes and lanes, so that an integer
    sum takes in every byte's part.
    """
    lanes = state.cell.shape[0]
    whole_weight, scale_weight = quantise(weight.data, 0, INT8_MOST)
    passed: list[_Byte] = []
    states = [state]
    for added in inputs.data.split(lanes):
        whole, scale = quantise(states[-1].output, 1, INT8_MOST)
        gates = product_8x8(whole, whole_weight).mul_(scale).mul_(scale_weight).add_(added)
        byte = _Byte(gates, states[-1].cell, whole, scale)
        passed.append(byte)
        states.append(LSTMState(byte.output, byte.cell))
    out = Node(torch.cat([byte.output for byte in passed]))

    def backward() -> None:
        by_gates: list[Tensor] = []
        by_state, by_cell = torch.zeros_like(state.output), torch.zeros_like(state.cell)
        for byte, gradient in zip(reversed(passed), reversed(out.take_gradient().split(lanes)), strict=True):
            by_gate, by_cell = byte.backward(gradient + by_state, by_cell)
            by_gates.insert(0, by_gate)
            if len(by_gates) < len(passed):
                by_lane, scale = quantise(by_gate * scale_weight, 1, INT16_MOST)
                by_state = product_16x8(by_lane, whole_weight.t()).mul_(scale)
        by_inputs = torch.cat(by_gates)
        whole = torch.cat([byte.whole for byte in passed])
        scales = torch.cat([byte.scale for byte in passed])
        by_column, scale = quantise(by_inputs * scales, 0, INT16_MOST)
        weight.add_gradient(product_8x16(whole.t(), by_column).mul_(scale))
        inputs.add_gradient(by_inputs)

    tape.record(backward)
    return out, states[1]


class _Byte:
    """One byte's pass: the cell's update, [lanes, hidden], element by element, and its gradients."""

    def __init__(self, gates: Tensor, cell_before: Tensor, whole: Tensor, scale: Tensor) -> None:
        """Update the cell; `whole` times `scale` is the output before, which backward needs."""
        hidden = cell_before.shape[1]
        self.whole, self.scale = whole, scale
        self._cell_before = cell_before
        self._candidate = tanh(gates[:, 3 * hidden :])
        self._opened = sigmoid(gates[:, : 3 * hidden])
        take, keep, give = self._opened.split(hidden, 1)
        self.cell = (keep * cell_before).add_(take * self._candidate)
        self._squashed = tanh(self.cell)
        self.output = give * self._squashed

    def backward(self, by_output: Tensor, by_cell: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients by the gates' sums [lanes, 4 * hidden] and by the cell before.

        `by_output` is all of the gradient by the output, `by_cell` what later bytes give to the cell.
        """
        one = constant(1.0)
        candidate, squashed = self._candidate, self._squashed
        take, keep, give = self._opened.split(candidate.shape[1], 1)
        by_cell = (one - squashed * squashed).mul_(give).mul_(by_output).add_(by_cell)
        by_opened = torch.cat([by_cell * candidate, by_cell * self._cell_before, by_output * squashed], 1)
        by_opened.mul_(self._opened).mul_(one - self._opened)
        by_candidate = (one - candidate * candidate).mul_(take).mul_(by_cell)
        return torch.cat([by_opened, by_candidate], 1), by_cell * keep
