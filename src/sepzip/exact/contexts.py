"""Contexts as slots of tables: chosen ones of the newest bytes, hashed."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["MULTIPLIERS", "Contexts"]

_MASK32 = (1 << 32) - 1
_BASE = 0x9E3779B1
MULTIPLIERS = ((16, 0x7FEB352D), (15, 0x846CA68B))
"""What a hash is shifted and multiplied by in its two rounds."""


class Contexts:
    """Contexts, each with 2^bits slots of its own, those of one after those of the other.

    Bit i of a context's number, counted from the lowest, says whether the byte i places before the newest is
    part of it. The hash is the sum of (byte + 1) * 0x9E3779B1^(i + 1), modulo 2^32, two rounds of xor-shift
    and multiply, and of that the highest `bits` bits.
    """

    def __init__(self, numbers: tuple[int, ...], bits: int, device: torch.device) -> None:
        self.depth = max(number.bit_length() for number in numbers)
        self.bits = bits
        # A context comes with its oldest byte first.
        places = range(self.depth - 1, -1, -1)
        factors = [
            [pow(_BASE, place + 1, 1 << 32) * (number >> place & 1) for place in places] for number in numbers
        ]
        self.factors = torch.tensor(factors, dtype=torch.int64, device=device)
        """What the bytes of each context are multiplied by, int64 [contexts, depth], the oldest first."""
        self._firsts = (torch.arange(len(numbers), device=device) << bits).unsqueeze(1)

    def slots(self, context: Tensor) -> Tensor:
        """Return the slots, int64 [contexts, lanes], of context, int64 [bytes, lanes], oldest byte first."""
        newest = context[len(context) - self.depth :] + 1
        hashed = (newest * self.factors.unsqueeze(2)).sum(1).bitwise_and_(_MASK32)
        for shift, multiplier in MULTIPLIERS:
            # The product may pass 2^63 and wrap; its low 32 bits stay right.
            hashed = (hashed ^ (hashed >> shift)).mul_(multiplier).bitwise_and_(_MASK32)
        return (hashed >> (32 - self.bits)).add_(self._firsts)
