"""Stacked LSTM layers, each of which sees the input and feeds the output (tensorflow-compress, 2020).

Every step runs the layers over the newest bytes again, from the state that came before them, and learns
the next byte through all of these bytes: truncated back-propagation through time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..exact.concatenate import concatenate, last_rows, rows_by_place
from ..exact.embedding import embedding_rows
from ..exact.initialise import Initialiser
from ..exact.layer_norm import layer_norm
from ..exact.linear import linear
from ..exact.lstm import LSTMState, lstm
from ..exact.tape import Node, Parameters, Tape
from ..presets import ModelSettings
from ..semantics import SemanticsEnhancement
from .base import Front, register

__all__ = ["LSTM", "Bytes", "FusedBytes", "Layer", "first_output", "sequence"]

_EMBEDDING_DEVIATION = 1.0


class LSTM:
    """The network: a sequence of embedded bytes, layers, a linear layer from all of them to 256 logits."""

    def __init__(
        self, settings: ModelSettings, lanes: int, parameters: Parameters, initialiser: Initialiser
    ) -> None:
        self.parameters = parameters
        size, hidden = settings.embedding, settings.hidden
        self.front = sequence(settings, parameters, initialiser)
        self.layers = [
            Layer(size if index == 0 else size + hidden, hidden, lanes, parameters, initialiser)
            for index in range(settings.layers)
        ]
        self.out_weight, self.out_bias = first_output(settings.layers * hidden, parameters, initialiser)

    def start(self, context: Tensor) -> None:
        """Let every layer know nothing of what was before the context."""
        for layer in self.layers:
            layer.start()

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return logits [lanes, 256] of the next byte."""
        lanes = context.shape[1]
        embedded = self.front.forward(tape, context)  # [bytes * lanes, embedding]
        below: list[Node] = []
        newest: list[Node] = []
        for layer in self.layers:
            out = layer.forward(tape, concatenate(tape, [embedded, *below]))  # [bytes * lanes, hidden]
            below = [out]
            newest.append(last_rows(tape, out, lanes))  # [lanes, hidden]
        return linear(tape, concatenate(tape, newest), self.out_weight, self.out_bias)


class Bytes:
    """The front without the SEB: the embedded bytes of the context."""

    def __init__(self, settings: ModelSettings, parameters: Parameters, initialiser: Initialiser) -> None:
        self.table = parameters.add(initialiser.normal((256, settings.embedding), _EMBEDDING_DEVIATION))

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return [bytes * lanes, embedding], the oldest byte's lanes first."""
        return embedding_rows(tape, self.table, context)


class FusedBytes:
    """The front with the SEB: the places of the fused patch, each normalised, in the place of bytes.

    What stands at a place is the same weighted sum of the bytes from there on as at the next place, so that
    the sequence moves on by one place with every step, as bytes do.
    """

    def __init__(self, settings: ModelSettings, parameters: Parameters, initialiser: Initialiser) -> None:
        self.size = settings.embedding
        self.fused = SemanticsEnhancement(settings, parameters, initialiser)

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return [patch * lanes, embedding], the oldest place's lanes first."""
        fused = self.fused.forward(tape, context)  # [lanes, patch * embedding]
        # The table's sigmoid leaves little difference between bytes at first: the norm brings it out.
        return layer_norm(tape, rows_by_place(tape, fused, self.size))


def sequence(settings: ModelSettings, parameters: Parameters, initialiser: Initialiser) -> Front:
    """Return the front of these settings, whose result is [places * lanes, embedding]."""
    front = FusedBytes if settings.semantics else Bytes
    return front(settings, parameters, initialiser)


def first_output(inputs: int, parameters: Parameters, initialiser: Initialiser) -> tuple[Node, Node]:
    """Return the weight [inputs, 256] and the bias [256] of the layer to the logits."""
    weight = parameters.add(_glorot(inputs, 256, initialiser))
    return weight, parameters.add(torch.zeros(256, device=parameters.device))


class Layer:
    """One layer and its state before the context, which each step moves on by a byte."""

    def __init__(
        self, inputs: int, hidden: int, lanes: int, parameters: Parameters, initialiser: Initialiser
    ) -> None:
        device = parameters.device
        self.weight_in = parameters.add(_glorot(inputs, 4 * hidden, initialiser))
        bias = torch.zeros(4 * hidden, device=device)
        # The forget gates start open.
        bias[hidden : 2 * hidden] = 1.0
        self.bias = parameters.add(bias)
        self.weight_state = parameters.add(_glorot(hidden, 4 * hidden, initialiser))
        self.output = torch.zeros((lanes, hidden), device=device)
        self.cell = torch.zeros((lanes, hidden), device=device)

    def start(self) -> None:
        """Forget every byte."""
        self.output.zero_()
        self.cell.zero_()

    def forward(self, tape: Tape, x: Node) -> Node:
        """Return [bytes * lanes, hidden] from x [bytes * lanes, inputs], the oldest byte's lanes first."""
        inputs = linear(tape, x, self.weight_in, self.bias)
        # The backward pass needs the state as it was.
        state = LSTMState(self.output.clone(), self.cell.clone())
        out, after_oldest = lstm(tape, inputs, self.weight_state, state)
        # The oldest byte leaves the context with this step.
        self.output.copy_(after_oldest.output)
        self.cell.copy_(after_oldest.cell)
        return out


def _glorot(inputs: int, outputs: int, initialiser: Initialiser) -> Tensor:
    """Return first weights [inputs, outputs] within sqrt(6 / (inputs + outputs)), evenly spread."""
    return initialiser.uniform((inputs, outputs), math.sqrt(6.0 / (inputs + outputs)))


register("lstm", LSTM)
