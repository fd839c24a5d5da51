"""The range coder as Triton kernels: the same arithmetic as in `plain.py`, on the model's device.

Decoding, a coder takes its next word from where the coders before it left off, so one program serves
all of them. Encoding, coders are independent, and one program serves as many as a warp has threads.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..exact.kernels.elements import CHAINED, follow
from ..frequencies import SYMBOLS, TOTAL_BITS
from . import RANGE_FIRST, RANGE_LEAST, WORD_BITS

__all__ = ["NO_DIGIT", "decode_step", "encode_chunk"]

NO_DIGIT = -1
"""Stands where a coder emitted no digit."""

_SYMBOLS = tl.constexpr(SYMBOLS)
_TOTAL_BITS = tl.constexpr(TOTAL_BITS)
_WORD_BITS = tl.constexpr(WORD_BITS)
_WORD_MASK = tl.constexpr((1 << WORD_BITS) - 1)
_RANGE_FIRST = tl.constexpr(RANGE_FIRST)
_RANGE_LEAST = tl.constexpr(RANGE_LEAST)
_NO_DIGIT = tl.constexpr(NO_DIGIT)
# A symbol is found in two looks: among the starts of every 16th symbol, then among 16 neighbours.
_FAN = tl.constexpr(16)

_DECODE_BLOCK_LEAST = 16
_DECODE_BLOCK_MOST = 256
_ENCODE_BLOCK = 32
_ENCODE_STAGES = 6


@triton.jit
def _coarse_starts(starts, turn, blocks, coders, active, BLOCK: tl.constexpr):
    """Return every 16th start of the turn's lanes, int32 [BLOCK, 16]."""
    coder = (turn % blocks) * BLOCK + tl.arange(0, BLOCK)
    lane = (turn // blocks) * coders + coder
    place = lane[:, None] * _SYMBOLS + tl.arange(0, _FAN)[None, :] * _FAN
    return tl.load(starts + place, mask=((coder < coders) & (lane < active))[:, None], other=0)


@triton.jit(do_not_specialize=["context", "lanes", "coders", "capacity", "active"])
def _decode_step(
    starts,
    words,
    codes,
    ranges,
    next_word,
    history,
    position,
    context,
    lanes,
    coders,
    capacity,
    active,
    BLOCK: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
):
    follow()
    row = history + (tl.load(position) + context) * lanes
    word_place = tl.load(next_word)
    coder = tl.arange(0, BLOCK)
    code = tl.load(codes + coder, mask=coder < coders, other=0)
    width = tl.load(ranges + coder, mask=coder < coders, other=_RANGE_FIRST)
    blocks = tl.cdiv(coders, BLOCK)
    turns = blocks * tl.cdiv(lanes, coders)
    following = _coarse_starts(starts, 0, blocks, coders, active, BLOCK)
    for turn in range(turns):
        coarse = following
        # Neither these loads nor that of the words wait for the arithmetic of this turn.
        following = _coarse_starts(starts, turn + 1, blocks, coders, active, BLOCK)
        place = word_place + tl.arange(0, BLOCK)
        window = tl.load(words + place, mask=place < capacity, other=0)
        coder = (turn % blocks) * BLOCK + tl.arange(0, BLOCK)
        lane = (turn // blocks) * coders + coder
        inside = coder < coders
        live = inside & (lane < active)
        if not ONE_BLOCK:
            code = tl.load(codes + coder, mask=inside, other=0)
            width = tl.load(ranges + coder, mask=inside, other=_RANGE_FIRST)

        # A start is at most the slot, the floor of code / unit, where start * unit is at most the code;
        # so nothing is divided. A damaged code may be below 0 and counts as 0.
        unit = (width >> _TOTAL_BITS)[:, None]
        bound = tl.maximum(code, 0)[:, None]
        coarse_scaled = coarse * unit
        high = tl.sum((coarse_scaled <= bound).to(tl.int32), 1) - 1
        place = (lane * _SYMBOLS + high * _FAN)[:, None] + tl.arange(0, _FAN)[None, :]
        fine_scaled = tl.load(starts + place, mask=live[:, None], other=0) * unit
        symbol = high * _FAN + tl.sum((fine_scaled <= bound).to(tl.int32), 1) - 1
        # Starts rise: the symbol's own is the largest up to the code, its end the smallest above it.
        start = tl.max(tl.where(fine_scaled <= bound, fine_scaled, 0), 1)
        last = unit << _TOTAL_BITS
        end = tl.minimum(
            tl.min(tl.where(fine_scaled > bound, fine_scaled, last), 1),
            tl.min(tl.where(coarse_scaled > bound, coarse_scaled, last), 1),
        )
        narrow = end - start
        reads = live & (narrow < _RANGE_LEAST)
        rank = tl.cumsum(reads.to(tl.int32), 0)
        word = tl.gather(window, tl.maximum(rank - 1, 0), 0)
        inner = code - start
        code = tl.where(live, tl.where(reads, (inner << _WORD_BITS) | word, inner), code)
        width = tl.where(live, tl.where(reads, narrow << _WORD_BITS, narrow), width)
        word_place += tl.sum(reads.to(tl.int32), 0)
        symbol = tl.where(live, symbol, 0)
        tl.store(row + lane, symbol.to(tl.uint8), mask=inside & (lane < lanes))
        if not ONE_BLOCK:
            tl.store(codes + coder, code, mask=inside)
            tl.store(ranges + coder, width, mask=inside)
            # Another thread may load them when this block's turn comes again.
            tl.debug_barrier()
    if ONE_BLOCK:
        tl.store(codes + coder, code, mask=coder < coders)
        tl.store(ranges + coder, width, mask=coder < coders)
    tl.store(next_word, word_place)


def decode_step(
    starts: Tensor,
    words: Tensor,
    codes: Tensor,
    ranges: Tensor,
    next_word: Tensor,
    history: Tensor,
    position: Tensor,
    context: int,
    active: int,
) -> None:
    """Find one symbol a lane and write them to row context + position[0] of `history`.

    `starts` is int32 [lanes, 256]; `words` int32, zero from the payload's end on; `codes` and `ranges`
    int64 [coders] and `next_word` int64 [1] are the coders' state, which is updated; `history` is uint8
    [rows, lanes], `position` int64 [1]. Lanes from `active` on give 0. All contiguous.
    """
    coders = codes.shape[0]
    block = min(max(triton.next_power_of_2(coders), _DECODE_BLOCK_LEAST), _DECODE_BLOCK_MOST)
    _decode_step[(1,)](
        starts,
        words,
        codes,
        ranges,
        next_word,
        history,
        position,
        context,
        starts.shape[0],
        coders,
        words.shape[0],
        active,
        BLOCK=block,
        ONE_BLOCK=coders <= block,
        # As many as leave a thread the registers that it needs.
        num_warps=min(max(block // 8, 4), 16),
        **CHAINED,
    )


@triton.jit(do_not_specialize=["steps", "active_last", "lanes", "coders"])
def _encode_chunk(
    starts,
    frequencies,
    lows,
    ranges,
    digits,
    steps,
    active_last,
    lanes,
    coders,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    follow()
    coder = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = coder < coders
    low = tl.load(lows + coder, mask=inside, other=0)
    width = tl.load(ranges + coder, mask=inside, other=_RANGE_FIRST)
    groups = tl.cdiv(lanes, coders)
    # Loads are issued some turns ahead: they would take far longer than a turn's arithmetic.
    for turn in tl.range(steps * groups, num_stages=STAGES):
        step = turn // groups
        lane = (turn % groups) * coders + coder
        active = tl.where(step == steps - 1, active_last, lanes)
        live = inside & (lane < active)
        place = step * lanes + lane
        start = tl.load(starts + place, mask=live, other=0)
        frequency = tl.load(frequencies + place, mask=live, other=0)
        unit = width >> _TOTAL_BITS
        # A start of 0 for lanes without a symbol changes nothing; their range is kept below.
        low += unit * start
        width = tl.where(live, unit * frequency, width)
        emits = width < _RANGE_LEAST
        tl.store(
            digits + turn * coders + coder,
            tl.where(emits, low >> _WORD_BITS, _NO_DIGIT),
            mask=inside,
        )
        low = tl.where(emits, (low & _WORD_MASK) << _WORD_BITS, low)
        width = tl.where(emits, width << _WORD_BITS, width)
    tl.store(lows + coder, low, mask=inside)
    tl.store(ranges + coder, width, mask=inside)


def encode_chunk(
    starts: Tensor,
    frequencies: Tensor,
    lows: Tensor,
    ranges: Tensor,
    digits: Tensor,
    steps: int,
    active_last: int,
) -> None:
    """Code the first `steps` rows of `starts` and `frequencies`, int32 [at least steps, lanes].

    In the last of them only the first `active_last` lanes have a symbol. `lows` and `ranges`, int64
    [coders], are the coders' state, which is updated. `digits`, int64 [at least steps * groups, coders],
    takes for each step and group of lanes the digit that a coder emits, or NO_DIGIT: read row by row,
    that is the order of emission. All contiguous.
    """
    coders = lows.shape[0]
    _encode_chunk[(triton.cdiv(coders, _ENCODE_BLOCK),)](
        starts,
        frequencies,
        lows,
        ranges,
        digits,
        steps,
        active_last,
        starts.shape[1],
        coders,
        BLOCK=_ENCODE_BLOCK,
        STAGES=_ENCODE_STAGES,
        num_warps=1,
        **CHAINED,
    )
