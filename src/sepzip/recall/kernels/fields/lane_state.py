"""What a lane has seen of text, markup and tables, after a byte."""

from __future__ import annotations

import triton
import triton.language as tl

from ...profiles import WORD
from ...state import (
    LANE_BEGINNING,
    LANE_GAPS,
    LANE_LINE,
    LANE_LINE_2,
    LANE_LINE_BEFORE,
    LANE_SIGNS,
    LANE_SIGNS_LONG,
    LANE_WORD,
    LANE_WORD_1,
    LANE_WORD_2,
)
from .hashes import hashed
from .markup import pieces_after, store_pieces, store_tags, tags_after
from .table import line_fields_after, store_line_fields

__all__ = ["take_in"]

_LANE_WORD = tl.constexpr(LANE_WORD)
_LANE_WORD_1 = tl.constexpr(LANE_WORD_1)
_LANE_WORD_2 = tl.constexpr(LANE_WORD_2)
_LANE_LINE = tl.constexpr(LANE_LINE)
_LANE_LINE_BEFORE = tl.constexpr(LANE_LINE_BEFORE)
_LANE_LINE_2 = tl.constexpr(LANE_LINE_2)
_LANE_BEGINNING = tl.constexpr(LANE_BEGINNING)
_LANE_GAPS = tl.constexpr(LANE_GAPS)
_LANE_SIGNS = tl.constexpr(LANE_SIGNS)
_LANE_SIGNS_LONG = tl.constexpr(LANE_SIGNS_LONG)
_WORD_FACTOR = tl.constexpr(WORD)
_WHOLE = tl.constexpr(0xFFFFFFFF)


@triton.jit
def _signs(state, byte, last, other):
    """Return the lane's last signs and their longer hash after the byte; twin of learn_signs."""
    signs, longer = tl.load(state + _LANE_SIGNS), tl.load(state + _LANE_SIGNS_LONG)
    takes = other & ((byte != 32) | (last != 32))
    signs = tl.where(takes, ((signs << 8) | byte) & _WHOLE, signs)
    return signs, tl.where(takes, hashed(longer << 5, byte), longer)


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
        pieces = pieces_after(state, byte, small, is_letter, is_digit)
        tags = tags_after(state, byte, last, is_letter)
    if TABLE:
        line_after = tl.where(byte == 10, (step + 1).to(tl.int64), line)
        line_before_after = tl.where(byte == 10, line, line_before)
        fields = line_fields_after(
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
        store_pieces(state, pieces)
        store_tags(state, tags)
    if TABLE:
        store_line_fields(state, fields)
