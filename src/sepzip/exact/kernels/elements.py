"""Functions of single elements and rows, for use inside kernels: the twins of functions.py, gelu.py, Adam.

Division is written div_rn throughout: Triton's own `/` is not correctly rounded.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from ..adam import BETA1, BETA2
from ..functions import EXP2, LOG2_E
from ..gelu import DENSITY, EDGE, PHI

__all__ = [
    "CHAINED",
    "EXACT",
    "adam",
    "add_largest",
    "beside_floats",
    "exp2",
    "follow",
    "from_bits",
    "gelu",
    "gelu_slope",
    "load_largest",
    "quantised",
    "reciprocal_sqrt",
    "round_even",
    "row_scale",
    "sigmoid",
    "size_bits",
    "split_digits",
    "whole_number",
]

EXACT: dict[str, Any] = {"enable_fp_fusion": False}
"""Options of every launch of a kernel."""


def _can_chain() -> bool:
    """Return whether all GPUs can make a kernel ready while the one before it ends: from Hopper on."""
    if torch.version.cuda is None or not torch.cuda.is_available():
        return False
    devices = range(torch.cuda.device_count())
    return all(torch.cuda.get_device_capability(device) >= (9, 0) for device in devices)


_CHAINS = tl.constexpr(_can_chain())

CHAINED: dict[str, Any] = EXACT | ({"launch_pdl": True} if _CHAINS.value else {})
"""Options of a launch of a kernel that begins with `follow`: it begins before the one before it has ended."""

_ROUNDER = tl.constexpr(1.5 * 2.0**23)
_ROUNDER_BITS = tl.constexpr(0x4B400000)
_SMALLEST = tl.constexpr(2.0**-80)
_EXP2_1, _EXP2_2, _EXP2_3, _EXP2_4 = (tl.constexpr(value) for value in EXP2)
_PHI_0, _PHI_1, _PHI_2, _PHI_3 = (tl.constexpr(value) for value in PHI)
_DENSITY_0, _DENSITY_1, _DENSITY_2, _DENSITY_3 = (tl.constexpr(value) for value in DENSITY)
_EDGE = tl.constexpr(EDGE)
_MINUS_LOG2_E = tl.constexpr(-LOG2_E)
_BETA1, _BETA2 = tl.constexpr(BETA1), tl.constexpr(BETA2)


@triton.jit
def follow():
    """Wait for the end of all kernels before; what a kernel launched with CHAINED does before all else."""
    if _CHAINS:
        tl.extra.cuda.gdc_wait()


@triton.jit
def beside_floats(numbers, place):
    """Return where int8 `numbers` lie that are made of as many float32 ones, for `place` [rows, columns].

    A thread is told to take four of a row at once. By itself it would take sixteen, and so sixteen of the
    floats as well: four loads of four, between which it leaves gaps that others fill.
    """
    return tl.max_contiguous(numbers + place, (1, 4))


@triton.jit
def size_bits(x):
    """Return the bits of |x|, int32: they are ordered as the sizes are."""
    return tl.abs(x).to(tl.int32, bitcast=True)


@triton.jit
def from_bits(bits):
    """Return the float32 number of these bits."""
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def add_largest(largest, x):
    """Take the sizes of a block of floats into the largest so far, which is kept as bits in an int64."""
    bits = tl.max(size_bits(x), 0)
    tl.atomic_max(largest, bits.to(tl.int64), sem="relaxed")


@triton.jit
def load_largest(largest):
    """Return what `add_largest` made of all blocks, float32."""
    return from_bits(tl.load(largest).to(tl.int32))


@triton.jit
def round_even(x):
    """Return float32 x, below 2^22 in size, rounded to a whole number, half to even."""
    return (x + _ROUNDER) - _ROUNDER


@triton.jit
def row_scale(largest, most: tl.constexpr):
    """Return (factor, scale) of `quantise` from the largest size: whole = round(x * factor)."""
    largest = tl.maximum(largest, _SMALLEST)
    return tl.div_rn(most * 1.0, largest), largest * (1.0 / most)


@triton.jit
def quantised(x, factor):
    """Return x as whole numbers, float32."""
    return round_even(x * factor)


@triton.jit
def whole_number(x, factor):
    """Return what `quantised` does as int32; below 2^22 in size.

    The rounded sum has the number in its low bits: converting takes a GPU eight times as long as adding.
    """
    return (x * factor + _ROUNDER).to(tl.int32, bitcast=True) - _ROUNDER_BITS


@triton.jit
def split_digits(whole):
    """Return the balanced digits, base 256, of int32 whole numbers up to INT16_MOST: int8 high and low."""
    return ((whole + 128) >> 8).to(tl.int8), whole.to(tl.int8)


@triton.jit
def exp2(x):
    """Return 2 to the power x, float32, x clamped to [-126, 126]; twin of functions.exp2."""
    x = tl.minimum(tl.maximum(x, -126.0), 126.0)
    whole = tl.floor(x)
    fraction = x - whole
    result = fraction * _EXP2_4
    result = (result + _EXP2_3) * fraction
    result = (result + _EXP2_2) * fraction
    result = (result + _EXP2_1) * fraction
    result = result + 1.0
    power = ((whole.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)
    return result * power


@triton.jit
def sigmoid(x):
    """Return 1/(1 + exp(-x)), float32; twin of functions.sigmoid."""
    below = exp2(x * _MINUS_LOG2_E) + 1.0
    return tl.div_rn(1.0, below)


@triton.jit
def reciprocal_sqrt_guess(x):
    """Return 1/sqrt(x) to within 4 %; twin of functions.reciprocal_sqrt_guess."""
    return (0x5F375A86 - (x.to(tl.int32, bitcast=True) >> 1)).to(tl.float32, bitcast=True)


@triton.jit
def reciprocal_sqrt(x):
    """Return 1/sqrt(x), float32, of x > 0 and normal; twin of functions.reciprocal_sqrt."""
    guess = reciprocal_sqrt_guess(x)
    half = x * -0.5
    guess = guess * ((guess * guess) * half + 1.5)
    return guess * ((guess * guess) * half + 1.5)


@triton.jit
def phi(x):
    """Return the activation's distribution function at x; part of gelu.gelu."""
    inside = tl.minimum(tl.maximum(x, -_EDGE), _EDGE)
    square = inside * inside
    result = square * _PHI_3
    result = (result + _PHI_2) * square
    result = (result + _PHI_1) * square
    return (result + _PHI_0) * inside + 0.5


@triton.jit
def gelu(x):
    """Return x * phi(x); twin of gelu.gelu."""
    return x * phi(x)


@triton.jit
def gelu_slope(x):
    """Return the derivative of gelu at x; twin of the backward pass of gelu.gelu."""
    inside = tl.minimum(tl.maximum(x, -_EDGE), _EDGE)
    square = inside * inside
    density = square * _DENSITY_3
    density = (density + _DENSITY_2) * square
    density = (density + _DENSITY_1) * square
    density = density + _DENSITY_0
    return density * x + phi(x)


@triton.jit
def adam(weight, first, second, gradient, size, epsilon):
    """Return (weight, first, second) after one update; twin of adam.adam."""
    first = first * _BETA1 + gradient
    second = second * _BETA2 + gradient * gradient
    variance = second + epsilon
    inverse = reciprocal_sqrt_guess(variance)
    variance = ((variance * -0.5) * inverse) * inverse + 1.5
    return weight - ((inverse * variance) * first) * size, first, second
