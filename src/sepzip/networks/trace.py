"""TRACE: one layer of linear attention over tokens of a few bytes (Mao et al., 2022).

The context becomes tokens; the newest one gathers from all of them by linear attention and passes twice
through the same feed-forward layer. Of the other tokens nothing but their keys and values reaches the
logits, so nothing else is computed. Behind the SEB all tokens attend, since a layer mixes them in the end.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..exact.add import add
from ..exact.attention import linear_attention
from ..exact.concatenate import newest_rows
from ..exact.embedding import embedding
from ..exact.gelu import gelu
from ..exact.initialise import Initialiser
from ..exact.layer_norm import layer_norm
from ..exact.linear import linear
from ..exact.sinusoid import join_positions, sinusoids
from ..exact.tape import Node, ParameterNode, Parameters, Tape
from ..presets import ModelSettings
from ..semantics import TokenSemantics
from .base import Front, Kernels, register

__all__ = ["DEPTH", "TRACE", "Linear", "Mixture", "Norm", "Tokens", "front_fits_kernels"]

DEPTH = 2
"""How many times the feed-forward layer is applied."""


class TRACE:
    """The network: tokens, linear attention, a feed-forward layer, and a linear layer to 256 logits."""

    def __init__(
        self, settings: ModelSettings, lanes: int, parameters: Parameters, initialiser: Initialiser
    ) -> None:
        self.parameters = parameters
        self.heads = settings.heads
        width = settings.width
        self.front: Front
        if settings.semantics:
            self.front = TokenSemantics(settings, parameters, initialiser)
        else:
            self.front = Tokens(settings, parameters, initialiser)
        self.norm_attention = Norm(width, parameters)
        self.query = Linear(width, width, parameters, initialiser)
        self.key_value = Linear(width, 2 * width, parameters, initialiser)
        self.norm_hidden = Norm(width, parameters)
        self.into_hidden = Linear(width, settings.hidden, parameters, initialiser)
        self.out_of_hidden = Linear(settings.hidden, width, parameters, initialiser)
        self.mixture = Mixture(settings, parameters, initialiser) if settings.semantics else None
        self.out = Linear(width, 256, parameters, initialiser)

    def start(self, context: Tensor) -> None:
        """Keep nothing: every step reads the whole context afresh."""

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return logits [lanes, 256] of the next byte."""
        lanes = context.shape[1]
        tokens = self.front.forward(tape, context)  # [lanes * tokens, width]
        normal = self.norm_attention.forward(tape, tokens)
        key_value = self.key_value.forward(tape, normal)  # [lanes * tokens, 2 * width]
        if self.mixture is None:
            tokens, normal = (newest_rows(tape, rows, lanes, 1) for rows in (tokens, normal))
        query = self.query.forward(tape, normal)
        x = add(tape, tokens, linear_attention(tape, query, key_value, lanes, self.heads))
        for _ in range(DEPTH):
            x = add(tape, x, self._feed_forward(tape, x))
        if self.mixture is not None:
            # SEP takes the mixture alone; beside the newest token it learns sooner (docs/networks.md).
            x = add(tape, newest_rows(tape, x, lanes, 1), self.mixture.forward(tape, x, lanes))
        return self.out.forward(tape, x)

    def _feed_forward(self, tape: Tape, x: Node) -> Node:
        hidden = gelu(tape, self.into_hidden.forward(tape, self.norm_hidden.forward(tape, x)))
        return self.out_of_hidden.forward(tape, hidden)


class Tokens:
    """The embedded bytes of the context, each with the sinusoids of its position, a few to a token."""

    def __init__(self, settings: ModelSettings, parameters: Parameters, initialiser: Initialiser) -> None:
        self.width = settings.width
        self.table = parameters.add(initialiser.normal((256, settings.embedding), 1.0))
        self.positions = sinusoids(settings.context, settings.positions).to(parameters.device)

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return [lanes * tokens, width], each lane's oldest token first."""
        joined = join_positions(tape, embedding(tape, self.table, context), self.positions)
        out = Node(joined.data.view(-1, self.width))

        def backward() -> None:
            joined.add_gradient(out.take_gradient().view(joined.data.shape))

        tape.record(backward)
        return out


class Mixture:
    """linear, GELU, linear over the tokens' axis, value by value: one token made of all of them."""

    def __init__(self, settings: ModelSettings, parameters: Parameters, initialiser: Initialiser) -> None:
        self.into_mixing = Linear(settings.tokens, settings.mixing, parameters, initialiser)
        self.out_of_mixing = Linear(settings.mixing, 1, parameters, initialiser)

    def forward(self, tape: Tape, x: Node, lanes: int) -> Node:
        """Return [lanes, width] from [lanes * tokens, width]."""
        width = x.data.shape[1]
        by_value = Node(x.data.view(lanes, -1, width).transpose(1, 2).reshape(lanes * width, -1))

        def by_value_backward() -> None:
            gradient = by_value.take_gradient().view(lanes, width, -1).transpose(1, 2)
            x.add_gradient(gradient.reshape(x.data.shape))

        tape.record(by_value_backward)
        mixing = gelu(tape, self.into_mixing.forward(tape, by_value))
        mixed = self.out_of_mixing.forward(tape, mixing)
        out = Node(mixed.data.view(lanes, width))

        def backward() -> None:
            mixed.add_gradient(out.take_gradient().reshape(mixed.data.shape))

        tape.record(backward)
        return out


class Linear:
    """A linear layer; weights and biases start evenly spread within 1 / sqrt(inputs)."""

    def __init__(self, inputs: int, outputs: int, parameters: Parameters, initialiser: Initialiser) -> None:
        bound = 1.0 / math.sqrt(inputs)
        self.weight = parameters.add(initialiser.uniform((inputs, outputs), bound))
        self.bias = parameters.add(initialiser.uniform((outputs,), bound))

    def forward(self, tape: Tape, x: Node) -> Node:
        """Return [rows, outputs] from [rows, inputs]."""
        return linear(tape, x, self.weight, self.bias)


class Norm:
    """Layer normalisation with a gain and an offset."""

    def __init__(self, width: int, parameters: Parameters) -> None:
        self.gain: ParameterNode = parameters.add(torch.ones(width, device=parameters.device))
        self.offset: ParameterNode = parameters.add(torch.zeros(width, device=parameters.device))

    def forward(self, tape: Tape, x: Node) -> Node:
        """Return [rows, width] from [rows, width]."""
        return layer_norm(tape, x, self.gain, self.offset)


def front_fits_kernels(settings: ModelSettings, lanes: int) -> bool:
    """Return whether a program can hold a row, a head and a patch, and sums over all tokens fit 32 bits."""
    tokens = settings.tokens if settings.semantics else settings.context // settings.token
    fits_front = not settings.semantics or (
        settings.context <= 64 and tokens * settings.patch <= 64 and settings.mixing <= 512
    )
    return (
        fits_front
        and settings.width <= 1024
        and settings.width <= 32 * settings.heads
        and tokens <= 32
        and settings.embedding <= 64
        and lanes * tokens <= 1 << 17
    )


def _fits_kernels(settings: ModelSettings, lanes: int) -> bool:
    """Return whether the kernels hold the front and the attention, and the hidden values of all lanes."""
    attending = lanes * (settings.tokens if settings.semantics else 1)
    return front_fits_kernels(settings, lanes) and attending * settings.hidden < 1 << 31


register("trace", TRACE, Kernels("sepzip.networks.kernels.trace", _fits_kernels))
