"""DecMac: an LSTM that is the context model of an arithmetic coder (Liu et al., 2019).

Layers one above the other, of which only the uppermost feeds the output. Its dimensions are not public:
those of here are chosen, and what carries it along the lanes is what the network lstm has.
"""

from __future__ import annotations

from torch import Tensor

from ..exact.concatenate import last_rows
from ..exact.initialise import Initialiser
from ..exact.linear import linear
from ..exact.tape import Node, Parameters, Tape
from ..presets import ModelSettings
from .base import register
from .lstm import Layer, first_output, sequence

__all__ = ["DecMac"]


class DecMac:
    """The network: a sequence of embedded bytes, stacked layers, and a linear layer to 256 logits."""

    def __init__(
        self, settings: ModelSettings, lanes: int, parameters: Parameters, initialiser: Initialiser
    ) -> None:
        self.parameters = parameters
        hidden = settings.hidden
        self.front = sequence(settings, parameters, initialiser)
        self.layers = [
            Layer(settings.embedding if index == 0 else hidden, hidden, lanes, parameters, initialiser)
            for index in range(settings.layers)
        ]
        self.out_weight, self.out_bias = first_output(hidden, parameters, initialiser)

    def start(self, context: Tensor) -> None:
        """Let every layer know nothing of what was before the context."""
        for layer in self.layers:
            layer.start()

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return logits [lanes, 256] of the next byte."""
        x = self.front.forward(tape, context)  # [bytes * lanes, embedding]
        for layer in self.layers:
            x = layer.forward(tape, x)  # [bytes * lanes, hidden]
        return linear(tape, last_rows(tape, x, context.shape[1]), self.out_weight, self.out_bias)


register("decmac", DecMac)
