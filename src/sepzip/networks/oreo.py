"""OREO: an MLP that learns how much the order of the bytes counts (Mao et al., 2022).

A mask over the context's positions, learned and rising towards the newest byte, holds what their order
says; layers that all lanes share learn from what it lets through. Neither code nor dimensions are public:
those of here follow PAC, which came after it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..exact.initialise import Initialiser
from ..exact.layer_norm import layer_norm
from ..exact.linear import linear
from ..exact.ordered_mask import ordered_mask
from ..exact.tape import Node, Parameters, Tape
from ..presets import ModelSettings
from ..semantics import SemanticsEnhancement
from .base import Front, register
from .pac import Embedding, FeedForward

__all__ = ["OREO"]

_DEVIATION = 0.01


class OREO:
    """The network: a front, the ordered mask, feed-forward layers, and a linear layer to 256 logits."""

    def __init__(
        self, settings: ModelSettings, lanes: int, parameters: Parameters, initialiser: Initialiser
    ) -> None:
        self.parameters = parameters
        width = settings.width
        self.front: Front
        if settings.semantics:
            self.front = SemanticsEnhancement(settings, parameters, initialiser)
        else:
            self.front = Embedding(settings, parameters, initialiser)
        # Of equal weights: the importance rises evenly from the oldest position to the newest.
        self.order = parameters.add(torch.zeros(width // settings.embedding, device=parameters.device))
        self.feed_forwards = [
            FeedForward(width, settings.hidden, parameters, initialiser) for _ in range(settings.layers)
        ]
        self.out_weight = parameters.add(initialiser.normal((width, 256), _DEVIATION))
        self.out_bias = parameters.add(initialiser.normal((256,), _DEVIATION))

    def start(self, context: Tensor) -> None:
        """Keep nothing: every step reads the whole context afresh."""

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return logits [lanes, 256] of the next byte."""
        # The sigmoid's values lie around 1/2: without the norm the mask would outweigh what the bytes say.
        x = layer_norm(tape, self.front.forward(tape, context))  # [lanes, width]
        x = ordered_mask(tape, x, self.order)
        for feed_forward in self.feed_forwards:
            x = feed_forward.forward(tape, x)
        return linear(tape, x, self.out_weight, self.out_bias)


register("oreo", OREO)
