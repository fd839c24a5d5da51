"""The fronts that make one row of values of a lane's context, as kernels: its embedded bytes, or the SEB."""

from __future__ import annotations

from torch import Tensor

from ...exact.kernels.embedding import FusedEmbedding
from ...exact.kernels.parameters import Learner
from ...exact.kernels.patches import FusedSemantics
from ...exact.workspace import Workspace
from ...semantics import SemanticsEnhancement
from ..pac import PAC, Embedding
from .shared import FusedFront, Parameters

__all__ = ["fuse_front"]


def fuse_front(
    network: PAC,
    state: Parameters,
    learner: Learner,
    history: Tensor,
    position: Tensor,
    workspace: Workspace,
) -> FusedFront:
    """Return the kernels of a plain network's front.

    A step's context is the rows of `history`, uint8 [rows, lanes], from position[0] on, int64 [1].
    """
    plain = network.front
    if isinstance(plain, SemanticsEnhancement):
        # Of the patches, and of the rows of bytes, those that are dropped come first.
        first = plain.dropped
        return FusedSemantics(
            state(plain.table),
            state(plain.weight).after(first),
            state(plain.bias),
            state(plain.mask).after(first),
            plain.kept[first:],
            plain.sharpness,
            plain.patch,
            history[first:],
            position,
            learner,
            workspace,
        )
    if isinstance(plain, Embedding):
        context = network.context
        return FusedEmbedding(state(plain.table), history, position, context, learner, workspace)
    raise TypeError(f"no kernels for a front of type {type(plain).__name__}")
