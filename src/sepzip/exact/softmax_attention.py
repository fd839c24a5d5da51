"""Attention by softmax (Vaswani et al., 2017), with weights and sums in whole numbers."""

from __future__ import annotations

import math

import torch

from .attention import MOST, by_token, quantise_group
from .constants import constant
from .functions import LOG2_E, exp2
from .quantise import INT16_MOST, quantise
from .tape import Node, Tape

__all__ = ["softmax_attention"]


def softmax_attention(tape: Tape, query: Node, key_value: Node, lanes: int, heads: int) -> Node:
    """Return what each query of a lane gets from all tokens of the lane, of the shape of `query`.

    query [lanes * queries, width]; key_value [lanes * tokens, 2 * width] holds the key of every token and,
    behind it, its value; `heads` parts of the width attend by themselves. With s = query . key / sqrt(width
    of a head), a query's output is the mean of the values, weighed by exp(s).

    Queries, keys and values are rounded to whole multiples of their largest over 2^11: those of a query by
    themselves, those of keys and values over all tokens of a lane's head. So are a query's weights, of which
    the largest is 1: their sum is exact, and their sum with the values. Backward, gradients have 16 bits.
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
    scores.mul_(scale_query).mul_(scale_key).mul_(steepness)
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
        query.add_gradient(by_token(by_query, lanes, heads))

        whole, scale = quantise_group(by_score * scale_query, INT16_MOST)
        by_key = torch.bmm(whole.to(torch.float64).transpose(1, 2), whole_query)
        by_key = by_key.to(torch.float32).mul_(scale)
        joined = torch.stack([by_token(by_key, lanes, heads), by_token(by_value, lanes, heads)], 1)
        key_value.add_gradient(joined.view(lanes * tokens, 2 * width))

    tape.record(backward)
    return out
