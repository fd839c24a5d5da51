"""Linear attention with squared features (Katharopoulos et al., 2020; Choromanski et al., 2021).

A token's output is the mean of the values of all tokens up to it, each weighed by its score: the product
of the squares of the query and of that token's key. There is no exponential, and all sums are of whole
numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .constants import constant
from .quantise import INT16_MOST, quantise
from .tape import Node, Tape

__all__ = ["EPSILON", "MOST", "by_token", "linear_attention", "quantise_group"]

EPSILON = 1e-16
MOST = 1 << 11
"""The largest whole number that stands for a feature, a score or a value.

With gradients of 16 bits, sums of up to 32 products of two then fit 32 bits.
"""


def linear_attention(tape: Tape, query: Node, key_value: Node, lanes: int, heads: int) -> Node:
    """Return what the newest tokens of each lane get by causal attention, of the shape of `query`.

    query [lanes * queries, width] belongs to each lane's newest tokens; key_value [lanes * tokens, 2 *
    width] holds the key of every token and, behind it, its value; `heads` parts of the width attend by
    themselves. With s the sum over a head's width of query^2 * key^2, a token's output is the sum of s *
    value over all tokens up to itself, over (the sum of s, plus 1e-16).

    Squares and values are rounded to whole multiples of their largest over 2^11: those of a query by
    themselves, those of keys and values over all tokens of a lane's head. So are the scores of a query.
    Backward, gradients have 16 bits.
    """
    width = query.data.shape[1]
    size = width // heads
    queries, tokens = query.data.shape[0] // lanes, key_value.data.shape[0] // lanes
    groups = lanes * heads
    # Everything below is by lane and head, which are one axis of `groups`.
    asked = query.data.view(lanes, queries, heads, size).transpose(1, 2).reshape(groups, queries, size)
    both = key_value.data.view(lanes, tokens, 2, heads, size).permute(2, 0, 3, 1, 4)
    both = both.reshape(2, groups, tokens, size)
    key, value = both[0], both[1]
    square_of_query, square_of_key = asked * asked, key * key
    whole_query, scale_query = quantise(square_of_query, 2, MOST)
    whole_key, scale_key = quantise_group(square_of_key, MOST)
    whole_value, scale_value = quantise_group(value, MOST)
    whole_query, whole_key = whole_query.to(torch.float64), whole_key.to(torch.float64)
    whole_value = whole_value.to(torch.float64)

    sums = torch.bmm(whole_query, whole_key.transpose(1, 2)).to(torch.float32)
    # A lone query is the newest token's, which sees all of them.
    seen = _causal(queries, tokens, sums.device) if queries > 1 else None
    if seen is not None:
        sums = torch.where(seen, sums, 0.0)
    score, unit = quantise(sums, 2, MOST)
    score = score.to(torch.float64)
    unit = unit.mul_(scale_query).mul_(scale_key)
    # [groups, queries, 1] like unit: one division a query and head.
    denominator = score.sum(2, keepdim=True).to(torch.float32).mul_(unit).add_(constant(EPSILON))
    inverse = denominator.reciprocal_()
    factor = unit * inverse
    mean = torch.bmm(score, whole_value).to(torch.float32).mul_(factor).mul_(scale_value)
    out = Node(by_token(mean, lanes, heads))

    def backward() -> None:
        gradient = out.take_gradient().view(lanes, queries, heads, size).transpose(1, 2)
        gradient = gradient.reshape(groups, queries, size)
        whole, scale = quantise_group(gradient * factor, INT16_MOST)
        by_value = torch.bmm(score.transpose(1, 2), whole.to(torch.float64)).to(torch.float32).mul_(scale)

        # The gradient by a score is (gradient . value - its mean, weighed by the scores) / denominator.
        whole, scale = quantise(gradient, 2, INT16_MOST)
        along = torch.bmm(whole.to(torch.float64), whole_value.transpose(1, 2))
        weighed = (score * along).sum(2, keepdim=True).to(torch.float32).mul_(factor)
        by_score = along.to(torch.float32).sub_(weighed).mul_(scale * scale_value).mul_(inverse)
        if seen is not None:
            by_score = torch.where(seen, by_score, 0.0)

        whole, scale = quantise(by_score, 2, INT16_MOST)
        by_query = torch.bmm(whole.to(torch.float64), whole_key).to(torch.float32).mul_(scale * scale_key)
        query.add_gradient(by_token(by_query.mul_(asked).mul_(constant(2.0)), lanes, heads))

        whole, scale = quantise_group(by_score * scale_query, INT16_MOST)
        by_key = torch.bmm(whole.to(torch.float64).transpose(1, 2), whole_query)
        by_key = by_key.to(torch.float32).mul_(scale).mul_(key).mul_(constant(2.0))
        joined = torch.stack([by_token(by_key, lanes, heads), by_token(by_value, lanes, heads)], 1)
        key_value.add_gradient(joined.view(lanes * tokens, 2 * width))

    tape.record(backward)
    return out


def _causal(queries: int, tokens: int, device: torch.device) -> Tensor:
    """Return which tokens each of the newest ones sees, bool [queries, tokens]: itself and those before."""
    order = torch.arange(tokens, device=device)
    return order <= order[tokens - queries :].unsqueeze(1)


def quantise_group(x: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return whole numbers, with one scale for each [..., tokens, size] of a lane's head, [groups, 1, 1]."""
    whole, scale = quantise(x.reshape(x.shape[0], -1), 1, most)
    return whole.reshape(x.shape), scale.unsqueeze(2)


def by_token(x: Tensor, lanes: int, heads: int) -> Tensor:
    """Return [lanes * tokens, width] of [lanes * heads, tokens, size]."""
    tokens, size = x.shape[1:]
    return x.view(lanes, heads, tokens, size).transpose(1, 2).reshape(lanes * tokens, heads * size)
