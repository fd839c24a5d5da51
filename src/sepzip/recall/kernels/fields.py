"""What a lane knows before a byte, hashed for its contexts, and its matches: the twin of memory.c."""

from __future__ import annotations

import triton
import triton.language as tl

from ..instructions import ESCAPE, GROUP_3, MODRM, NARROWS, PREFIX, PREFIX_BITS, VEX, WIDENS
from ..plan import Plan, Settings
from ..profiles import FIELDS, INPUTS, NIBBLE, PROFILES, WORD, Field, masks
from ..state import (
    CODES,
    COLUMNS,
    LANE_BEGINNING,
    LANE_CODE,
    LANE_CODE_1,
    LANE_CODE_2,
    LANE_CODE_3,
    LANE_DEPTH,
    LANE_DIGITS,
    LANE_ERROR,
    LANE_ESCAPED,
    LANE_FIELD,
    LANE_FIELD_ABOVE,
    LANE_FIELD_ABOVE_END,
    LANE_FIELD_START,
    LANE_FIELD_STARTS,
    LANE_GAPS,
    LANE_INSIDE,
    LANE_LENGTH,
    LANE_LETTERS,
    LANE_LINE,
    LANE_LINE_2,
    LANE_LINE_BEFORE,
    LANE_MATCH,
    LANE_NAME,
    LANE_NUMBERS,
    LANE_OPCODES,
    LANE_OPERAND,
    LANE_PARAGRAPH,
    LANE_PART,
    LANE_SHAPE,
    LANE_SIGNS,
    LANE_SIGNS_LONG,
    LANE_SPOKEN,
    LANE_SPOKEN_1,
    LANE_TAGGING,
    LANE_TOKEN,
    LANE_TOKEN_ABOVE,
    LANE_TOKENS,
    LANE_WORD,
    LANE_WORD_1,
    LANE_WORD_2,
    NAMES,
    PREDICTIONS,
    TAPS,
    VERIFIED,
)

__all__ = [
    "begin_match",
    "context_hashes",
    "correction_of",
    "end_match",
    "finished",
    "follow_instruction",
    "go_on_with_match",
    "take_in",
    "used_fields",
]

_INPUTS = tl.constexpr(INPUTS)
_LASTS = tl.constexpr(16)
_WORD = tl.constexpr(int(Field.WORD))
_WORD_1 = tl.constexpr(int(Field.WORD_BEFORE))
_WORD_2 = tl.constexpr(int(Field.WORD_BEFORE_THAT))
_ABOVE_IN_TEXT = tl.constexpr(int(Field.ABOVE_IN_TEXT))
_COLUMN_IN_TEXT = tl.constexpr(int(Field.COLUMN_IN_TEXT))
_FOLLOWED_ONE = tl.constexpr(int(Field.FOLLOWED_ONE))
_FOLLOWED_TWO = tl.constexpr(int(Field.FOLLOWED_TWO))
_ABOVE = tl.constexpr(int(Field.ABOVE))
_ABOVE_2 = tl.constexpr(int(Field.ABOVE_2))
_ABOVE_3 = tl.constexpr(int(Field.ABOVE_3))
_ABOVE_NEXT = tl.constexpr(int(Field.ABOVE_NEXT))
_ABOVE_BEFORE = tl.constexpr(int(Field.ABOVE_BEFORE))
_COLUMN = tl.constexpr(int(Field.COLUMN))
_SLOPE = tl.constexpr(int(Field.SLOPE))
_EIGHT_BEFORE = tl.constexpr(int(Field.EIGHT_BEFORE))
_PLACE_OF_EIGHT = tl.constexpr(int(Field.PLACE_OF_EIGHT))
_SLOPE_OF_EIGHT = tl.constexpr(int(Field.SLOPE_OF_EIGHT))
_SAMPLE = tl.constexpr(int(Field.SAMPLE))
_LEFT_OF_ABOVE = tl.constexpr(int(Field.LEFT_OF_ABOVE))
_RIGHT_OF_ABOVE = tl.constexpr(int(Field.RIGHT_OF_ABOVE))
_SECOND_OF_ABOVE = tl.constexpr(int(Field.SECOND_OF_ABOVE))
_ABOVE_THAT = tl.constexpr(int(Field.ABOVE_THAT))
_BEGINNING = tl.constexpr(int(Field.BEGINNING))
_GAPS = tl.constexpr(int(Field.GAPS))
_CODE = tl.constexpr(int(Field.CODE))
_PART = tl.constexpr(int(Field.PART))
_CODE_1 = tl.constexpr(int(Field.CODE_BEFORE))
_CODE_2 = tl.constexpr(int(Field.CODE_BEFORE_2))
_CODE_3 = tl.constexpr(int(Field.CODE_BEFORE_3))
_OPCODES = tl.constexpr(int(Field.OPCODES))
_OPERAND = tl.constexpr(int(Field.OPERAND))
_FOLLOWED_CODE = tl.constexpr(int(Field.FOLLOWED_CODE))
_LANE_CODE = tl.constexpr(LANE_CODE)
_LANE_PART = tl.constexpr(LANE_PART)
_LANE_CODE_1 = tl.constexpr(LANE_CODE_1)
_LANE_CODE_2 = tl.constexpr(LANE_CODE_2)
_LANE_CODE_3 = tl.constexpr(LANE_CODE_3)
_LANE_OPCODES = tl.constexpr(LANE_OPCODES)
_LANE_OPERAND = tl.constexpr(LANE_OPERAND)
_CODES = tl.constexpr(CODES)
_IN_MODRM, _IN_SIB, _IN_DISPLACEMENT, _IN_IMMEDIATE, _IN_VEX = (tl.constexpr(i) for i in range(4, 9))
_NARROWS, _WIDENS, _HAS_MODRM, _IS_GROUP_3, _IS_PREFIX, _IS_ESCAPE, _IS_VEX = (
    tl.constexpr(flag) for flag in (NARROWS, WIDENS, MODRM, GROUP_3, PREFIX, ESCAPE, VEX)
)
_PREFIX_BITS = tl.constexpr(PREFIX_BITS)
_WHERE = tl.constexpr(0xFFF)
_WHICH = tl.constexpr(0x300FFFF)
_LETTERS = tl.constexpr(int(Field.LETTERS))
_SPOKEN = tl.constexpr(int(Field.SPOKEN))
_SPOKEN_1 = tl.constexpr(int(Field.SPOKEN_BEFORE))
_INSIDE = tl.constexpr(int(Field.INSIDE))
_TAG = tl.constexpr(int(Field.TAG))
_TAG_OUTSIDE = tl.constexpr(int(Field.TAG_OUTSIDE))
_SIGNS = tl.constexpr(int(Field.SIGNS))
_SIGNS_LONG = tl.constexpr(int(Field.SIGNS_LONG))
_FIELD_ABOVE = tl.constexpr(int(Field.FIELD_ABOVE))
_TOKEN = tl.constexpr(int(Field.TOKEN))
_TOKEN_ABOVE = tl.constexpr(int(Field.TOKEN_ABOVE))
_SHAPE = tl.constexpr(int(Field.SHAPE))
_PARAGRAPH = tl.constexpr(int(Field.PARAGRAPH))
_LANE_WORD = tl.constexpr(LANE_WORD)
_LANE_WORD_1 = tl.constexpr(LANE_WORD_1)
_LANE_WORD_2 = tl.constexpr(LANE_WORD_2)
_LANE_LINE = tl.constexpr(LANE_LINE)
_LANE_LINE_BEFORE = tl.constexpr(LANE_LINE_BEFORE)
_LANE_LINE_2 = tl.constexpr(LANE_LINE_2)
_LANE_BEGINNING = tl.constexpr(LANE_BEGINNING)
_LANE_GAPS = tl.constexpr(LANE_GAPS)
_LANE_LETTERS = tl.constexpr(LANE_LETTERS)
_LANE_SPOKEN = tl.constexpr(LANE_SPOKEN)
_LANE_SPOKEN_1 = tl.constexpr(LANE_SPOKEN_1)
_LANE_ESCAPED = tl.constexpr(LANE_ESCAPED)
_LANE_DIGITS = tl.constexpr(LANE_DIGITS)
_LANE_INSIDE = tl.constexpr(LANE_INSIDE)
_LANE_SIGNS = tl.constexpr(LANE_SIGNS)
_LANE_SIGNS_LONG = tl.constexpr(LANE_SIGNS_LONG)
_LANE_TAGGING = tl.constexpr(LANE_TAGGING)
_LANE_DEPTH = tl.constexpr(LANE_DEPTH)
_LANE_NAME = tl.constexpr(LANE_NAME)
_LANE_FIELD = tl.constexpr(LANE_FIELD)
_LANE_FIELD_START = tl.constexpr(LANE_FIELD_START)
_LANE_FIELD_ABOVE = tl.constexpr(LANE_FIELD_ABOVE)
_LANE_FIELD_ABOVE_END = tl.constexpr(LANE_FIELD_ABOVE_END)
_LANE_TOKEN = tl.constexpr(LANE_TOKEN)
_LANE_TOKEN_ABOVE = tl.constexpr(LANE_TOKEN_ABOVE)
_LANE_SHAPE = tl.constexpr(LANE_SHAPE)
_LANE_PARAGRAPH = tl.constexpr(LANE_PARAGRAPH)
_LANE_FIELD_STARTS = tl.constexpr(LANE_FIELD_STARTS)
_LANE_TOKENS = tl.constexpr(LANE_TOKENS)
_NAMES = tl.constexpr(NAMES)
_COLUMNS = tl.constexpr(COLUMNS)
_LANE_MATCH = tl.constexpr(LANE_MATCH)
_LANE_LENGTH = tl.constexpr(LANE_LENGTH)
_LANE_ERROR = tl.constexpr(LANE_ERROR)
_LANE_NUMBERS = tl.constexpr(LANE_NUMBERS)
_TAPS = tl.constexpr(TAPS)
_PREDICTIONS = tl.constexpr(PREDICTIONS)
_VERIFIED = tl.constexpr(VERIFIED)
_WORD_FACTOR = tl.constexpr(WORD)
_NIBBLE = tl.constexpr(NIBBLE)
_WHOLE = tl.constexpr(0xFFFFFFFF)
_FINISH_1 = tl.constexpr(0x85EBCA6B)
_FINISH_2 = tl.constexpr(0xC2B2AE35)


def used_fields(plan: Plan, settings: Settings) -> tuple[bool, ...]:
    """Return of each field whether a context of the plan is made of it, and it is known."""
    known = masks(plan.profile, settings.contexts).fields
    profile = PROFILES[plan.profile]
    fields = set(range(16)) | {Field.FOLLOWED_ONE, Field.FOLLOWED_TWO, Field.PLACE_OF_EIGHT}
    if profile.uses_text:
        fields |= set(range(Field.WORD, Field.FOLLOWED_ONE)) | set(range(Field.LEFT_OF_ABOVE, Field.GAPS + 1))
    if profile.uses_markup or profile.uses_table:
        fields |= {Field.SIGNS, Field.SIGNS_LONG}
    if profile.uses_markup:
        fields |= set(range(Field.LETTERS, Field.SIGNS))
    if profile.uses_table:
        fields |= set(range(Field.FIELD_ABOVE, Field.PARAGRAPH + 1))
    if profile.uses_record and plan.record:
        fields |= set(range(Field.ABOVE, Field.EIGHT_BEFORE))
    if profile.uses_floats:
        fields |= set(range(Field.EIGHT_BEFORE, Field.SAMPLE))
    if profile.uses_samples:
        fields |= set(range(Field.SAMPLE, Field.SAMPLE + 9))
    if profile.uses_instructions:
        fields |= set(range(Field.CODE, Field.FOLLOWED_CODE + 1))
    return tuple(field in fields and bool(known[field].any()) for field in range(FIELDS))


@triton.jit
def finished(x):
    """Return uint32 x with every bit spread over all."""
    x = x ^ (x >> 15)
    x = x * _FINISH_1
    x = x ^ (x >> 13)
    x = x * _FINISH_2
    return x ^ (x >> 16)


@triton.jit
def _with_field(hashes, masks, multipliers, number: tl.constexpr, field, USED: tl.constexpr):
    """Return the hashes with a field added, if any context is made of it."""
    if USED[number]:
        mask = tl.load(masks + number * _INPUTS + tl.arange(0, _INPUTS))
        hashes += (field.to(tl.uint32) & mask) * tl.load(multipliers + number)
    return hashes


@triton.jit
def _byte(row, step, back):
    """Return the byte so many before number `step` of the lane, int32; 0 before its first."""
    return tl.load(row + (step - back), mask=back <= step, other=0).to(tl.int32)


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
    """Return what a prediction says of the byte that comes; twin of fields._key."""
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
def _with_samples(
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
    """Return the hashes with what is predicted of the lane's samples; twin of fields._fill_samples.

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
    hashes = _with_field(hashes, masks, multipliers, _SAMPLE, key_0, USED)
    hashes = _with_field(hashes, masks, multipliers, _SAMPLE + 1, key, USED)
    key = _key(p_2, phase, last, SAMPLE, BIG_ENDIAN)
    hashes = _with_field(hashes, masks, multipliers, _SAMPLE + 2, key, USED)
    key = _key(p_3, phase, last, SAMPLE, BIG_ENDIAN)
    hashes = _with_field(hashes, masks, multipliers, _SAMPLE + 3, key, USED)
    hashes = _with_field(hashes, masks, multipliers, _SAMPLE + 4, key_4, USED)
    hashes = _with_field(hashes, masks, multipliers, _SAMPLE + 5, key_5, USED)
    key = _key(p_8, phase, last, SAMPLE, BIG_ENDIAN)
    hashes = _with_field(hashes, masks, multipliers, _SAMPLE + 6, key, USED)
    key = _key(p_5, phase, last, SAMPLE, BIG_ENDIAN)
    hashes = _with_field(hashes, masks, multipliers, _SAMPLE + 7, key, USED)
    hashes = _with_field(hashes, masks, multipliers, _SAMPLE + 8, key_8, USED)

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


@triton.jit
def _code_and_part(state):
    """Return what is known of the lane's instruction, and where in it one is, uint32."""
    return tl.load(state + _LANE_CODE).to(tl.uint32), tl.load(state + _LANE_PART).to(tl.uint32)


@triton.jit
def _place_of_code(code, part):
    """Return where what followed this part of this instruction is kept."""
    return (finished(code * _WORD_FACTOR + (part & _WHERE)) & (_CODES - 1)).to(tl.int32)


@triton.jit
def correction_of(state):
    """Return what the part of the lane's instruction chooses: weights, int32, and a correction, uint32."""
    code, part = _code_and_part(state)
    choice = ((part & 15) << 3) | ((part >> 4) & 7)
    return choice.to(tl.int32), (code & _WHICH) * _WORD_FACTOR + (part & _WHERE) * _NIBBLE


@triton.jit
def _with_markup(hashes, masks, multipliers, state, USED: tl.constexpr):
    """Return the hashes with what is known of markup and of text in pieces; twin of fill_markup."""
    hashes = _with_field(hashes, masks, multipliers, _LETTERS, tl.load(state + _LANE_LETTERS), USED)
    hashes = _with_field(hashes, masks, multipliers, _SPOKEN, tl.load(state + _LANE_SPOKEN), USED)
    hashes = _with_field(hashes, masks, multipliers, _SPOKEN_1, tl.load(state + _LANE_SPOKEN_1), USED)
    hashes = _with_field(hashes, masks, multipliers, _INSIDE, tl.load(state + _LANE_INSIDE), USED)
    names, depth = state + _LANE_NAME, tl.load(state + _LANE_DEPTH)
    hashes = _with_field(hashes, masks, multipliers, _TAG, tl.load(names + (depth & (_NAMES - 1))), USED)
    outside = tl.load(names + ((depth - 1) & (_NAMES - 1)))
    return _with_field(hashes, masks, multipliers, _TAG_OUTSIDE, outside, USED)


@triton.jit
def _with_table(hashes, masks, multipliers, row, state, step, USED: tl.constexpr):
    """Return the hashes with what is known of a line's fields; twin of fill_table."""
    into = (step - tl.load(state + _LANE_FIELD_START)).to(tl.int32)
    start = tl.load(state + _LANE_FIELD_ABOVE).to(tl.int32)
    end = tl.load(state + _LANE_FIELD_ABOVE_END).to(tl.int32)
    line = tl.load(state + _LANE_LINE).to(tl.int32)
    above = start + into
    has_above = start >= 0
    there = tl.load(row + above, mask=has_above & (above < end), other=0).to(tl.int32)
    there = tl.where(has_above & (above >= end) & (above < line), 256, there)
    following = tl.load(row + above + 1, mask=has_above & (above + 1 < end), other=0).to(tl.int32)
    column = tl.minimum(tl.load(state + _LANE_FIELD), _COLUMNS - 1).to(tl.int32)
    field = there | (following << 9) | (tl.minimum(into, 255) << 17) | (column << 25)
    hashes = _with_field(hashes, masks, multipliers, _FIELD_ABOVE, field, USED)
    hashes = _with_field(hashes, masks, multipliers, _TOKEN, tl.load(state + _LANE_TOKEN), USED)
    hashes = _with_field(hashes, masks, multipliers, _TOKEN_ABOVE, tl.load(state + _LANE_TOKEN_ABOVE), USED)
    hashes = _with_field(hashes, masks, multipliers, _SHAPE, tl.load(state + _LANE_SHAPE), USED)
    return _with_field(hashes, masks, multipliers, _PARAGRAPH, tl.load(state + _LANE_PARAGRAPH), USED)


@triton.jit
def context_hashes(
    masks,
    multipliers,
    row,
    state,
    followed_one,
    followed_two,
    followed_code,
    taps,
    tap_values,
    predictions,
    step,
    position,
    record,
    last,
    last_2,
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
):
    """Return the hashes of the lane's contexts before byte number `step`, uint32 [inputs].

    All pointers but the first two are the lane's own, and `row` that to its byte 0. `last` and `last_2`
    are the bytes before, `position` is the byte's in the segment.
    """
    hashes = tl.zeros((_INPUTS,), tl.uint32)
    for i in tl.static_range(16):
        field = tl.load(row + (step - 1 - i)).to(tl.uint32)
        hashes = _with_field(hashes, masks, multipliers, i, field, USED)
    if TEXT:
        hashes = _with_field(hashes, masks, multipliers, _WORD, tl.load(state + _LANE_WORD), USED)
        hashes = _with_field(hashes, masks, multipliers, _WORD_1, tl.load(state + _LANE_WORD_1), USED)
        hashes = _with_field(hashes, masks, multipliers, _WORD_2, tl.load(state + _LANE_WORD_2), USED)
        line = tl.load(state + _LANE_LINE).to(tl.int32)
        before = tl.load(state + _LANE_LINE_BEFORE).to(tl.int32)
        column = step - line
        above = before + column
        field = tl.load(row + above, mask=(line > 0) & (above < line), other=0)
        hashes = _with_field(hashes, masks, multipliers, _ABOVE_IN_TEXT, field, USED)
        hashes = _with_field(hashes, masks, multipliers, _COLUMN_IN_TEXT, tl.minimum(column, 255), USED)
        field = tl.load(row + above - 1, mask=(line > 0) & (column > 0) & (above - 1 < line), other=0)
        hashes = _with_field(hashes, masks, multipliers, _LEFT_OF_ABOVE, field, USED)
        field = tl.load(row + above + 1, mask=(line > 0) & (above + 1 < line), other=0)
        hashes = _with_field(hashes, masks, multipliers, _RIGHT_OF_ABOVE, field, USED)
        field = tl.load(row + above + 2, mask=(line > 0) & (above + 2 < line), other=0)
        hashes = _with_field(hashes, masks, multipliers, _SECOND_OF_ABOVE, field, USED)
        above_that = tl.load(state + _LANE_LINE_2).to(tl.int32) + column
        field = tl.load(row + above_that, mask=above_that < before, other=0)
        hashes = _with_field(hashes, masks, multipliers, _ABOVE_THAT, field, USED)
        hashes = _with_field(hashes, masks, multipliers, _BEGINNING, tl.load(state + _LANE_BEGINNING), USED)
        hashes = _with_field(hashes, masks, multipliers, _GAPS, tl.load(state + _LANE_GAPS), USED)
    if MARKUP or TABLE:
        hashes = _with_field(hashes, masks, multipliers, _SIGNS, tl.load(state + _LANE_SIGNS), USED)
        hashes = _with_field(hashes, masks, multipliers, _SIGNS_LONG, tl.load(state + _LANE_SIGNS_LONG), USED)
    if MARKUP:
        hashes = _with_markup(hashes, masks, multipliers, state, USED)
    if TABLE:
        hashes = _with_table(hashes, masks, multipliers, row, state, step, USED)
    hashes = _with_field(hashes, masks, multipliers, _FOLLOWED_ONE, tl.load(followed_one + last), USED)
    field = tl.load(followed_two + ((last_2 << 8) | last))
    hashes = _with_field(hashes, masks, multipliers, _FOLLOWED_TWO, field, USED)
    if RECORDS and RECORD:
        above = _byte(row, step, record)
        before = _byte(row, step, record + 1)
        hashes = _with_field(hashes, masks, multipliers, _ABOVE, above, USED)
        field = _byte(row, step, 2 * record)
        hashes = _with_field(hashes, masks, multipliers, _ABOVE_2, field, USED)
        field = _byte(row, step, 3 * record)
        hashes = _with_field(hashes, masks, multipliers, _ABOVE_3, field, USED)
        field = _byte(row, step, tl.maximum(record - 1, 1))
        hashes = _with_field(hashes, masks, multipliers, _ABOVE_NEXT, field, USED)
        hashes = _with_field(hashes, masks, multipliers, _ABOVE_BEFORE, before, USED)
        hashes = _with_field(hashes, masks, multipliers, _COLUMN, position % record, USED)
        field = (last + above - before) & 255
        hashes = _with_field(hashes, masks, multipliers, _SLOPE, field, USED)
    place = position & 7
    field = place | tl.where(place > 0, last << 8, 0)
    hashes = _with_field(hashes, masks, multipliers, _PLACE_OF_EIGHT, field, USED)
    if FLOATS:
        field = _byte(row, step, 8) | (_byte(row, step, 16) << 8)
        hashes = _with_field(hashes, masks, multipliers, _EIGHT_BEFORE, field, USED)
        i = tl.arange(0, 8)
        first = tl.sum(_byte(row, step - place, 8 - i).to(tl.int64) << (8 * i).to(tl.int64), 0)
        second = tl.sum(_byte(row, step - place, 16 - i).to(tl.int64) << (8 * i).to(tl.int64), 0)
        field = ((2 * first - second) >> (8 * place).to(tl.int64)) & 255
        hashes = _with_field(hashes, masks, multipliers, _SLOPE_OF_EIGHT, field, USED)
    if SAMPLES:
        hashes = _with_samples(
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
            SAMPLE,
            BIG_ENDIAN,
            RECORD,
            USED,
        )
    if INSTRUCTIONS:
        code, part = _code_and_part(state)
        hashes = _with_field(hashes, masks, multipliers, _CODE, code, USED)
        hashes = _with_field(hashes, masks, multipliers, _PART, part, USED)
        hashes = _with_field(hashes, masks, multipliers, _CODE_1, tl.load(state + _LANE_CODE_1), USED)
        hashes = _with_field(hashes, masks, multipliers, _CODE_2, tl.load(state + _LANE_CODE_2), USED)
        hashes = _with_field(hashes, masks, multipliers, _CODE_3, tl.load(state + _LANE_CODE_3), USED)
        hashes = _with_field(hashes, masks, multipliers, _OPCODES, tl.load(state + _LANE_OPCODES), USED)
        hashes = _with_field(hashes, masks, multipliers, _OPERAND, tl.load(state + _LANE_OPERAND), USED)
        field = tl.load(followed_code + _place_of_code(code, part))
        hashes = _with_field(hashes, masks, multipliers, _FOLLOWED_CODE, field, USED)
    return finished(hashes)


# What a match waits for is looked up in three turns, between which the caller looks up other things.
@triton.jit
def begin_match(
    history,
    row,
    state,
    matches,
    multipliers,
    match_mask,
    step,
    lanes,
    pitch,
    KIND: tl.constexpr,
    LEAST: tl.constexpr,
):
    """Look up the lane's match of a kind, the byte there, and where else its bytes before `step` were.

    `history` points to the first lane's byte 0, and `matches` to the kind's table.
    """
    at = tl.load(state + _LANE_MATCH + KIND).to(tl.int32)
    length = tl.load(state + _LANE_LENGTH + KIND).to(tl.int32)
    i = tl.arange(0, _VERIFIED)
    # The zeros before a lane's first byte are as many as are looked at.
    own = tl.load(row + (step - 1) - i).to(tl.int32)
    factor = tl.load(multipliers + i)
    total = tl.sum(tl.where(i < LEAST, (own + 1).to(tl.uint32) * factor, 0), 0)
    place = (finished(total.to(tl.uint32)) & match_mask).to(tl.int32)
    looks = step >= LEAST
    found = tl.load(matches + place, mask=looks, other=0) - 1
    there = history + (at % lanes).to(tl.int64) * pitch + at // lanes
    seen = tl.load(there, mask=length > 0, other=0).to(tl.int32)
    return at, length, own, found, seen, tl.where(looks, place, -1)


@triton.jit
def go_on_with_match(history, begun, step, lanes, pitch, last):
    """Move the match past the byte before `step`, or look up the bytes where there may be another."""
    at, length, own, found, seen, place = begun
    end = step * lanes
    i = tl.arange(0, _VERIFIED)
    had = length > 0
    right = had & (seen == last)
    length = tl.where(right, tl.minimum(length + 1, 65535), 0)
    at = tl.where(had, at + lanes, at)
    length = tl.where(at >= end, 0, length)
    missed = had & (seen != last) & (at < end)
    matched = tl.load(
        history + (at % lanes).to(tl.int64) * pitch + at // lanes, mask=had & (at < end), other=0
    ).to(tl.int32)

    looks = (length == 0) & (found >= 0)
    other = tl.maximum(found, 0) % lanes
    before = tl.maximum(found, 0) // lanes
    most = tl.minimum(before, step)
    candidate = history + other.to(tl.int64) * pitch + before
    there = tl.load(candidate - 1 - i, mask=looks & (i < most), other=0).to(tl.int32)
    following = tl.load(candidate, mask=looks, other=0).to(tl.int32)
    equal = (there == own) & (i < most)
    return at, length, missed, matched, looks, found, equal, following, place


@triton.jit
def end_match(match_places, moved, KIND: tl.constexpr, LEAST: tl.constexpr):
    """Return where the match is and its length, which the caller stores, and the byte there.

    With the other two functions the twin of follow_matches.
    """
    at, length, missed, matched, looks, found, equal, following, place = moved
    same = tl.min(tl.where(equal, _VERIFIED, tl.arange(0, _VERIFIED)), 0)
    takes = looks & (same >= min(LEAST, 16))
    recovers = (length == 0) & (takes == 0) & missed
    at = tl.where(takes, found, at)
    length = tl.where(takes, same, tl.where(recovers, 1, length))
    tl.store(match_places + KIND, place)
    return at, length, tl.where(takes, following, matched)


@triton.jit
def _hashed(known, byte):
    """Return int64, a hash of 32 bits with a byte more."""
    return ((known.to(tl.uint32) + (byte + 1).to(tl.uint32)) * _WORD_FACTOR).to(tl.int64)


@triton.jit
def _signs(state, byte, last, other):
    """Return the lane's last signs and their longer hash after the byte; twin of learn_signs."""
    signs, longer = tl.load(state + _LANE_SIGNS), tl.load(state + _LANE_SIGNS_LONG)
    takes = other & ((byte != 32) | (last != 32))
    signs = tl.where(takes, ((signs << 8) | byte) & _WHOLE, signs)
    return signs, tl.where(takes, _hashed(longer << 5, byte), longer)


@triton.jit
def _pieces(state, byte, small, letter, digit):
    """Return what the lane has of text in pieces after the byte; twin of learn_pieces."""
    letters, escaped = tl.load(state + _LANE_LETTERS), tl.load(state + _LANE_ESCAPED)
    spoken, before = tl.load(state + _LANE_SPOKEN), tl.load(state + _LANE_SPOKEN_1)
    digits, inside = tl.load(state + _LANE_DIGITS), tl.load(state + _LANE_INSIDE)
    inside = tl.where(byte == 40, 1, tl.where(byte == 41, 0, inside))
    in_escape = digit & (escaped > 0)
    code = tl.where(escaped == 4, letters << 8, letters)
    code = (code & -256) | (((code << 3) | (byte - 48)) & 255)
    digits = tl.where(digit & (in_escape == 0), digits + 1, tl.where(in_escape, digits, 0))
    is_space = (byte == 32) | (byte == 10) | (byte == 13) | (byte == 9)
    gap = (in_escape == 0) & (letter == 0) & ((digits == 3) | is_space)
    escaped = tl.where(in_escape, tl.where(escaped == 4, 2, escaped - 1), tl.where(byte == 92, 4, 0))
    separated = tl.where(gap & ((letters & 255) > 0), letters << 8, letters)
    letters = tl.where(in_escape, code, tl.where(letter, (letters << 8) | small, separated)) & _WHOLE
    ends = gap & (spoken != 0)
    before = tl.where(ends, spoken, before)
    spoken = tl.where(in_escape | letter, _hashed(spoken, small), tl.where(ends, 0, spoken))
    return letters, spoken, before, escaped, digits, inside


@triton.jit
def _tags(state, byte, last, letter):
    """Return whether the lane is in a tag, how many are open, and the last one's name; twin of learn_tags."""
    tagging, depth = tl.load(state + _LANE_TAGGING), tl.load(state + _LANE_DEPTH)
    name = tl.load(state + _LANE_NAME + (depth & (_NAMES - 1)))
    goes_on = (byte != 60) & (tagging > 0)
    begins = goes_on & (last == 60)
    tagging = tl.where(begins, tl.where(byte == 47, 3, tl.where(letter, 1, 0)), tagging)
    opens = begins & (tagging == 1)
    depth = tl.where(opens, depth + 1, depth)
    name = tl.where(opens, 0, name)
    in_name = goes_on & (tagging == 1)
    ends = in_name & ((byte == 62) | (byte == 47) | (byte == 32) | (byte == 9) | (byte == 10))
    tagging = tl.where(ends, 2, tagging)
    longer = tl.where(in_name & (ends == 0), _hashed(name, byte), name)
    closes = goes_on & (byte == 62)
    # The name stays where it was, whatever is closed.
    place = depth & (_NAMES - 1)
    depth = tl.where(closes & ((tagging == 3) | ((tagging == 2) & (last == 47))), depth - 1, depth)
    tagging = tl.where(byte == 60, 1, tl.where(closes, 0, tagging))
    return tagging, depth, place, longer


@triton.jit
def _line_fields(state, step, byte, small, last, last_2, letter, digit, line, line_before):
    """Return what the lane has of its line's fields after the byte; twin of learn_fields.

    `line` and `line_before` are where lines begin after the byte.
    """
    shape, token = tl.load(state + _LANE_SHAPE), tl.load(state + _LANE_TOKEN)
    number, paragraph = tl.load(state + _LANE_FIELD), tl.load(state + _LANE_PARAGRAPH)
    start, above = tl.load(state + _LANE_FIELD_START), tl.load(state + _LANE_FIELD_ABOVE)
    end, token_above = tl.load(state + _LANE_FIELD_ABOVE_END), tl.load(state + _LANE_TOKEN_ABOVE)
    kind = tl.where(letter, 97, tl.where(digit, 48, byte))
    kind = tl.where(byte >= 128, 128, tl.where(byte != small, 65, kind))
    shape = _hashed(shape << 5, kind)
    gap = (byte == 10) | (byte == 9) | (byte == 32) | (byte == 44) | (byte == 59) | (byte == 124)
    ends = gap & ((byte != 32) | (last != 32))
    ended, ended_token = tl.minimum(number, _COLUMNS - 1), token
    token = tl.where(ends, 0, tl.where(gap, token, _hashed(token, byte)))
    number = tl.where(ends, tl.where(byte == 10, 0, number + 1), number)
    is_empty = (last == 10) | ((last == 13) & (last_2 == 10))
    paragraph += ((byte == 10) & is_empty).to(tl.int64)
    column = tl.minimum(number, _COLUMNS - 1)
    its_start = tl.load(state + _LANE_FIELD_STARTS + column)
    has_next = column < _COLUMNS - 1
    following = tl.load(state + _LANE_FIELD_STARTS + column + 1, mask=has_next, other=-1)
    # The line's only field has just given its token.
    its_token = tl.where(column == ended, ended_token, tl.load(state + _LANE_TOKENS + column))
    has_above = its_start >= line_before + (column > 0).to(tl.int64)
    above = tl.where(ends, tl.where(has_above, its_start, -1), above)
    end = tl.where(ends, tl.where(following > line_before, following, line), end)
    token_above = tl.where(ends, tl.where(has_above, its_token, 0), token_above)
    start = tl.where(gap, (step + 1).to(tl.int64), start)
    return (
        shape,
        token,
        number,
        paragraph,
        start,
        above,
        end,
        token_above,
        (gap, ends, column, ended, ended_token),
    )


@triton.jit
def take_in(state, followed_one, step, byte, last, last_2, MARKUP: tl.constexpr, TABLE: tl.constexpr):
    """Take a byte into what the lane itself has seen; part of learn_lanes."""
    word = tl.load(state + _LANE_WORD)
    word_1 = tl.load(state + _LANE_WORD_1)
    word_2 = tl.load(state + _LANE_WORD_2)
    line = tl.load(state + _LANE_LINE)
    line_before = tl.load(state + _LANE_LINE_BEFORE)
    line_2 = tl.load(state + _LANE_LINE_2)
    beginning = tl.load(state + _LANE_BEGINNING)
    gaps = tl.load(state + _LANE_GAPS)
    followed = tl.load(followed_one + last).to(tl.int32)
    small = tl.where((byte >= 65) & (byte <= 90), byte + 32, byte)
    is_letter = ((small >= 97) & (small <= 122)) | (small >= 128)
    is_digit = (small >= 48) & (small <= 57)
    letter = is_letter | is_digit
    if MARKUP or TABLE:
        signs, signs_long = _signs(state, byte, last, letter == 0)
    if MARKUP:
        letters, spoken, spoken_1, escaped, digits, inside = _pieces(state, byte, small, is_letter, is_digit)
        tagging, depth, place, name = _tags(state, byte, last, is_letter)
    if TABLE:
        line_after = tl.where(byte == 10, (step + 1).to(tl.int64), line)
        line_before_after = tl.where(byte == 10, line, line_before)
        fields = _line_fields(
            state, step, byte, small, last, last_2, is_letter, is_digit, line_after, line_before_after
        )
    tl.debug_barrier()
    longer = ((word.to(tl.uint32) + (small + 1).to(tl.uint32)) * _WORD_FACTOR).to(tl.int64)
    ends = (word != 0) & (letter == 0)
    tl.store(state + _LANE_WORD_2, tl.where(ends, word_1, word_2))
    tl.store(state + _LANE_WORD_1, tl.where(ends, word, word_1))
    tl.store(state + _LANE_WORD, tl.where(letter, longer, 0))
    begun = tl.where(step - line < 4, (beginning << 8) | byte, beginning)
    is_gap = ((byte == 32) | (byte == 9) | (byte == 44)) & (byte != last)
    tl.store(state + _LANE_BEGINNING, tl.where(byte == 10, 0, begun))
    tl.store(state + _LANE_GAPS, tl.where(byte == 10, 0, gaps + is_gap.to(tl.int64)))
    tl.store(state + _LANE_LINE_2, tl.where(byte == 10, line_before, line_2))
    tl.store(state + _LANE_LINE_BEFORE, tl.where(byte == 10, line, line_before))
    tl.store(state + _LANE_LINE, tl.where(byte == 10, (step + 1).to(tl.int64), line))
    tl.store(followed_one + last, (((followed << 8) | byte) & 0xFFFF).to(tl.uint16))
    if MARKUP or TABLE:
        tl.store(state + _LANE_SIGNS, signs)
        tl.store(state + _LANE_SIGNS_LONG, signs_long)
    if MARKUP:
        tl.store(state + _LANE_LETTERS, letters)
        tl.store(state + _LANE_SPOKEN, spoken)
        tl.store(state + _LANE_SPOKEN_1, spoken_1)
        tl.store(state + _LANE_ESCAPED, escaped)
        tl.store(state + _LANE_DIGITS, digits)
        tl.store(state + _LANE_INSIDE, inside)
        tl.store(state + _LANE_TAGGING, tagging)
        tl.store(state + _LANE_DEPTH, depth)
        tl.store(state + _LANE_NAME + place, name)
    if TABLE:
        shape, token, number, paragraph, start, above, end, token_above, kept = fields
        gap, ends, column, ended, ended_token = kept
        tl.store(state + _LANE_SHAPE, shape)
        tl.store(state + _LANE_TOKEN, token)
        tl.store(state + _LANE_FIELD, number)
        tl.store(state + _LANE_PARAGRAPH, paragraph)
        tl.store(state + _LANE_FIELD_START, start)
        tl.store(state + _LANE_FIELD_ABOVE, above)
        tl.store(state + _LANE_FIELD_ABOVE_END, end)
        tl.store(state + _LANE_TOKEN_ABOVE, token_above)
        tl.store(state + _LANE_TOKENS + ended, ended_token, mask=ends)
        tl.store(state + _LANE_FIELD_STARTS + column, start, mask=gap)


@triton.jit
def follow_instruction(state, followed_code, instructions, byte):
    """Take a byte into what the lane knows of its instruction; twin of follow_instruction.

    What each part would make of the byte is worked out, and the one that it is in is chosen.
    """
    code, part = _code_and_part(state)
    code_1, code_2 = tl.load(state + _LANE_CODE_1), tl.load(state + _LANE_CODE_2)
    opcodes = tl.load(state + _LANE_OPCODES).to(tl.uint32)
    operand = tl.load(state + _LANE_OPERAND).to(tl.uint32)
    followed_code += _place_of_code(code, part)
    followed = tl.load(followed_code).to(tl.int32)
    kind, place = (part & 15).to(tl.int32), ((part >> 4) & 15).to(tl.int32)
    size, then = ((part >> 8) & 15).to(tl.int32), ((part >> 12) & 15).to(tl.int32)
    in_opcode = kind < _IN_MODRM
    known = tl.load(instructions + kind * 256 + byte, mask=in_opcode, other=0)
    tl.debug_barrier()
    bits = byte.to(tl.uint32)
    is_prefix = (known & _IS_PREFIX) != 0
    is_escape = (known & _IS_ESCAPE) != 0
    is_vex = (known & _IS_VEX) != 0
    is_opcode = in_opcode & ((known & (_IS_PREFIX | _IS_ESCAPE | _IS_VEX)) == 0)
    in_modrm, in_sib = kind == _IN_MODRM, kind == _IN_SIB
    in_vex = kind == _IN_VEX
    in_operand = (kind == _IN_DISPLACEMENT) | (kind == _IN_IMMEDIATE)

    # What is known.
    by_prefix = code | ((known.to(tl.uint32) >> _PREFIX_BITS) << 26)
    by_rex = (code & 0x1FFFFFFF) | ((bits & 8) << 26) | ((bits & 4) << 28) | ((bits & 1) << 31)
    by_prefix = tl.where((byte >> 4) == 4, by_rex, by_prefix)
    by_opcode = (code & 0xFCFFFF00) | bits | (kind.to(tl.uint32) << 24)
    by_vex = tl.where((place == 0) & (size > 1), (code & 0xFCFFFFFF) | ((bits & 3) << 24), code)
    map_of_vex = tl.where(size == 1, 1, ((by_vex >> 24) & 3).to(tl.int32))
    now = tl.where(is_prefix, by_prefix, code)
    now = tl.where(is_vex, (code & 0xFFFFFF00) | bits, now)
    now = tl.where(is_opcode, by_opcode, now)
    now = tl.where(in_modrm, code | (bits << 8), now)
    now = tl.where(in_sib, code | (bits << 16), now)
    now = tl.where(in_vex, by_vex, now)

    # What the opcode says of what is behind it.
    immediate = known & 7
    immediate = tl.where(((known & _NARROWS) != 0) & (((by_opcode >> 26) & 1) != 0), 2, immediate)
    immediate = tl.where(((known & _WIDENS) != 0) & (((by_opcode >> 29) & 1) != 0), 8, immediate)
    has_modrm = (known & _HAS_MODRM) != 0
    mod, rm = byte >> 6, byte & 7
    if_group_3 = tl.where(((byte >> 3) & 7) < 2, then & 7, 0)
    of_modrm = tl.where((then & 8) != 0, if_group_3, then)
    displacement = tl.where((mod == 2) | ((mod == 0) & (rm == 5)), 4, tl.where(mod == 1, 1, 0))
    displacement = tl.where(in_sib, tl.where((size == 0) & (rm == 5), 4, size), displacement)
    behind = tl.where(in_modrm, of_modrm, then)
    to_sib = in_modrm & (mod < 3) & (rm == 4)
    in_address = in_modrm | in_sib
    skips = in_address & (to_sib == 0) & (displacement == 0)
    whole = place + 1 == size
    to_immediate = in_operand & whole & (kind == _IN_DISPLACEMENT) & (then > 0)
    ends = is_opcode & (has_modrm == 0) & (immediate == 0)
    ends = ends | (skips & (behind == 0)) | (in_operand & whole & (to_immediate == 0))

    after_opcode = tl.where(has_modrm, _IN_MODRM, _IN_IMMEDIATE)
    after_address = tl.where(to_sib, _IN_SIB, tl.where(skips, _IN_IMMEDIATE, _IN_DISPLACEMENT))
    after_escape = tl.where(kind == 0, 1, tl.where(byte == 0x38, 2, 3))
    after_vex = tl.where(whole, tl.maximum(map_of_vex, 1), _IN_VEX)
    to = tl.where(is_escape, after_escape, kind)
    to = tl.where(is_vex, _IN_VEX, to)
    to = tl.where(is_opcode, after_opcode, to)
    to = tl.where(in_address, after_address, to)
    to = tl.where(in_vex, after_vex, to)
    to = tl.where(to_immediate, _IN_IMMEDIATE, to)

    steps = (in_vex & (whole == 0)) | (in_operand & (to_immediate == 0))
    to_place = tl.where(steps, place + 1, tl.where(is_prefix | is_escape, place, 0))
    of_vex = tl.where(byte == 0x62, 3, tl.where(byte == 0xC4, 2, 1))
    to_size = tl.where(is_vex, of_vex, size)
    to_size = tl.where(is_opcode, tl.where(has_modrm, 0, immediate), to_size)
    to_size = tl.where(in_address, tl.where(skips, behind, displacement), to_size)
    to_size = tl.where(in_vex & whole, 0, to_size)
    to_size = tl.where(to_immediate, then, to_size)
    of_opcode = tl.where((known & _IS_GROUP_3) != 0, immediate | 8, immediate)
    to_then = tl.where(is_opcode, tl.where(has_modrm, of_opcode, 0), then)
    to_then = tl.where(in_address, tl.where(skips, 0, behind), to_then)
    to_then = tl.where(to_immediate, 0, to_then)
    to_operand = tl.where(in_operand, (operand << 8) | bits, operand)
    to_operand = tl.where(to_immediate | ends, 0, to_operand)

    moved = (to | (to_place << 4) | (to_size << 8) | (to_then << 12)).to(tl.int64)
    longer = (opcodes << 8) | ((now + 0x4D * ((now >> 24) & 3)) & 255)
    tl.store(state + _LANE_CODE_3, code_2, mask=ends)
    tl.store(state + _LANE_CODE_2, code_1, mask=ends)
    tl.store(state + _LANE_CODE_1, now.to(tl.int64), mask=ends)
    tl.store(state + _LANE_OPCODES, longer.to(tl.int64), mask=ends)
    tl.store(state + _LANE_CODE, tl.where(ends, 0, now).to(tl.int64))
    tl.store(state + _LANE_PART, tl.where(ends, 0, moved))
    tl.store(state + _LANE_OPERAND, to_operand.to(tl.int64))
    tl.store(followed_code, (((followed << 8) | byte) & 0xFFFF).to(tl.uint16))
