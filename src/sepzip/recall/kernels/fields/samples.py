"""What is predicted of a lane's samples, for its contexts."""

from __future__ import annotations

import triton
import triton.language as tl

from ...profiles import Field
from ...state import LANE_ERROR, TAPS
from .hashes import with_field

__all__ = ["with_samples"]

_SAMPLE = tl.constexpr(int(Field.SAMPLE))
_LANE_ERROR = tl.constexpr(LANE_ERROR)
_TAPS = tl.constexpr(TAPS)


@triton.jit
def _sample(row, start, SAMPLE: tl.constexpr, BIG_ENDIAN: tl.constexpr):
    """Return the sample that begins at the lane's byte `start`, 0 before its first; two bytes have a sign."""
    inside = start >= 0
    first = tl.load(row + start, mask=inside, other=0).to(tl.int32)
    if SAMPLE == 1:
        value = first
    else:
        second = tl.load(row + start + 1, mask=inside, other=0).to(tl.int32)
        value = (first << 8) | second if BIG_ENDIAN else (second << 8) | first
        value = tl.where(value >= 32768, value - 65536, value)
    return value


@triton.jit
def _bounded(x, least, most):
    return tl.minimum(tl.maximum(x, least), most)


@triton.jit
def _key(prediction, phase, last, SAMPLE: tl.constexpr, BIG_ENDIAN: tl.constexpr):
    """Return what a prediction says of the byte that comes; twin of key_of."""
    if SAMPLE == 1:
        key = prediction & 511
    else:
        bits = prediction & 0xFFFF
        if BIG_ENDIAN:
            first = 0x30000 | (bits >> 4)
            second = 0x40000 | ((_bounded(bits - (last << 8), -256, 511) + 256) >> 1)
        else:
            first = 0x10000 | ((bits & 0xFF) << 4)
            second = 0x20000 | (((bits - last + 128) >> 4) & 0xFFF)
        key = tl.where(phase == 0, first, second)
    return key


@triton.jit
def with_samples(
    hashes,
    masks,
    multipliers,
    row,
    state,
    taps,
    tap_values,
    predictions,
    step,
    position,
    last,
    record,
    SAMPLE: tl.constexpr,
    BIG_ENDIAN: tl.constexpr,
    RECORD: tl.constexpr,
    USED: tl.constexpr,
):
    """Return the hashes with what is predicted of the lane's samples; twin of fill_samples.

    All is worked out at every byte, and kept where a sample begins.
    """
    phase = position % SAMPLE
    begins = (phase == 0) | (step == 0)
    begin = step - phase
    tap = tl.arange(0, _TAPS)
    weights = tl.load(taps + tap)
    values = tl.load(tap_values + tap)
    size = tl.load(state + _LANE_ERROR).to(tl.int32)
    west = _sample(row, begin - SAMPLE, SAMPLE, BIG_ENDIAN)
    west_2 = _sample(row, begin - 2 * SAMPLE, SAMPLE, BIG_ENDIAN)
    west_3 = _sample(row, begin - 3 * SAMPLE, SAMPLE, BIG_ENDIAN)

    learns = begins & (begin > 0)
    error = west - tl.load(predictions + 6)
    size = tl.where(learns, (size * 7 + tl.abs(error) * 16) >> 3, size)
    energy = tl.sum((values * values) >> 4, 0).to(tl.int64) + 1
    product = values.to(tl.int64) * error * 320
    change = tl.minimum(tl.abs(product) // energy, 30000).to(tl.int32)
    change = tl.where(product >= 0, change, -change)
    weights = tl.where(learns, weights + change, weights)

    above = begin - record
    if RECORD:
        # Where there is nothing above, what is before stands for it: all are places of samples.
        has_above = above >= SAMPLE
        at_west = begin - SAMPLE
        at_north = tl.where(has_above, above, at_west)
        at_north_west = tl.where(has_above, above - SAMPLE, begin - 2 * SAMPLE)
        at_north_east = tl.where(has_above, above + SAMPLE, at_west)
        at_north_2 = tl.where(has_above & (above >= record), above - record, at_north)
        at_north_west_2 = tl.where(above >= 2 * SAMPLE, above - 2 * SAMPLE, at_west)
        at_north_east_2 = tl.where(above >= record, above - record + SAMPLE, at_north_east)
        starts = begin - (tap - 4) * SAMPLE
        starts = tl.where(tap == 0, at_west, starts)
        starts = tl.where(tap == 1, at_north, starts)
        starts = tl.where(tap == 2, at_north_west, starts)
        starts = tl.where(tap == 3, at_north_east, starts)
        starts = tl.where(tap == 4, begin - 2 * SAMPLE, starts)
        starts = tl.where(tap == 5, at_north_2, starts)
        starts = tl.where(tap == 6, begin - 3 * SAMPLE, starts)
        starts = tl.where(tap == 7, at_north_west_2, starts)
        north = _sample(row, at_north, SAMPLE, BIG_ENDIAN)
        north_west = _sample(row, at_north_west, SAMPLE, BIG_ENDIAN)
        north_east = _sample(row, at_north_east, SAMPLE, BIG_ENDIAN)
        north_east_2 = _sample(row, at_north_east_2, SAMPLE, BIG_ENDIAN)
    else:
        starts = begin - (tap + 1) * SAMPLE
        north = west
        north_west = west_2
        north_east = west
        north_east_2 = west
    following = _sample(row, starts, SAMPLE, BIG_ENDIAN)
    total = tl.sum(weights.to(tl.int64) * following, 0) >> 16
    by_taps = _bounded(total, -(1 << 30), 1 << 30).to(tl.int32)
    least = -64 if SAMPLE == 1 else -32768
    most = 320 if SAMPLE == 1 else 32767
    p_0 = _bounded(west, least, most)
    p_1 = _bounded(2 * west - west_2, least, most)
    p_2 = _bounded(north, least, most)
    p_3 = _bounded(west + north - north_west, least, most)
    p_4 = _bounded((west + north_east) >> 1, least, most)
    p_5 = _bounded(north + north_east - north_east_2, least, most)
    p_6 = _bounded(by_taps, least, most)
    p_7 = _bounded(3 * west - 3 * west_2 + west_3, least, most)
    p_8 = _bounded((west + north) >> 1, least, most)
    p_0 = tl.where(begins, p_0, tl.load(predictions + 0))
    p_1 = tl.where(begins, p_1, tl.load(predictions + 1))
    p_2 = tl.where(begins, p_2, tl.load(predictions + 2))
    p_3 = tl.where(begins, p_3, tl.load(predictions + 3))
    p_5 = tl.where(begins, p_5, tl.load(predictions + 5))
    p_6 = tl.where(begins, p_6, tl.load(predictions + 6))
    p_8 = tl.where(begins, p_8, tl.load(predictions + 8))

    key_0 = _key(p_0, phase, last, SAMPLE, BIG_ENDIAN)
    key_4 = _key(p_6, phase, last, SAMPLE, BIG_ENDIAN)
    bits = tl.sum(((size >> 3) >> tl.arange(0, 32) > 0).to(tl.int32), 0)
    if SAMPLE == 1:
        key_5 = ((key_4 >> 1) << 6) | bits
        key_8 = ((key_4 >> 1) << 16) | (key_0 >> 2)
    else:
        key_5 = ((key_4 >> 3) << 6) | bits
        key_8 = ((key_4 >> 5) << 16) | (key_0 >> 6)
    key = _key(p_1, phase, last, SAMPLE, BIG_ENDIAN)
    hashes = with_field(hashes, masks, multipliers, _SAMPLE, key_0, USED)
    hashes = with_field(hashes, masks, multipliers, _SAMPLE + 1, key, USED)
    key = _key(p_2, phase, last, SAMPLE, BIG_ENDIAN)
    hashes = with_field(hashes, masks, multipliers, _SAMPLE + 2, key, USED)
    key = _key(p_3, phase, last, SAMPLE, BIG_ENDIAN)
    hashes = with_field(hashes, masks, multipliers, _SAMPLE + 3, key, USED)
    hashes = with_field(hashes, masks, multipliers, _SAMPLE + 4, key_4, USED)
    hashes = with_field(hashes, masks, multipliers, _SAMPLE + 5, key_5, USED)
    key = _key(p_8, phase, last, SAMPLE, BIG_ENDIAN)
    hashes = with_field(hashes, masks, multipliers, _SAMPLE + 6, key, USED)
    key = _key(p_5, phase, last, SAMPLE, BIG_ENDIAN)
    hashes = with_field(hashes, masks, multipliers, _SAMPLE + 7, key, USED)
    hashes = with_field(hashes, masks, multipliers, _SAMPLE + 8, key_8, USED)

    # No warp may overwrite what another has yet to load.
    tl.debug_barrier()
    kept = begins & (tap >= 0)
    tl.store(taps + tap, weights, mask=kept)
    tl.store(tap_values + tap, following, mask=kept)
    tl.store(state + _LANE_ERROR, size.to(tl.int64), mask=begins)
    tl.store(predictions + 0, p_0, mask=begins)
    tl.store(predictions + 1, p_1, mask=begins)
    tl.store(predictions + 2, p_2, mask=begins)
    tl.store(predictions + 3, p_3, mask=begins)
    tl.store(predictions + 4, p_4, mask=begins)
    tl.store(predictions + 5, p_5, mask=begins)
    tl.store(predictions + 6, p_6, mask=begins)
    tl.store(predictions + 7, p_7, mask=begins)
    tl.store(predictions + 8, p_8, mask=begins)
    return hashes
