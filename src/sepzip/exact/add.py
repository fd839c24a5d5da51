"""The sum of a value and what a layer makes of it."""

from __future__ import annotations

from .tape import Node, Tape

__all__ = ["add"]


def add(tape: Tape, a: Node, b: Node) -> Node:
    """Return a + b, element by element; both have the same shape."""
    out = Node(a.data + b.data)

    def backward() -> None:
        gradient = out.take_gradient()
        a.add_gradient(gradient)
        b.add_gradient(gradient)

    tape.record(backward)
    return out
