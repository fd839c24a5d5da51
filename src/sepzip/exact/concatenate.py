"""Values side by side, one after another, and the last or newest of several."""

from __future__ import annotations

import torch
from torch import Tensor

from .tape import Node, Tape

__all__ = ["behind", "concatenate", "last_rows", "newest_rows", "rows_by_lane", "rows_by_place"]


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


def rows_by_lane(tape: Tape, x: Node, size: int) -> Node:
    """Return x, [lanes, places * size], as [lanes * places, size]: the first lane's places first."""
    out = Node(x.data.view(-1, size))

    def backward() -> None:
        x.add_gradient(out.take_gradient().view(x.data.shape))

    tape.record(backward)
    return out


def behind(tape: Tape, older: Tensor, x: Node) -> Node:
    """Return each lane's rows behind its older ones, which are not learnt through.

    older [lanes, more, width]; x [lanes * rows, width]; the result is [lanes * (more + rows), width].
    """
    lanes, more, width = older.shape
    by_lane = x.data.view(lanes, -1, width)
    out = Node(torch.cat([older, by_lane], 1).view(-1, width))

    def backward() -> None:
        gradient = out.take_gradient().view(lanes, -1, width)
        x.add_gradient(gradient[:, more:].reshape(x.data.shape))

    tape.record(backward)
    return out


def newest_rows(tape: Tape, x: Node, lanes: int, count: int) -> Node:
    """Return the last `count` rows of each lane, [lanes * count, width] from [lanes * rows, width]."""
    width = x.data.shape[1]
    by_lane = x.data.view(lanes, -1, width)
    out = Node(by_lane[:, -count:].reshape(-1, width))

    def backward() -> None:
        gradient = torch.zeros_like(by_lane)
        gradient[:, -count:] = out.take_gradient().view(lanes, count, width)
        x.add_gradient(gradient.view(x.data.shape))

    tape.record(backward)
    return out
