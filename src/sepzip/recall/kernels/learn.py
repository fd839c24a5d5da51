"""What a step's sums and claims change in the memory: the twin of memory.c."""

from __future__ import annotations

import triton
import triton.language as tl

from ...exact.kernels.elements import follow
from ..profiles import INPUTS
from ..state import (
    APM_COUNT_MOST,
    CELL_BITS,
    CELL_COUNT_BITS,
    CELL_COUNT_MOST,
    CELLS,
    CHOICE_ROWS,
    LENGTHS,
    MATCHES,
    PAD,
    RECENT,
    ROWS,
    SETS,
    SLOT_COUNT_MOST,
)
from .predict import FREE, count_of

__all__ = ["CELLS_A_PROGRAM", "ROWS_A_PROGRAM", "apply_kernel", "count_kernel"]

CELLS_A_PROGRAM = 128
ROWS_A_PROGRAM = 8

_FREE = tl.constexpr(FREE)
_INPUTS = tl.constexpr(INPUTS)
_PAD = tl.constexpr(PAD)
_ROWS = tl.constexpr(ROWS)
_CHOICE_ROWS = tl.constexpr(CHOICE_ROWS)
_SETS = tl.constexpr(SETS)
_CELLS = tl.constexpr(CELLS)
_LENGTHS = tl.constexpr(LENGTHS * MATCHES)
_CELL_COUNT_BITS = tl.constexpr(CELL_COUNT_BITS)
_CELL_COUNT_MOST = tl.constexpr(CELL_COUNT_MOST)
_APM_COUNT_MOST = tl.constexpr(APM_COUNT_MOST)
_FULL = tl.constexpr((1 << CELL_BITS) - 1)
_SLOT_COUNT_MOST = tl.constexpr(SLOT_COUNT_MOST)
_RECENT = tl.constexpr(RECENT)
_RATE_LAST = tl.constexpr(10)
_RATE_STEPS = tl.constexpr(400)
_RATE_BYTES = tl.constexpr(8000)
_RATE_SPAN = tl.constexpr(120 - 10)
_FINAL_RATE = tl.constexpr(14)
_FINAL_RATE_MOST = tl.constexpr(30)
_WEIGHT_MOST = tl.constexpr((1 << 22) - 1)


@triton.jit
def _limited(weight):
    return tl.minimum(tl.maximum(weight, -_WEIGHT_MOST), _WEIGHT_MOST).to(tl.int32)


@triton.jit
def _counted(cell, seen, MOST: tl.constexpr):
    """Return uint32 frequencies and counts in one number after what was seen: zeros, and ones above."""
    count = (cell & _CELL_COUNT_MOST).to(tl.int32)
    p = (cell >> _CELL_COUNT_BITS).to(tl.int64)
    ones = seen >> 16
    times = (seen & 0xFFFF) + ones
    divisor = 2 * count + 3
    p = (p * divisor + (2 * ones).to(tl.int64) * _FULL) // (divisor + 2 * times)
    return (p.to(tl.uint32) << _CELL_COUNT_BITS) | tl.minimum(count + times, MOST).to(tl.uint32)


@triton.jit
def _count_lane(
    apm,
    history,
    followed_two,
    matches,
    claims,
    places,
    checks,
    slot_counts,
    apm_places,
    match_places,
    followers,
    apm_counts,
    step,
    lane,
    lanes,
    steps,
    match_mask,
    CONTEXTS: tl.constexpr,
    bucket_bits,
):
    """Count what followed in the buckets that the lane wants, and learn what else it has to say."""
    row = history + lane.to(tl.int64) * (steps + _PAD) + _PAD + step
    byte = tl.load(row).to(tl.int32)
    context = tl.arange(0, _INPUTS)[None, :]
    bit_number = tl.arange(0, 8)
    nibble, quarter = bit_number >> 2, bit_number & 3
    seen = (256 | byte) >> (8 - bit_number)
    node = (seen & ((1 << quarter) - 1)) | (1 << quarter)
    bit = (byte >> (7 - bit_number)) & 1
    own = (2 * lane + nibble)[:, None] * _INPUTS + context
    place = tl.load(places + own)
    check = tl.load(checks + own) & 0xFFFF
    inside = (context < CONTEXTS) & (place >= 0)
    claim = tl.load(claims + (context << bucket_bits) + place, mask=inside, other=0)
    owner = (claim >> 16).to(tl.int32) ^ _FREE
    inside = inside & ((claim & 0xFFFF).to(tl.int32) == check)
    tl.atomic_add(
        slot_counts + (context * (2 * lanes) + owner) * 16 + node[:, None],
        tl.where(inside, tl.where(bit > 0, 65536, 1)[:, None], 0),
        mask=inside,
        sem="relaxed",
    )

    # Whoever takes a sum away applies it.
    side = tl.arange(0, 32)
    point = tl.load(apm_places + 16 * lane + (side >> 1)) + (side & 1)
    taken = tl.atomic_xchg(apm_counts + point, tl.zeros((32,), tl.int32), sem="relaxed")
    value = tl.load(apm + point, mask=taken != 0, other=0)
    tl.store(apm + point, _counted(value, taken, _APM_COUNT_MOST), mask=taken != 0)

    # The largest lane's place stays, which is also the largest number.
    number = step * lanes + lane
    kind = tl.arange(0, 2)
    place = tl.load(match_places + 2 * lane + kind)
    table = matches + kind * (match_mask + 1)
    tl.atomic_max(table + place, number + 1 + kind * 0, mask=place >= 0, sem="relaxed")
    pair = (tl.load(row - 2).to(tl.int32) << 8) | tl.load(row - 1).to(tl.int32)
    decides = tl.load(followers + pair) == number + lanes
    followed = tl.load(followed_two + pair, mask=decides, other=0).to(tl.int32)
    tl.store(followed_two + pair, (((followed << 8) | byte) & 0xFFFF).to(tl.uint16), mask=decides)


@triton.jit
def _learn_cells(stretch, cells, cell_stretch, cell_counts, first, end, BLOCK: tl.constexpr):
    """Apply the counts of some cells of the contexts' maps."""
    cell = first + tl.arange(0, BLOCK)
    seen = tl.load(cell_counts + cell, mask=cell < end, other=0)
    # Most cells are not met in a step.
    if tl.max(seen, 0) > 0:
        touched = seen != 0
        value = _counted(tl.load(cells + cell, mask=touched, other=0), seen, _CELL_COUNT_MOST)
        tl.store(cells + cell, value, mask=touched)
        stretched = tl.load(stretch + (value >> 20), mask=touched, other=0)
        tl.store(cell_stretch + cell, stretched, mask=touched)
        tl.store(cell_counts + cell, tl.zeros_like(seen), mask=touched)


@triton.jit
def _learn_lengths(lengths, length_counts):
    """Apply the counts of matches' lengths."""
    group = tl.arange(0, 64)
    seen = tl.load(length_counts + group, mask=group < _LENGTHS, other=0)
    touched = seen != 0
    value = _counted(tl.load(lengths + group, mask=touched, other=0), seen, _CELL_COUNT_MOST)
    tl.store(lengths + group, value, mask=touched)
    tl.store(length_counts + group, tl.zeros_like(seen), mask=touched)


@triton.jit
def _learn_rows(
    root,
    weights,
    final_weights,
    row_counts,
    gradient,
    final_gradient,
    step,
    lanes,
    first,
    rows,
    BLOCK: tl.constexpr,
):
    """Move some rows of the mixer along their gradients."""
    row = first + tl.arange(0, BLOCK)
    times = tl.load(row_counts + row, mask=row < rows, other=0)
    touched = times > 0
    root_of = tl.load(root + times, mask=touched, other=0).to(tl.int64)
    falls = (lanes * 0 + _RATE_BYTES) // lanes + _RATE_STEPS
    rate = falls * _RATE_SPAN // (falls + step) + _RATE_LAST
    place = row[:, None] * _INPUTS + tl.arange(0, _INPUTS)[None, :]
    inside = touched[:, None] & (place >= 0)
    slope = tl.load(gradient + place, mask=inside, other=0).to(tl.int64)
    weight = tl.load(weights + place, mask=inside, other=0).to(tl.int64)
    weight += (slope * (root_of * rate)[:, None]) >> 20
    tl.store(weights + place, _limited(weight), mask=inside)
    tl.store(gradient + place, tl.zeros((BLOCK, _INPUTS), tl.int32), mask=inside)
    # The first set's rows are those of the last weights as well. The second last mixer's are the fourth set's
    # choices, each of which has a row there for each bit of a byte.
    is_first = row < _ROWS
    is_second = (row >= _CHOICE_ROWS) & ((row & 7) == 0)
    times = tl.where(is_first, times, 8 * times)
    root_of = tl.load(root + times, mask=touched & (is_first | is_second), other=0).to(tl.int64)
    rate = tl.minimum(lanes + _FINAL_RATE, _FINAL_RATE_MOST)
    which = tl.arange(0, _SETS)[None, :]
    place = tl.where(is_first, row, _ROWS + ((row - _CHOICE_ROWS) >> 3))[:, None] * _SETS + which
    inside = (touched & (is_first | is_second))[:, None] & (which >= 0)
    slope = tl.load(final_gradient + place, mask=inside, other=0)
    weight = tl.load(final_weights + place, mask=inside, other=0).to(tl.int64)
    weight += (slope * (root_of * rate)[:, None]) >> 24
    tl.store(final_weights + place, _limited(weight), mask=inside)
    tl.store(final_gradient + place, tl.zeros_like(slope), mask=inside)
    tl.store(row_counts + row, tl.zeros_like(times), mask=touched)


@triton.jit(do_not_specialize=["lanes", "steps", "match_mask", "rows", "bucket_bits"])
def count_kernel(
    stretch,
    root,
    cells,
    cell_stretch,
    lengths,
    apm,
    weights,
    final_weights,
    history,
    followed_two,
    matches,
    claims,
    places,
    checks,
    slot_counts,
    apm_places,
    match_places,
    followers,
    cell_counts,
    length_counts,
    apm_counts,
    row_counts,
    gradient,
    final_gradient,
    position,
    lanes,
    steps,
    match_mask,
    rows,
    CONTEXTS: tl.constexpr,
    bucket_bits,
    CELLS_A_PROGRAM: tl.constexpr,
    ROWS_A_PROGRAM: tl.constexpr,
):
    """Apply all that K1 added up, and count for buckets.

    Programs are a lane each; then cells of maps; then rows of the mixer; and one for the lengths of matches.
    """
    follow()
    program = tl.program_id(0)
    step = tl.load(position)
    cell_programs = (CONTEXTS * _CELLS + CELLS_A_PROGRAM - 1) // CELLS_A_PROGRAM
    if program < lanes:
        _count_lane(
            apm,
            history,
            followed_two,
            matches,
            claims,
            places,
            checks,
            slot_counts,
            apm_places,
            match_places,
            followers,
            apm_counts,
            step,
            program,
            lanes,
            steps,
            match_mask,
            CONTEXTS,
            bucket_bits,
        )
    elif program < lanes + cell_programs:
        first = (program - lanes) * CELLS_A_PROGRAM
        _learn_cells(stretch, cells, cell_stretch, cell_counts, first, CONTEXTS * _CELLS, CELLS_A_PROGRAM)
    elif program == lanes + cell_programs:
        _learn_lengths(lengths, length_counts)
    else:
        _learn_rows(
            root,
            weights,
            final_weights,
            row_counts,
            gradient,
            final_gradient,
            step,
            lanes,
            (program - lanes - cell_programs - 1) * ROWS_A_PROGRAM,
            rows,
            ROWS_A_PROGRAM,
        )


@triton.jit(do_not_specialize=["lanes", "bucket_bits"])
def apply_kernel(
    reciprocal,
    slots,
    claims,
    places,
    checks,
    slot_counts,
    position,
    lanes,
    CONTEXTS: tl.constexpr,
    bucket_bits,
):
    """Update the buckets that a lane's nibble has claimed, a program each, and count the step."""
    follow()
    number = tl.program_id(0)
    context = tl.arange(0, _INPUTS)
    place = tl.load(places + number * _INPUTS + context)
    check = tl.load(checks + number * _INPUTS + context)
    is_new = check >= 65536
    check = check & 0xFFFF
    inside = context < CONTEXTS
    at = claims + (context << bucket_bits) + place
    claim = tl.load(at, mask=inside, other=0)
    # Others may have taken their claims away already, but none is another's.
    owns = inside & (claim == (((number ^ _FREE) << 16).to(tl.uint32) | check.to(tl.uint32)))
    tl.store(at, tl.zeros_like(claim), mask=owns)

    node = tl.arange(0, 16)[None, :]
    counts = slot_counts + (context * (2 * lanes) + number)[:, None] * 16 + node
    inside = owns[:, None] & (node >= 0)
    seen = tl.load(counts, mask=inside, other=0)
    tl.store(counts, tl.zeros_like(seen), mask=inside)
    bucket = slots + (context.to(tl.int64) * (16 << bucket_bits) + place * 16)[:, None] + node
    slot = tl.load(bucket, mask=inside, other=0).to(tl.int32)
    slot = tl.where(is_new[:, None], 0, slot)
    p, count = (slot & 0xFFFF) ^ 0x8000, count_of(slot)
    ones = seen >> 16
    zeros = seen & 0xFFFF
    times = zeros + ones
    divisor = 2 * count + 1
    total = p * divisor + 2 * ones * 65535
    part = tl.load(reciprocal + divisor + 2 * times, mask=inside & (seen != 0), other=0)
    p = tl.minimum((total.to(tl.int64) * part) >> 32, 65535).to(tl.int32)
    # Of bits that were seen at once the more frequent is the newer, of as many ones as zeros the 0.
    mixed = tl.where(ones > zeros, 1, 2)
    several = tl.where(ones == 0, 0, tl.where(zeros == 0, 3, mixed))
    recent = tl.where(times > 1, several, (((slot >> _RECENT) << 1) | ones) & 3)
    learnt = (recent << _RECENT) | (tl.minimum(count + times, _SLOT_COUNT_MOST) << 16) | (p ^ 0x8000)
    slot = tl.where(seen != 0, learnt, slot)
    slot = tl.where(node == 0, check[:, None], slot)
    tl.store(bucket, slot.to(tl.uint32), mask=inside)
    if number == 0:
        tl.store(position, tl.load(position) + 1)
