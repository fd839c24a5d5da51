"""The semantics enhancement block (SEB), which stands in front of a base network.

The context becomes overlapping patches of embedded bytes; a learned mask weighs them, with every
stride-th one kept whole; a linear map over the patch axis and a GELU fuse them into what the base
network takes: one patch, or several as its tokens. Old patches that have learned no weight can be dropped.
Source: SEP, 'semantics enhancement block' with 'adaptive stride'.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .exact.constants import constant
from .exact.embedding import sigmoid_embedding
from .exact.functions import sigmoid
from .exact.gelu import gelu
from .exact.initialise import Initialiser
from .exact.patches import fuse_into_tokens, fuse_patches
from .exact.quantise import exact_sum
from .exact.sinusoid import join_positions, sinusoids
from .exact.tape import Node, ParameterNode, Parameters, Tape
from .presets import ModelSettings

__all__ = ["SHARPNESS", "TOKEN_SHARPNESS", "Semantics", "SemanticsEnhancement", "TokenSemantics"]

_DEVIATION = 0.01
SHARPNESS = 10.0
TOKEN_SHARPNESS = 64.0


class Semantics:
    """The SEB's weights and mask, of which the first `dropped` patches are left out of all work.

    What is left are the newest patches: sums over them read `dropped` bytes less. Their number is a power of
    two, or that of all of them, so that kernels of a few sizes serve whatever is learned.
    """

    weight: ParameterNode
    mask: ParameterNode
    kept: Tensor
    sharpness: float
    dropped: int

    def drop(self, below: int) -> None:
        """Drop the patches that are older than the oldest one of weight.

        A patch has weight if its strength is at least `below` thousandths of the largest. Whoever learns the
        rows of `weight` and `mask` that are dropped sets them, and what is kept for them, to zero.
        """
        strength = self.strength()
        has_weight = (strength >= strength.amax() * constant(below / 1000)).tolist()
        left = 1 << (len(has_weight) - has_weight.index(True) - 1).bit_length()
        self.dropped = max(self.dropped, len(has_weight) - left)

    def strength(self) -> Tensor:
        """Return the size of each patch's largest masked weight, [patches], the newest patch last."""
        weight = self.weight.data
        masked = weight.view(len(weight), -1, 1) * self.learned_mask().view(len(weight), 1, -1)
        return masked.abs().amax((1, 2))

    def learned_mask(self) -> Tensor:
        """Return the mask as it is by now, of the shape of `mask`, the newest patch last."""
        return _squash(self.mask.data, self.kept, self.sharpness)[0]

    def left(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weights of the patches that are left, their mask, and its slope where it is learned."""
        mask, slope = _squash(self.mask.data[self.dropped :], self.kept[self.dropped :], self.sharpness)
        return self.weight.data[self.dropped :], mask, slope

    def add_gradients(self, by_weight: Tensor, by_mask: Tensor) -> None:
        """Add the gradients of the patches that are left; what is kept of the mask has none."""
        by_mask = torch.where(self.kept[self.dropped :], 0.0, by_mask)
        for node, gradient in ((self.weight, by_weight), (self.mask, by_mask)):
            unused = gradient.new_zeros((self.dropped, *gradient.shape[1:]))
            node.add_gradient(torch.cat([unused, gradient]) if self.dropped else gradient)


class SemanticsEnhancement(Semantics):
    """A front of [lanes, patch * embedding] values: one fused patch."""

    def __init__(self, settings: ModelSettings, parameters: Parameters, initialiser: Initialiser) -> None:
        device = parameters.device
        patches = settings.context - settings.patch + 1
        self.patch = settings.patch
        self.sharpness = SHARPNESS
        self.table = parameters.add(initialiser.normal((256, settings.embedding), _DEVIATION))
        weight = initialiser.normal((patches,), _DEVIATION)
        # The newest patch starts in full, where SEP starts it near 0 like the others: the base network
        # then learns from the first step on (docs/networks.md).
        weight[-1] += 1.0
        self.weight = parameters.add(weight)
        self.bias = parameters.add(initialiser.normal((1,), _DEVIATION))
        self.mask = parameters.add(torch.zeros(patches, device=device))
        self.kept = _kept(patches, settings.stride, device)
        self.dropped = 0
        parameters.semantics = self

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return [lanes, patch * embedding] from context, int64 [bytes, lanes].

        Of more bytes than the settings' context come as many more places, each the same sum of bytes.
        """
        places = len(context) - len(self.weight.data) + 1
        weight = self._masked_weight(tape)
        fused = fuse_patches(tape, self.table, context[self.dropped :], weight, self.bias, places)
        return gelu(tape, fused)

    def _masked_weight(self, tape: Tape) -> Node:
        """Return each patch's weight times its mask, of those that are left."""
        weight, mask, slope = self.left()
        out = Node(weight * mask)

        def backward() -> None:
            gradient = out.take_gradient()
            self.add_gradients(gradient * mask, gradient * weight * slope)

        tape.record(backward)
        return out


class TokenSemantics(Semantics):
    """A front of [lanes * tokens, patch * (embedding + positions)] values: several fused patches a lane.

    Here the mask has a number for each value of each patch, and a patch has a weight for each token.
    """

    def __init__(
        self,
        settings: ModelSettings,
        parameters: Parameters,
        initialiser: Initialiser,
        sharpness: float = TOKEN_SHARPNESS,
    ) -> None:
        device = parameters.device
        patches, tokens = settings.context - settings.patch + 1, settings.tokens
        self.patch = settings.patch
        self.sharpness = sharpness
        self.table = parameters.add(initialiser.normal((256, settings.embedding), 1.0))
        self.positions = sigmoid(sinusoids(settings.context, settings.positions).to(device))
        bound = 1.0 / math.sqrt(patches)
        weight = initialiser.uniform((patches, tokens), bound)
        # The tokens start as the newest patches side by side, for the reason above.
        for token in range(tokens):
            age = (tokens - 1 - token) * settings.patch
            if age < patches:
                weight[patches - 1 - age, token] += 1.0
        self.weight = parameters.add(weight)
        self.bias = parameters.add(initialiser.uniform((tokens,), bound))
        self.mask = parameters.add(torch.zeros((patches, settings.width), device=device))
        self.kept = _kept(patches, settings.stride, device).unsqueeze(1)
        self.dropped = 0
        parameters.semantics = self

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return each lane's tokens from context, int64 [bytes, lanes]."""
        embedded = sigmoid_embedding(tape, self.table, context[self.dropped :])
        joined = join_positions(tape, embedded, self.positions[self.dropped :])
        return gelu(tape, fuse_into_tokens(tape, joined, self._masked_weight(tape), self.bias, self.patch))

    def _masked_weight(self, tape: Tape) -> Node:
        """Return each patch's weights times its mask, [patches, tokens, width], of those that are left."""
        weight, mask, slope = self.left()
        weight, mask = weight.unsqueeze(2), mask.unsqueeze(1)
        out = Node(weight * mask)

        def backward() -> None:
            gradient = out.take_gradient()
            by_weight = exact_sum(gradient * mask, 2).squeeze(2)
            by_mask = exact_sum(gradient * weight, 1).squeeze(1)
            self.add_gradients(by_weight, by_mask.mul_(slope))

        tape.record(backward)
        return out


def _kept(patches: int, stride: int, device: torch.device) -> Tensor:
    """Return which patches the mask keeps, bool [patches]: the newest, and every stride-th before it."""
    age = torch.arange(patches - 1, -1, -1, device=device)
    return age % stride == 0


def _squash(numbers: Tensor, kept: Tensor, sharpness: float) -> tuple[Tensor, Tensor]:
    """Return the mask made of its learned numbers, and its slope by them where it is not kept."""
    learned = sigmoid(numbers)
    mask = sigmoid(torch.where(kept, 1.0, learned).sub_(0.5).mul_(sharpness))
    return mask, mask * (1.0 - mask) * (learned * (1.0 - learned)) * sharpness
