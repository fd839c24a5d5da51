"""The fields of a lane's lines: for its contexts, and after a byte."""

from __future__ import annotations

import triton
import triton.language as tl

from ...profiles import Field
from ...state import (
    COLUMNS,
    LANE_FIELD,
    LANE_FIELD_ABOVE,
    LANE_FIELD_ABOVE_END,
    LANE_FIELD_START,
    LANE_FIELD_STARTS,
    LANE_LINE,
    LANE_PARAGRAPH,
    LANE_SHAPE,
    LANE_TOKEN,
    LANE_TOKEN_ABOVE,
    LANE_TOKENS,
)
from .hashes import hashed, with_field

__all__ = ["line_fields_after", "store_line_fields", "with_table"]

_FIELD_ABOVE = tl.constexpr(int(Field.FIELD_ABOVE))
_TOKEN = tl.constexpr(int(Field.TOKEN))
_TOKEN_ABOVE = tl.constexpr(int(Field.TOKEN_ABOVE))
_SHAPE = tl.constexpr(int(Field.SHAPE))
_PARAGRAPH = tl.constexpr(int(Field.PARAGRAPH))
_LANE_LINE = tl.constexpr(LANE_LINE)
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
_COLUMNS = tl.constexpr(COLUMNS)


@triton.jit
def with_table(hashes, masks, multipliers, row, state, step, USED: tl.constexpr):
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
    hashes = with_field(hashes, masks, multipliers, _FIELD_ABOVE, field, USED)
    hashes = with_field(hashes, masks, multipliers, _TOKEN, tl.load(state + _LANE_TOKEN), USED)
    hashes = with_field(hashes, masks, multipliers, _TOKEN_ABOVE, tl.load(state + _LANE_TOKEN_ABOVE), USED)
    hashes = with_field(hashes, masks, multipliers, _SHAPE, tl.load(state + _LANE_SHAPE), USED)
    return with_field(hashes, masks, multipliers, _PARAGRAPH, tl.load(state + _LANE_PARAGRAPH), USED)


@triton.jit
def line_fields_after(state, step, byte, small, last, last_2, letter, digit, line, line_before):
    """Return what the lane has of its line's fields after the byte; twin of learn_fields.

    `line` and `line_before` are where lines begin after the byte.
    """
    shape, token = tl.load(state + _LANE_SHAPE), tl.load(state + _LANE_TOKEN)
    number, paragraph = tl.load(state + _LANE_FIELD), tl.load(state + _LANE_PARAGRAPH)
    start, above = tl.load(state + _LANE_FIELD_START), tl.load(state + _LANE_FIELD_ABOVE)
    end, token_above = tl.load(state + _LANE_FIELD_ABOVE_END), tl.load(state + _LANE_TOKEN_ABOVE)
    kind = tl.where(letter, 97, tl.where(digit, 48, byte))
    kind = tl.where(byte >= 128, 128, tl.where(byte != small, 65, kind))
    shape = hashed(shape << 5, kind)
    gap = (byte == 10) | (byte == 9) | (byte == 32) | (byte == 44) | (byte == 59) | (byte == 124)
    ends = gap & ((byte != 32) | (last != 32))
    ended, ended_token = tl.minimum(number, _COLUMNS - 1), token
    token = tl.where(ends, 0, tl.where(gap, token, hashed(token, byte)))
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
def store_line_fields(state, fields):
    """Store what `line_fields_after` returned."""
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
