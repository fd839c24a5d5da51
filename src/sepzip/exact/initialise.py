"""Weights from a seed, by our own integer generator: a library's random numbers may change."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Initialiser"]

_MASK32 = (1 << 32) - 1
_GOLDEN = 0x9E3779B9


class Initialiser:
    """A counter-based generator: number i of stream s depends on the seed, s and i alone.

    Each call of `normal` or `uniform` takes the next stream, so the order of calls matters and their
    sizes do not. The hash is two rounds of xor-shift and multiply on 32 bits, held in int64.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed = seed & _MASK32
        self._stream = 0
        self._device = device

    def normal(self, shape: tuple[int, ...], deviation: float) -> Tensor:
        """Return float32 numbers of mean 0 that are nearly normal: each is a sum of eight 16-bit ones."""
        total = torch.zeros(_count(shape), dtype=torch.int64, device=self._device)
        for _ in range(4):
            bits = self._bits(shape)
            total.add_(bits & 0xFFFF).add_(bits >> 16)
        # Eight uniform numbers of n values have variance 8 (n^2 - 1) / 12.
        unit = deviation / math.sqrt(8 * (65536**2 - 1) / 12)
        return (total * 2 - 8 * 65535).to(torch.float32).mul_(0.5).mul_(unit).view(shape)

    def uniform(self, shape: tuple[int, ...], bound: float) -> Tensor:
        """Return float32 numbers spread evenly over (-bound, bound), 2^24 different ones."""
        whole = (self._bits(shape) >> 8) * 2 - ((1 << 24) - 1)
        return whole.to(torch.float32).mul_(bound / (1 << 24)).view(shape)

    def _bits(self, shape: tuple[int, ...]) -> Tensor:
        """Return 32 random bits a number, int64."""
        self._stream += 1
        start = (self._seed * 0x85EBCA6B + self._stream * 0xC2B2AE35) & _MASK32
        x = torch.arange(_count(shape), dtype=torch.int64, device=self._device)
        x = x.mul_(_GOLDEN).add_(start).bitwise_and_(_MASK32)
        for multiplier in (0x7FEB352D, 0x846CA68B):
            # The product of two 32-bit numbers may pass 2^63 and wrap; its low 32 bits stay right.
            x = (x ^ (x >> 16)).mul_(multiplier).bitwise_and_(_MASK32)
        return x ^ (x >> 16)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
