"""What follows each opcode of x86, 32 and 64 bits alike: a table, not a disassembler."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["instructions"]

NARROWS, WIDENS, MODRM, GROUP_3, PREFIX, ESCAPE, VEX = (1 << i for i in range(3, 10))
"""Of an opcode, above the bytes of its immediate: these are two after prefix 66; eight with REX.W; a ModRM
byte follows, by which there may be none; a prefix; the first byte of a longer opcode; of VEX or EVEX."""

PREFIX_BITS = 16
"""From this bit on, what a prefix changes: operands of 16 bits, F3, F2."""

_WORD = 4 | NARROWS


@cache
def instructions() -> NDArray[np.int32]:
    """Return what follows each opcode, int32 [4 * 256]: of one byte, after 0F, after 0F 38, after 0F 3A."""
    maps = np.zeros((4, 256), np.int32)
    one, two, three, four = maps
    for first in range(0, 0x40, 8):
        one[first : first + 4] = MODRM
        one[first + 4], one[first + 5] = 1, _WORD
    one[[0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x67, 0xF0]] = PREFIX
    one[0x40:0x50] = PREFIX
    one[0x66], one[0xF3], one[0xF2] = (PREFIX | 1 << PREFIX_BITS + i for i in range(3))
    one[0x0F] = ESCAPE
    one[[0x62, 0xC4, 0xC5]] = VEX
    one[0x63] = MODRM
    one[[0x68, 0xA9]] = _WORD
    one[[0x6A, 0xA8, 0xCD, 0xD4, 0xD5, 0xEB]] = 1
    one[0x69], one[0x6B] = MODRM | _WORD, MODRM | 1
    one[0x70:0x80] = 1
    one[0x80:0x90] = MODRM
    one[[0x80, 0x82, 0x83]], one[0x81] = MODRM | 1, MODRM | _WORD
    one[0x9A], one[0xEA] = 6, 6
    one[0xA0:0xA4] = 4
    one[0xB0:0xB8], one[0xB8:0xC0] = 1, _WORD | WIDENS
    one[[0xC0, 0xC1, 0xC6]], one[0xC7] = MODRM | 1, MODRM | _WORD
    one[[0xC2, 0xCA]], one[0xC8] = 2, 3
    one[0xD0:0xD4] = MODRM
    one[0xD8:0xE0] = MODRM
    one[0xE0:0xE8] = 1
    one[[0xE8, 0xE9]] = 4
    one[0xF6], one[0xF7] = MODRM | GROUP_3 | 1, MODRM | GROUP_3 | _WORD
    one[[0xFE, 0xFF]] = MODRM
    two[:] = MODRM
    two[[5, 6, 7, 8, 9, 11, 14, *range(0x30, 0x38), 0x77, 0xA0, 0xA1, 0xA2, 0xA8, 0xA9, 0xAA]] = 0
    two[[0x38, 0x3A]] = ESCAPE
    two[[*range(0x70, 0x74), 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6]] = MODRM | 1
    two[0x80:0x90] = 4
    two[0xC8:0xD0] = 0
    three[:] = MODRM
    four[:] = MODRM | 1
    return maps.reshape(-1)
