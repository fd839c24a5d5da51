"""A model whose network runs as fused kernels: the twin of model.py, equal in every bit.

The bytes that it sees lie in `history`, a chunk of steps and the context before it: whoever knows a step's
symbols writes them to the row that the step learns.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from .exact.kernels.elements import CHAINED, follow
from .exact.kernels.parameters import Learner, Parameter
from .exact.kernels.softmax import frequencies, loss_gradient
from .exact.tape import ParameterNode
from .exact.workspace import Workspace
from .model import Dropping, state_fingerprint
from .networks import base
from .networks.kernels import FusedNetwork
from .networks.kernels.ngrams import FusedNGrams
from .networks.kernels.shared import FusedFront
from .ngrams import WithNGrams
from .optimizer import Adam
from .presets import ModelSettings

__all__ = ["FusedModel"]


@triton.jit
def _advance(position, steps, size, sizes, last):
    """Count a step, and look up the step size of the next."""
    follow()
    tl.store(position, tl.load(position) + 1)
    step = tl.load(steps) + 1
    tl.store(steps, step)
    tl.store(size, tl.load(sizes + tl.minimum(step, last)))


class FusedModel:
    """Predicts the next byte of every lane, then learns the true ones.

    Nothing waits for the host, and every tensor keeps its address, so that steps can be captured.
    """

    def __init__(
        self,
        settings: ModelSettings,
        lanes: int,
        chunk_steps: int,
        device: torch.device,
        workspace: Workspace,
    ) -> None:
        """Make a model for chunks of up to `chunk_steps` steps that works in `workspace`."""
        network = base.build(settings, lanes, device)
        network.start(torch.zeros((settings.seen, lanes), dtype=torch.int64, device=device))
        self.context = settings.seen
        rows = settings.seen + chunk_steps
        self.history = torch.zeros((rows, lanes), dtype=torch.uint8, device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        self.starts = workspace.take("starts", (lanes, 256), torch.int32)
        self._whole = workspace.take("exponentials", (lanes, 256), torch.int32)
        self._reciprocal = workspace.take("reciprocal", (lanes,))
        self._parameters = network.parameters
        self._optimizer = optimizer = Adam(network.parameters, settings, lanes)
        self._steps = torch.zeros(1, dtype=torch.int64, device=device)
        self._learner = learner = Learner(optimizer.step_size(self._steps), optimizer.epsilon)
        self._dropping = Dropping(settings, network.parameters, optimizer)

        def state(node: ParameterNode) -> Parameter:
            return Parameter(node.data, node.part_of(optimizer.first), node.part_of(optimizer.second))

        kernels = base.kernels_of(settings.network)
        alone = network.network if isinstance(network, WithNGrams) else network
        # The network's context is the newest part of what is seen.
        history = self.history[settings.seen - settings.context :]
        self._front: Callable[[], FusedFront] = partial(
            kernels.fuse_front, alone, state, learner, history, self.position, workspace
        )
        self._network: FusedNetwork = kernels.fuse(
            alone, self._front(), state, learner, lanes, self._steps, workspace
        )
        self._logits: Tensor | None = None
        self._ngrams: FusedNGrams | None = None
        if isinstance(network, WithNGrams):
            self._ngrams = FusedNGrams(
                network.ngrams,
                self._network.by_logits,
                state,
                learner,
                self.history,
                self.position,
                settings.seen,
                workspace,
            )

    @property
    def may_drop(self) -> bool:
        """Whether `count` is still to be called: a step may come after which patches are dropped."""
        return self._dropping.is_pending

    def up_to_drop(self, steps: int) -> int:
        """Return how many of so many steps can run before `count` is to be called."""
        return self._dropping.up_to(steps)

    def count(self, steps: int) -> bool:
        """Count so many steps; return whether patches were dropped: the next step is then another one."""
        if self._dropping.is_pending:
            self._network.settle()
        if not self._dropping.count(steps):
            return False
        self._network.front = self._front()
        return True

    def begin_chunk(self, before: int) -> None:
        """Move the newest bytes to the front of the history, to be the context of a further chunk.

        The chunk before had `before` steps.
        """
        newest = self.history[before : before + self.context]
        # They overlap where the context is longer than the chunk.
        self.history[: self.context].copy_(newest if self.context <= before else newest.clone())
        self.position.zero_()

    def predict(self) -> None:
        """Write the starts of all symbols of the next byte, int32 [lanes, 256], to `starts`."""
        added = None if self._ngrams is None else self._ngrams.forward()
        self._logits = self._network.forward()
        if self._ngrams is not None:
            self._ngrams.join()
        frequencies(self._logits, self._whole, self.starts, self._reciprocal, added)

    def learn(self, intervals: tuple[Tensor, Tensor] | None = None) -> None:
        """Learn the bytes in row context + position[0] of `history`, and go on to the next row.

        Their starts and frequencies go to row position[0] of `intervals`, int32 [chunk steps, lanes] each.
        """
        if self._logits is None:
            raise RuntimeError("learn needs a prediction")
        by_logits = (self._network if self._ngrams is None else self._ngrams).by_logits
        loss_gradient(
            self._whole,
            self._reciprocal,
            self.starts,
            self.history,
            self.position,
            self.context,
            by_logits,
            intervals,
        )
        if self._ngrams is not None:
            self._ngrams.backward(self._logits)
        self._network.backward()
        if self._ngrams is not None:
            self._ngrams.join()
        sizes = self._optimizer.step_sizes
        _advance[(1,)](
            self.position, self._steps, self._learner.size, sizes, len(sizes) - 1, num_warps=1, **CHAINED
        )

    def settle(self) -> None:
        """Let what is launched next wait for all of the steps before; due before a capture ends."""
        self._network.settle()

    def fingerprint(self) -> Tensor:
        """Return 32 bits, int64 [1], that depend on every bit of every weight and moment."""
        return state_fingerprint(self._parameters, self._optimizer)
