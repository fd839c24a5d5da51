"""The embedding of bytes, with a sigmoid on its table or as it is."""

from __future__ import annotations

import torch
from torch import Tensor

from .functions import sigmoid
from .quantise import quantise
from .tape import Node, Tape

__all__ = ["embedding", "embedding_rows", "sigmoid_embedding", "sum_by_symbol"]

_GRADIENT_MOST = 1 << 20


def embedding(tape: Tape, table: Node, context: Tensor) -> Node:
    """Return the table looked up by each byte; table [256, size], context int64 [bytes, lanes].

    The result is [lanes, bytes * size], the oldest byte first.
    """
    size = table.data.shape[1]
    by_lane = context.t().reshape(-1)
    out = Node(table.data.index_select(0, by_lane).view(context.shape[1], -1))

    def backward() -> None:
        whole, scale = quantise(out.take_gradient(), None, _GRADIENT_MOST)
        table.add_gradient(sum_by_symbol(whole.view(-1, size), by_lane).mul_(scale))

    tape.record(backward)
    return out


def embedding_rows(tape: Tape, table: Node, context: Tensor) -> Node:
    """Return the rows of each byte; table [256, size], context int64 [bytes, lanes].

    The result is [bytes * lanes, size], the oldest byte's lanes first.
    """
    symbols = context.reshape(-1)
    out = Node(table.data.index_select(0, symbols))

    def backward() -> None:
        whole, scale = quantise(out.take_gradient(), None, _GRADIENT_MOST)
        table.add_gradient(sum_by_symbol(whole, symbols).mul_(scale))

    tape.record(backward)
    return out


def sigmoid_embedding(tape: Tape, table: Node, context: Tensor) -> Node:
    """Return sigmoid(table) looked up by each byte; table [256, size], context int64 [bytes, lanes].

    The result is [lanes, bytes * size], the oldest byte first. The sigmoid is taken of the table's 256
    rows, not of what was looked up.
    """
    size = table.data.shape[1]
    squashed = sigmoid(table.data)
    length, lanes = context.shape
    by_lane = context.t().reshape(-1)
    out = Node(squashed.index_select(0, by_lane).view(lanes, length * size))

    def backward() -> None:
        whole, scale = quantise(out.take_gradient(), None, _GRADIENT_MOST)
        sums = sum_by_symbol(whole.view(-1, size), by_lane).mul_(scale)
        table.add_gradient(sums.mul_(squashed).mul_(1.0 - squashed))

    tape.record(backward)
    return out


def sum_by_symbol(whole: Tensor, symbols: Tensor) -> Tensor:
    """Return the sums of the rows of each symbol, float32 [256, size].

    `whole` [rows, size] holds whole numbers; their sums, as int64, are rounded once.
    """
    sums = torch.zeros((256, whole.shape[1]), dtype=torch.int64, device=whole.device)
    return sums.index_add_(0, symbols, whole.to(torch.int64)).to(torch.float32)
