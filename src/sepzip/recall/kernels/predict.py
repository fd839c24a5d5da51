"""A byte of every lane, predicted and coded, and the sums that it adds to: the twin of memory.c.

One program serves a lane; its threads are the inputs of the mixer. The bits of a nibble depend on one another
through no more than the place in the nibble's tree, so all 15 places are predicted at once before the first
of its bits is decoded. An encoder knows the places: all eight bits are predicted at once.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...exact.kernels.elements import follow
from ..functions import SQUASH_MOST
from ..profiles import INPUTS, NIBBLE
from ..state import (
    APM_CONTEXTS,
    APM_POINTS,
    APM_STEP,
    CELLS,
    CHOICE_ROWS,
    CLASS_WIDTH,
    CODES,
    KINDS,
    LANE_LENGTH,
    LANE_MATCH,
    LANE_NUMBERS,
    LENGTHS,
    MATCH_LEAST,
    PAD,
    PREDICTIONS,
    RECENT,
    ROWS,
    SETS,
    SLOT_COUNT_MOST,
    TAPS,
)
from .fields import (
    begin_match,
    context_hashes,
    correction_of,
    end_match,
    finished,
    follow_instruction,
    go_on_with_match,
    take_in,
)
from .recurrent import AHEAD

__all__ = ["FREE", "count_of", "predict_kernel"]

FREE = 65535
"""Less the number of who claims a bucket: what stands in the upper half of a claim."""

_FREE = tl.constexpr(FREE)
_INPUTS = tl.constexpr(INPUTS)
_PAD = tl.constexpr(PAD)
_ROWS = tl.constexpr(ROWS)
_CHOICE_ROWS = tl.constexpr(CHOICE_ROWS)
_SETS = tl.constexpr(SETS)
_TAPS = tl.constexpr(TAPS)
_PREDICTIONS = tl.constexpr(PREDICTIONS)
_LANE_NUMBERS = tl.constexpr(LANE_NUMBERS)
_LANE_MATCH = tl.constexpr(LANE_MATCH)
_LANE_LENGTH = tl.constexpr(LANE_LENGTH)
_LENGTHS = tl.constexpr(LENGTHS)
_MATCH_LEAST_0 = tl.constexpr(MATCH_LEAST[0])
_MATCH_LEAST_1 = tl.constexpr(MATCH_LEAST[1])
_CELLS = tl.constexpr(CELLS)
_CLASS_WIDTH = tl.constexpr(CLASS_WIDTH)
_CLASSES_MOST = tl.constexpr(32 * CLASS_WIDTH)
_CODES = tl.constexpr(CODES)
_KINDS = tl.constexpr(KINDS)
_SLOT_COUNT_MOST = tl.constexpr(SLOT_COUNT_MOST)
_RECENT = tl.constexpr(RECENT)
_SQUASH_MOST = tl.constexpr(SQUASH_MOST)
_APM_CONTEXTS = tl.constexpr(APM_CONTEXTS)
_APM_POINTS = tl.constexpr(APM_POINTS)
_APM_STEP = tl.constexpr(APM_STEP)
_APM_MOST = tl.constexpr(APM_STEP * (APM_POINTS - 1) // 2 - 1)
_NIBBLE = tl.constexpr(NIBBLE)
_CONSTANT = tl.constexpr(256)
_AHEAD = tl.constexpr(AHEAD)
_LEAST = tl.constexpr(2)
_MOST = tl.constexpr(65536 - _LEAST.value)
_WHOLE = tl.constexpr(0xFFFFFFFF)
_HALF = tl.constexpr(1 << 12)


@triton.jit
def _limited(x):
    return tl.minimum(tl.maximum(x, -_SQUASH_MOST), _SQUASH_MOST)


@triton.jit
def _squashed(squash, x):
    """Return the probability whose stretch is x, that is limited."""
    return tl.load(squash + (x + _SQUASH_MOST + 1))


@triton.jit
def _length_class(length):
    """Return one of 24 classes of the length of a match."""
    group = tl.where(length < 512, 22, 23)
    group = tl.where(length < 64, 20 + ((length - 32) >> 4), group)
    group = tl.where(length < 32, 16 + ((length - 16) >> 2), group)
    return tl.where(length < 16, length, group)


@triton.jit
def count_of(slot):
    """Return how often a slot was used, at most 127."""
    return (slot >> 16) & _SLOT_COUNT_MOST


@triton.jit
def _cell_of(stretch, slot):
    """Return the cell of a slot's count, last two bits and probability."""
    count = count_of(slot)
    kind = tl.where(count < 127, 11, 12)
    kind = tl.where(count < 64, 10, kind)
    kind = tl.where(count < 32, 9, kind)
    kind = tl.where(count < 16, 8, kind)
    kind = tl.where(count < 8, count, kind)
    stretched = tl.load(stretch + (((slot & 0xFFFF) ^ 0x8000) >> 4)).to(tl.int32)
    stretched = tl.minimum(tl.maximum(stretched, -_CLASSES_MOST), _CLASSES_MOST - 1)
    return (kind * 4 + (slot >> _RECENT)) * 64 + (stretched + _CLASSES_MOST) // _CLASS_WIDTH


@triton.jit
def _look_up(slots, hashes, CONTEXTS: tl.constexpr, bucket_bits):
    """Look up the two buckets where each context's may be; _choose_buckets takes what this returns."""
    context = tl.arange(0, _INPUTS)
    inside = context < CONTEXTS
    place = (hashes >> (32 - bucket_bits)).to(tl.int32)
    check = tl.maximum((hashes & 0xFFFF).to(tl.int32), 1)
    table = slots + context.to(tl.int64) * (16 << bucket_bits)
    bucket, beside = table + place * 16, table + (place ^ 1) * 16
    head = tl.load(bucket, mask=inside, other=0).to(tl.int32)
    head_beside = tl.load(beside, mask=inside, other=0).to(tl.int32)
    count = count_of(tl.load(bucket + 1, mask=inside, other=0)).to(tl.int32)
    count_beside = count_of(tl.load(beside + 1, mask=inside, other=0)).to(tl.int32)
    return place, check, head, head_beside, count, count_beside


@triton.jit
def _choose_buckets(looked_up, CONTEXTS: tl.constexpr):
    """Choose a bucket for each context; twin of find_buckets.

    Returns their places in their tables, their checks and whether they are there.
    """
    place, check, head, head_beside, count, count_beside = looked_up
    here = head == check
    found = (tl.arange(0, _INPUTS) < CONTEXTS) & (here | (head_beside == check))
    # Of two places without it the one whose first slot has seen less is given up.
    goes = tl.where(found, here == 0, count_beside < count)
    return tl.where(goes, place ^ 1, place), check, found


@triton.jit
def _weights_of(weights, row):
    """Return the mixer's rows, int32 [nodes, inputs]."""
    return tl.load(weights + row[:, None] * _INPUTS + tl.arange(0, _INPUTS)[None, :])


@triton.jit
def _dot(x, weight):
    """Return what the mixer's rows make of inputs, int32 [nodes, inputs]: stretched, int32 [nodes]."""
    return _limited(tl.sum((x * (weight >> 4)) >> 8, 1) >> 4)


@triton.jit
def _expected(seen, bit_number, length, matched):
    """Return whether a match holds after the bits `seen`, and the bit that it expects."""
    matched = matched | 256
    holds = (length > 0) & ((matched >> (8 - bit_number)) == seen)
    return holds, (matched >> (7 - bit_number)) & 1


@triton.jit
def _match_inputs(seen, bit_number, length, matched, size):
    """Return a match's two inputs; `size` is the stretched probability of a match of this length."""
    holds, expected = _expected(seen, bit_number, length, matched)
    second = 32 * tl.minimum(length, 32)
    first = tl.where(holds, tl.where(expected > 0, size, -size), 0)
    return first, tl.where(holds, tl.where(expected > 0, second, -second), 0)


@triton.jit
def _rows_and_contexts(
    seen, bit_number, known, choice, last, correction, length_0, matched_0, length_1, matched_1
):
    """Return the mixer's rows of the third and fourth set and the contexts of what corrects it.

    `known`, [nodes, inputs], says which contexts have seen a bit.
    """
    holds_0, _ = _expected(seen, bit_number, length_0, matched_0)
    holds_1, _ = _expected(seen, bit_number, length_1, matched_1)
    best = tl.where(holds_0, _length_class(length_0), 0)
    best = tl.maximum(best, tl.where(holds_1, _length_class(length_1), 0))
    kind = tl.where(best == 0, 0, tl.where(best < 16, 1, 2))
    row_2 = (tl.sum(known.to(tl.int32), 1) * 8 + bit_number) * 4 + kind + 2 * _ROWS
    row_3 = choice * 8 + bit_number + _CHOICE_ROWS
    apm_1 = finished(seen.to(tl.uint32) + correction) & (_APM_CONTEXTS - 1)
    return row_2, row_3, (last << 8) | seen, apm_1.to(tl.int32) + _APM_CONTEXTS


@triton.jit
def _corrected(table, context, low, part):
    """Return the table's probability between two of a context's points."""
    point = table + context * _APM_POINTS + low
    below = (tl.load(point) >> 16).to(tl.int32)
    above = (tl.load(point + 1) >> 16).to(tl.int32)
    return (below * (-part + _APM_STEP) + above * part) // _APM_STEP


@triton.jit
def _last_weights(weights):
    """Return the last weights there."""
    return tl.load(weights), tl.load(weights + 1), tl.load(weights + 2), tl.load(weights + 3)


@triton.jit
def _mixed_again(out_0, out_1, out_2, out_3, last):
    """Mix the outputs of the sets, int32 [nodes], by these last weights."""
    mixed = out_0.to(tl.int64) * last[0] + out_1.to(tl.int64) * last[1]
    mixed += out_2.to(tl.int64) * last[2] + out_3.to(tl.int64) * last[3]
    return _limited(mixed >> 16).to(tl.int32)


@triton.jit
def _predict_nodes(
    stretch,
    squash,
    slots,
    cell_stretch,
    apm,
    weights,
    final_weights,
    logits,
    seen,
    bit_number,
    node,
    place,
    found,
    last,
    correction,
    length_0,
    matched_0,
    size_0,
    length_1,
    matched_1,
    size_1,
    choice,
    CONTEXTS: tl.constexpr,
    bucket_bits,
    RECURRENT: tl.constexpr,
):
    """Predict the bits that follow the bits `seen`, which are `node` of a nibble, all int32 [nodes].

    `place` and `found` are [1 or nodes, inputs]. Returns the probabilities and all that _count takes in four
    numbers: [nodes, inputs], the inputs and, below, the cells + 1 or 0; the outputs of the first two sets and
    above them the corrections' lower point; those of the others; and those of the two last mixers.
    """
    context = tl.arange(0, _INPUTS)[None, :]
    at = slots + (context.to(tl.int64) * (16 << bucket_bits) + place * 16 + node[:, None])
    slot = tl.load(at, mask=found & (node >= 0)[:, None], other=0).to(tl.int32)
    # A bucket's head, where it stands for a node, has seen nothing.
    known = count_of(slot) > 0
    # Whatever depends on nothing else is loaded before it is waited for.
    row_2, row_3, apm_0, apm_1 = _rows_and_contexts(
        seen, bit_number, known, choice, last, correction, length_0, matched_0, length_1, matched_1
    )
    weight_0, weight_2 = _weights_of(weights, seen), _weights_of(weights, row_2)
    weight_3 = _weights_of(weights, row_3)
    weight_1 = tl.load(weights + (last + _ROWS) * _INPUTS + tl.arange(0, _INPUTS))[None, :]
    last_0 = _last_weights(final_weights + seen * _SETS)
    last_1 = _last_weights(final_weights + (choice + _ROWS) * _SETS)

    cell = _cell_of(stretch, slot)
    x = tl.load(cell_stretch + context * _CELLS + cell, mask=known, other=0).to(tl.int32)

    first, second = _match_inputs(seen, bit_number, length_0, matched_0, size_0)
    x = tl.where(context == CONTEXTS, first[:, None], x)
    x = tl.where(context == CONTEXTS + 1, second[:, None], x)
    first, second = _match_inputs(seen, bit_number, length_1, matched_1, size_1)
    x = tl.where(context == CONTEXTS + 2, first[:, None], x)
    x = tl.where(context == CONTEXTS + 3, second[:, None], x)
    x = tl.where(context == CONTEXTS + 4, _CONSTANT, x)
    if RECURRENT:
        x = tl.where(context == CONTEXTS + 5, tl.load(logits + seen)[:, None], x)
    out_0, out_1 = _dot(x, weight_0), _dot(x, weight_1)
    out_2, out_3 = _dot(x, weight_2), _dot(x, weight_3)
    first = _mixed_again(out_0, out_1, out_2, out_3, last_0)
    second = _mixed_again(out_0, out_1, out_2, out_3, last_1)
    mixed = (first + second) >> 1

    point = tl.minimum(tl.maximum(mixed, -_APM_MOST), _APM_MOST) + _APM_MOST + 1
    low, part = point // _APM_STEP, point % _APM_STEP
    by_first = _corrected(apm, apm_0, low, part)
    by_second = _corrected(apm, apm_1, low, part)
    probability = (_squashed(squash, mixed) + by_first + by_second) // 3
    probability = tl.minimum(tl.maximum(probability, _LEAST), _MOST)
    return (
        probability,
        (x << 16) | tl.where(known, cell + 1, 0),
        (out_0 + _HALF) | ((out_1 + _HALF) << 13) | (low << 26),
        (out_2 + _HALF) | ((out_3 + _HALF) << 13),
        (first + _HALF) | ((second + _HALF) << 13),
    )


@triton.jit
def _count_set(squash, gradient, row_counts, x, out, row, one):
    """Add to the gradients of a set of the mixer's rows, [nodes]."""
    error = (one - _squashed(squash, out)) >> 2
    place = row[:, None] * _INPUTS + tl.arange(0, _INPUTS)[None, :]
    tl.atomic_add(gradient + place, (x * error[:, None]) >> 10, sem="relaxed")
    tl.atomic_add(row_counts + row, row * 0 + 1, sem="relaxed")


@triton.jit
def _count_length(length_counts, seen, bit_number, bit, length, matched):
    """Add to the counts of how often matches of this length were right."""
    holds, expected = _expected(seen, bit_number, length, matched)
    total = tl.sum(tl.where(holds, tl.where(expected == bit, 65536, 1), 0), 0)
    tl.atomic_add(length_counts + _length_class(length), total, mask=total > 0, sem="relaxed")


@triton.jit
def _count(
    squash,
    cell_counts,
    length_counts,
    apm_counts,
    row_counts,
    gradient,
    final_gradient,
    apm_places,
    inputs,
    outputs,
    outputs_2,
    mixed,
    seen,
    bit_number,
    bit,
    choice,
    last,
    correction,
    length_0,
    matched_0,
    length_1,
    matched_1,
):
    """Add what is learnt from a byte's bits to the step's sums; the numbers are those of _predict_nodes."""
    context = tl.arange(0, _INPUTS)[None, :]
    x, cell = inputs >> 16, (inputs & 0xFFFF) - 1
    out_0, out_1 = (outputs & 8191) - _HALF, ((outputs >> 13) & 8191) - _HALF
    out_2, out_3 = (outputs_2 & 8191) - _HALF, ((outputs_2 >> 13) & 8191) - _HALF
    low = (outputs >> 26) & 63
    known = cell >= 0
    row_2, row_3, apm_0, apm_1 = _rows_and_contexts(
        seen, bit_number, known, choice, last, correction, length_0, matched_0, length_1, matched_1
    )
    one = bit << 16
    seen_as = tl.where(bit > 0, 65536, 1)
    tl.atomic_add(
        cell_counts + context * _CELLS + cell,
        tl.where(known, seen_as[:, None], 0),
        mask=known,
        sem="relaxed",
    )
    _count_set(squash, gradient, row_counts, x, out_0, seen, one)
    _count_set(squash, gradient, row_counts, x, out_2, row_2, one)
    _count_set(squash, gradient, row_counts, x, out_3, row_3, one)
    # The bits of a byte have one row of this set.
    error = (one - _squashed(squash, out_1)) >> 2
    change = tl.sum((x * error[:, None]) >> 10, 0)
    row = last + _ROWS
    tl.atomic_add(gradient + row * _INPUTS + tl.arange(0, _INPUTS), change, sem="relaxed")
    tl.atomic_add(row_counts + row, 8, sem="relaxed")

    error = one - _squashed(squash, (mixed & 8191) - _HALF)
    final = final_gradient + seen * _SETS
    tl.atomic_add(final, ((out_0 * error) >> 8).to(tl.int64), sem="relaxed")
    tl.atomic_add(final + 1, ((out_1 * error) >> 8).to(tl.int64), sem="relaxed")
    tl.atomic_add(final + 2, ((out_2 * error) >> 8).to(tl.int64), sem="relaxed")
    tl.atomic_add(final + 3, ((out_3 * error) >> 8).to(tl.int64), sem="relaxed")
    # And one of the second last mixer.
    error = one - _squashed(squash, ((mixed >> 13) & 8191) - _HALF)
    final = final_gradient + (choice + _ROWS) * _SETS
    tl.atomic_add(final, tl.sum((out_0 * error) >> 8, 0).to(tl.int64), sem="relaxed")
    tl.atomic_add(final + 1, tl.sum((out_1 * error) >> 8, 0).to(tl.int64), sem="relaxed")
    tl.atomic_add(final + 2, tl.sum((out_2 * error) >> 8, 0).to(tl.int64), sem="relaxed")
    tl.atomic_add(final + 3, tl.sum((out_3 * error) >> 8, 0).to(tl.int64), sem="relaxed")

    _count_length(length_counts, seen, bit_number, bit, length_0, matched_0)
    _count_length(length_counts + _LENGTHS, seen, bit_number, bit, length_1, matched_1)

    point_0, point_1 = apm_0 * _APM_POINTS + low, apm_1 * _APM_POINTS + low
    tl.atomic_add(apm_counts + point_0, seen_as, sem="relaxed")
    tl.atomic_add(apm_counts + point_0 + 1, seen_as, sem="relaxed")
    tl.atomic_add(apm_counts + point_1, seen_as, sem="relaxed")
    tl.atomic_add(apm_counts + point_1 + 1, seen_as, sem="relaxed")
    tl.store(apm_places + 2 * bit_number, point_0)
    tl.store(apm_places + 2 * bit_number + 1, point_1)


@triton.jit
def _claim(
    claims,
    places,
    checks,
    place,
    check,
    found,
    lane,
    nibble: tl.constexpr,
    CONTEXTS: tl.constexpr,
    bucket_bits,
):
    """Claim the buckets of a nibble; the smallest number gets a bucket. Records places and checks.

    A check that was not found is recorded with a bit above it.
    """
    context = tl.arange(0, _INPUTS)
    inside = context < CONTEXTS
    number = 2 * lane + nibble
    claim = ((number ^ _FREE) << 16).to(tl.uint32) | check.to(tl.uint32)
    tl.atomic_max(claims + (context << bucket_bits) + place, claim, mask=inside, sem="relaxed")
    tl.store(places + number * _INPUTS + context, place)
    tl.store(checks + number * _INPUTS + context, tl.where(found, check, check | 65536))


@triton.jit
def _on_path(upper, lower, node, bit_number):
    """Return of numbers of both nibbles' nodes, [16] or [16, inputs], those that the byte's bits went by."""
    if len(upper.shape) == 2:
        is_upper = (bit_number < 4)[:, None]
        node = node[:, None] + tl.zeros((1, upper.shape[1]), tl.int32)
    else:
        is_upper = bit_number < 4
    return tl.where(is_upper, tl.gather(upper, node, 0), tl.gather(lower, node, 0))


@triton.jit
def _middle(low, high, probability):
    """Return the last number of a 1, whose probability is in 65536ths."""
    width = high - low
    return low + (width >> 16) * probability + (((width & 0xFFFF) * probability) >> 16)


@triton.jit
def _agreed(low, high):
    """Return on how many of their upper bytes two numbers agree."""
    differs = low ^ high
    count = (differs < 1 << 24).to(tl.int64) + (differs < 1 << 16).to(tl.int64)
    return count + (differs < 1 << 8).to(tl.int64) + (differs < 1).to(tl.int64)


@triton.jit
def _encode_bit(low, high, at, data, probability, bit, active):
    """Code a bit; twin of code_bit. Returns the coder's numbers."""
    middle = _middle(low, high, probability.to(tl.int64))
    high = tl.where(bit > 0, middle, high)
    low = tl.where(bit > 0, low, middle + 1)
    count = _agreed(low, high)
    i = tl.arange(0, 4)
    byte = (high >> (24 - 8 * i).to(tl.int64)) & 255
    tl.store(data + at + i, byte.to(tl.uint8), mask=(i < count) & active)
    low = (low << (8 * count)) & _WHOLE
    high = ((high << (8 * count)) & _WHOLE) | ((tl.full((), 1, tl.int64) << (8 * count)) - 1)
    return low, high, at + count


@triton.jit
def _window(data, at, end):
    """Return the 16 bytes that follow as two numbers of 64 bits, the first bytes uppermost."""
    i = tl.arange(0, 16)
    byte = tl.load(data + at + i, mask=at + i < end, other=0).to(tl.uint64)
    byte = byte << (56 - 8 * (i & 7)).to(tl.uint64)
    return tl.sum(tl.where(i < 8, byte, 0), 0), tl.sum(tl.where(i < 8, 0, byte), 0)


@triton.jit
def _decode_nibble(probabilities, low, high, code, at, data, end):
    """Decode four bits, whose probabilities, [16], are in the order of the nibble's tree.

    Returns the bits and the coder's numbers.
    """
    # A nibble takes at most 16 bytes.
    ahead, then = _window(data, at, end)
    place = tl.arange(0, 16)
    node = 1
    for _ in tl.static_range(4):
        probability = tl.sum(tl.where(place == node, probabilities, 0), 0).to(tl.int64)
        middle = _middle(low, high, probability)
        one = code <= middle
        high = tl.where(one, middle, high)
        low = tl.where(one, low, middle + 1)
        count = _agreed(low, high)
        bits = 8 * count
        # Twice, for there may be none to shift.
        left = (63 - bits).to(tl.uint64)
        following = ((ahead >> 1) >> left).to(tl.int64)
        ahead = (ahead << bits.to(tl.uint64)) | ((then >> 1) >> left)
        then = then << bits.to(tl.uint64)
        low = (low << bits) & _WHOLE
        high = ((high << bits) & _WHOLE) | ((tl.full((), 1, tl.int64) << bits) - 1)
        code = ((code << bits) & _WHOLE) | following
        at += count
        node = 2 * node + tl.where(one, 1, 0)
    return node & 15, low, high, code, at


# Of gradients nothing is known of the alignment: a thread adds one of a row's numbers, not four in turn, so
# that a row takes one request of a warp.
@triton.jit(
    do_not_specialize=["lanes", "steps", "longer", "record", "columns", "match_mask", "bucket_bits"],
    do_not_specialize_on_alignment=["gradient"],
)
def predict_kernel(
    stretch,
    squash,
    multipliers,
    masks,
    kinds,
    instructions,
    slots,
    cell_stretch,
    lengths,
    apm,
    weights,
    final_weights,
    history,
    starts,
    state,
    followed_one,
    followed_two,
    followed_code,
    matches,
    taps,
    tap_values,
    predictions,
    logits,
    lows,
    highs,
    codes,
    ats,
    ends,
    data,
    claims,
    places,
    checks,
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
    longer,
    record,
    columns,
    match_mask,
    CONTEXTS: tl.constexpr,
    bucket_bits,
    USED: tl.constexpr,
    TEXT: tl.constexpr,
    RECORDS: tl.constexpr,
    SAMPLES: tl.constexpr,
    FLOATS: tl.constexpr,
    INSTRUCTIONS: tl.constexpr,
    MARKUP: tl.constexpr,
    TABLE: tl.constexpr,
    RECORD: tl.constexpr,
    SAMPLE: tl.constexpr,
    BIG_ENDIAN: tl.constexpr,
    RECURRENT: tl.constexpr,
    DECODES: tl.constexpr,
):
    follow()
    lane = tl.program_id(0)
    step = tl.load(position)
    pitch = steps + _PAD
    history += _PAD
    row = history + lane.to(tl.int64) * pitch
    state += lane * _LANE_NUMBERS
    followed_one += lane * 256
    if INSTRUCTIONS:
        followed_code += lane * _CODES
    logits += (step % _AHEAD * lanes + lane) * 256
    active = (step < steps - 1) | (lane < longer)
    last = tl.load(row + (step - 1)).to(tl.int32)
    before = tl.load(row + (step - 2)).to(tl.int32)
    place_in_all = (tl.load(starts + lane) + step).to(tl.int32)
    low, high = tl.load(lows + lane), tl.load(highs + lane)
    at = tl.load(ats + lane)
    begun_0 = begin_match(
        history, row, state, matches, multipliers, match_mask, step, lanes, pitch, 0, _MATCH_LEAST_0
    )
    begun_1 = begin_match(
        history,
        row,
        state,
        matches + match_mask + 1,
        multipliers,
        match_mask,
        step,
        lanes,
        pitch,
        1,
        _MATCH_LEAST_1,
    )
    # The stretched probabilities of matches of all lengths, of which there are fewer than threads.
    group = tl.arange(0, _INPUTS)
    sizes_0 = tl.load(lengths + group, mask=group < _LENGTHS, other=0)
    sizes_1 = tl.load(lengths + _LENGTHS + group, mask=group < _LENGTHS, other=0)
    sizes_0 = tl.load(stretch + (sizes_0 >> 20)).to(tl.int32)
    sizes_1 = tl.load(stretch + (sizes_1 >> 20)).to(tl.int32)
    hashes = context_hashes(
        masks,
        multipliers,
        row,
        state,
        followed_one,
        followed_two,
        followed_code,
        taps + lane * _TAPS,
        tap_values + lane * _TAPS,
        predictions + lane * _PREDICTIONS,
        step,
        place_in_all,
        record,
        last,
        before,
        USED,
        TEXT,
        RECORDS,
        SAMPLES,
        FLOATS,
        INSTRUCTIONS,
        MARKUP,
        TABLE,
        RECORD,
        SAMPLE,
        BIG_ENDIAN,
    )
    looked_up = _look_up(slots, hashes, CONTEXTS, bucket_bits)
    moved_0 = go_on_with_match(history, begun_0, step, lanes, pitch, last)
    moved_1 = go_on_with_match(history, begun_1, step, lanes, pitch, last)
    place_0, check_0, found_0 = _choose_buckets(looked_up, CONTEXTS)
    at_0, length_0, matched_0 = end_match(match_places + 2 * lane, moved_0, 0, _MATCH_LEAST_0)
    at_1, length_1, matched_1 = end_match(match_places + 2 * lane, moved_1, 1, _MATCH_LEAST_1)
    correction = ((last << 8) | (before << 16)).to(tl.uint32) + 1
    # What chooses weights of the fourth set.
    third = tl.load(row + (step - 3)).to(tl.int32)
    choice = tl.load(kinds + before) + _KINDS * tl.load(kinds + third)
    choice = tl.load(kinds + last) + _KINDS * choice
    if INSTRUCTIONS:
        choice, correction = correction_of(state)
    if RECORD:
        choice = tl.where(columns > 0, place_in_all % tl.maximum(columns, 1), choice)
    size_0 = tl.sum(tl.where(group == _length_class(length_0), sizes_0, 0), 0)
    size_1 = tl.sum(tl.where(group == _length_class(length_1), sizes_1, 0), 0)
    apm_places += 16 * lane

    if DECODES:
        code = tl.load(codes + lane)
        end = tl.load(ends + lane)
        node = tl.arange(0, 16)
        quarter = (node >= 2).to(tl.int32) + (node >= 4).to(tl.int32) + (node >= 8).to(tl.int32)
        seen_0 = tl.maximum(node, 1)
        predicted_0 = _predict_nodes(
            stretch,
            squash,
            slots,
            cell_stretch,
            apm,
            weights,
            final_weights,
            logits,
            seen_0,
            quarter,
            node,
            place_0[None, :],
            found_0[None, :],
            last,
            correction,
            length_0,
            matched_0,
            size_0,
            length_1,
            matched_1,
            size_1,
            choice,
            CONTEXTS,
            bucket_bits,
            RECURRENT,
        )
        upper, low, high, code, at = _decode_nibble(predicted_0[0], low, high, code, at, data, end)
        upper = tl.where(active, upper, 0)
        hashes = finished(hashes + (upper + 16).to(tl.uint32) * _NIBBLE)
        looked_up = _look_up(slots, hashes, CONTEXTS, bucket_bits)
        place_1, check_1, found_1 = _choose_buckets(looked_up, CONTEXTS)
        seen_1 = ((16 | upper) << quarter) | (seen_0 - (1 << quarter))
        predicted_1 = _predict_nodes(
            stretch,
            squash,
            slots,
            cell_stretch,
            apm,
            weights,
            final_weights,
            logits,
            seen_1,
            quarter + 4,
            node,
            place_1[None, :],
            found_1[None, :],
            last,
            correction,
            length_0,
            matched_0,
            size_0,
            length_1,
            matched_1,
            size_1,
            choice,
            CONTEXTS,
            bucket_bits,
            RECURRENT,
        )
        lower, low, high, code, at = _decode_nibble(predicted_1[0], low, high, code, at, data, end)
        lower = tl.where(active, lower, 0)
        byte = (upper << 4) | lower
        bit_number = tl.arange(0, 8)
        quarter = bit_number & 3
        seen = (256 | byte) >> (8 - bit_number)
        node = (seen & ((1 << quarter) - 1)) | (1 << quarter)
        inputs = _on_path(predicted_0[1], predicted_1[1], node, bit_number)
        outputs = _on_path(predicted_0[2], predicted_1[2], node, bit_number)
        outputs_2 = _on_path(predicted_0[3], predicted_1[3], node, bit_number)
        mixed = _on_path(predicted_0[4], predicted_1[4], node, bit_number)
        # No warp may overwrite what another has yet to load.
        tl.debug_barrier()
        tl.store(row + step, byte.to(tl.uint8))
        tl.store(codes + lane, code, mask=active)
    else:
        byte = tl.load(row + step).to(tl.int32)
        hashes = finished(hashes + ((byte >> 4) + 16).to(tl.uint32) * _NIBBLE)
        looked_up = _look_up(slots, hashes, CONTEXTS, bucket_bits)
        place_1, check_1, found_1 = _choose_buckets(looked_up, CONTEXTS)
        bit_number = tl.arange(0, 8)
        seen = (256 | byte) >> (8 - bit_number)
        is_upper = (bit_number < 4)[:, None]
        quarter = bit_number & 3
        probabilities, inputs, outputs, outputs_2, mixed = _predict_nodes(
            stretch,
            squash,
            slots,
            cell_stretch,
            apm,
            weights,
            final_weights,
            logits,
            seen,
            bit_number,
            (seen & ((1 << quarter) - 1)) | (1 << quarter),
            tl.where(is_upper, place_0[None, :], place_1[None, :]),
            (is_upper & found_0[None, :]) | ((is_upper == 0) & found_1[None, :]),
            last,
            correction,
            length_0,
            matched_0,
            size_0,
            length_1,
            matched_1,
            size_1,
            choice,
            CONTEXTS,
            bucket_bits,
            RECURRENT,
        )
        for i in tl.static_range(8):
            probability = tl.sum(tl.where(bit_number == i, probabilities, 0), 0)
            low, high, at = _encode_bit(low, high, at, data, probability, (byte >> (7 - i)) & 1, active)
        tl.debug_barrier()
    _count(
        squash,
        cell_counts,
        length_counts,
        apm_counts,
        row_counts,
        gradient,
        final_gradient,
        apm_places,
        inputs,
        outputs,
        outputs_2,
        mixed,
        seen,
        bit_number,
        (byte >> (7 - bit_number)) & 1,
        choice,
        last,
        correction,
        length_0,
        matched_0,
        length_1,
        matched_1,
    )
    tl.store(lows + lane, low, mask=active)
    tl.store(highs + lane, high, mask=active)
    tl.store(ats + lane, at, mask=active)
    _claim(claims, places, checks, place_0, check_0, found_0, lane, 0, CONTEXTS, bucket_bits)
    _claim(claims, places, checks, place_1, check_1, found_1, lane, 1, CONTEXTS, bucket_bits)
    # The largest lane decides what followed a pair of bytes.
    tl.atomic_max(followers + ((before << 8) | last), (step + 1) * lanes + lane, sem="relaxed")
    take_in(state, followed_one, step, byte, last, before, MARKUP, TABLE)
    if INSTRUCTIONS:
        follow_instruction(state, followed_code, instructions, byte)
    tl.store(state + _LANE_MATCH, at_0.to(tl.int64))
    tl.store(state + _LANE_MATCH + 1, at_1.to(tl.int64))
    tl.store(state + _LANE_LENGTH, length_0.to(tl.int64))
    tl.store(state + _LANE_LENGTH + 1, length_1.to(tl.int64))
