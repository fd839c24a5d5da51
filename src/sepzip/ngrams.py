"""N-grams beside a base network: what was learned of its newest bytes together, added to its logits.

Contexts, each a choice of the newest bytes, are hashed to rows of a table. A row passes a gate, which is
learned for each context and for how much the row has learned so far; the rows of all contexts, side by side,
pass a linear layer to the logits. Rows start as zeros: the first step is that of the network alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .exact.adagrad import Slowing
from .exact.add import add
from .exact.contexts import Contexts
from .exact.gates import gated
from .exact.initialise import Initialiser
from .exact.linear import linear
from .exact.own_loss import OwnLoss
from .exact.rows import EXPERIENCES, Rows
from .exact.tape import Node, Parameters, Tape
from .presets import ModelSettings

if TYPE_CHECKING:
    from .networks.base import Network, Reviewing

__all__ = ["NGrams", "ReviewingWithNGrams", "WithNGrams", "fit_kernels"]

_LAYER_RATE, _GATE_RATE = 0.5, 3.0
"""The rates of the layer's weight and of the gates, as multiples of that of the rows."""

_MOST_INPUTS = 256
"""The most inputs of the layer of which a program of its update sees whole columns."""


def fit_kernels(settings: ModelSettings) -> bool:
    """Return whether kernels hold the n-grams of these settings, if there are any."""
    return len(settings.ngrams) * settings.ngram_size <= _MOST_INPUTS


class NGrams:
    """The contexts' rows, their gates, and the layer from there to the logits."""

    def __init__(self, settings: ModelSettings, parameters: Parameters, initialiser: Initialiser) -> None:
        device, count = parameters.device, len(settings.ngrams)
        self.contexts = Contexts(settings.ngrams, settings.ngram_bits, device)
        slots, rate = count << settings.ngram_bits, settings.ngram_rate * 1e-6
        self.rows = Rows(slots, settings.ngram_size, rate, device)
        inputs = count * settings.ngram_size
        weight = initialiser.uniform((inputs, 256), 1.0 / math.sqrt(inputs))
        self.weight = Slowing(weight, rate * _LAYER_RATE)
        self.gates = Slowing(torch.ones(count * EXPERIENCES, device=device), rate * _GATE_RATE)
        for learned in (self.weight, self.gates):
            parameters.tables += [learned.node.data, learned.squares]
        parameters.tables += [self.rows.data, self.rows.squares]
        self.bias = parameters.add(torch.zeros(256, device=device))
        self.own_loss = OwnLoss(device) if settings.ngram_own else None
        if self.own_loss is not None:
            parameters.tables.append(self.own_loss.gain)
        self._symbols: Tensor | None = None
        self._first_gates = torch.arange(count, device=device) * EXPERIENCES

    def tell(self, symbols: Tensor) -> None:
        """Take the true bytes, int64 [lanes], of the logits returned last, before these are learnt from."""
        self._symbols = symbols

    def forward(self, tape: Tape, logits: Node, slots: Tensor) -> Node:
        """Return the logits, [lanes, 256], with what is added to them; slots int64 [contexts, lanes]."""
        lanes, flat = slots.shape[1], slots.t().reshape(-1)
        which = self.rows.experience(flat).view(lanes, -1).add_(self._first_gates).view(-1)
        looked_up = self.rows.look_up(tape, flat)  # [lanes * contexts, size]
        passed = gated(tape, looked_up, which, self.gates.on(tape))
        joined = Node(passed.data.view(lanes, -1))  # [lanes, contexts * size]

        def backward() -> None:
            passed.add_gradient(joined.take_gradient().reshape(passed.data.shape))

        tape.record(backward)
        added = linear(tape, joined, self.weight.on(tape), self.bias)
        if self.own_loss is None:
            return add(tape, logits, added)
        return self.own_loss.add(tape, logits, added, self._true)

    def _true(self) -> Tensor:
        if self._symbols is None:
            raise RuntimeError("what is learnt from was not told")
        return self._symbols


class WithNGrams:
    """A network and the n-grams beside it; the network sees no more of the past than alone."""

    def __init__(
        self, network: Network, settings: ModelSettings, parameters: Parameters, initialiser: Initialiser
    ) -> None:
        self.network = network
        self.parameters = parameters
        self.ngrams = NGrams(settings, parameters, initialiser)
        # The network's context is the newest part of what the longest n-gram needs.
        self.before = settings.seen - settings.context

    def start(self, context: Tensor) -> None:
        """Start the network; n-grams keep nothing but what they learn."""
        self.network.start(context[self.before :])

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return logits [lanes, 256] of the next byte."""
        logits = self.network.forward(tape, context[self.before :])
        return self.ngrams.forward(tape, logits, self.ngrams.contexts.slots(context))


class ReviewingWithNGrams(WithNGrams):
    """The same with a network that learns several steps at once."""

    def __init__(
        self, network: Reviewing, settings: ModelSettings, parameters: Parameters, initialiser: Initialiser
    ) -> None:
        super().__init__(network, settings, parameters, initialiser)
        self.reviewing = network
        self.seen = settings.seen

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return logits [lanes, 256] of the next byte; what is learnt comes from `review`."""
        return super().forward(Tape(), context)

    def review(self, tape: Tape, symbols: Tensor) -> Node:
        """Return logits [lanes * steps, 256] from symbols, int64 [seen + steps - 1, lanes]."""
        logits = self.reviewing.review(tape, symbols[self.before :])
        steps = len(symbols) - self.seen + 1
        by_step = [self.ngrams.contexts.slots(symbols[i : i + self.seen]) for i in range(steps)]
        # Each lane's steps one after the other, as the logits are.
        slots = torch.stack(by_step, 2).view(len(by_step[0]), -1)
        return self.ngrams.forward(tape, logits, slots)
