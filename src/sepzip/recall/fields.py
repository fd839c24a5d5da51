"""The fields of a lane before a byte: all that contexts are made of."""

from __future__ import annotations

import numba
import numpy as np

from .plan import Plan
from .profiles import FIELDS, Field
from .state import (
    LANE_ERROR,
    LANE_LINE,
    LANE_LINE_BEFORE,
    LANE_WORD,
    LANE_WORD_1,
    LANE_WORD_2,
    PAD,
    TAPS,
    Memory,
)

__all__ = ["fill_fields"]

_WORD = int(Field.WORD)
_WORD_1 = int(Field.WORD_BEFORE)
_WORD_2 = int(Field.WORD_BEFORE_THAT)
_ABOVE_IN_TEXT = int(Field.ABOVE_IN_TEXT)
_COLUMN_IN_TEXT = int(Field.COLUMN_IN_TEXT)
_FOLLOWED_ONE = int(Field.FOLLOWED_ONE)
_FOLLOWED_TWO = int(Field.FOLLOWED_TWO)
_ABOVE = int(Field.ABOVE)
_ABOVE_2 = int(Field.ABOVE_2)
_ABOVE_3 = int(Field.ABOVE_3)
_ABOVE_NEXT = int(Field.ABOVE_NEXT)
_ABOVE_BEFORE = int(Field.ABOVE_BEFORE)
_COLUMN = int(Field.COLUMN)
_SLOPE = int(Field.SLOPE)
_EIGHT_BEFORE = int(Field.EIGHT_BEFORE)
_PLACE_OF_EIGHT = int(Field.PLACE_OF_EIGHT)
_SLOPE_OF_EIGHT = int(Field.SLOPE_OF_EIGHT)
_SAMPLE = int(Field.SAMPLE)
_LASTS = 16


@numba.njit(cache=True, nogil=True, inline="always")
def _byte(row, step, back):
    return np.int64(row[PAD + step - back]) if back <= step else np.int64(0)


@numba.njit(cache=True, nogil=True)
def fill_fields(memory: Memory, plan: Plan, uses, lane, step, fields):
    """Write the fields of the lane before its byte number `step` to `fields`, uint32 [fields].

    `uses` is a tuple of what the profile needs: text, records, samples, floats.
    """
    row = memory.history[lane]
    state = memory.lane[lane]
    for i in range(_LASTS):
        fields[i] = row[PAD + step - 1 - i]
    last = np.int64(fields[0])
    position = memory.starts[lane] + step
    if uses[0]:
        fields[_WORD] = state[LANE_WORD]
        fields[_WORD_1] = state[LANE_WORD_1]
        fields[_WORD_2] = state[LANE_WORD_2]
        line, before = state[LANE_LINE], state[LANE_LINE_BEFORE]
        column = step - line
        above = np.int64(0)
        if line > 0 and before + column < line:
            above = np.int64(row[PAD + before + column])
        fields[_ABOVE_IN_TEXT] = above
        fields[_COLUMN_IN_TEXT] = min(column, 255)
    fields[_FOLLOWED_ONE] = memory.followed_one[lane, last]
    fields[_FOLLOWED_TWO] = memory.followed_two[np.int64(fields[1]) << 8 | last]
    record = plan.record
    if uses[1] and record:
        above = _byte(row, step, record)
        before = _byte(row, step, record + 1)
        fields[_ABOVE] = above
        fields[_ABOVE_2] = _byte(row, step, 2 * record)
        fields[_ABOVE_3] = _byte(row, step, 3 * record)
        fields[_ABOVE_NEXT] = _byte(row, step, max(record - 1, 1))
        fields[_ABOVE_BEFORE] = before
        fields[_COLUMN] = position % record
        fields[_SLOPE] = (last + above - before) & 255
    if uses[3]:
        place = position & 7
        fields[_EIGHT_BEFORE] = _byte(row, step, 8) | _byte(row, step, 16) << 8
        fields[_PLACE_OF_EIGHT] = place | (last << 8 if place else 0)
        first = second = np.int64(0)
        for i in range(8):
            # Bits above the 63rd fall off the sum in the same way everywhere.
            first |= _byte(row, step - place, 8 - i) << (8 * i)
            second |= _byte(row, step - place, 16 - i) << (8 * i)
        fields[_SLOPE_OF_EIGHT] = ((2 * first - second) >> (8 * place)) & 255
    if uses[2]:
        _fill_samples(memory, plan, lane, step, position, fields)


@numba.njit(cache=True, nogil=True, inline="always")
def _sample(row, start, sample, big_endian):
    """Return the sample that begins at the lane's byte `start`, 0 before its first; two bytes have a sign."""
    if start < 0:
        return np.int64(0)
    first = np.int64(row[PAD + start])
    if sample == 1:
        return first
    second = np.int64(row[PAD + start + 1])
    value = first << 8 | second if big_endian else second << 8 | first
    return value - 65536 if value >= 32768 else value


@numba.njit(cache=True, nogil=True, inline="always")
def _bounded(x, least, most):
    return min(max(x, least), most)


@numba.njit(cache=True, nogil=True)
def _predict_samples(memory: Memory, plan: Plan, lane, begin):
    """Predict the sample that begins at the lane's byte `begin`, having learnt from the one before."""
    row = memory.history[lane]
    sample, record, big = plan.sample, plan.record, plan.big_endian
    taps, values, predictions = memory.taps[lane], memory.tap_values[lane], memory.predictions[lane]
    if begin > 0:
        error = _sample(row, begin - sample, sample, big) - np.int64(predictions[6])
        memory.lane[lane, LANE_ERROR] = (memory.lane[lane, LANE_ERROR] * 7 + abs(error) * 16) >> 3
        energy = np.int64(1)
        for i in range(TAPS):
            energy += np.int64(values[i]) * np.int64(values[i]) >> 4
        for i in range(TAPS):
            product = error * np.int64(values[i]) * 320
            change = _bounded(abs(product) // energy, 0, 30000)
            taps[i] += change if product >= 0 else -change
    west = _sample(row, begin - sample, sample, big)
    west_2 = _sample(row, begin - 2 * sample, sample, big)
    west_3 = _sample(row, begin - 3 * sample, sample, big)
    north, north_west, north_east, north_2 = west, west_2, west, west
    north_west_2 = west
    above = begin - record
    if record > 0 and above - sample >= 0:
        north = _sample(row, above, sample, big)
        north_west = _sample(row, above - sample, sample, big)
        north_east = _sample(row, above + sample, sample, big)
        north_2 = _sample(row, above - record, sample, big) if above >= record else north
    if record > 0 and above - 2 * sample >= 0:
        north_west_2 = _sample(row, above - 2 * sample, sample, big)
    north_east_2 = north_east
    if record > 0 and above >= record:
        north_east_2 = _sample(row, above - record + sample, sample, big)
    count = 0
    if record > 0:
        values[0], values[1], values[2], values[3] = west, north, north_west, north_east
        values[4], values[5], values[6], values[7] = west_2, north_2, west_3, north_west_2
        count = 8
    back = 4 if record > 0 else 1
    while count < TAPS:
        values[count] = _sample(row, begin - back * sample, sample, big)
        count += 1
        back += 1
    total = np.int64(0)
    for i in range(TAPS):
        total += np.int64(taps[i]) * np.int64(values[i])
    predictions[0] = west
    predictions[1] = 2 * west - west_2
    predictions[2] = north
    predictions[3] = west + north - north_west
    predictions[4] = (west + north_east) >> 1
    predictions[5] = north + north_east - north_east_2
    predictions[6] = _bounded(total >> 16, -(1 << 30), 1 << 30)
    predictions[7] = 3 * west - 3 * west_2 + west_3
    predictions[8] = (west + north) >> 1
    least, most = (-64, 320) if sample == 1 else (-32768, 32767)
    for i in range(9):
        predictions[i] = _bounded(predictions[i], least, most)


@numba.njit(cache=True, nogil=True, inline="always")
def _key(prediction, sample, big_endian, phase, last):
    """Return what a prediction says of the byte that comes, the first byte of the sample being known or not."""
    if sample == 1:
        return prediction & 511
    bits = prediction & 0xFFFF
    if not big_endian:
        if phase == 0:
            return 0x10000 | (bits & 0xFF) << 4
        return 0x20000 | (((bits - last + 128) >> 4) & 0xFFF)
    if phase == 0:
        return 0x30000 | bits >> 4
    return 0x40000 | (_bounded(bits - (last << 8), -256, 511) + 256) >> 1


@numba.njit(cache=True, nogil=True)
def _fill_samples(memory: Memory, plan: Plan, lane, step, position, fields):
    sample = plan.sample
    phase = position % sample
    if phase == 0 or step == 0:
        _predict_samples(memory, plan, lane, step - phase)
    last = np.int64(fields[0])
    p = memory.predictions[lane]
    one = sample == 1
    for i, which in enumerate((0, 1, 2, 3, 6, 6, 8, 5)):
        fields[_SAMPLE + i] = _key(np.int64(p[which]), sample, plan.big_endian, phase, last)
    key = np.int64(fields[_SAMPLE + 4])
    size = memory.lane[lane, LANE_ERROR] >> 3
    bits = np.int64(0)
    while size:
        bits += 1
        size >>= 1
    fields[_SAMPLE + 5] = (key >> (1 if one else 3)) << 6 | bits
    fields[_SAMPLE + 8] = (key >> (1 if one else 5)) << 16 | np.int64(fields[_SAMPLE]) >> (2 if one else 6)
