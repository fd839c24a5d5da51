"""The kernels around the softmax against `Frequencies`, to the last bit."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from kernels import DEVICE
from sepzip.exact.kernels import softmax
from sepzip.frequencies import Frequencies

LANES = [1, 3, 8, 9, 65]


def hard_logits(lanes: int) -> Tensor:
    """Return logits: usual ones, all equal, one symbol near certain, spread so wide that most are 0."""
    generator = torch.Generator().manual_seed(lanes)
    logits = torch.randn((lanes, 256), generator=generator) * 3
    logits[1::5] = 2.5
    certain = logits[2::5]
    certain[torch.arange(len(certain)), torch.randint(0, 256, (len(certain),), generator=generator)] = 60.0
    logits[3::5] *= 300
    logits[4::5, :255] = -1e30
    return logits


class Step:
    """The logits of a step and what the kernel made of them."""

    def __init__(self, lanes: int) -> None:
        self.logits = hard_logits(lanes)
        self.whole = torch.empty((lanes, 256), dtype=torch.int32, device=DEVICE)
        self.starts = torch.empty((lanes, 256), dtype=torch.int32, device=DEVICE)
        self.reciprocal = torch.empty(lanes, device=DEVICE)
        softmax.frequencies(self.logits.to(DEVICE), self.whole, self.starts, self.reciprocal)


@cache
def step_of(lanes: int) -> Step:
    """Return the step, made once: the interpreter is slow."""
    return Step(lanes)


@pytest.mark.parametrize("lanes", LANES)
def test_frequencies(lanes: int) -> None:
    step = step_of(lanes)
    plain = Frequencies(step.logits)
    assert torch.equal(step.whole.cpu().long(), plain._whole)
    assert torch.equal(step.starts.cpu().long(), plain.starts())
    reciprocal = plain._total.to(torch.float32).reciprocal().squeeze(1)
    assert torch.equal(step.reciprocal.cpu().view(torch.int32), reciprocal.view(torch.int32))


@pytest.mark.parametrize("lanes, record", [(9, False), *((lanes, True) for lanes in LANES)])
def test_loss_gradient_and_intervals(lanes: int, record: bool) -> None:
    step = step_of(lanes)
    plain = Frequencies(step.logits)
    generator = torch.Generator().manual_seed(7)
    context, row, steps = 5, 2, 4
    history = torch.randint(0, 256, (context + steps, lanes), generator=generator, dtype=torch.uint8)
    # The first and the last symbol, and the most likely one.
    history[context + row, ::4] = 255
    history[context + row, 1::4] = 0
    history[context + row, 2::4] = step.logits[2::4].argmax(1).to(torch.uint8)
    gradient = torch.empty((lanes, 256), device=DEVICE)
    starts = torch.full((steps, lanes), -1, dtype=torch.int32, device=DEVICE)
    frequencies = starts.clone()
    softmax.loss_gradient(
        step.whole,
        step.reciprocal,
        step.starts,
        history.to(DEVICE),
        torch.tensor([row], device=DEVICE),
        context,
        gradient,
        (starts, frequencies) if record else None,
    )
    true = history[context + row].long()
    expected = plain.loss_gradient(true)
    assert torch.equal(gradient.cpu().view(torch.int32), expected.view(torch.int32))
    expected_starts = torch.full((steps, lanes), -1)
    expected_frequencies = expected_starts.clone()
    if record:
        expected_starts[row], expected_frequencies[row] = plain.intervals(true)
    assert torch.equal(starts.cpu().long(), expected_starts)
    assert torch.equal(frequencies.cpu().long(), expected_frequencies)
