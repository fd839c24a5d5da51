"""The fused embedding against the plain one and the plain Adam, to the last bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels import DEVICE
from sepzip.exact.adam import adam
from sepzip.exact.embedding import sigmoid_embedding
from sepzip.exact.kernels.embedding import FusedEmbedding
from sepzip.exact.kernels.parameters import Learner, Parameter
from sepzip.exact.tape import Node, Tape
from sepzip.exact.workspace import Workspace

EPSILON = 2.5e-9
STEPS = 3


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.cpu().view(torch.int32), b.cpu().view(torch.int32))


@pytest.mark.parametrize(
    ("lanes", "context", "size", "symbols", "magnitude"),
    [
        (1, 5, 8, 256, 1.0),
        (3, 16, 3, 4, 1e-3),
        (17, 24, 16, 60, 1e10),
        (64, 7, 1, 1, 1e-30),
        (5, 9, 20, 256, 2.0**-140),
        (2, 6, 8, 256, 0.0),
    ],
)
def test_steps_equal_the_plain_ones(
    lanes: int, context: int, size: int, symbols: int, magnitude: float
) -> None:
    generator = torch.Generator().manual_seed(lanes)
    history = torch.randint(0, symbols, (context + STEPS, lanes), generator=generator).to(torch.uint8)
    plain = (
        torch.randn((256, size), generator=generator),
        torch.zeros((256, size)),
        torch.zeros((256, size)),
    )
    fused = Parameter(*(part.clone().to(DEVICE) for part in plain))
    position = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    step_size = torch.zeros(1, device=DEVICE)
    front = FusedEmbedding(
        fused, history.to(DEVICE), position, context, Learner(step_size, EPSILON), Workspace(DEVICE)
    )
    for step in range(STEPS):
        position.fill_(step)
        step_size.fill_(0.01 / (step + 1))
        tape, table = Tape(), Node(plain[0])
        out = sigmoid_embedding(tape, table, history[step : step + context].to(torch.int64))
        assert _same(front.forward(), out.data)
        gradient = torch.randn(out.data.shape, generator=generator) * magnitude
        out.add_gradient(gradient)
        tape.run_backward()
        adam(*plain, table.take_gradient(), step_size.cpu(), EPSILON)
        front.backward(gradient.to(DEVICE))
        for a, b in zip(fused, plain, strict=True):
            assert _same(a, b)
