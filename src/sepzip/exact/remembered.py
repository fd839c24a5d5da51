"""The byte that came last in each context, and how often in a row: learnt without gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from .quantise import quantise
from .tape import Node, Tape

__all__ = ["COUNTS", "Remembered", "vote"]

COUNTS = 8
"""How many counts there are: 0 for a slot without a byte, and 1 to 7."""

_STEADY = 3
"""A byte that came more often in a row than this stays when another comes, with half its count."""

_GRADIENT_MOST = 1 << 20
_UNIT = float(1 << 16)


class Remembered:
    """A table of entries, int64: count * 256 + byte."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.entries = torch.zeros(count, dtype=torch.int64, device=device)
        self._claims = torch.zeros(count, dtype=torch.int64, device=device)

    def look_up(self, slots: Tensor) -> Tensor:
        """Return the entries of these slots, int64 of their shape."""
        return self.entries.index_select(0, slots.reshape(-1)).view(slots.shape)

    def learn(self, slots: Tensor, symbols: Tensor) -> None:
        """Take the bytes that followed, int64 [lanes], in slots, int64 [contexts, lanes].

        Where several lanes meet in a slot, the byte of the one with the highest number counts.
        """
        lanes = torch.arange(1, len(symbols) + 1, device=symbols.device)
        flat = slots.reshape(-1)
        claims = (lanes << 8).add_(symbols).expand(slots.shape).reshape(-1)
        self._claims.scatter_reduce_(0, flat, claims, "amax")
        new = self._claims.index_select(0, flat).bitwise_and_(0xFF)
        self._claims.index_copy_(0, flat, torch.zeros_like(claims))
        entries = self.entries.index_select(0, flat)
        old, count = entries & 0xFF, entries >> 8
        steady = count > _STEADY
        came_again = (old == new) & (count > 0)
        other = torch.where(steady, count >> 1, 1)
        count = torch.where(came_again, (count + 1).clamp_(max=COUNTS - 1), other)
        byte = torch.where(steady, old, new)
        # Equal slots write equal numbers, in whatever order.
        self.entries.index_copy_(0, flat, (count << 8).add_(byte))


def vote(tape: Tape, logits: Node, entries: Tensor, weight: Node, factor: float) -> Node:
    """Return the logits, [lanes, 256], each entry's byte raised by factor times the weight of its count.

    entries int64 [contexts, lanes]; weight [contexts, COUNTS], of which those of count 0 are not used.
    Weights become whole multiples of 2^-16, so that the votes for a byte have no order.
    """
    contexts, lanes = entries.shape
    device = entries.device
    count = entries >> 8
    which = ((torch.arange(contexts, device=device) * COUNTS).unsqueeze(1) + count).view(-1)
    where = ((torch.arange(lanes, device=device) << 8) + (entries & 0xFF)).view(-1)
    counts = (count > 0).to(torch.int64).view(-1)
    whole_weight = (weight.data * _UNIT).round_().to(torch.int64).view(-1)
    votes = torch.zeros(lanes * 256, dtype=torch.int64, device=device)
    votes.index_add_(0, where, whole_weight.index_select(0, which).mul_(counts))
    out = Node(votes.to(torch.float32).mul_(factor / _UNIT).view(lanes, 256).add_(logits.data))

    def backward() -> None:
        gradient = out.take_gradient()
        logits.add_gradient(gradient)
        whole, scale = quantise(gradient.reshape(-1).index_select(0, where), None, _GRADIENT_MOST)
        sums = torch.zeros(contexts * COUNTS, dtype=torch.int64, device=device)
        sums.index_add_(0, which, whole.to(torch.int64).mul_(counts))
        by_weight = sums.to(torch.float32).mul_(scale).mul_(factor)
        weight.add_gradient(by_weight.view(weight.data.shape))

    tape.record(backward)
    return out
