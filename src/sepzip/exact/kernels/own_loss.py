"""The gradient by a network's logits beside which something is added: the twin of own_loss.py.

One program serves one lane, in one warp, as in softmax.py.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...frequencies import SYMBOLS
from ..own_loss import KEPT, NONE, SMALLEST, WHOLE, OwnLoss
from ..quantise import SUM_MOST
from ..workspace import Workspace
from .elements import CHAINED, follow, whole_number
from .softmax import exponentials

__all__ = ["FusedOwnLoss"]

_SYMBOLS = tl.constexpr(SYMBOLS)
_SUM_MOST = tl.constexpr(float(SUM_MOST))
_KEPT, _TAKEN = tl.constexpr(KEPT), tl.constexpr(1.0 - KEPT)
_NONE, _SLOPE = tl.constexpr(NONE), tl.constexpr(1.0 / (NONE - WHOLE))
_SMALLEST = tl.constexpr(SMALLEST)


class FusedOwnLoss:
    """The mean gain of what is added to a network's logits, and the gradient that the network learns from.

    Three kernels a step, of which nothing but the next step waits for the last.
    """

    def __init__(self, plain: OwnLoss, lanes: int, workspace: Workspace) -> None:
        self._gain = plain.gain
        self._lanes = lanes
        self._unit = 1.0 / (SUM_MOST * lanes)
        self._own = workspace.take("own_loss.gradient", (lanes, 256))
        self._total = workspace.take("own_loss.total", (1,), torch.int64)

    def clear(self) -> None:
        """Set to zero what `gradient` adds to."""
        self._total.zero_()

    def gradient(
        self, logits: Tensor, joint: Tensor, history: Tensor, position: Tensor, context: int, out: Tensor
    ) -> None:
        """Write the gradient by `logits` to `out`; both are the network's own, float32 [lanes, 256].

        `joint`, of the same shape, is the gradient by the logits with what is added. The true bytes are row
        context + position[0] of `history`, uint8 [rows, lanes]; `position` is int64 [1]. All contiguous.
        """
        _own_gradient[(self._lanes,)](
            logits, joint, history, position, context, self._own, self._total, num_warps=1, **CHAINED
        )
        _shared_gradient[(self._lanes,)](
            self._own, joint, self._total, self._gain, self._unit, out, num_warps=1, **CHAINED
        )

    def finish(self) -> None:
        """Keep the mean gain for the next step, once `gradient` has been called."""
        _keep_gain[(1,)](self._total, self._gain, self._unit, num_warps=1, **CHAINED)


@triton.jit(do_not_specialize=["context"])
def _own_gradient(logits, joint, history, position, context, gradient, total):
    follow()
    lane = tl.program_id(0)
    lanes = tl.num_programs(0)
    symbol = tl.arange(0, _SYMBOLS)
    place = lane * _SYMBOLS + symbol
    true = tl.load(history + (tl.load(position) + context) * lanes + lane).to(tl.int32)
    whole = exponentials(tl.load(logits + place))
    probability = whole.to(tl.float32) * tl.div_rn(1.0, tl.sum(whole.to(tl.int64), 0).to(tl.float32))
    own = tl.where(symbol == true, probability - 1.0, probability)
    tl.store(gradient + place, own)
    # All but one of what is summed are zeros.
    alone = tl.sum(tl.where(symbol == true, own, 0.0), 0) + 1.0
    together = tl.load(joint + lane * _SYMBOLS + true) + 1.0
    gain = tl.div_rn(together - alone, (together + alone) + _SMALLEST)
    tl.atomic_add(total, whole_number(gain, _SUM_MOST).to(tl.int64), sem="relaxed")


@triton.jit
def _next_gain(total, gain, unit):
    """Return the mean gain with this step's, `unit` being 1 / (2^20 lanes)."""
    mean = tl.load(total).to(tl.float32) * unit
    return tl.load(gain) * _KEPT + mean * _TAKEN


@triton.jit
def _shared_gradient(own, joint, total, gain, unit, out):
    follow()
    place = tl.program_id(0) * _SYMBOLS + tl.arange(0, _SYMBOLS)
    share = (_NONE - _next_gain(total, gain, unit)) * _SLOPE
    share = tl.minimum(tl.maximum(share, 0.0), 1.0)
    tl.store(out + place, tl.load(own + place) * share + tl.load(joint + place) * (1.0 - share))


@triton.jit
def _keep_gain(total, gain, unit):
    follow()
    tl.store(gain, _next_gain(total, gain, unit))
