"""The fronts that make a lane's tokens, as kernels: of its bytes side by side, or the SEB."""

from __future__ import annotations

from torch import Tensor

from ...exact.kernels.embedding import FusedEmbedding
from ...exact.kernels.parameters import Learner
from ...exact.kernels.token_patches import FusedTokenSemantics
from ...exact.workspace import Workspace
from ...semantics import TokenSemantics
from ..base import Front
from ..patchtst import PatchTST
from ..trace import TRACE, Tokens
from .shared import FusedFront, Parameters

__all__ = ["fuse_front", "token_count"]


def fuse_front(
    network: TRACE | PatchTST,
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
    if isinstance(plain, TokenSemantics):
        # Of the patches, and of the rows of bytes, those that are dropped come first.
        first = plain.dropped
        return FusedTokenSemantics(
            state(plain.table),
            state(plain.weight).after(first),
            state(plain.bias),
            state(plain.mask).after(first),
            plain.kept.view(-1)[first:],
            plain.sharpness,
            plain.patch,
            plain.positions[first:],
            history[first:],
            position,
            learner,
            workspace,
        )
    if isinstance(plain, Tokens):
        context = len(plain.positions)
        return FusedEmbedding(
            state(plain.table),
            history,
            position,
            context,
            learner,
            workspace,
            plain.positions,
            squashed=False,
        )
    raise TypeError(f"no kernels for a front of type {type(plain).__name__}")


def token_count(plain: Front) -> int:
    """Return how many tokens of each lane a plain front makes."""
    if isinstance(plain, TokenSemantics):
        return plain.weight.data.shape[1]
    if isinstance(plain, Tokens):
        context, more = plain.positions.shape
        return context * (plain.table.data.shape[1] + more) // plain.width
    raise TypeError(f"no kernels for a front of type {type(plain).__name__}")
