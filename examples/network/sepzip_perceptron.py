"""A network of one's own for sepzip: the embedded bytes, one hidden layer, 256 logits."""

from __future__ import annotations

import torch
from torch import Tensor

from sepzip.exact.embedding import embedding
from sepzip.exact.gelu import gelu
from sepzip.exact.initialise import Initialiser
from sepzip.exact.linear import linear
from sepzip.exact.tape import Node, Parameters, Tape
from sepzip.outside import OutsideNetwork
from sepzip.presets import ModelSettings, Preset


class Perceptron:
    """Its weights, and what a step does with them."""

    def __init__(
        self, settings: ModelSettings, lanes: int, parameters: Parameters, initialiser: Initialiser
    ) -> None:
        self.parameters = parameters
        width, hidden = settings.width, settings.hidden
        self.table = parameters.add(initialiser.normal((256, settings.embedding), 1.0))
        self.weight_in = parameters.add(initialiser.uniform((width, hidden), width**-0.5))
        self.bias_in = parameters.add(torch.zeros(hidden, device=parameters.device))
        self.weight_out = parameters.add(initialiser.uniform((hidden, 256), hidden**-0.5))
        self.bias_out = parameters.add(torch.zeros(256, device=parameters.device))

    def start(self, context: Tensor) -> None:
        """Keep nothing from step to step."""

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return logits [lanes, 256] of the next byte; context int64 [bytes, lanes], the oldest first."""
        x = embedding(tape, self.table, context)  # [lanes, width]
        hidden = gelu(tape, linear(tape, x, self.weight_in, self.bias_in))
        return linear(tape, hidden, self.weight_out, self.bias_out)


def count(settings: ModelSettings, lanes: int) -> int:
    """Return how many weights there are."""
    return 256 * (settings.embedding + 1) + (settings.width + 257) * settings.hidden


settings = ModelSettings(
    "perceptron-1", semantics=False, context=12, patch=0, stride=0, lane_widths=(), hidden=256
)
network = OutsideNetwork(
    Perceptron, {False: Preset(settings, lanes=256)}, count, lambda settings: 60 * settings.hidden
)
