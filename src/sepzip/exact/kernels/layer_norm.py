"""Layer normalisation of one lane held by one program: the twin of layer_norm.py, for use inside kernels."""

from __future__ import annotations

import triton
import triton.language as tl

from ..layer_norm import EPSILON, GRADIENT_MOST, NORMAL_MOST
from .elements import quantised, reciprocal_sqrt, round_even, row_scale, whole_number

__all__ = ["normalised", "normalised_backward", "whole_normal"]

_EPSILON = tl.constexpr(EPSILON)
_GRADIENT_MOST = tl.constexpr(GRADIENT_MOST)
_NORMAL_MOST = tl.constexpr(float(NORMAL_MOST))
_LEAST_SCALE = tl.constexpr(2.0**-50)
_NORMAL_UNIT = tl.constexpr(2.0**11)


@triton.jit
def normalised(x, inside, width: tl.constexpr, most: tl.constexpr):
    """Return (normal, slope) of a lane's x, 0 where not `inside`; slope is d normal / d x.

    `most` is layer_norm.statistics_most(width).
    """
    factor, scale = row_scale(tl.max(tl.abs(x), 0), most)
    whole = quantised(x, factor)
    wide = whole.to(tl.int64)
    total = tl.sum(wide, 0)
    spread = (tl.sum(wide * wide, 0) * width - total * total).to(tl.float32)
    mean = total.to(tl.float32) * (1.0 / width)
    inverse_scale = tl.div_rn(1.0, tl.maximum(scale, _LEAST_SCALE))
    variance = spread * (1.0 / (width * width)) + (inverse_scale * inverse_scale) * _EPSILON
    inverse_deviation = reciprocal_sqrt(variance)
    normal = (whole - mean) * inverse_deviation
    return tl.where(inside, normal, 0.0), inverse_deviation * inverse_scale


@triton.jit
def whole_normal(normal):
    """Return normalised values in units of 2^-11, float32."""
    return tl.minimum(tl.maximum(round_even(normal * _NORMAL_UNIT), -_NORMAL_MOST), _NORMAL_MOST)


@triton.jit
def normalised_backward(gradient, normal, slope, width: tl.constexpr):
    """Return the gradient by x from the one by `normal`; both are 0 outside the width."""
    factor, scale = row_scale(tl.max(tl.abs(gradient), 0), _GRADIENT_MOST)
    wide = whole_number(gradient, factor).to(tl.int64)
    mean = (tl.sum(wide, 0).to(tl.float32) * scale) * (1.0 / width)
    along = tl.sum(wide * whole_normal(normal).to(tl.int64), 0).to(tl.float32) * scale
    along = along * (1.0 / _NORMAL_UNIT / width)
    return ((gradient - mean) - normal * along) * slope
