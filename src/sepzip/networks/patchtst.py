"""PatchTST: one encoder layer of softmax attention over tokens of a few bytes (Nie et al., 2023).

After each of the two sums of a value and its layer comes a normalisation by the statistics of all tokens of
all lanes. Through them every token's output reaches the newest one's, so that here, unlike in TRACE, all
tokens attend and pass the feed-forward layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..exact.add import add
from ..exact.batch_norm import BatchStatistics, batch_norm
from ..exact.concatenate import newest_rows
from ..exact.gelu import gelu
from ..exact.initialise import Initialiser
from ..exact.softmax_attention import softmax_attention
from ..exact.tape import Node, Parameters, Tape
from ..presets import ModelSettings
from ..semantics import SHARPNESS, TokenSemantics
from .base import Front, Kernels, register
from .trace import Linear, Mixture, Tokens, front_fits_kernels

__all__ = ["BatchNorm", "PatchTST"]


class PatchTST:
    """The network: tokens, attention, a feed-forward layer, and a linear layer to 256 logits."""

    def __init__(
        self, settings: ModelSettings, lanes: int, parameters: Parameters, initialiser: Initialiser
    ) -> None:
        self.parameters = parameters
        self.heads = settings.heads
        width = settings.width
        self.front: Front
        if settings.semantics:
            self.front = TokenSemantics(settings, parameters, initialiser, SHARPNESS)
        else:
            self.front = Tokens(settings, parameters, initialiser)
        self.query = Linear(width, width, parameters, initialiser)
        self.key_value = Linear(width, 2 * width, parameters, initialiser)
        self.attended = Linear(width, width, parameters, initialiser)
        self.norm_attention = BatchNorm(width, parameters)
        self.into_hidden = Linear(width, settings.hidden, parameters, initialiser)
        self.out_of_hidden = Linear(settings.hidden, width, parameters, initialiser)
        self.norm_hidden = BatchNorm(width, parameters)
        self.mixture = Mixture(settings, parameters, initialiser) if settings.semantics else None
        self.out = Linear(width, 256, parameters, initialiser)

    def start(self, context: Tensor) -> None:
        """Forget the statistics of earlier steps."""
        self.norm_attention.kept.forget()
        self.norm_hidden.kept.forget()

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return logits [lanes, 256] of the next byte."""
        lanes = context.shape[1]
        x = self.front.forward(tape, context)  # [lanes * tokens, width]
        x = self.norm_attention.forward(tape, add(tape, x, self._attention(tape, x, lanes)))
        x = self.norm_hidden.forward(tape, add(tape, x, self._feed_forward(tape, x)))
        newest = newest_rows(tape, x, lanes, 1)  # [lanes, width]
        if self.mixture is not None:
            # SEP takes the mixture alone; beside the newest token it learns sooner (docs/networks.md).
            newest = add(tape, newest, self.mixture.forward(tape, x, lanes))
        return self.out.forward(tape, newest)

    def _attention(self, tape: Tape, x: Node, lanes: int) -> Node:
        query = self.query.forward(tape, x)
        key_value = self.key_value.forward(tape, x)  # [lanes * tokens, 2 * width]
        attended = softmax_attention(tape, query, key_value, lanes, self.heads)
        return self.attended.forward(tape, attended)

    def _feed_forward(self, tape: Tape, x: Node) -> Node:
        return self.out_of_hidden.forward(tape, gelu(tape, self.into_hidden.forward(tape, x)))


class BatchNorm:
    """Batch normalisation with a gain and an offset, and the statistics that it carries on."""

    def __init__(self, width: int, parameters: Parameters) -> None:
        self.gain = parameters.add(torch.ones(width, device=parameters.device))
        self.offset = parameters.add(torch.zeros(width, device=parameters.device))
        self.kept = BatchStatistics.of_nothing(width, parameters.device)

    def forward(self, tape: Tape, x: Node) -> Node:
        """Return [rows, width] from [rows, width]."""
        return batch_norm(tape, x, self.gain, self.offset, self.kept)


def _fits_kernels(settings: ModelSettings, lanes: int) -> bool:
    """Return whether a program can hold a row, a head and a patch, and sums over all rows fit 32 bits."""
    tokens = settings.tokens if settings.semantics else settings.context // settings.token
    return front_fits_kernels(settings, lanes) and lanes * tokens * settings.hidden < 1 << 31


register("patchtst", PatchTST, Kernels("sepzip.networks.kernels.patchtst", _fits_kernels))
