"""What a memory learns from a step: every change is a sum over lanes, or that of the lane a rule names.

The work is cut in tasks that touch nothing of each other's: one a context, one a set of the mixer's weights,
one for its last weights and what corrects them, one for what lanes have seen.
"""

from __future__ import annotations

import numba
import numpy as np

from .hashing import WORD
from .plan import COLUMNS_MOST, Plan
from .predict import NONE
from .profiles import INPUTS
from .state import (
    APM_COUNT_MOST,
    CELL_BITS,
    CELL_COUNT_BITS,
    CELL_COUNT_MOST,
    LANE_LINE,
    LANE_LINE_BEFORE,
    LANE_WORD,
    LANE_WORD_1,
    LANE_WORD_2,
    MATCHES,
    PAD,
    Memory,
    Records,
)

__all__ = ["learn_task", "tasks"]

_SLOT_COUNT_MOST = 127
_CELL_MASK = CELL_COUNT_MOST
_FULL = (1 << CELL_BITS) - 1
_RATE_FIRST, _RATE_LAST, _RATE_STEPS = 120, 10, 400
_FINAL_RATE = 30
_FREE = 65535
_WEIGHT_MOST = (1 << 22) - 1


def tasks(plan: Plan) -> int:
    """Return how many tasks a step of learning has."""
    return plan.contexts + (4 if plan.columns else 3) + 2


@numba.njit(cache=True, nogil=True, inline="always")
def _counted(cell, zeros, ones, most):
    """Return a frequency and count in one number after so many further zeros and ones."""
    count, p = cell & _CELL_MASK, cell >> CELL_COUNT_BITS
    times = zeros + ones
    divisor = 2 * count + 3
    p = (p * divisor + 2 * ones * _FULL) // (divisor + 2 * times)
    return p << CELL_COUNT_BITS | min(count + times, most)


@numba.njit(cache=True, nogil=True)
def _learn_slots(memory: Memory, records: Records, context, lanes, step, nibble):
    """Count what followed in the context's buckets."""
    table = memory.slots[context]
    counts = records.slot_counts[context]
    for lane in range(lanes):
        bucket = table[records.places[lane, nibble, context]]
        head = np.int64(bucket[0])
        if head >> 16 == 0:
            # The smallest lane that wants the bucket has it.
            check = np.int64(records.checks[lane, nibble, context])
            if head != check:
                for i in range(1, 16):
                    bucket[i] = 0
            bucket[0] = (_FREE - lane) << 16 | check
    for lane in range(lanes):
        head = np.int64(table[records.places[lane, nibble, context], 0])
        if head & 0xFFFF == records.checks[lane, nibble, context]:
            owner = _FREE - (head >> 16)
            symbol = np.int64(memory.history[lane, PAD + step])
            value = symbol & 15 if nibble else symbol >> 4
            node = np.int64(1)
            for i in range(4):
                bit = value >> (3 - i) & 1
                counts[owner, node] += 65536 if bit else 1
                node = 2 * node + bit
    for lane in range(lanes):
        bucket = table[records.places[lane, nibble, context]]
        head = np.int64(bucket[0])
        if _FREE - (head >> 16) == lane:
            bucket[0] = head & 0xFFFF
            for i in range(1, 16):
                seen = np.int64(counts[lane, i])
                if seen:
                    counts[lane, i] = 0
                    zeros, ones = seen & 0xFFFF, seen >> 16
                    slot = np.int64(bucket[i])
                    p, count = slot & 0xFFFF ^ 0x8000, slot >> 16
                    divisor = 2 * count + 1
                    times = zeros + ones
                    total = p * divisor + 2 * ones * 65535
                    p = min(total * memory.reciprocal[divisor + 2 * times] >> 32, 65535)
                    bucket[i] = min(count + times, _SLOT_COUNT_MOST) << 16 | (p ^ 0x8000)


@numba.njit(cache=True, nogil=True)
def _learn_cells(memory: Memory, records: Records, context, lanes, step):
    """Count what followed in the cells of the context's map."""
    counts = records.cell_counts[context]
    touched = records.touched[context]
    number = 0
    for lane in range(lanes):
        symbol = np.int64(memory.history[lane, PAD + step])
        for bit_number in range(8):
            cell = records.cells[lane, bit_number, context]
            if cell >= 0:
                if counts[cell] == 0:
                    touched[number] = cell
                    number += 1
                counts[cell] += 65536 if symbol >> (7 - bit_number) & 1 else 1
    for i in range(number):
        cell = touched[i]
        seen = np.int64(counts[cell])
        counts[cell] = 0
        value = _counted(np.int64(memory.cells[context, cell]), seen & 0xFFFF, seen >> 16, CELL_COUNT_MOST)
        memory.cells[context, cell] = value
        memory.cell_stretch[context, cell] = memory.stretch[value >> 20]


@numba.njit(cache=True, nogil=True, inline="always")
def _rate(step):
    return _RATE_LAST + (_RATE_FIRST - _RATE_LAST) * _RATE_STEPS // (_RATE_STEPS + step)


@numba.njit(cache=True, nogil=True)
def _learn_weights(memory: Memory, records: Records, contexts, which, lanes, step):
    """Move the rows of a set of weights along the sum of their gradients, over the root of their number."""
    touched = records.touched[contexts + which]
    number = 0
    for lane in range(lanes):
        for bit_number in range(8):
            row = records.rows[lane, bit_number, which]
            if records.row_counts[row] == 0:
                touched[number] = row
                number += 1
            records.row_counts[row] += 1
            error = np.int32(records.errors[lane, bit_number, which] >> 2)
            inputs = records.inputs[lane, bit_number]
            gradient = records.gradient[row]
            for i in range(INPUTS):
                gradient[i] += np.int32(inputs[i] * error) >> 10
    for n in range(number):
        row = touched[n]
        factor = _rate(step) * np.int64(memory.root[records.row_counts[row]])
        records.row_counts[row] = 0
        gradient, weights = records.gradient[row], memory.weights[row]
        for i in range(INPUTS):
            change = np.int64(gradient[i]) * factor >> 20
            weights[i] = min(max(np.int64(weights[i]) + change, -_WEIGHT_MOST), _WEIGHT_MOST)
            gradient[i] = 0


@numba.njit(cache=True, nogil=True)
def _learn_last(memory: Memory, records: Records, contexts, sets, lanes, step):
    """Move the last weights, and count in what corrects them and in the classes of matches' lengths."""
    gradient = records.final_gradient
    times = records.touched[contexts + 4]
    times[:256] = 0
    for lane in range(lanes):
        for bit_number in range(8):
            row = records.rows[lane, bit_number, 0]
            times[row] += 1
            error = np.int64(records.errors[lane, bit_number, 4])
            for s in range(sets):
                gradient[row, s] += np.int64(records.outputs[lane, bit_number, s]) * error >> 8
    for row in range(256):
        if times[row]:
            factor = _FINAL_RATE * np.int64(memory.root[times[row]])
            for s in range(sets):
                change = gradient[row, s] * factor >> 24
                value = np.int64(memory.final_weights[row, s]) + change
                memory.final_weights[row, s] = min(max(value, -_WEIGHT_MOST), _WEIGHT_MOST)
                gradient[row, s] = 0

    for kind in range(MATCHES):
        counts = records.length_counts[kind]
        for lane in range(lanes):
            symbol = np.int64(memory.history[lane, PAD + step])
            for bit_number in range(8):
                group = records.lengths[lane, bit_number, kind]
                if group >= 0:
                    right = (group & 1) == (symbol >> (7 - bit_number) & 1)
                    counts[group >> 1] += 65536 if right else 1
        for group in range(len(counts)):
            seen = np.int64(counts[group])
            if seen:
                counts[group] = 0
                value = _counted(
                    np.int64(memory.lengths[kind, group]), seen & 0xFFFF, seen >> 16, CELL_COUNT_MOST
                )
                memory.lengths[kind, group] = value


@numba.njit(cache=True, nogil=True)
def _learn_correction(memory: Memory, records: Records, contexts, which, lanes, step):
    """Count what followed at the nearer points of one of the corrections."""
    points, counts = memory.apm[which].reshape(-1), records.apm_counts[which]
    touched = records.touched[contexts + 5]
    number = 0
    for lane in range(lanes):
        symbol = np.int64(memory.history[lane, PAD + step])
        for bit_number in range(8):
            point = records.apm[lane, bit_number, which]
            if counts[point] == 0:
                touched[number] = point
                number += 1
            counts[point] += 65536 if symbol >> (7 - bit_number) & 1 else 1
    for i in range(number):
        point = touched[i]
        seen = np.int64(counts[point])
        counts[point] = 0
        points[point] = _counted(np.int64(points[point]), seen & 0xFFFF, seen >> 16, APM_COUNT_MOST)


@numba.njit(cache=True, nogil=True)
def _learn_lanes(memory: Memory, records: Records, lanes, step):
    """Take the step's bytes into what lanes have seen, and the places where matches are looked for."""
    for lane in range(lanes):
        row, state = memory.history[lane], memory.lane[lane]
        byte = np.int64(row[PAD + step])
        last, last_2 = np.int64(row[PAD + step - 1]), np.int64(row[PAD + step - 2])
        memory.followed_one[lane, last] = (np.int64(memory.followed_one[lane, last]) << 8 | byte) & 0xFFFF
        small = byte + 32 if 65 <= byte <= 90 else byte
        if 97 <= small <= 122 or small >= 128 or 48 <= small <= 57:
            state[LANE_WORD] = ((state[LANE_WORD] + small + 1) * WORD) & 0xFFFFFFFF
        elif state[LANE_WORD]:
            state[LANE_WORD_2] = state[LANE_WORD_1]
            state[LANE_WORD_1] = state[LANE_WORD]
            state[LANE_WORD] = 0
        if byte == 10:
            state[LANE_LINE_BEFORE] = state[LANE_LINE]
            state[LANE_LINE] = step + 1
        for kind in range(MATCHES):
            place = records.match_places[lane, kind]
            if place != NONE:
                # The largest lane's stays, which is also the largest number.
                memory.matches[kind, place] = step * lanes + lane + 1
        # As with matches, the largest lane decides: whoever comes later finds this mark and writes over it.
        records.followers[last_2 << 8 | last] = lane
    for lane in range(lanes):
        row = memory.history[lane]
        pair = np.int64(row[PAD + step - 2]) << 8 | np.int64(row[PAD + step - 1])
        if records.followers[pair] == lane:
            byte = np.int64(row[PAD + step])
            memory.followed_two[pair] = (np.int64(memory.followed_two[pair]) << 8 | byte) & 0xFFFF


@numba.njit(cache=True, nogil=True)
def learn_task(memory: Memory, records: Records, plan: Plan, task, lanes, step):
    """Do one of the tasks of learning byte number `step` of every lane, which the history holds."""
    contexts = plan.contexts
    sets = 4 if 0 < plan.record < COLUMNS_MOST else 3
    if task < contexts:
        _learn_slots(memory, records, task, lanes, step, 0)
        _learn_slots(memory, records, task, lanes, step, 1)
        _learn_cells(memory, records, task, lanes, step)
    elif task < contexts + sets:
        _learn_weights(memory, records, contexts, task - contexts, lanes, step)
    elif task == contexts + sets:
        _learn_last(memory, records, contexts, sets, lanes, step)
    else:
        _learn_correction(memory, records, contexts, 0, lanes, step)
        _learn_correction(memory, records, contexts, 1, lanes, step)
        _learn_lanes(memory, records, lanes, step)
