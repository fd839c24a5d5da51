"""Hashes of contexts, and what is added to them, field by field."""

from __future__ import annotations

import triton
import triton.language as tl

from ...profiles import INPUTS, WORD

__all__ = ["byte_before", "finished", "hashed", "with_field"]

_INPUTS = tl.constexpr(INPUTS)
_WORD_FACTOR = tl.constexpr(WORD)
_FINISH_1 = tl.constexpr(0x85EBCA6B)
_FINISH_2 = tl.constexpr(0xC2B2AE35)


@triton.jit
def finished(x):
    """Return uint32 x with every bit spread over all."""
    x = x ^ (x >> 15)
    x = x * _FINISH_1
    x = x ^ (x >> 13)
    x = x * _FINISH_2
    return x ^ (x >> 16)


@triton.jit
def with_field(hashes, masks, multipliers, number: tl.constexpr, field, USED: tl.constexpr):
    """Return the hashes with a field added, if any context is made of it."""
    if USED[number]:
        mask = tl.load(masks + number * _INPUTS + tl.arange(0, _INPUTS))
        hashes += (field.to(tl.uint32) & mask) * tl.load(multipliers + number)
    return hashes


@triton.jit
def byte_before(row, step, back):
    """Return the byte so many before number `step` of the lane, int32; 0 before its first."""
    return tl.load(row + (step - back), mask=back <= step, other=0).to(tl.int32)


@triton.jit
def hashed(known, byte):
    """Return int64, a hash of 32 bits with a byte more."""
    return ((known.to(tl.uint32) + (byte + 1).to(tl.uint32)) * _WORD_FACTOR).to(tl.int64)
