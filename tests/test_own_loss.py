"""What a network learns by: its own loss, that of its logits with something added, or both."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sepzip.exact.guard import ExactOnly
from sepzip.exact.own_loss import OwnLoss
from sepzip.exact.tape import Node, Tape
from sepzip.frequencies import Frequencies
from test_exact import random

SYMBOLS = torch.tensor([0, 255, 7, 7, 100])


def _learn(gain: float, size: float) -> tuple[OwnLoss, Tensor, Tensor, Tensor, Tensor]:
    """Return the loss, both logits, and the gradients by each."""
    loss, tape = OwnLoss(torch.device("cpu")), Tape()
    loss.gain.fill_(gain)
    logits, added = Node(random(5, 256, seed=1)), Node(random(5, 256, seed=2).mul_(size))
    out = loss.add(tape, logits, added, lambda: SYMBOLS)
    with torch.inference_mode(), ExactOnly():
        out.add_gradient(Frequencies(out.data).loss_gradient(SYMBOLS))
        tape.run_backward()
    return loss, logits.data, added.data, logits.take_gradient(), added.take_gradient()


@pytest.mark.parametrize(("gain", "share"), [(0.0, 1.0), (-0.5, 1.0), (0.1, 1.0), (0.25, 0.0), (0.9, 0.0)])
def test_the_ends(gain: float, share: float) -> None:
    _, logits, added, by_logits, by_added = _learn(gain, 1.0)
    joint = Frequencies(logits + added).loss_gradient(SYMBOLS)
    own = Frequencies(logits).loss_gradient(SYMBOLS)
    assert not torch.equal(own, joint)
    assert torch.equal(by_logits, own if share else joint)
    assert torch.equal(by_added, joint)


def test_between_them() -> None:
    loss, logits, added, by_logits, _ = _learn(0.17, 1.0)
    share = (0.2 - float(loss.gain)) / 0.08
    assert 0.2 < share < 0.8
    joint = Frequencies(logits + added).loss_gradient(SYMBOLS)
    own = Frequencies(logits).loss_gradient(SYMBOLS)
    torch.testing.assert_close(by_logits, share * own + (1 - share) * joint, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [0.0, 0.1, 3.0, 60.0])
def test_the_gain_is_the_mean_over_rows(size: float) -> None:
    loss, logits, added, _, _ = _learn(0.1, size)
    p, q = (x.double().softmax(1).gather(1, SYMBOLS.unsqueeze(1)).view(-1) for x in (logits, logits + added))
    expected = 0.098 + 0.02 * float(((q - p) / (q + p + 2**-24)).mean())
    assert float(loss.gain) == pytest.approx(expected, abs=2e-6)
