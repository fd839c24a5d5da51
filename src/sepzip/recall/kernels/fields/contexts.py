"""The hashes of a lane's contexts, of all fields that a plan has."""

from __future__ import annotations

import triton
import triton.language as tl

from ...plan import Plan, Settings
from ...profiles import FIELDS, INPUTS, PROFILES, Field, masks
from ...state import LANE_SIGNS, LANE_SIGNS_LONG
from .hashes import finished, with_field
from .instructions import with_instructions
from .markup import with_markup
from .records import with_floats, with_records
from .samples import with_samples
from .table import with_table
from .text import with_text

__all__ = ["context_hashes", "used_fields"]

_INPUTS = tl.constexpr(INPUTS)
_FOLLOWED_ONE = tl.constexpr(int(Field.FOLLOWED_ONE))
_FOLLOWED_TWO = tl.constexpr(int(Field.FOLLOWED_TWO))
_PLACE_OF_EIGHT = tl.constexpr(int(Field.PLACE_OF_EIGHT))
_SIGNS = tl.constexpr(int(Field.SIGNS))
_SIGNS_LONG = tl.constexpr(int(Field.SIGNS_LONG))
_LANE_SIGNS = tl.constexpr(LANE_SIGNS)
_LANE_SIGNS_LONG = tl.constexpr(LANE_SIGNS_LONG)


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
        hashes = with_field(hashes, masks, multipliers, i, field, USED)
    if TEXT:
        hashes = with_text(hashes, masks, multipliers, row, state, step, USED)
    if MARKUP or TABLE:
        hashes = with_field(hashes, masks, multipliers, _SIGNS, tl.load(state + _LANE_SIGNS), USED)
        hashes = with_field(hashes, masks, multipliers, _SIGNS_LONG, tl.load(state + _LANE_SIGNS_LONG), USED)
    if MARKUP:
        hashes = with_markup(hashes, masks, multipliers, state, USED)
    if TABLE:
        hashes = with_table(hashes, masks, multipliers, row, state, step, USED)
    hashes = with_field(hashes, masks, multipliers, _FOLLOWED_ONE, tl.load(followed_one + last), USED)
    field = tl.load(followed_two + ((last_2 << 8) | last))
    hashes = with_field(hashes, masks, multipliers, _FOLLOWED_TWO, field, USED)
    if RECORDS and RECORD:
        hashes = with_records(hashes, masks, multipliers, row, step, position, record, last, USED)
    place = position & 7
    field = place | tl.where(place > 0, last << 8, 0)
    hashes = with_field(hashes, masks, multipliers, _PLACE_OF_EIGHT, field, USED)
    if FLOATS:
        hashes = with_floats(hashes, masks, multipliers, row, step, place, USED)
    if SAMPLES:
        hashes = with_samples(
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
        hashes = with_instructions(hashes, masks, multipliers, state, followed_code, USED)
    return finished(hashes)
