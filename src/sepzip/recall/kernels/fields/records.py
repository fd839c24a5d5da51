"""What stands above in records, and before in numbers of eight bytes, for a lane's contexts."""

from __future__ import annotations

import triton
import triton.language as tl

from ...profiles import Field
from .hashes import byte_before, with_field

__all__ = ["with_floats", "with_records"]

_ABOVE = tl.constexpr(int(Field.ABOVE))
_ABOVE_2 = tl.constexpr(int(Field.ABOVE_2))
_ABOVE_3 = tl.constexpr(int(Field.ABOVE_3))
_ABOVE_NEXT = tl.constexpr(int(Field.ABOVE_NEXT))
_ABOVE_BEFORE = tl.constexpr(int(Field.ABOVE_BEFORE))
_COLUMN = tl.constexpr(int(Field.COLUMN))
_SLOPE = tl.constexpr(int(Field.SLOPE))
_EIGHT_BEFORE = tl.constexpr(int(Field.EIGHT_BEFORE))
_SLOPE_OF_EIGHT = tl.constexpr(int(Field.SLOPE_OF_EIGHT))


@triton.jit
def with_records(hashes, masks, multipliers, row, step, position, record, last, USED: tl.constexpr):
    """Return the hashes with what stands above in a record of `record` bytes; `last` is the byte before."""
    above = byte_before(row, step, record)
    before = byte_before(row, step, record + 1)
    hashes = with_field(hashes, masks, multipliers, _ABOVE, above, USED)
    field = byte_before(row, step, 2 * record)
    hashes = with_field(hashes, masks, multipliers, _ABOVE_2, field, USED)
    field = byte_before(row, step, 3 * record)
    hashes = with_field(hashes, masks, multipliers, _ABOVE_3, field, USED)
    field = byte_before(row, step, tl.maximum(record - 1, 1))
    hashes = with_field(hashes, masks, multipliers, _ABOVE_NEXT, field, USED)
    hashes = with_field(hashes, masks, multipliers, _ABOVE_BEFORE, before, USED)
    hashes = with_field(hashes, masks, multipliers, _COLUMN, position % record, USED)
    field = (last + above - before) & 255
    hashes = with_field(hashes, masks, multipliers, _SLOPE, field, USED)
    return hashes


@triton.jit
def with_floats(hashes, masks, multipliers, row, step, place, USED: tl.constexpr):
    """Return the hashes with the two numbers of eight bytes before; `place` is the byte's in its own."""
    field = byte_before(row, step, 8) | (byte_before(row, step, 16) << 8)
    hashes = with_field(hashes, masks, multipliers, _EIGHT_BEFORE, field, USED)
    i = tl.arange(0, 8)
    first = tl.sum(byte_before(row, step - place, 8 - i).to(tl.int64) << (8 * i).to(tl.int64), 0)
    second = tl.sum(byte_before(row, step - place, 16 - i).to(tl.int64) << (8 * i).to(tl.int64), 0)
    field = ((2 * first - second) >> (8 * place).to(tl.int64)) & 255
    hashes = with_field(hashes, masks, multipliers, _SLOPE_OF_EIGHT, field, USED)
    return hashes
