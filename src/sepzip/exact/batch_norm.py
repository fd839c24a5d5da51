"""Batch normalisation (Ioffe and Szegedy, 2015) whose sums are of whole numbers, for few rows as for many."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .constants import constant
from .functions import reciprocal_sqrt
from .quantise import quantise
from .tape import Node, Tape

__all__ = ["EPSILON", "FEW_ROWS", "BatchStatistics", "batch_norm", "statistics_most"]

EPSILON = 1e-5
FEW_ROWS = 256
"""A step with fewer rows takes the rest of the statistics from the steps before it."""

_GRADIENT_MOST = 1 << 20
_NORMAL_MOST = 1 << 16

_FLOAT64_ROWS = 1 << 16
"""The most rows for which float64 sums of gradients times normalised values are exact."""


@dataclass(frozen=True)
class BatchStatistics:
    """The mean and the variance, [width] each, that the last step normalised by."""

    mean: Tensor
    variance: Tensor

    @classmethod
    def of_nothing(cls, width: int, device: torch.device) -> BatchStatistics:
        """Return mean 0 and variance 1, as before the first step."""
        return cls(torch.zeros(width, device=device), torch.ones(width, device=device))

    def forget(self) -> None:
        """Be as before the first step again."""
        self.mean.zero_()
        self.variance.fill_(1.0)


def batch_norm(tape: Tape, x: Node, gain: Node, offset: Node, kept: BatchStatistics) -> Node:
    """Return (x - mean) / sqrt(variance + 1e-5) of each column, times gain plus offset.

    x [rows, width]; gain and offset [width]. Mean and variance are those of this step's rows, of which each
    column is first rounded to whole multiples of its largest element / 2^18 (fewer bits above 2^13 rows). Of
    fewer than 256 rows they say little, and of one nothing: rows / 256 is then their share, and the kept
    statistics, which are not learnt through, have the rest, as if earlier rows stood beside these. `kept`
    becomes what was normalised by.
    """
    rows = x.data.shape[0]
    share = min(1.0, rows / FEW_ROWS)
    whole, scale = quantise(x.data, 0, statistics_most(rows))
    wide = whole.to(torch.float64)
    total = wide.sum(0)
    # Sums of squares stay below 2^50, rows times them below 2^62.
    squares = (wide * wide).sum(0).to(torch.int64)
    whole_total = total.to(torch.int64)
    spread = squares.mul_(rows).sub_(whole_total * whole_total).to(torch.float32)
    scale = scale.squeeze(0)
    mean = total.to(torch.float32).mul_(scale).mul_(constant(1.0 / rows))
    variance = spread.mul_(constant(1.0 / (rows * rows))).mul_(scale).mul_(scale)
    if share < 1.0:
        # The mean and the variance of all rows together, as far as the kept ones go back.
        apart = mean - kept.mean
        variance.mul_(constant(share)).add_(kept.variance * constant(1.0 - share))
        variance.add_((apart * apart).mul_(constant(share * (1.0 - share))))
        mean = apart.mul_(constant(share)).add_(kept.mean)
    kept.mean.copy_(mean)
    kept.variance.copy_(variance)
    slope = reciprocal_sqrt(variance.add_(constant(EPSILON)))
    normal = (x.data - mean).mul_(slope)
    out = Node((normal * gain.data).add_(offset.data))

    def backward() -> None:
        gradient = out.take_gradient()
        columns, unit = quantise(gradient, 0, _GRADIENT_MOST)
        unit = unit.squeeze(0)
        wide = columns.to(torch.float64)
        by_offset = wide.sum(0).to(torch.float32).mul_(unit)
        # Multiples of 2^-11, so that with gradients of 20 bits each product stays below 2^36.
        whole_normal = (normal * constant(2.0**11)).round_().clamp_(-_NORMAL_MOST, _NORMAL_MOST)
        products = wide.mul_(whole_normal)
        if rows > _FLOAT64_ROWS:
            products = products.to(torch.int64)
        by_gain = products.sum(0).to(torch.float32).mul_(unit).mul_(constant(2.0**-11))
        # What moves a row moves mean and variance, too, by its part of the rows and theirs of the statistics.
        part = constant(share / rows)
        level, along = by_offset * part, by_gain * part
        x.add_gradient((gradient - level).sub_(normal * along).mul_(slope * gain.data))
        offset.add_gradient(by_offset)
        gain.add_gradient(by_gain)

    tape.record(backward)
    return out


def statistics_most(rows: int) -> int:
    """Return the largest whole number for which rows^2 * whole^2 stays within 2^62, at most 2^18."""
    return 1 << min(18, 31 - (rows - 1).bit_length())
