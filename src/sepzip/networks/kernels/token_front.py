"""The fronts that make a lane's tokens, as kernels: of its bytes side by side, or the SEB."""

from __future__ import annotations

from torch import Tensor

from ...exact.kernels.embedding import FusedEmbedding
from ...exact.kernels.token_patches import FusedTokenSemantics
from ...exact.kernels.update import Learner
from ...exact.workspace import Workspace
from ...semantics import TokenSemantics
from ..base import Front
from ..trace import Tokens
from .shared import FusedFront, Parameters

__all__ = ["fuse_front"]


def fuse_front(
    plain: Front,
    state: Parameters,
    learner: Learner,
    history: Tensor,
    position: Tensor,
    workspace: Workspace,
) -> tuple[FusedFront, int]:
    """Return the kernels of a plain front, and how many tokens of each lane it makes."""
    if isinstance(plain, TokenSemantics):
        semantics = FusedTokenSemantics(
            state(plain.table),
            state(plain.weight),
            state(plain.bias),
            state(plain.mask),
            plain.kept.view(-1),
            plain.sharpness,
            plain.patch,
            plain.positions,
            history,
            position,
            learner.size,
            learner.epsilon,
            workspace,
        )
        return semantics, plain.weight.data.shape[1]
    if isinstance(plain, Tokens):
        context, more = plain.positions.shape
        embedding = FusedEmbedding(
            state(plain.table),
            history,
            position,
            context,
            learner.size,
            learner.epsilon,
            workspace,
            plain.positions,
            squashed=False,
        )
        return embedding, context * (plain.table.data.shape[1] + more) // plain.width
    raise TypeError(f"no kernels for a front of type {type(plain).__name__}")
