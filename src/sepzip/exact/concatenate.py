"""Values side by side, one after another, and the last of several."""

from __future__ import annotations

import torch

from .tape import Node, Tape

__all__ = ["concatenate", "last_rows", "rows_by_place"]


def concatenate(tape: Tape, nodes: list[Node]) -> Node:
    """Return the nodes, [rows, a width of its own] each, side by side, [rows, sum of the widths]."""
    if len(nodes) == 1:
        return nodes[0]
    out = Node(torch.cat([node.data for node in nodes], 1))
    widths = [node.data.shape[1] for node in nodes]

    def backward() -> None:
        parts = out.take_gradient().split(widths, 1)
        for node, part in zip(nodes, parts, strict=True):
            node.add_gradient(part)

    tape.record(backward)
    return out


def last_rows(tape: Tape, x: Node, count: int) -> Node:
    """Return the last `count` rows of x, [count, width]."""
    earlier = x.data.shape[0] - count
    if earlier == 0:
        return x
    out = Node(x.data[earlier:])

    def backward() -> None:
        gradient = out.take_gradient()
        x.add_gradient(torch.cat([gradient.new_zeros((earlier, gradient.shape[1])), gradient]))

    tape.record(backward)
    return out


def rows_by_place(tape: Tape, x: Node, size: int) -> Node:
    """Return x, [lanes, places * size], as [places * lanes, size]: the first place's lanes first."""
    lanes = x.data.shape[0]
    out = Node(x.data.view(lanes, -1, size).transpose(0, 1).reshape(-1, size))

    def backward() -> None:
        gradient = out.take_gradient().view(-1, lanes, size).transpose(0, 1)
        x.add_gradient(gradient.reshape(lanes, -1))

    tape.record(backward)
    return out
