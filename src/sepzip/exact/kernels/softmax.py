"""From logits to frequencies, and the gradient of the log-loss: the twin of softmax.py and frequencies.py.

One program serves one lane, in one warp: the sums over its 256 symbols then need no shared memory.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ...frequencies import SYMBOLS, TOTAL_BITS
from ..functions import LOG2_E
from ..softmax import EXPONENTIAL_BITS
from .elements import CHAINED, exp2, follow

__all__ = ["exponentials", "frequencies", "loss_gradient"]

_SYMBOLS = tl.constexpr(SYMBOLS)
_TOTAL = tl.constexpr(1 << TOTAL_BITS)
_UNIT = tl.constexpr(float(1 << EXPONENTIAL_BITS))
_LOG2_E = tl.constexpr(LOG2_E)
# The shift of frequencies.py: what is shared out, times 2 to this power, still fits 60 bits.
_SHIFT = tl.constexpr(36)
_SHARED = tl.constexpr(((1 << TOTAL_BITS) - SYMBOLS) << 36)


@triton.jit
def exponentials(x):
    """Return exp(x - largest x) in units of 2^-24, int32, of a lane's logits."""
    return (exp2((x - tl.max(x, 0)) * _LOG2_E) * _UNIT).to(tl.int32)


@triton.jit
def _frequencies(logits, added, whole, starts, reciprocal, adds: tl.constexpr):
    follow()
    lane = tl.program_id(0)
    symbol = tl.arange(0, _SYMBOLS)
    place = lane * _SYMBOLS + symbol
    x = tl.load(logits + place)
    if adds:
        x += tl.load(added + place)
    exponential = exponentials(x)
    tl.store(whole + place, exponential)
    # A lane's sum may be 2^32.
    long = exponential.to(tl.int64)
    total = tl.sum(long, 0)
    ratio = (total + (_SHARED - 1)) // total
    start = (((tl.cumsum(long, 0) - long) * ratio) >> _SHIFT) + symbol
    tl.store(starts + place, start.to(tl.int32))
    tl.store(reciprocal + lane, tl.div_rn(1.0, total.to(tl.float32)))


def frequencies(
    logits: Tensor, whole: Tensor, starts: Tensor, reciprocal: Tensor, added: Tensor | None = None
) -> None:
    """Write what `Frequencies` makes of the logits, float32 [lanes, 256], finite, and of `added` if given.

    `whole` int32 [lanes, 256]: the exponentials in units of 2^-24. `starts` int32 [lanes, 256]: the start
    of every symbol, the frequencies summing to 2^24. `reciprocal` float32 [lanes]: 1 / float32(the sum of
    the lane's exponentials). All contiguous.
    """
    _frequencies[(logits.shape[0],)](
        logits,
        logits if added is None else added,
        whole,
        starts,
        reciprocal,
        added is not None,
        num_warps=1,
        **CHAINED,
    )


@triton.jit(do_not_specialize=["context"])
def _loss_gradient(
    whole,
    reciprocal,
    starts,
    history,
    position,
    context,
    gradient,
    true_starts,
    true_frequencies,
    RECORD: tl.constexpr,
):
    follow()
    lane = tl.program_id(0)
    lanes = tl.num_programs(0)
    symbol = tl.arange(0, _SYMBOLS)
    place = lane * _SYMBOLS + symbol
    step = tl.load(position)
    true = tl.load(history + (step + context) * lanes + lane).to(tl.int32)
    probability = tl.load(whole + place).to(tl.float32) * tl.load(reciprocal + lane)
    tl.store(gradient + place, tl.where(symbol == true, probability - 1.0, probability))
    if RECORD:
        start = tl.load(starts + lane * _SYMBOLS + true)
        following = tl.minimum(true + 1, _SYMBOLS - 1)
        end = tl.where(true == _SYMBOLS - 1, _TOTAL, tl.load(starts + lane * _SYMBOLS + following))
        tl.store(true_starts + step * lanes + lane, start)
        tl.store(true_frequencies + step * lanes + lane, end - start)


def loss_gradient(
    whole: Tensor,
    reciprocal: Tensor,
    starts: Tensor,
    history: Tensor,
    position: Tensor,
    context: int,
    gradient: Tensor,
    intervals: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Write the gradient of the lanes' summed log-loss (nats) by the logits, float32 [lanes, 256].

    `whole`, `reciprocal` and `starts` are from `frequencies`. The true bytes are row context + position[0]
    of `history`, uint8 [rows, lanes]; `position` is int64 [1]. With `intervals`, a pair of int32
    [steps, lanes], the starts and the frequencies of the true bytes are written to their row position[0].
    All contiguous.
    """
    true_starts, true_frequencies = intervals or (starts, starts)
    _loss_gradient[(whole.shape[0],)](
        whole,
        reciprocal,
        starts,
        history,
        position,
        context,
        gradient,
        true_starts,
        true_frequencies,
        RECORD=intervals is not None,
        num_warps=1,
        **CHAINED,
    )
