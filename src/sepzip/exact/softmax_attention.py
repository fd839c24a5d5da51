"""Attention by softmax (Vaswani et al., 2017), with weights and sums in whole numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .attention import MOST, by_token, quantise_group
from .constants import constant
from .functions import LOG2_E, exp2
from .quantise import INT16_MOST, quantise
from .tape import Node, Tape

__all__ = ["softmax_attention"]

_UNSEEN = -1e30
"""The score of what a query does not see: below all others, so that its weight is 0."""


def softmax_attention(
    tape: Tape, query: Node, key_value: Node, lanes: int, heads: int, distances: Node | None = None
) -> Node:
    """Return what each query of a lane gets from all tokens of the lane, of the shape of `query`.

    query [lanes * queries, width]; key_value [lanes * tokens, 2 * width] holds the key of every token and,
    behind it, its value; `heads` parts of the width attend by themselves. With s = query . key / sqrt(width
    of a head), a query's output is the mean of the values, weighed by exp(s). With `distances`, [at least as
    many as tokens, width], the queries are those of the newest tokens, each sees the tokens up to its own,
    and s = query . (key + the row of `distances` for how far back the token is) / sqrt(width of a head).

    Queries, keys and values are rounded to whole multiples of their largest over 2^11: those of a query by
    themselves, those of keys and values over all tokens of a lane's head, those of distances over all of a
    head's. So are a query's weights, of which the largest is 1: their sum is exact, and their sum with the
    values. Backward, gradients have 16 bits.
    """
    width = query.data.shape[1]
    size = width // heads
    queries, tokens = query.data.shape[0] // lanes, key_value.data.shape[0] // lanes
    groups = lanes * heads
    # Everything below is by lane and head, which are one axis of `groups`.
    asked = query.data.view(lanes, queries, heads, size).transpose(1, 2).reshape(groups, queries, size)
    both = key_value.data.view(lanes, tokens, 2, heads, size).permute(2, 0, 3, 1, 4)
    both = both.reshape(2, groups, tokens, size)
    whole_query, scale_query = quantise(asked, 2, MOST)
    whole_key, scale_key = quantise_group(both[0], MOST)
    whole_value, scale_value = quantise_group(both[1], MOST)
    whole_query, whole_key = whole_query.to(torch.float64), whole_key.to(torch.float64)
    whole_value = whole_value.to(torch.float64)

    steepness = constant(1.0 / math.sqrt(size))
    scores = torch.bmm(whole_query, whole_key.transpose(1, 2)).to(torch.float32)
    scores.mul_(scale_query).mul_(scale_key)
    relative = None
    if distances is not None:
        relative = _Relative(distances, whole_query, scale_query, lanes, tokens)
        scores = relative.add(scores)
    scores.mul_(steepness)
    shifted = (scores - scores.amax(2, keepdim=True)).mul_(constant(LOG2_E))
    weight = exp2(shifted).mul_(constant(float(MOST))).round_().to(torch.float64)
    # [groups, queries, 1]: one division a query and head.
    inverse = weight.sum(2, keepdim=True).to(torch.float32).reciprocal_()
    mean = torch.bmm(weight, whole_value).to(torch.float32).mul_(inverse).mul_(scale_value)
    out = Node(by_token(mean, lanes, heads))

    def backward() -> None:
        gradient = out.take_gradient().view(lanes, queries, heads, size).transpose(1, 2)
        gradient = gradient.reshape(groups, queries, size)
        whole, scale = quantise_group(gradient * inverse, INT16_MOST)
        by_value = torch.bmm(weight.transpose(1, 2), whole.to(torch.float64)).to(torch.float32).mul_(scale)

        # The gradient by a score is its share of the weights times (gradient . value - its mean, so weighed).
        whole, scale = quantise(gradient, 2, INT16_MOST)
        along = torch.bmm(whole.to(torch.float64), whole_value.transpose(1, 2))
        weighed = (weight * along).sum(2, keepdim=True).to(torch.float32).mul_(inverse)
        share = weight.to(torch.float32).mul_(inverse).mul_(steepness)
        by_score = along.to(torch.float32).sub_(weighed).mul_(scale * scale_value).mul_(share)

        whole, scale = quantise(by_score, 2, INT16_MOST)
        by_query = torch.bmm(whole.to(torch.float64), whole_key).to(torch.float32).mul_(scale * scale_key)
        if relative is not None:
            by_query.add_(relative.backward(by_score))
        query.add_gradient(by_token(by_query, lanes, heads))

        whole, scale = quantise_group(by_score * scale_query, INT16_MOST)
        by_key = torch.bmm(whole.to(torch.float64).transpose(1, 2), whole_query)
        by_key = by_key.to(torch.float32).mul_(scale)
        joined = torch.stack([by_token(by_key, lanes, heads), by_token(by_value, lanes, heads)], 1)
        key_value.add_gradient(joined.view(lanes * tokens, 2 * width))

    tape.record(backward)
    return out


class _Relative:
    """The part of the scores that comes from how far back a token is, and its gradients."""

    def __init__(
        self, distances: Node, whole_query: Tensor, scale_query: Tensor, lanes: int, tokens: int
    ) -> None:
        """Take the queries, whole [lanes * heads, queries, size] as float64 with their scale."""
        groups, queries, size = whole_query.shape
        self._shape = (lanes, groups // lanes, queries, size)
        self._distances = distances
        self._whole_query, self._scale_query = whole_query, scale_query
        by_head = distances.data[:tokens].view(tokens, -1, size).transpose(0, 1)
        whole, self._scale = quantise_group(by_head, MOST)  # [heads, tokens, size], [heads, 1, 1]
        self._whole = whole.to(torch.float64)
        # For a query, the distance of a place and the place at a distance are alike: its own place less that.
        order = torch.arange(tokens, device=whole.device)
        own = order[tokens - queries :].unsqueeze(1)
        self._seen = order <= own
        self._apart = (own - order).clamp_(min=0)

    def add(self, scores: Tensor) -> Tensor:
        """Return the scores, [lanes * heads, queries, tokens], with this part; so low where none is seen."""
        sums = (
            torch.bmm(self._by_head(self._whole_query), self._whole.transpose(1, 2))
            .to(torch.float32)
            .mul_(self._scale)
        )
        of_distance = self._by_group(sums) * self._scale_query
        part = of_distance.gather(2, self._apart.expand(len(scores), -1, -1))
        return torch.where(self._seen, scores + part, _UNSEEN)

    def backward(self, by_score: Tensor) -> Tensor:
        """Return the gradient by the queries, and add that by the distances."""
        by_distance = by_score.gather(2, self._apart.expand(len(by_score), -1, -1))
        by_distance = torch.where(self._seen, by_distance, 0.0)

        whole, scale = quantise(by_distance, 2, INT16_MOST)
        by_query = torch.bmm(self._by_head(whole.to(torch.float64)), self._whole).to(torch.float32)
        by_query = self._by_group(by_query.mul_(self._scale)) * scale

        whole, scale = quantise_group(self._by_head(by_distance * self._scale_query), INT16_MOST)
        asked = self._by_head(self._whole_query)
        sums = torch.bmm(whole.to(torch.float64).transpose(1, 2), asked).to(torch.float32).mul_(scale)
        gradient = torch.zeros_like(self._distances.data)
        tokens = sums.shape[1]
        gradient[:tokens] = sums.transpose(0, 1).reshape(tokens, -1)
        self._distances.add_gradient(gradient)
        return by_query

    def _by_head(self, x: Tensor) -> Tensor:
        """Return [heads, lanes * queries, n] of [lanes * heads, queries, n]."""
        lanes, heads, queries, _ = self._shape
        return x.view(lanes, heads, queries, -1).transpose(0, 1).reshape(heads, lanes * queries, -1)

    def _by_group(self, x: Tensor) -> Tensor:
        """Return [lanes * heads, queries, n] of [heads, lanes * queries, n]."""
        lanes, heads, queries, _ = self._shape
        return x.view(heads, lanes, queries, -1).transpose(0, 1).reshape(lanes * heads, queries, -1)
