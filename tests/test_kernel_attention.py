"""The kernels of linear attention and of that by softmax against the plain ones, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from kernels import DEVICE
from sepzip.exact.attention import linear_attention
from sepzip.exact.kernels import attention, softmax_attention
from sepzip.exact.softmax_attention import softmax_attention as plain_softmax_attention
from sepzip.exact.tape import Node, Tape


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.cpu().view(torch.int32), b.cpu().view(torch.int32))


def _largest(x: Tensor) -> Tensor:
    """Return the bits of each row's largest size."""
    return x.abs().amax(1).view(torch.int32)


LINEAR = linear_attention, attention
SOFTMAX = plain_softmax_attention, softmax_attention


@pytest.mark.parametrize(
    ("kind", "lanes", "queries", "tokens", "heads", "size", "magnitude"),
    [
        (LINEAR, 1, 1, 1, 1, 1, 1.0),
        (LINEAR, 3, 1, 16, 2, 32, 1.0),
        (LINEAR, 3, 4, 4, 3, 5, 1.0),
        (LINEAR, 2, 2, 7, 2, 3, 1e3),
        (LINEAR, 2, 3, 3, 1, 4, 1e-25),
        (LINEAR, 1, 2, 5, 2, 3, 0.0),
        # The longest sums of the largest numbers.
        (LINEAR, 1, 32, 32, 1, 32, 1.0),
        (SOFTMAX, 1, 1, 1, 1, 1, 1.0),
        (SOFTMAX, 2, 16, 16, 2, 32, 1.0),
        (SOFTMAX, 3, 4, 4, 3, 5, 1.0),
        # Scores so far apart that one weight alone is not 0.
        (SOFTMAX, 2, 7, 7, 2, 3, 1e3),
        (SOFTMAX, 1, 3, 3, 1, 4, 1e-25),
        (SOFTMAX, 1, 5, 5, 2, 3, 0.0),
        (SOFTMAX, 1, 32, 32, 1, 32, 1.0),
    ],
)
def test_attention(
    kind: tuple[Callable[..., Node], ModuleType],
    lanes: int,
    queries: int,
    tokens: int,
    heads: int,
    size: int,
    magnitude: float,
) -> None:
    plain, kernels = kind
    generator = torch.Generator().manual_seed(tokens)
    width = heads * size
    query = torch.randn((lanes * queries, width), generator=generator) * magnitude
    key_value = torch.randn((lanes * tokens, 2 * width), generator=generator) * magnitude
    gradient = torch.randn((lanes * queries, width), generator=generator)
    if tokens == 32:
        query, key_value, gradient = (torch.ones_like(x) for x in (query, key_value, gradient))
        key_value[1::2, width:] = -1.0
    query[: queries // 2, 1:] = 0.0
    tape, nodes = Tape(), (Node(query), Node(key_value))
    out = plain(tape, *nodes, lanes, heads)
    expected = out.data.clone()
    out.add_gradient(gradient)
    tape.run_backward()
    assert nodes[0].grad is not None and nodes[1].grad is not None

    fused_query, fused_key_value = query.to(DEVICE), key_value.to(DEVICE)
    fused = torch.full_like(fused_query, 9.0)
    kernels.attend(fused_query, fused_key_value, fused, lanes, heads)
    assert _same(fused, expected)
    by_query, by_key_value = torch.full_like(fused_query, 9.0), torch.full_like(fused_key_value, 9.0)
    scales = [torch.rand(count, generator=generator) for count in (width, 2 * width)]
    scale_query, scale_key_value = (scale.to(DEVICE) for scale in scales)
    largest = [torch.zeros(len(x), dtype=torch.int32, device=DEVICE) for x in (query, key_value)]
    kernels.attend_backward(
        gradient.to(DEVICE),
        fused_query,
        fused_key_value,
        by_query,
        by_key_value,
        scale_query,
        scale_key_value,
        largest[0],
        largest[1],
        lanes,
        heads,
    )
    for result, node, scale, bits in zip((by_query, by_key_value), nodes, scales, largest, strict=True):
        assert node.grad is not None
        assert _same(result, node.grad)
        assert torch.equal(bits.cpu(), _largest(node.grad * scale))
