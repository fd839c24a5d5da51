"""The sinusoids that tell positions apart (Vaswani et al., 2017), without a library's sine."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import cache

import torch
from torch import Tensor

from .tape import Node, Tape

__all__ = ["join_positions", "sinusoids"]

_UNIT = 1 << 12
_TERMS = 40


def join_positions(tape: Tape, x: Node, positions: Tensor) -> Node:
    """Return x with each position's row behind that position's values, [lanes, positions * (size + more)].

    x [lanes, positions * size]; positions [positions, more], which are not learnt.
    """
    lanes, length = x.data.shape[0], positions.shape[0]
    by_position = x.data.view(lanes, length, -1)
    size = by_position.shape[2]
    out = Node(torch.cat([by_position, positions.expand(lanes, -1, -1)], 2).view(lanes, -1))

    def backward() -> None:
        gradient = out.take_gradient().view(lanes, length, -1)
        x.add_gradient(gradient[:, :, :size].reshape(lanes, -1))

    tape.record(backward)
    return out


@cache
def sinusoids(positions: int, size: int) -> Tensor:
    """Return float32 [positions, size] on the host: multiples of 2^-12, first sines, then cosines.

    Column i of the sines, and of the cosines, belongs to the frequency 10000^(-2 i / size). They are
    computed in decimal numbers of 40 digits, whose sums, products, exponentials and logarithms are
    correctly rounded by definition, so that no machine rounds another way.
    """
    columns = []
    with localcontext(Context(prec=40, rounding=ROUND_HALF_EVEN)):
        for index in range(-(-size // 2)):
            frequency = (Decimal(10000).ln() * (-2 * index) / size).exp()
            columns.append(_turns(frequency, positions))
    whole = [sine for sine, _ in columns] + [cosine for _, cosine in columns]
    return torch.tensor(whole[:size], dtype=torch.float32).view(size, positions).t().mul(1.0 / _UNIT)


def _turns(angle: Decimal, count: int) -> tuple[list[int], list[int]]:
    """Return the sines and the cosines of 0, 1, 2, ... times an angle of at most 1, in units of 2^-12."""
    turned = [Decimal(0), Decimal(1)]
    term = Decimal(1)
    by_parity = [Decimal(1), Decimal(0)]
    for power in range(1, _TERMS):
        term = term * angle / power
        by_parity[power % 2] += term if power % 4 < 2 else -term
    cosine, sine = by_parity
    sines, cosines = [], []
    for _ in range(count):
        sines.append(round(turned[0] * _UNIT))
        cosines.append(round(turned[1] * _UNIT))
        turned = [turned[0] * cosine + turned[1] * sine, turned[1] * cosine - turned[0] * sine]
    return sines, cosines
