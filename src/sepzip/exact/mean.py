"""The mean of a value and its skip connection."""

from __future__ import annotations

from .constants import constant
from .tape import Node, Tape

__all__ = ["mean_of_two"]


def mean_of_two(tape: Tape, a: Node, b: Node) -> Node:
    """Return (a + b) / 2, element by element."""
    out = Node((a.data + b.data).mul_(constant(0.5)))

    def backward() -> None:
        half = out.take_gradient().mul(constant(0.5))
        a.add_gradient(half)
        b.add_gradient(half)

    tape.record(backward)
    return out
