"""The Transformer of NNCP (Bellard, 2019): a Transformer-XL whose weights are updated once in several bytes.

Byte by byte each layer keeps the keys and values of what it has seen, so that a prediction costs one token's
work. When the last byte of an update is here, all of its bytes pass the layers again at once, to be learnt
from. What the layers took in then is the memory that the next update's bytes see, and is not learnt through.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..exact.add import add
from ..exact.concatenate import behind, newest_rows, rows_by_lane
from ..exact.embedding import embedding
from ..exact.gelu import gelu
from ..exact.initialise import Initialiser
from ..exact.layer_norm import layer_norm
from ..exact.softmax_attention import softmax_attention
from ..exact.tape import Node, Parameters, Tape
from ..presets import ModelSettings
from ..semantics import SemanticsEnhancement
from .base import Front, register
from .trace import Linear, Norm

__all__ = ["NNCP", "Layer", "Newest", "NewestFused"]

_DEVIATION = 1.0
_DISTANCE_DEVIATION = 0.02


class NNCP:
    """The network: an embedding, layers of attention and feed-forward, and a linear layer to 256 logits."""

    def __init__(
        self, settings: ModelSettings, lanes: int, parameters: Parameters, initialiser: Initialiser
    ) -> None:
        self.parameters = parameters
        front = NewestFused if settings.semantics else Newest
        self.front: Front = front(settings, parameters, initialiser)
        self.layers = [Layer(settings, lanes, parameters, initialiser) for _ in range(settings.layers)]
        self.norm = Norm(settings.embedding, parameters)
        self.out = Linear(settings.embedding, 256, parameters, initialiser)
        self.since_review = 0

    def start(self, context: Tensor) -> None:
        """Let every layer remember zeros."""
        self.since_review = 0
        for layer in self.layers:
            layer.memory.zero_()

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return logits [lanes, 256] of the next byte; what is learnt comes from `review`."""
        unlearnt = Tape()
        x = self.front.forward(unlearnt, context)  # [lanes, embedding]
        for layer in self.layers:
            if self.since_review == 0:
                # By the weights of this update.
                layer.recall()
            x = layer.step(unlearnt, x)
        self.since_review += 1
        return self._logits(unlearnt, x)

    def review(self, tape: Tape, symbols: Tensor) -> Node:
        """Return logits [lanes * steps, 256], symbols being int64 [context + steps - 1, lanes]."""
        self.since_review = 0
        x = self.front.forward(tape, symbols)
        for layer in self.layers:
            x = layer.review(tape, x)  # [lanes * steps, embedding]
        return self._logits(tape, x)

    def _logits(self, tape: Tape, x: Node) -> Node:
        return self.out.forward(tape, self.norm.forward(tape, x))


class Newest:
    """The front without the SEB: the embedded bytes, but for the context of the first."""

    def __init__(self, settings: ModelSettings, parameters: Parameters, initialiser: Initialiser) -> None:
        self.before = settings.context - 1
        self.table = parameters.add(initialiser.normal((256, settings.embedding), _DEVIATION))

    def forward(self, tape: Tape, symbols: Tensor) -> Node:
        """Return [lanes * steps, embedding] from symbols, int64 [context + steps - 1, lanes]."""
        joined = embedding(tape, self.table, symbols[self.before :])
        return rows_by_lane(tape, joined, self.table.data.shape[1])


class NewestFused:
    """The front with the SEB, whose patches are single bytes: each a sum of those up to it, normalised."""

    def __init__(self, settings: ModelSettings, parameters: Parameters, initialiser: Initialiser) -> None:
        self.size = settings.embedding
        self.fused = SemanticsEnhancement(settings, parameters, initialiser)

    def forward(self, tape: Tape, symbols: Tensor) -> Node:
        """Return [lanes * steps, embedding] from symbols, int64 [context + steps - 1, lanes]."""
        fused = self.fused.forward(tape, symbols)  # [lanes, steps * embedding]
        # The table's sigmoid leaves little difference between bytes at first: the norm brings it out.
        return layer_norm(tape, rows_by_lane(tape, fused, self.size))


class Layer:
    """x + attention(norm(x)), then x + ffn(norm(x)); over what it remembers and the bytes since."""

    def __init__(
        self, settings: ModelSettings, lanes: int, parameters: Parameters, initialiser: Initialiser
    ) -> None:
        width, self.heads, self.lanes = settings.embedding, settings.heads, lanes
        self.norm_attention = Norm(width, parameters)
        self.query = Linear(width, width, parameters, initialiser)
        self.key_value = Linear(width, 2 * width, parameters, initialiser)
        farthest = settings.context + settings.update_steps
        self.distances = parameters.add(initialiser.normal((farthest, width), _DISTANCE_DEVIATION))
        self.attended = Linear(width, width, parameters, initialiser)
        self.norm_hidden = Norm(width, parameters)
        self.into_hidden = Linear(width, settings.hidden, parameters, initialiser)
        self.out_of_hidden = Linear(settings.hidden, width, parameters, initialiser)
        self.memory = torch.zeros((lanes, settings.context, width), device=parameters.device)
        self._seen = torch.zeros((lanes, 0, 2 * width), device=parameters.device)

    def recall(self) -> None:
        """Make the keys and values of the memory afresh, and forget those of the bytes since."""
        tape, width = Tape(), self.memory.shape[2]
        normal = self.norm_attention.forward(tape, Node(self.memory.view(-1, width)))
        self._seen = self.key_value.forward(tape, normal).data.view(self.lanes, -1, 2 * width)

    def step(self, tape: Tape, x: Node) -> Node:
        """Return [lanes, width] of one more byte, x [lanes, width]."""
        normal = self.norm_attention.forward(tape, x)
        newest = self.key_value.forward(tape, normal).data
        self._seen = torch.cat([self._seen, newest.unsqueeze(1)], 1)
        key_value = Node(self._seen.view(-1, newest.shape[1]))
        return self._rest(tape, x, normal, key_value)

    def review(self, tape: Tape, x: Node) -> Node:
        """Return [lanes * steps, width] of all bytes of an update, of the shape of x, and remember them."""
        steps, remembered = len(x.data) // self.lanes, self.memory.shape[1]
        tokens = behind(tape, self.memory.clone(), x)
        normal = self.norm_attention.forward(tape, tokens)
        key_value = self.key_value.forward(tape, normal)
        self.memory.copy_(tokens.data.view(self.lanes, remembered + steps, -1)[:, -remembered:])
        return self._rest(tape, x, newest_rows(tape, normal, self.lanes, steps), key_value)

    def _rest(self, tape: Tape, x: Node, normal: Node, key_value: Node) -> Node:
        """Return what the layer makes of x, its norm, and the keys and values of all that it sees."""
        query = self.query.forward(tape, normal)
        gained = softmax_attention(tape, query, key_value, self.lanes, self.heads, self.distances)
        x = add(tape, x, self.attended.forward(tape, gained))
        hidden = gelu(tape, self.into_hidden.forward(tape, self.norm_hidden.forward(tape, x)))
        return add(tape, x, self.out_of_hidden.forward(tape, hidden))


register("nncp", NNCP)
