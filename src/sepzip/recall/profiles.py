"""What contexts are made of: fields of what a lane has seen, and the contexts that each kind of data takes.

A context is a mask for each field; its hash is a sum of masked fields times odd numbers. The numbers of
profiles and fields are part of the format.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .functions import finished

__all__ = [
    "FIELDS",
    "INPUTS",
    "MOST_CONTEXTS",
    "MULTIPLIERS",
    "NIBBLE",
    "PROFILES",
    "WORD",
    "Field",
    "Masks",
    "Profile",
    "masks",
]

INPUTS = 32
"""Inputs of the mixer: one a context, two a match, a constant, a network's; none in the places left."""

MOST_CONTEXTS = INPUTS - 6


class Field(IntEnum):
    """What a lane knows before a byte. `LAST` + i is the byte i places before the last."""

    LAST = 0
    WORD = 16
    WORD_BEFORE = 17
    WORD_BEFORE_THAT = 18
    ABOVE_IN_TEXT = 19
    COLUMN_IN_TEXT = 20
    FOLLOWED_ONE = 21
    FOLLOWED_TWO = 22
    ABOVE = 23
    ABOVE_2 = 24
    ABOVE_3 = 25
    ABOVE_NEXT = 26
    ABOVE_BEFORE = 27
    COLUMN = 28
    SLOPE = 29
    EIGHT_BEFORE = 30
    PLACE_OF_EIGHT = 31
    SLOPE_OF_EIGHT = 32
    SAMPLE = 33
    LEFT_OF_ABOVE = 42
    RIGHT_OF_ABOVE = 43
    SECOND_OF_ABOVE = 44
    ABOVE_THAT = 45
    BEGINNING = 46
    GAPS = 47
    CODE = 48
    PART = 49
    CODE_BEFORE = 50
    CODE_BEFORE_2 = 51
    CODE_BEFORE_3 = 52
    OPCODES = 53
    OPERAND = 54
    FOLLOWED_CODE = 55
    LETTERS = 56
    SPOKEN = 57
    SPOKEN_BEFORE = 58
    INSIDE = 59
    TAG = 60
    TAG_OUTSIDE = 61
    SIGNS = 62
    SIGNS_LONG = 63
    FIELD_ABOVE = 64
    TOKEN = 65
    TOKEN_ABOVE = 66
    SHAPE = 67
    PARAGRAPH = 68


FIELDS = 72

_ALL = 0xFFFFFFFF

NIBBLE = 0x9E3779B1
"""By which the bits of a byte's first half are multiplied in the hash of the second's bucket."""

WORD = 0x2F0B4C47
"""By which the hash of a word is multiplied for each of its bytes."""

MULTIPLIERS = finished(np.arange(1, FIELDS + 1, dtype=np.uint32)) | np.uint32(1)
"""uint32 [fields]: by which fields are multiplied in a hash."""


def _last(*masks: int) -> dict[int, int]:
    return {Field.LAST + i: mask for i, mask in enumerate(masks) if mask}


def _order(count: int) -> dict[int, int]:
    return _last(*[255] * count)


def _fields(*fields: int) -> dict[int, int]:
    return dict.fromkeys(fields, _ALL)


_LAST_1, _LAST_2, _LAST_3, _LAST_4, _LAST_5 = range(5)
_BYTES_ABOVE, _FIELD_NUMBER = (1 << 17) - 1, 31 << 25

_OPCODE, _OPCODE_MODRM, _OPCODE_REG = 0x30000FF, 0x300FFFF, 0x30038FF
"""Of an instruction's code, its opcode with the opcode's map; with ModRM; with that's register alone."""


def _code(mask: int, *others: int) -> dict[int, int]:
    """Return what is masked of the instruction's code, where in it one is, and other fields."""
    return {Field.CODE: mask, Field.PART: 0xFFF, **_fields(*others)}


_CONTEXTS: dict[str, dict[int, int]] = {
    **{f"o{count}": _order(count) for count in (1, 2, 3, 4, 5, 6, 8, 12, 16)},
    "w": _fields(Field.WORD, _LAST_1),
    "ww": _fields(Field.WORD, _LAST_1, Field.WORD_BEFORE),
    "ws": _fields(Field.WORD, _LAST_1, Field.WORD_BEFORE_THAT),
    "w1c": _fields(Field.WORD_BEFORE, _LAST_1, _LAST_2),
    "lc": _fields(Field.COLUMN_IN_TEXT, Field.ABOVE_IN_TEXT),
    "la": _fields(_LAST_1, Field.ABOVE_IN_TEXT),
    "s2": _fields(_LAST_2),
    "s3": _fields(_LAST_3),
    "s4": _fields(_LAST_4),
    "s23": _fields(_LAST_2, _LAST_3),
    "s13": _fields(_LAST_1, _LAST_3),
    "s34": _fields(_LAST_3, _LAST_4),
    "s24": _fields(_LAST_2, _LAST_4),
    "sm": _last(0xFF, 0xF0, 0xF0, 0xF0),
    "sm5": _last(0xE0, 0xE0, 0xE0, 0xE0, 0xE0, 0xE0),
    "sm7": _last(0xFF, 0xFF, 0xC0, 0xC0, 0xC0, 0xC0, 0xC0),
    "sm6": _last(0xF8, 0xF0, 0xF0, 0xF0, 0xE0, 0xE0),
    "s345": _fields(_LAST_3, _LAST_4, _LAST_5),
    "wc": _fields(Field.WORD, Field.COLUMN_IN_TEXT),
    "o2w2": _fields(_LAST_1, _LAST_2, Field.WORD_BEFORE_THAT),
    "bw": _fields(Field.BEGINNING, Field.WORD, _LAST_1),
    "bww": _fields(Field.BEGINNING, Field.WORD, _LAST_1, Field.WORD_BEFORE),
    "bgw": _fields(Field.BEGINNING, Field.GAPS, Field.WORD, _LAST_1),
    "bc": _fields(Field.BEGINNING, Field.COLUMN_IN_TEXT),
    "a3": _fields(Field.ABOVE_IN_TEXT, _LAST_1, Field.LEFT_OF_ABOVE, Field.RIGHT_OF_ABOVE),
    "a2c": _fields(Field.ABOVE_IN_TEXT, Field.ABOVE_THAT, Field.COLUMN_IN_TEXT),
    "arc": _fields(Field.ABOVE_IN_TEXT, Field.RIGHT_OF_ABOVE, Field.SECOND_OF_ABOVE, Field.COLUMN_IN_TEXT),
    "ar3": _fields(
        Field.ABOVE_IN_TEXT, Field.RIGHT_OF_ABOVE, Field.SECOND_OF_ABOVE, _LAST_1, _LAST_2, _LAST_3
    ),
    "a4": _fields(
        Field.ABOVE_IN_TEXT,
        Field.LEFT_OF_ABOVE,
        Field.RIGHT_OF_ABOVE,
        Field.SECOND_OF_ABOVE,
        _LAST_1,
        _LAST_2,
    ),
    "a5": _fields(
        Field.ABOVE_IN_TEXT,
        Field.LEFT_OF_ABOVE,
        Field.RIGHT_OF_ABOVE,
        Field.SECOND_OF_ABOVE,
        Field.ABOVE_THAT,
        _LAST_1,
    ),
    "ps": _fields(Field.SPOKEN, Field.INSIDE),
    "pss": _fields(Field.SPOKEN, Field.SPOKEN_BEFORE, _LAST_1),
    "pl": _fields(Field.LETTERS, Field.INSIDE),
    "pg": {Field.LETTERS: 0xFFFF, Field.SIGNS: _ALL},
    "pl3": {Field.LETTERS: 0xFFFFFF, Field.INSIDE: _ALL},
    "plo": {Field.LETTERS: 0xFFFFFF, **_order(3)},
    "pso": _fields(Field.SPOKEN, _LAST_1, _LAST_2),
    "psg": {Field.SPOKEN: _ALL, Field.SIGNS: 0xFFFF},
    "pi1": _fields(Field.FOLLOWED_ONE, _LAST_1, Field.INSIDE),
    "tw": _fields(Field.TAG, Field.TAG_OUTSIDE, Field.WORD, _LAST_1),
    "t1": _fields(Field.TAG, _LAST_1),
    "g1": _fields(Field.SIGNS, _LAST_1),
    "gl": _fields(Field.SIGNS_LONG),
    "fa": _fields(Field.FIELD_ABOVE),
    "fa2": {Field.FIELD_ABOVE: _BYTES_ABOVE, _LAST_1: _ALL, _LAST_2: _ALL},
    "ft": _fields(Field.TOKEN, Field.TOKEN_ABOVE),
    "fs": {Field.SHAPE: _ALL, Field.FIELD_ABOVE: _FIELD_NUMBER},
    "qt": {Field.TOKEN: _ALL, Field.PARAGRAPH: _ALL, Field.FIELD_ABOVE: _FIELD_NUMBER},
    "qc": _fields(Field.PARAGRAPH, Field.COLUMN_IN_TEXT, _LAST_1, _LAST_2),
    "p1": {Field.PLACE_OF_EIGHT: 0xFF03},
    "p14": {Field.PLACE_OF_EIGHT: 3, _LAST_1: 255, _LAST_4: 255},
    "p48": {Field.PLACE_OF_EIGHT: 3, _LAST_4: 255, Field.LAST + 7: 255},
    "s456": _last(0, 0, 0, 255, 255, 255),
    "x1": _code(_ALL, _LAST_1),
    "x1o": _code(_ALL, Field.OPERAND),
    "xx": _code(_ALL) | {Field.CODE_BEFORE: _OPCODE_MODRM},
    "xxx": _code(_OPCODE_MODRM) | {Field.CODE_BEFORE: _OPCODE_MODRM, Field.CODE_BEFORE_2: _OPCODE_MODRM},
    "xr4": _code(_OPCODE_REG)
    | dict.fromkeys((Field.CODE_BEFORE, Field.CODE_BEFORE_2, Field.CODE_BEFORE_3), _OPCODE_REG),
    "xo2": _code(_ALL) | {Field.OPCODES: 0xFFFF},
    "xo4": _code(_OPCODE_REG, Field.OPCODES),
    "xi": _code(_OPCODE, Field.FOLLOWED_CODE),
    "xi1": _code(_OPCODE_MODRM, _LAST_1) | {Field.FOLLOWED_CODE: 0xFF},
    "xio": _code(_OPCODE, Field.OPERAND) | {Field.FOLLOWED_CODE: 0xFF},
    "x2": _code(0, _LAST_2),
    "x3": _code(0, _LAST_3),
    "x13": _code(0, _LAST_1, _LAST_3),
    "x34": _code(0, _LAST_3, _LAST_4),
    "p1x": {Field.PLACE_OF_EIGHT: 7, Field.PART: 0xF, _LAST_1: 255},
    "p48x": {Field.PLACE_OF_EIGHT: 7, _LAST_4: 255, Field.LAST + 7: 255},
    "i1": _fields(Field.FOLLOWED_ONE, _LAST_1),
    "i2": _fields(Field.FOLLOWED_TWO, _LAST_1),
    "r1": _fields(Field.ABOVE, Field.COLUMN),
    "r2": _fields(Field.ABOVE, _LAST_1),
    "r3": _fields(Field.ABOVE, Field.ABOVE_2, Field.ABOVE_3),
    "r4": _fields(Field.ABOVE, Field.ABOVE_NEXT, Field.ABOVE_BEFORE, _LAST_1),
    "r5": _fields(Field.ABOVE, _LAST_1, Field.COLUMN),
    "r6": _fields(Field.ABOVE, Field.ABOVE_2, _LAST_1, _LAST_2),
    "rc1": _fields(Field.COLUMN, _LAST_1),
    "rc2": _fields(Field.COLUMN, _LAST_1, _LAST_2),
    "rd": _fields(Field.SLOPE),
    "fx": _fields(Field.EIGHT_BEFORE, Field.PLACE_OF_EIGHT),
    "fd": _fields(Field.SLOPE_OF_EIGHT, Field.PLACE_OF_EIGHT),
    **{f"n{i + 1}": _fields(Field.SAMPLE + i) for i in range(9)},
}


@dataclass(frozen=True)
class Profile:
    """What kind of data it is for, and its contexts, the most useful first: lower levels take fewer."""

    name: str
    contexts: tuple[str, ...]
    uses_record: bool = False
    uses_samples: bool = False
    uses_text: bool = False
    uses_floats: bool = False
    uses_instructions: bool = False
    uses_markup: bool = False
    uses_table: bool = False


def _profile(name: str, contexts: str, **uses: bool) -> Profile:
    return Profile(name, tuple(contexts.split()), **uses)


PROFILES: dict[int, Profile] = {
    0: _profile(
        "text",
        "o1 o2 o3 o4 o6 w ww gl ws sm7 ps sm la wc w1c o8 sm5 g1 i1 s23 lc s345 pl o2w2 pg o12",
        uses_text=True,
        uses_markup=True,
    ),
    1: _profile(
        "program",
        "o1 o2 o3 o4 o6 s23 s13 sm w o5 i2 o12 s24 s34 s2 ww i1 s3 sm6 o8 s4 sm7 p48 p1 s456 p14",
        uses_text=True,
    ),
    2: _profile(
        "records",
        "o1 o2 o3 o4 r2 r1 r4 rc1 r3 r5 o6 rc2 r6 rd s23 i2 sm s2",
        uses_record=True,
    ),
    3: _profile(
        "samples", "o1 o2 n5 n1 n3 n9 r2 n2 n6 n7 n4 n8 r1 r4 o3 o4", uses_record=True, uses_samples=True
    ),
    4: _profile(
        "floats",
        "o1 o2 o3 fx fd rc1 r1 o4 r3 rc2 o6 s23 i2 s13 i1 o8",
        uses_record=True,
        uses_floats=True,
    ),
    5: _profile("genome", "o2 o4 o6 o8 o12 o16 o3 o1"),
    6: _profile(
        "table",
        "o1 o2 o3 o4 a4 w a3 fa i2 o6 a2c ft gl fs a5 o12 bgw arc bc sm ar3 bww bw fa2 qc qt",
        uses_text=True,
        uses_table=True,
    ),
    7: _profile(
        "markup",
        "o1 o2 o3 o4 o6 w ps gl tw i1 pss g1 sm5 i2 bgw t1 pl pg sm7 ws o8 s345 bw o12 a3 s23",
        uses_text=True,
        uses_markup=True,
    ),
    8: _profile(
        "x86",
        "o2 o3 xi x1o x3 xx o1 xio x2 xo2 x13 xr4 o4 xxx sm6 xo4 xi1 x34 x1 w p1x i1 o6 s23 p48 p48x",
        uses_text=True,
        uses_instructions=True,
    ),
    9: _profile(
        "pieces",
        "o1 o2 o3 o4 o6 ps w gl i1 pl g1 pss pl3 ws i2 pg sm5 sm7 pso s345 o8 pi1 plo bgw psg s23",
        uses_text=True,
        uses_markup=True,
    ),
}


class Masks(NamedTuple):
    """`fields`, uint32 [fields, inputs], the masks; `used`, int32, the fields that any context has."""

    fields: NDArray[np.uint32]
    used: NDArray[np.int32]


@cache
def masks(profile: int, contexts: int) -> Masks:
    """Return the masks of the profile's first so many contexts."""
    fields = np.zeros((FIELDS, INPUTS), np.uint32)
    names = PROFILES[profile].contexts[:contexts]
    for i, name in enumerate(names):
        for field, mask in _CONTEXTS[name].items():
            fields[field, i] = mask
    return Masks(fields, np.flatnonzero(fields.any(1)).astype(np.int32))
