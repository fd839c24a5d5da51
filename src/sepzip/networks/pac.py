"""PAC: an ordered MLP with a matrix of its own for every lane (Mao et al., 2023).

Each block passes the newest values of a lane through the lane's own layer, puts them behind the
outputs of earlier steps, and passes all of them through a feed-forward layer that all lanes share.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..exact.embedding import sigmoid_embedding
from ..exact.gelu import gelu
from ..exact.initialise import Initialiser
from ..exact.layer_norm import layer_norm
from ..exact.linear import lane_linear, linear
from ..exact.mean import mean_of_two
from ..exact.tape import Node, Parameters, Tape
from ..presets import ModelSettings
from ..semantics import SemanticsEnhancement
from .base import Front, Kernels, register

__all__ = ["PAC", "Embedding", "FeedForward", "LaneLayer"]

_DEVIATION = 0.01


class PAC:
    """The network: a front (an embedding, or the SEB), blocks, and a linear layer to 256 logits."""

    def __init__(
        self, settings: ModelSettings, lanes: int, parameters: Parameters, initialiser: Initialiser
    ) -> None:
        self.parameters = parameters
        self.context = settings.context
        width = settings.width
        if settings.semantics:
            self.front: Front = SemanticsEnhancement(settings, parameters, initialiser)
        else:
            self.front = Embedding(settings, parameters, initialiser)
        self.lane_layers = [
            LaneLayer(width, lane_width, lanes, index == 0, parameters, initialiser)
            for index, lane_width in enumerate(settings.lane_widths)
        ]
        self.feed_forwards = [
            FeedForward(width, settings.hidden, parameters, initialiser) for _ in settings.lane_widths
        ]
        self.out_weight = parameters.add(initialiser.normal((width, 256), _DEVIATION))
        self.out_bias = parameters.add(initialiser.normal((256,), _DEVIATION))

    def start(self, context: Tensor) -> None:
        """Fill the caches with what the lane layers make of each older part of the context."""
        tape = Tape()
        x = self.front.forward(tape, context)
        for lane_layer, feed_forward in zip(self.lane_layers, self.feed_forwards, strict=True):
            x = feed_forward.forward(tape, lane_layer.start(tape, x))

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return logits [lanes, 256] of the next byte."""
        x = self.front.forward(tape, context)
        for lane_layer, feed_forward in zip(self.lane_layers, self.feed_forwards, strict=True):
            x = feed_forward.forward(tape, lane_layer.forward(tape, x))
        return linear(tape, x, self.out_weight, self.out_bias)


class Embedding:
    """The front of PAC without the SEB: the embedded bytes of the context side by side."""

    def __init__(self, settings: ModelSettings, parameters: Parameters, initialiser: Initialiser) -> None:
        self.table = parameters.add(initialiser.normal((256, settings.embedding), _DEVIATION))

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return [lanes, bytes * embedding]."""
        return sigmoid_embedding(tape, self.table, context)


class LaneLayer:
    """norm, the lane's own linear layer, norm, GELU, mean with the skip; over the newest values only."""

    def __init__(
        self,
        width: int,
        lane_width: int,
        lanes: int,
        first: bool,
        parameters: Parameters,
        initialiser: Initialiser,
    ) -> None:
        device = parameters.device
        self.lane_width = lane_width
        ones, zeros = torch.ones(lane_width, device=device), torch.zeros(lane_width, device=device)
        self.norm_in = (parameters.add(ones), parameters.add(zeros)) if first else None
        # All lanes start alike; what each one reads sets them apart.
        weight = initialiser.normal((lane_width, lane_width), _DEVIATION)
        bias = initialiser.normal((lane_width,), _DEVIATION)
        self.weight = parameters.add(weight.expand(lanes, -1, -1))
        self.bias = parameters.add(bias.expand(lanes, -1))
        self.norm_out = (parameters.add(ones), parameters.add(zeros))
        self.cache = torch.zeros((lanes, width - lane_width), device=device)

    def start(self, tape: Tape, x: Node) -> Node:
        """Return the layer's outputs for every part of x, and keep all but the oldest as the cache."""
        width = x.data.shape[1]
        parts = []
        for end in range(width, self.lane_width - 1, -self.lane_width):
            parts.append(self._layer(tape, Node(x.data[:, end - self.lane_width : end])).data)
        rest = x.data[:, : width - len(parts) * self.lane_width]
        joined = torch.cat([rest, *reversed(parts)], 1)
        # The newest part is computed again in the first step, so the cache ends before it.
        self.cache.copy_(joined[:, : width - self.lane_width])
        return Node(joined)

    def forward(self, tape: Tape, x: Node) -> Node:
        """Return the cached outputs of earlier steps with this step's behind them, [lanes, width]."""
        size = self.lane_width
        new = self._layer(tape, _newest(tape, x, size))
        if self.cache.shape[1] == 0:
            return new
        out = Node(torch.cat([self.cache, new.data], 1))
        self.cache.copy_(out.data[:, size:])

        def backward() -> None:
            new.add_gradient(out.take_gradient()[:, -size:])

        tape.record(backward)
        return out

    def _layer(self, tape: Tape, x: Node) -> Node:
        skip = layer_norm(tape, x, *(self.norm_in or ()))
        inner = lane_linear(tape, skip, self.weight, self.bias)
        return mean_of_two(tape, skip, gelu(tape, layer_norm(tape, inner, *self.norm_out)))


class FeedForward:
    """norm, linear, GELU, linear, norm, GELU, mean with the skip."""

    def __init__(self, width: int, hidden: int, parameters: Parameters, initialiser: Initialiser) -> None:
        device = parameters.device
        ones, zeros = torch.ones(width, device=device), torch.zeros(width, device=device)
        self.norm_in = (parameters.add(ones), parameters.add(zeros))
        self.weight_in = parameters.add(initialiser.normal((width, hidden), _DEVIATION))
        self.bias_in = parameters.add(initialiser.normal((hidden,), _DEVIATION))
        self.weight_out = parameters.add(initialiser.normal((hidden, width), _DEVIATION))
        self.bias_out = parameters.add(initialiser.normal((width,), _DEVIATION))
        self.norm_out = (parameters.add(ones), parameters.add(zeros))

    def forward(self, tape: Tape, x: Node) -> Node:
        """Return [lanes, width] from [lanes, width]."""
        skip = layer_norm(tape, x, *self.norm_in)
        hidden = gelu(tape, linear(tape, skip, self.weight_in, self.bias_in))
        inner = linear(tape, hidden, self.weight_out, self.bias_out)
        return mean_of_two(tape, skip, gelu(tape, layer_norm(tape, inner, *self.norm_out)))


def _newest(tape: Tape, x: Node, size: int) -> Node:
    """Return the last `size` values of each lane."""
    older = x.data.shape[1] - size
    if older == 0:
        return x
    out = Node(x.data[:, older:].contiguous())

    def backward() -> None:
        gradient = out.take_gradient()
        x.add_gradient(torch.cat([gradient.new_zeros((gradient.shape[0], older)), gradient], 1))

    tape.record(backward)
    return out


def _fits_kernels(settings: ModelSettings, lanes: int) -> bool:
    """Return whether a program can hold a lane's values, and a column block of its matrix."""
    return (
        settings.width <= 1024
        and max(settings.lane_widths) <= 512
        and settings.embedding <= 64
        and settings.context <= (64 if settings.semantics else 256)
    )


register("pac", PAC, Kernels("sepzip.networks.kernels.pac", _fits_kernels))
