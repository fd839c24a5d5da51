"""A kernel that does next to nothing, to see whether any runs."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .elements import EXACT

__all__ = ["works"]

_COUNT = 32


@triton.jit
def _count(numbers, COUNT: tl.constexpr):
    place = tl.arange(0, COUNT)
    tl.store(numbers + place, place * 3 + 1)


def works(device: torch.device) -> bool:
    """Return whether a kernel that ran on the device did what it says; raises what keeps it from running."""
    numbers = torch.zeros(_COUNT, dtype=torch.int32, device=device)
    _count[(1,)](numbers, _COUNT, num_warps=1, **EXACT)
    return numbers.tolist() == list(range(1, 3 * _COUNT, 3))
