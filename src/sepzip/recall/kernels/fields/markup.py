"""A lane's markup, and its text in pieces: for its contexts, and after a byte."""

from __future__ import annotations

import triton
import triton.language as tl

from ...profiles import Field
from ...state import (
    LANE_DEPTH,
    LANE_DIGITS,
    LANE_ESCAPED,
    LANE_INSIDE,
    LANE_LETTERS,
    LANE_NAME,
    LANE_SPOKEN,
    LANE_SPOKEN_1,
    LANE_TAGGING,
    NAMES,
)
from .hashes import hashed, with_field

__all__ = ["pieces_after", "store_pieces", "store_tags", "tags_after", "with_markup"]

_LETTERS = tl.constexpr(int(Field.LETTERS))
_SPOKEN = tl.constexpr(int(Field.SPOKEN))
_SPOKEN_1 = tl.constexpr(int(Field.SPOKEN_BEFORE))
_INSIDE = tl.constexpr(int(Field.INSIDE))
_TAG = tl.constexpr(int(Field.TAG))
_TAG_OUTSIDE = tl.constexpr(int(Field.TAG_OUTSIDE))
_LANE_LETTERS = tl.constexpr(LANE_LETTERS)
_LANE_SPOKEN = tl.constexpr(LANE_SPOKEN)
_LANE_SPOKEN_1 = tl.constexpr(LANE_SPOKEN_1)
_LANE_ESCAPED = tl.constexpr(LANE_ESCAPED)
_LANE_DIGITS = tl.constexpr(LANE_DIGITS)
_LANE_INSIDE = tl.constexpr(LANE_INSIDE)
_LANE_TAGGING = tl.constexpr(LANE_TAGGING)
_LANE_DEPTH = tl.constexpr(LANE_DEPTH)
_LANE_NAME = tl.constexpr(LANE_NAME)
_NAMES = tl.constexpr(NAMES)
_WHOLE = tl.constexpr(0xFFFFFFFF)


@triton.jit
def with_markup(hashes, masks, multipliers, state, USED: tl.constexpr):
    """Return the hashes with what is known of markup and of text in pieces; twin of fill_markup."""
    hashes = with_field(hashes, masks, multipliers, _LETTERS, tl.load(state + _LANE_LETTERS), USED)
    hashes = with_field(hashes, masks, multipliers, _SPOKEN, tl.load(state + _LANE_SPOKEN), USED)
    hashes = with_field(hashes, masks, multipliers, _SPOKEN_1, tl.load(state + _LANE_SPOKEN_1), USED)
    hashes = with_field(hashes, masks, multipliers, _INSIDE, tl.load(state + _LANE_INSIDE), USED)
    names, depth = state + _LANE_NAME, tl.load(state + _LANE_DEPTH)
    hashes = with_field(hashes, masks, multipliers, _TAG, tl.load(names + (depth & (_NAMES - 1))), USED)
    outside = tl.load(names + ((depth - 1) & (_NAMES - 1)))
    return with_field(hashes, masks, multipliers, _TAG_OUTSIDE, outside, USED)


@triton.jit
def pieces_after(state, byte, small, letter, digit):
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
    spoken = tl.where(in_escape | letter, hashed(spoken, small), tl.where(ends, 0, spoken))
    return letters, spoken, before, escaped, digits, inside


@triton.jit
def store_pieces(state, pieces):
    """Store what `pieces_after` returned."""
    letters, spoken, spoken_1, escaped, digits, inside = pieces
    tl.store(state + _LANE_LETTERS, letters)
    tl.store(state + _LANE_SPOKEN, spoken)
    tl.store(state + _LANE_SPOKEN_1, spoken_1)
    tl.store(state + _LANE_ESCAPED, escaped)
    tl.store(state + _LANE_DIGITS, digits)
    tl.store(state + _LANE_INSIDE, inside)


@triton.jit
def tags_after(state, byte, last, letter):
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
    longer = tl.where(in_name & (ends == 0), hashed(name, byte), name)
    closes = goes_on & (byte == 62)
    # The name stays where it was, whatever is closed.
    place = depth & (_NAMES - 1)
    depth = tl.where(closes & ((tagging == 3) | ((tagging == 2) & (last == 47))), depth - 1, depth)
    tagging = tl.where(byte == 60, 1, tl.where(closes, 0, tagging))
    return tagging, depth, place, longer


@triton.jit
def store_tags(state, tags):
    """Store what `tags_after` returned."""
    tagging, depth, place, name = tags
    tl.store(state + _LANE_TAGGING, tagging)
    tl.store(state + _LANE_DEPTH, depth)
    tl.store(state + _LANE_NAME + place, name)
