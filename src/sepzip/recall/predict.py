"""One byte of one lane, bit by bit: predicted from a memory that stands still, and coded.

Everything that learns changes after the step only (learn.py), so that lanes may go in any order.
"""

from __future__ import annotations

import numba
import numpy as np

from ..coder.binary import decode_bit, encode_bit
from .fields import fill_fields
from .functions import SQUASH_MOST
from .hashing import NIBBLE, finished
from .plan import COLUMNS_MOST, Plan
from .profiles import FIELDS, INPUTS
from .state import (
    APM_CONTEXTS,
    APM_POINTS,
    APM_STEP,
    LANE_LENGTH,
    LANE_MATCH,
    MATCH_LEAST,
    MATCHES,
    PAD,
    ROWS,
    VERIFIED,
    Memory,
    Records,
)

__all__ = ["NONE", "predict_lane"]

NONE = -1
"""Stands in a record where a lane had no cell."""

_CONSTANT = 256
_TOTAL = 1 << 24
_LEAST = 16
"""The least probability, in 65536ths, of either bit."""

_MATCH_LEAST_0, _MATCH_LEAST_1 = MATCH_LEAST
_APM_MOST = APM_STEP * (APM_POINTS - 1) // 2 - 1


@numba.njit(cache=True, nogil=True, inline="always")
def _squash(memory: Memory, x):
    return np.int64(memory.squash[min(max(x, -SQUASH_MOST), SQUASH_MOST) + SQUASH_MOST + 1])


@numba.njit(cache=True, nogil=True, inline="always")
def _length_class(length):
    """Return one of 24 classes of the length of a match."""
    if length < 16:
        return length
    if length < 32:
        return 16 + ((length - 16) >> 2)
    if length < 64:
        return 20 + ((length - 32) >> 4)
    return 22 if length < 512 else 23


@numba.njit(cache=True, nogil=True, inline="always")
def _class_of(slot):
    """Return the cell of a slot's count and probability; there is none for a slot that was never used."""
    count = (slot >> 16) & 255
    upper = (slot & 0xFFFF ^ 0x8000) >> 10
    if count < 8:
        kind = count
    elif count < 16:
        kind = np.int64(8)
    elif count < 32:
        kind = np.int64(9)
    elif count < 64:
        kind = np.int64(10)
    else:
        kind = np.int64(11) if count < 127 else np.int64(12)
    return kind * 64 + upper


@numba.njit(cache=True, nogil=True)
def _follow_matches(memory: Memory, records: Records, lane, lanes, step):
    """Move the lane's matches past the byte before `step`, or find others."""
    row = memory.history[lane]
    state = memory.lane[lane]
    end = step * lanes
    size = memory.matches.shape[1]
    for kind in range(MATCHES):
        least = _MATCH_LEAST_0 if kind == 0 else _MATCH_LEAST_1
        missed = np.int64(-1)
        at, length = state[LANE_MATCH + kind], state[LANE_LENGTH + kind]
        if length > 0:
            if memory.history[at % lanes, PAD + at // lanes] == row[PAD + step - 1]:
                length = min(length + 1, 65535)
            else:
                length = np.int64(0)
                missed = at + lanes
            at += lanes
            if at >= end:
                length = np.int64(0)
        place = np.int64(NONE)
        if step >= least:
            total = np.int64(0)
            for i in range(least):
                # Each byte has an odd multiplier of its own: a sum, so the order does not count.
                total += (np.int64(row[PAD + step - 1 - i]) + 1) * np.int64(memory.multipliers[i])
            place = finished(total & 0xFFFFFFFF) & (size - 1)
            if length == 0:
                found = np.int64(memory.matches[kind, place]) - 1
                if found >= 0:
                    other, before = found % lanes, found // lanes
                    most = min(VERIFIED, min(before, step))
                    same = np.int64(0)
                    while same < most and (
                        memory.history[other, PAD + before - 1 - same] == row[PAD + step - 1 - same]
                    ):
                        same += 1
                    if same >= min(least, 16):
                        at, length = found, same
        if length == 0 and 0 <= missed < end:
            at, length = missed, np.int64(1)
        records.match_places[lane, kind] = place
        state[LANE_MATCH + kind], state[LANE_LENGTH + kind] = at, length


@numba.njit(cache=True, nogil=True)
def _find_buckets(memory: Memory, records: Records, lane, contexts, nibble, hashes, buckets):
    """Look up a bucket for each context; `buckets` takes its place, or NONE where it is not there."""
    count = memory.slots.shape[1]
    shift = 32
    while count > 1:
        count >>= 1
        shift -= 1
    for i in range(contexts):
        h = np.int64(hashes[i])
        place = h >> shift
        check = max(h & 0xFFFF, 1)
        table = memory.slots[i]
        other = place ^ 1
        found = True
        if np.int64(table[place, 0]) & 0xFFFF != check:
            if np.int64(table[other, 0]) & 0xFFFF == check:
                place = other
            else:
                # The place whose first slot has seen less is given up.
                found = False
                if (table[other, 1] >> 16) & 255 < (table[place, 1] >> 16) & 255:
                    place = other
        records.places[lane, nibble, i] = place
        records.checks[lane, nibble, i] = check
        buckets[i] = place if found else NONE


@numba.njit(cache=True, nogil=True, inline="always")
def _by_network(memory: Memory, starts, seen, bit_number):
    """Return the stretched probability of a 1 that a network's frequencies give after the bits `seen`."""
    left = 8 - bit_number
    first = (seen << left) & 255
    start = np.int64(starts[first])
    middle = np.int64(starts[first + (1 << (left - 1))])
    end = np.int64(starts[first + (1 << left)]) if first + (1 << left) < 256 else np.int64(_TOTAL)
    return np.int64(memory.stretch[((end - middle) << 12) // (end - start) & 4095])


@numba.njit(cache=True, nogil=True)
def predict_lane(
    memory: Memory,
    records: Records,
    plan: Plan,
    uses,
    network,
    has_network,
    coder,
    decodes,
    lane,
    lanes,
    step,
    active,
):
    """Predict byte number `step` of a lane and code it; return it.

    With `has_network`, `network`, int32 [lanes, 256], are the starts of a network's frequencies, 2^24 in all.

    With `decodes` the byte is found by the coder, and otherwise read from the history. A lane without a byte
    in this step, not `active`, goes through the same with a byte of 0, uncoded.
    """
    fields = np.zeros(FIELDS, np.uint32)
    hashes = np.zeros(INPUTS, np.uint32)
    buckets = np.empty(INPUTS, np.int64)
    contexts = plan.contexts
    matched_0 = matched_1 = np.int64(0)
    if step > 0:
        _follow_matches(memory, records, lane, lanes, step)
    else:
        records.match_places[lane, 0] = records.match_places[lane, 1] = NONE
    state = memory.lane[lane]
    length_0, length_1 = state[LANE_LENGTH], state[LANE_LENGTH + 1]
    if length_0 > 0:
        at = state[LANE_MATCH]
        matched_0 = np.int64(memory.history[at % lanes, PAD + at // lanes])
    if length_1 > 0:
        at = state[LANE_MATCH + 1]
        matched_1 = np.int64(memory.history[at % lanes, PAD + at // lanes])
    fill_fields(memory, plan, uses, lane, step, fields)
    for j in range(FIELDS):
        field = fields[j]
        if field:
            multiplier = memory.multipliers[j]
            for i in range(INPUTS):
                hashes[i] += (field & memory.masks[j, i]) * multiplier
    for i in range(contexts):
        hashes[i] = finished(np.int64(hashes[i]))

    last = np.int64(fields[0])
    last_2 = np.int64(fields[0]) | np.int64(fields[1]) << 8
    columns = plan.record if plan.record < COLUMNS_MOST else 0
    column = (memory.starts[lane] + step) % plan.record if columns else np.int64(0)
    sets = 4 if columns else 3
    symbol = np.int64(memory.history[lane, PAD + step])
    seen = np.int64(1)
    longest = np.int64(0)
    row_of = np.empty(4, np.int64)
    output = np.zeros(4, np.int64)
    for nibble in range(2):
        if nibble:
            for i in range(contexts):
                hashes[i] = finished((np.int64(hashes[i]) + seen * NIBBLE) & 0xFFFFFFFF)
        _find_buckets(memory, records, lane, contexts, nibble, hashes, buckets)
        if not nibble:
            for i in range(contexts):
                if buckets[i] >= 0 and (memory.slots[i, buckets[i], 1] >> 16) & 255:
                    longest = max(longest, np.int64(memory.orders[i]))
        for quarter in range(4):
            bit_number = 4 * nibble + quarter
            node = seen & ((1 << quarter) - 1) | 1 << quarter
            inputs = records.inputs[lane, bit_number]
            for i in range(contexts):
                inputs[i] = 0
                records.cells[lane, bit_number, i] = NONE
                if buckets[i] >= 0:
                    slot = np.int64(memory.slots[i, buckets[i], node])
                    if slot >> 16:
                        cell = _class_of(slot)
                        records.cells[lane, bit_number, i] = cell
                        inputs[i] = memory.cell_stretch[i, cell]
            best = np.int64(0)
            for kind in range(MATCHES):
                length = length_1 if kind else length_0
                matched = (matched_1 if kind else matched_0) | 256
                records.lengths[lane, bit_number, kind] = NONE
                first = second = np.int64(0)
                if length > 0 and matched >> (8 - bit_number) == seen:
                    expected = matched >> (7 - bit_number) & 1
                    group = _length_class(length)
                    first = np.int64(memory.stretch[memory.lengths[kind, group] >> 20])
                    second = 32 * min(length, 32)
                    if not expected:
                        first, second = -first, -second
                    records.lengths[lane, bit_number, kind] = 2 * group + expected
                    best = max(best, group)
                inputs[contexts + 2 * kind] = first
                inputs[contexts + 2 * kind + 1] = second
            inputs[contexts + 2 * MATCHES] = _CONSTANT
            if has_network:
                inputs[contexts + 2 * MATCHES + 1] = _by_network(memory, network[lane], seen, bit_number)

            row_of[0] = seen
            row_of[1] = ROWS + last
            kind = np.int64(0) if best == 0 else np.int64(1) if best < 16 else np.int64(2)
            row_of[2] = 2 * ROWS + (longest * 8 + bit_number) * 4 + kind
            row_of[3] = 3 * ROWS + column * 8 + bit_number
            mixed = np.int64(0)
            for s in range(sets):
                weights = memory.weights[row_of[s]]
                total = np.int32(0)
                for i in range(INPUTS):
                    total += np.int32(inputs[i] * (weights[i] >> 4)) >> 8
                output[s] = min(max(np.int64(total) >> 4, -SQUASH_MOST), SQUASH_MOST)
                mixed += output[s] * np.int64(memory.final_weights[seen, s])
            mixed = min(max(mixed >> 16, -SQUASH_MOST), SQUASH_MOST)
            by_mixer = _squash(memory, mixed)

            point = min(max(mixed, -_APM_MOST), _APM_MOST) + _APM_MOST + 1
            low, part = point // APM_STEP, point % APM_STEP
            near = low + (1 if part >= APM_STEP // 2 else 0)
            first = last << 8 | seen
            second = finished((last_2 << 8 | seen) + 1) & (APM_CONTEXTS - 1)
            by_first = (
                np.int64(memory.apm[0, first, low] >> 16) * (APM_STEP - part)
                + np.int64(memory.apm[0, first, low + 1] >> 16) * part
            ) // APM_STEP
            by_second = (
                np.int64(memory.apm[1, second, low] >> 16) * (APM_STEP - part)
                + np.int64(memory.apm[1, second, low + 1] >> 16) * part
            ) // APM_STEP
            records.apm[lane, bit_number, 0] = first * APM_POINTS + near
            records.apm[lane, bit_number, 1] = second * APM_POINTS + near
            probability = min(max((2 * by_mixer + by_first + by_second) >> 2, _LEAST), 65536 - _LEAST)

            if decodes:
                bit = decode_bit(coder, lane, probability) if active else np.int64(0)
            else:
                bit = symbol >> (7 - bit_number) & 1
                if active:
                    encode_bit(coder, lane, probability, bit)
            one = bit << 16
            for s in range(sets):
                records.rows[lane, bit_number, s] = row_of[s]
                records.outputs[lane, bit_number, s] = output[s]
                records.errors[lane, bit_number, s] = one - _squash(memory, output[s])
            records.errors[lane, bit_number, 4] = one - by_mixer
            seen = 2 * seen + bit
    return seen & 255
