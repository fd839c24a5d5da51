"""What the semantics enhancement blocks share, of one row and of tokens: the masks, the largest gradient.

Twins of what semantics.py has for both.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import elements
from .elements import add_largest, follow

__all__ = ["find_fused_largest", "load_mask"]


@triton.jit
def load_mask(mask, kept, place, patch, inside, sharpness):
    """Return (kept, learned number, sigmoid of it, the mask that weighs) of values at `place` of a patch."""
    whole = tl.load(kept + patch, mask=inside, other=0) != 0
    unbounded = tl.load(mask + place, mask=inside, other=0.0)
    learned = elements.sigmoid(unbounded)
    return whole, unbounded, learned, elements.sigmoid((tl.where(whole, 1.0, learned) - 0.5) * sharpness)


@triton.jit
def find_fused_largest(fused, gradient, largest, count, BLOCK: tl.constexpr):
    """Take the sizes of the gradient by `fused` into `largest`."""
    follow()
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    slope = elements.gelu_slope(tl.load(fused + place, mask=inside, other=0.0))
    add_largest(largest, slope * tl.load(gradient + place, mask=inside, other=0.0))
