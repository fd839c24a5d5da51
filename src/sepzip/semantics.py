"""The semantics enhancement block (SEB), which stands in front of a base network.

The context becomes overlapping patches of embedded bytes; a learned mask weighs them, with every
stride-th one kept whole; a linear map over the patch axis and a GELU fuse them into what the base
network takes: one patch, or several as its tokens. Source: SEP, 'semantics enhancement block' with
'adaptive stride'.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .exact.embedding import sigmoid_embedding
from .exact.functions import sigmoid
from .exact.gelu import gelu
from .exact.initialise import Initialiser
from .exact.patches import fuse_into_tokens, fuse_patches
from .exact.quantise import exact_sum
from .exact.sinusoid import join_positions, sinusoids
from .exact.tape import Node, Parameters, Tape
from .presets import ModelSettings

__all__ = ["SHARPNESS", "TOKEN_SHARPNESS", "SemanticsEnhancement", "TokenSemantics"]

_DEVIATION = 0.01
SHARPNESS = 10.0
TOKEN_SHARPNESS = 64.0


class SemanticsEnhancement:
    """A front of [lanes, patch * embedding] values: one fused patch."""

    def __init__(self, settings: ModelSettings, parameters: Parameters, initialiser: Initialiser) -> None:
        device = parameters.device
        patches = settings.context - settings.patch + 1
        self.patch = settings.patch
        self.table = parameters.add(initialiser.normal((256, settings.embedding), _DEVIATION))
        weight = initialiser.normal((patches,), _DEVIATION)
        # The newest patch starts in full, where SEP starts it near 0 like the others: the base network
        # then learns from the first step on (docs/networks.md).
        weight[-1] += 1.0
        self.weight = parameters.add(weight)
        self.bias = parameters.add(initialiser.normal((1,), _DEVIATION))
        self.mask = parameters.add(torch.zeros(patches, device=device))
        self.kept = _kept(patches, settings.stride, device)

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return [lanes, patch * embedding] from context, int64 [bytes, lanes].

        Of more bytes than the settings' context come as many more places, each the same sum of bytes.
        """
        weight = self._masked_weight(tape)
        places = len(context) - len(weight.data) + 1
        fused = fuse_patches(tape, self.table, context, weight, self.bias, places)
        return gelu(tape, fused)

    def learned_mask(self) -> Tensor:
        """Return the mask as it is by now, [patches], the newest patch last."""
        return _squash(self.mask.data, self.kept, SHARPNESS)[0]

    def _masked_weight(self, tape: Tape) -> Node:
        """Return each patch's weight times its mask, [patches]."""
        mask, slope = _squash(self.mask.data, self.kept, SHARPNESS)
        out = Node(self.weight.data * mask)

        def backward() -> None:
            gradient = out.take_gradient()
            self.weight.add_gradient(gradient * mask)
            self.mask.add_gradient(torch.where(self.kept, 0.0, gradient * self.weight.data * slope))

        tape.record(backward)
        return out


class TokenSemantics:
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

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return each lane's tokens from context, int64 [bytes, lanes]."""
        embedded = sigmoid_embedding(tape, self.table, context)
        joined = join_positions(tape, embedded, self.positions)
        return gelu(tape, fuse_into_tokens(tape, joined, self._masked_weight(tape), self.bias, self.patch))

    def learned_mask(self) -> Tensor:
        """Return the mask as it is by now, [patches, width], the newest patch last."""
        return _squash(self.mask.data, self.kept, self.sharpness)[0]

    def _masked_weight(self, tape: Tape) -> Node:
        """Return each patch's weights times its mask, [patches, tokens, width]."""
        mask, slope = _squash(self.mask.data, self.kept, self.sharpness)
        mask = mask.unsqueeze(1)
        weight = self.weight.data.unsqueeze(2)
        out = Node(weight * mask)

        def backward() -> None:
            gradient = out.take_gradient()
            self.weight.add_gradient(exact_sum(gradient * mask, 2).squeeze(2))
            by_mask = exact_sum(gradient * weight, 1).squeeze(1).mul_(slope)
            self.mask.add_gradient(torch.where(self.kept, 0.0, by_mask))

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
