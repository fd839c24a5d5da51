"""A model: a network, its optimizer and the bytes it has seen; it predicts, and it learns."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import UsageError
from .exact.tape import Node, Parameters, Tape
from .frequencies import Frequencies
from .networks import base
from .networks.base import Reviewing
from .ngrams import WithNGrams
from .optimizer import Adam
from .presets import ModelSettings
from .semantics import Semantics

__all__ = ["Dropping", "Model", "state_fingerprint"]

_FINGERPRINT_PART = 1 << 22


class Dropping:
    """Counts a model's steps, on the host, up to the one after which the SEB drops patches."""

    def __init__(self, settings: ModelSettings, parameters: Parameters, optimizer: Adam) -> None:
        self._below = settings.drop_below
        self._left = settings.drop_step
        self._parameters = parameters
        self._optimizer = optimizer

    @property
    def is_pending(self) -> bool:
        """Whether a step is still to come after which patches may be dropped."""
        return self._left > 0

    def up_to(self, steps: int) -> int:
        """Return how many of so many steps are to be counted before anything else is done."""
        return min(steps, self._left) if self._left else steps

    def count(self, steps: int) -> bool:
        """Count steps that were done, at most `up_to`; return whether patches were dropped thereafter.

        What follows from the shape of the patches, a captured graph among it, is then to be made again.
        """
        semantics = self._parameters.semantics
        if not self._left or semantics is None:
            return False
        self._left -= steps
        if self._left:
            return False
        before = semantics.dropped
        semantics.drop(self._below)
        for node in (semantics.weight, semantics.mask):
            for state in (self._parameters.data, self._optimizer.first, self._optimizer.second):
                # Without a gradient they stay zero.
                node.part_of(state)[: semantics.dropped].zero_()
        return semantics.dropped > before


class Model:
    """Predicts the next byte of every lane, then learns the true ones; the same in both directions.

    Everything that changes from step to step is a tensor that keeps its address, so that a step can be
    captured and replayed: an exception is what a network does that updates its weights once in several steps.
    Whoever runs the steps counts them by `dropping` where the settings have a `drop_step`.
    """

    def __init__(self, settings: ModelSettings, lanes: int, device: torch.device) -> None:
        self._network = base.build(settings, lanes, device)
        self._network.parameters.make_gradients()
        self._update_steps = settings.update_steps
        if self._update_steps > 1 and not isinstance(self._network, Reviewing):
            raise UsageError(f"{settings.network} cannot learn several steps at once: set update_steps to 1")
        self._optimizer = Adam(self._network.parameters, settings, lanes * self._update_steps)
        self.dropping = Dropping(settings, self._network.parameters, self._optimizer)
        # The bytes of an update, and the context of the first of them.
        length = settings.seen + self._update_steps
        self._seen = torch.zeros((length, lanes), dtype=torch.int64, device=device)
        self._context = self._seen[self._update_steps :]
        self._steps = torch.zeros(1, dtype=torch.int64, device=device)
        self._since_update = 0
        self._tape = Tape()
        self._logits: Node | None = None
        self._frequencies: Frequencies | None = None
        self._network.start(self._context)

    def predict(self) -> Frequencies:
        """Return the frequencies of the next byte of every lane."""
        self._network.parameters.begin_step()
        self._logits = self._network.forward(self._tape, self._context)
        self._frequencies = Frequencies(self._logits.data)
        return self._frequencies

    def learn(self, symbols: Tensor) -> None:
        """Take the true bytes, int64 [lanes], of the last prediction, and update the weights by them.

        Where the settings say so, that is done for several steps at once, when the last of them is here.
        """
        if self._logits is None or self._frequencies is None:
            raise RuntimeError("learn needs a prediction")
        logits, frequencies = self._logits, self._frequencies
        self._logits = self._frequencies = None
        if not isinstance(self._network, Reviewing):
            # What the tape holds may read the context, which therefore moves on afterwards.
            self._update(logits, frequencies, symbols)
            self._remember(symbols)
            return
        self._remember(symbols)
        self._since_update += 1
        if self._since_update == self._update_steps:
            self._since_update = 0
            self._review(self._network)

    def _review(self, network: Reviewing) -> None:
        """Let the network predict all steps since the last update again, and learn from them."""
        steps = self._update_steps
        logits = network.review(self._tape, self._seen[:-1])
        symbols = self._seen[-steps:].t().reshape(-1)
        self._update(logits, Frequencies(logits.data), symbols)

    def _update(self, logits: Node, frequencies: Frequencies, symbols: Tensor) -> None:
        if isinstance(self._network, WithNGrams):
            self._network.ngrams.tell(symbols)
        logits.add_gradient(frequencies.loss_gradient(symbols))
        self._tape.run_backward()
        self._network.parameters.end_step()
        self._optimizer.update(self._steps)
        self._steps.add_(1)

    def _remember(self, symbols: Tensor) -> None:
        self._seen.copy_(torch.cat([self._seen[1:], symbols.unsqueeze(0)]))

    @property
    def semantics(self) -> Semantics | None:
        """The SEB, where the network has one."""
        return self._network.parameters.semantics

    def fingerprint(self) -> Tensor:
        """Return 32 bits, int64 [1], that depend on every bit of every weight and moment."""
        return state_fingerprint(self._network.parameters, self._optimizer)


def state_fingerprint(parameters: Parameters, optimizer: Adam) -> Tensor:
    """Return 32 bits, int64 [1], that depend on every bit of every weight and moment.

    The numbers count in the order in which the parameters were made, as if nothing lay between them; the
    tables follow one by one, where there are any.
    """
    states = [
        [node.part_of(state) for node in parameters.nodes]
        for state in (parameters.data, optimizer.first, optimizer.second)
    ]
    device = parameters.device
    total = torch.zeros(1, dtype=torch.int64, device=device)
    for state in [*states, *([table] for table in parameters.tables)]:
        pieces = [part.reshape(-1).view(torch.int32) for part in state]
        count = sum(map(len, pieces))
        parts = -(-count // _FINGERPRINT_PART)
        odd = 2 * torch.arange(min(count, _FINGERPRINT_PART), device=device) + 1
        # All of it wraps modulo 2^64, like every integer sum here, in any order.
        sums = torch.zeros(parts, dtype=torch.int64, device=device)
        place = 0
        for values in pieces:
            while len(values):
                part, within = divmod(place, _FINGERPRINT_PART)
                piece = values[: _FINGERPRINT_PART - within]
                sums[part] += (piece * odd[within : within + len(piece)]).sum()
                values = values[len(piece) :]
                place += len(piece)
        for part in range(parts):
            total = total.mul_(0x9E3779B1).add_(sums[part])
    return (total ^ (total >> 32)) & 0xFFFFFFFF
