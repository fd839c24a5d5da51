"""A lane's x86 instruction: for its contexts, and after a byte."""

from __future__ import annotations

import triton
import triton.language as tl

from ...instructions import ESCAPE, GROUP_3, MODRM, NARROWS, PREFIX, PREFIX_BITS, VEX, WIDENS
from ...profiles import NIBBLE, WORD, Field
from ...state import (
    CODES,
    LANE_CODE,
    LANE_CODE_1,
    LANE_CODE_2,
    LANE_CODE_3,
    LANE_OPCODES,
    LANE_OPERAND,
    LANE_PART,
)
from .hashes import finished, with_field

__all__ = ["correction_of", "follow_instruction", "with_instructions"]

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
_PREFIX_BITS = tl.constexpr(PREFIX_BITS)
_WHERE = tl.constexpr(0xFFF)
_WHICH = tl.constexpr(0x300FFFF)
_WORD_FACTOR = tl.constexpr(WORD)
_NIBBLE = tl.constexpr(NIBBLE)
_IN_MODRM, _IN_SIB, _IN_DISPLACEMENT, _IN_IMMEDIATE, _IN_VEX = (tl.constexpr(i) for i in range(4, 9))
_NARROWS, _WIDENS, _HAS_MODRM, _IS_GROUP_3, _IS_PREFIX, _IS_ESCAPE, _IS_VEX = (
    tl.constexpr(flag) for flag in (NARROWS, WIDENS, MODRM, GROUP_3, PREFIX, ESCAPE, VEX)
)


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
def with_instructions(hashes, masks, multipliers, state, followed_code, USED: tl.constexpr):
    """Return the hashes with what is known of the lane's instruction, and of those before."""
    code, part = _code_and_part(state)
    hashes = with_field(hashes, masks, multipliers, _CODE, code, USED)
    hashes = with_field(hashes, masks, multipliers, _PART, part, USED)
    hashes = with_field(hashes, masks, multipliers, _CODE_1, tl.load(state + _LANE_CODE_1), USED)
    hashes = with_field(hashes, masks, multipliers, _CODE_2, tl.load(state + _LANE_CODE_2), USED)
    hashes = with_field(hashes, masks, multipliers, _CODE_3, tl.load(state + _LANE_CODE_3), USED)
    hashes = with_field(hashes, masks, multipliers, _OPCODES, tl.load(state + _LANE_OPCODES), USED)
    hashes = with_field(hashes, masks, multipliers, _OPERAND, tl.load(state + _LANE_OPERAND), USED)
    field = tl.load(followed_code + _place_of_code(code, part))
    hashes = with_field(hashes, masks, multipliers, _FOLLOWED_CODE, field, USED)
    return hashes


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
