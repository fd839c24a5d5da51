"""The targets of x86 calls and jumps as absolute addresses: calls of one function then look alike.

In code of 64 bits operands are addressed relative to their place as well; `wide` includes these.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .native import convert_calls

__all__ = ["make_absolute", "make_relative"]


def make_absolute(data: NDArray[np.uint8], wide: bool = False) -> NDArray[np.uint8]:
    """Return a copy of the bytes in which the targets are absolute."""
    copy = data.copy()
    convert_calls(copy, 1, wide)
    return copy


def make_relative(data: NDArray[np.uint8], wide: bool = False) -> None:
    """Undo `make_absolute`, in place."""
    convert_calls(data, -1, wide)
