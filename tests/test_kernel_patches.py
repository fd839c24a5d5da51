"""The fused semantics enhancement block against the plain one and the plain Adam, to the last bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels import DEVICE
from sepzip.exact.adam import adam
from sepzip.exact.initialise import Initialiser
from sepzip.exact.kernels.parameters import Learner, Parameter
from sepzip.exact.kernels.patches import FusedSemantics
from sepzip.exact.tape import Parameters, Tape
from sepzip.exact.workspace import Workspace
from sepzip.presets import ModelSettings
from sepzip.semantics import SemanticsEnhancement

EPSILON = 2.5e-9
SHARPNESS = 10.0


class _Both:
    """A plain block and a fused one of the same weights, which read the same bytes."""

    def __init__(self, settings: ModelSettings, history: Tensor, spread: float) -> None:
        self.history = history
        self.context = settings.context
        self.parameters = Parameters(torch.device("cpu"))
        self.plain = SemanticsEnhancement(settings, self.parameters, Initialiser(7, torch.device("cpu")))
        self.parameters.seal()
        self.parameters.make_gradients()
        flat = self.parameters.data
        flat.add_(torch.randn(flat.shape, generator=torch.Generator().manual_seed(3)) * spread)
        self.state = (flat, torch.zeros_like(flat), torch.zeros_like(flat))
        self.fused_state = tuple(part.clone().to(DEVICE) for part in self.state)
        self.position = torch.zeros(1, dtype=torch.int64, device=DEVICE)
        self.size = torch.zeros(1, device=DEVICE)
        table, weight, bias, mask = (self._parameter(name) for name in ("table", "weight", "bias", "mask"))
        self.fused = FusedSemantics(
            table,
            weight,
            bias,
            mask,
            self.plain.kept.to(DEVICE),
            SHARPNESS,
            settings.patch,
            history.to(DEVICE),
            self.position,
            Learner(self.size, EPSILON),
            Workspace(DEVICE),
        )

    def _parameter(self, name: str) -> Parameter:
        plain: Tensor = getattr(self.plain, name).data
        first, last = plain.storage_offset(), plain.storage_offset() + plain.numel()
        return Parameter(*(part[first:last].view(plain.shape) for part in self.fused_state))

    def step(self, number: int, gradient: Tensor) -> None:
        """Take a step with both, and check that their results and states are equal."""
        self.position.fill_(number)
        self.size.fill_(0.05 / (number + 1))
        tape = Tape()
        self.parameters.begin_step()
        out = self.plain.forward(tape, self.history[number : number + self.context].to(torch.int64))
        assert _same(self.fused.forward(), out.data)
        out.add_gradient(gradient)
        tape.run_backward()
        self.parameters.end_step()
        adam(*self.state, self.parameters.grad, self.size.cpu(), EPSILON)
        self.fused.backward(gradient.to(DEVICE))
        for fused, plain in zip(self.fused_state, self.state, strict=True):
            assert _same(fused, plain)


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.cpu().view(torch.int32), b.cpu().view(torch.int32))


@pytest.mark.parametrize(
    ("lanes", "context", "patch", "stride", "embedding", "symbols", "spread"),
    [
        (1, 5, 1, 1, 1, 256, 0.0),
        (3, 16, 8, 4, 8, 4, 0.5),
        (17, 24, 12, 8, 16, 60, 0.1),
        (64, 9, 3, 100, 3, 1, 2.0),
        (5, 12, 12, 2, 8, 256, 1.0),
        (3, 40, 16, 8, 16, 20, 0.3),
    ],
)
def test_steps_equal_the_plain_ones(
    lanes: int, context: int, patch: int, stride: int, embedding: int, symbols: int, spread: float
) -> None:
    generator = torch.Generator().manual_seed(lanes)
    settings = ModelSettings(context=context, patch=patch, stride=stride, embedding=embedding)
    history = torch.randint(0, symbols, (context + 3, lanes), generator=generator).to(torch.uint8)
    both = _Both(settings, history, spread)
    for number in range(3):
        both.step(number, torch.randn((lanes, patch * embedding), generator=generator))


def test_gradients_of_every_size() -> None:
    generator = torch.Generator().manual_seed(5)
    settings = ModelSettings(context=10, patch=4, stride=3, embedding=8)
    history = torch.randint(0, 9, (16, 7), generator=generator).to(torch.uint8)
    both = _Both(settings, history, 0.5)
    gradient = torch.randn((7, 32), generator=generator)
    for number, magnitude in enumerate((0.0, 2.0**-140, 1e-25, 1e12, 1.0)):
        both.step(number, gradient * magnitude)


def test_weights_and_scores_far_out() -> None:
    """Tables that squash to 0 and to 1, and weights so large that the activation is at its edge."""
    generator = torch.Generator().manual_seed(6)
    settings = ModelSettings(context=10, patch=4, stride=3, embedding=8)
    history = torch.randint(0, 256, (13, 9), generator=generator).to(torch.uint8)
    both = _Both(settings, history, 40.0)
    for number in range(3):
        both.step(number, torch.randn((9, 32), generator=generator))
