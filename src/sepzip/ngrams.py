"""Contexts beside a base network: what was learned of the newest bytes together, added to its logits.

Choices of the newest bytes, the contexts, are hashed to slots. A slot has a row that is learned by gradients,
and the byte that came last in it. The rows of all contexts go through a feed-forward layer to the logits; the
bytes remembered vote for themselves. Both start as nothing: the first steps are those of the network alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .exact.add import add
from .exact.contexts import Contexts
from .exact.gelu import gelu
from .exact.initialise import Initialiser
from .exact.linear import linear
from .exact.remembered import COUNTS, Remembered, vote
from .exact.rows import Rows
from .exact.tape import Node, Parameters, Tape
from .presets import ModelSettings

if TYPE_CHECKING:
    from .networks.base import Network, Reviewing

__all__ = ["NGrams", "ReviewingWithNGrams", "WithNGrams"]

_VOTE = 8.0
"""What a weight of a vote is multiplied by: a few steps of Adam make a vote that counts."""


class NGrams:
    """What lies in the contexts' slots, and the layers from there to the logits."""

    def __init__(
        self, settings: ModelSettings, lanes: int, parameters: Parameters, initialiser: Initialiser
    ) -> None:
        device, count = parameters.device, len(settings.ngrams)
        self.contexts = Contexts(settings.ngrams, settings.ngram_bits, device)
        slots = count << settings.ngram_bits
        self.rows = Rows(slots, settings.ngram_size, settings.ngram_rate * 1e-6, device)
        self.remembered = Remembered(slots, device)
        parameters.tables += [self.rows.data, self.rows.squares, self.remembered.entries]
        inputs, hidden = count * settings.ngram_size, settings.ngram_hidden
        self.weight_in = parameters.add(initialiser.uniform((inputs, hidden), 1.0 / math.sqrt(inputs)))
        self.bias_in = parameters.add(torch.zeros(hidden, device=device))
        self.weight_out = parameters.add(initialiser.uniform((hidden, 256), 1.0 / math.sqrt(hidden)))
        self.bias_out = parameters.add(torch.zeros(256, device=device))
        self.votes = parameters.add(torch.zeros((count, COUNTS), device=device))
        self._slots = torch.zeros((count, lanes), dtype=torch.int64, device=device)

    def start(self, context: Tensor) -> None:
        """Take the context's slots as those that the first byte of `step` followed."""
        self._slots.copy_(self.contexts.slots(context))

    def step(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return slots and entries of a step, int64 [contexts, lanes] each, from context [bytes, lanes].

        The newest byte is remembered first, in the slots of the step before.
        """
        self.remembered.learn(self._slots, context[-1])
        slots = self.contexts.slots(context)
        self._slots.copy_(slots)
        return slots, self.remembered.look_up(slots)

    def forward(self, tape: Tape, logits: Node, slots: Tensor, entries: Tensor) -> Node:
        """Return the logits, [rows, 256], with what slots and entries, [contexts, rows], add to them."""
        looked_up = self.rows.look_up(tape, slots.t().reshape(-1))
        joined = Node(looked_up.data.view(slots.shape[1], -1))  # [rows, contexts * size]

        def backward() -> None:
            looked_up.add_gradient(joined.take_gradient().reshape(looked_up.data.shape))

        tape.record(backward)
        hidden = gelu(tape, linear(tape, joined, self.weight_in, self.bias_in))
        logits = add(tape, logits, linear(tape, hidden, self.weight_out, self.bias_out))
        return vote(tape, logits, entries, self.votes, _VOTE)


class WithNGrams:
    """A network and the contexts beside it; the network sees no more of the past than alone."""

    def __init__(
        self,
        network: Network,
        settings: ModelSettings,
        lanes: int,
        parameters: Parameters,
        initialiser: Initialiser,
    ) -> None:
        self.network = network
        self.parameters = parameters
        self.ngrams = NGrams(settings, lanes, parameters, initialiser)
        # The network's context is the newest part of what the longest one of the block's needs.
        self.before = settings.seen - settings.context

    def start(self, context: Tensor) -> None:
        """Start the network, and the contexts, from `context`, int64 [bytes, lanes]."""
        self.network.start(context[self.before :])
        self.ngrams.start(context)

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return logits [lanes, 256] of the next byte."""
        logits = self.network.forward(tape, context[self.before :])
        return self.ngrams.forward(tape, logits, *self.ngrams.step(context))


class ReviewingWithNGrams(WithNGrams):
    """The same with a network that learns several steps at once."""

    def __init__(
        self,
        network: Reviewing,
        settings: ModelSettings,
        lanes: int,
        parameters: Parameters,
        initialiser: Initialiser,
    ) -> None:
        super().__init__(network, settings, lanes, parameters, initialiser)
        self.reviewing = network
        self._steps: list[tuple[Tensor, Tensor]] = []

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return logits [lanes, 256] of the next byte; what is learnt comes from `review`."""
        logits = self.network.forward(tape, context[self.before :])
        step = self.ngrams.step(context)
        self._steps.append(step)
        return self.ngrams.forward(Tape(), logits, *step)

    def review(self, tape: Tape, symbols: Tensor) -> Node:
        """Return logits [lanes * steps, 256] from symbols, int64 [bytes + steps - 1, lanes]."""
        logits = self.reviewing.review(tape, symbols[self.before :])
        # As they were when their steps passed: entries have changed since.
        slots, entries = (
            torch.stack(parts, 2).view(len(parts[0]), -1) for parts in zip(*self._steps, strict=True)
        )
        self._steps.clear()
        return self.ngrams.forward(tape, logits, slots, entries)
