"""The words and the lines of a lane's text, for its contexts."""

from __future__ import annotations

import triton
import triton.language as tl

from ...profiles import Field
from ...state import (
    LANE_BEGINNING,
    LANE_GAPS,
    LANE_LINE,
    LANE_LINE_2,
    LANE_LINE_BEFORE,
    LANE_WORD,
    LANE_WORD_1,
    LANE_WORD_2,
)
from .hashes import with_field

__all__ = ["with_text"]

_WORD = tl.constexpr(int(Field.WORD))
_WORD_1 = tl.constexpr(int(Field.WORD_BEFORE))
_WORD_2 = tl.constexpr(int(Field.WORD_BEFORE_THAT))
_ABOVE_IN_TEXT = tl.constexpr(int(Field.ABOVE_IN_TEXT))
_COLUMN_IN_TEXT = tl.constexpr(int(Field.COLUMN_IN_TEXT))
_LEFT_OF_ABOVE = tl.constexpr(int(Field.LEFT_OF_ABOVE))
_RIGHT_OF_ABOVE = tl.constexpr(int(Field.RIGHT_OF_ABOVE))
_SECOND_OF_ABOVE = tl.constexpr(int(Field.SECOND_OF_ABOVE))
_ABOVE_THAT = tl.constexpr(int(Field.ABOVE_THAT))
_BEGINNING = tl.constexpr(int(Field.BEGINNING))
_GAPS = tl.constexpr(int(Field.GAPS))
_LANE_WORD = tl.constexpr(LANE_WORD)
_LANE_WORD_1 = tl.constexpr(LANE_WORD_1)
_LANE_WORD_2 = tl.constexpr(LANE_WORD_2)
_LANE_LINE = tl.constexpr(LANE_LINE)
_LANE_LINE_BEFORE = tl.constexpr(LANE_LINE_BEFORE)
_LANE_LINE_2 = tl.constexpr(LANE_LINE_2)
_LANE_BEGINNING = tl.constexpr(LANE_BEGINNING)
_LANE_GAPS = tl.constexpr(LANE_GAPS)


@triton.jit
def with_text(hashes, masks, multipliers, row, state, step, USED: tl.constexpr):
    """Return the hashes with the lane's words and lines."""
    hashes = with_field(hashes, masks, multipliers, _WORD, tl.load(state + _LANE_WORD), USED)
    hashes = with_field(hashes, masks, multipliers, _WORD_1, tl.load(state + _LANE_WORD_1), USED)
    hashes = with_field(hashes, masks, multipliers, _WORD_2, tl.load(state + _LANE_WORD_2), USED)
    line = tl.load(state + _LANE_LINE).to(tl.int32)
    before = tl.load(state + _LANE_LINE_BEFORE).to(tl.int32)
    column = step - line
    above = before + column
    field = tl.load(row + above, mask=(line > 0) & (above < line), other=0)
    hashes = with_field(hashes, masks, multipliers, _ABOVE_IN_TEXT, field, USED)
    hashes = with_field(hashes, masks, multipliers, _COLUMN_IN_TEXT, tl.minimum(column, 255), USED)
    field = tl.load(row + above - 1, mask=(line > 0) & (column > 0) & (above - 1 < line), other=0)
    hashes = with_field(hashes, masks, multipliers, _LEFT_OF_ABOVE, field, USED)
    field = tl.load(row + above + 1, mask=(line > 0) & (above + 1 < line), other=0)
    hashes = with_field(hashes, masks, multipliers, _RIGHT_OF_ABOVE, field, USED)
    field = tl.load(row + above + 2, mask=(line > 0) & (above + 2 < line), other=0)
    hashes = with_field(hashes, masks, multipliers, _SECOND_OF_ABOVE, field, USED)
    above_that = tl.load(state + _LANE_LINE_2).to(tl.int32) + column
    field = tl.load(row + above_that, mask=above_that < before, other=0)
    hashes = with_field(hashes, masks, multipliers, _ABOVE_THAT, field, USED)
    hashes = with_field(hashes, masks, multipliers, _BEGINNING, tl.load(state + _LANE_BEGINNING), USED)
    hashes = with_field(hashes, masks, multipliers, _GAPS, tl.load(state + _LANE_GAPS), USED)
    return hashes
