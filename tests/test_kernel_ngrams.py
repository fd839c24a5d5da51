"""The kernels of n-grams against the plain rows, gates, layer and loss, to the last bit."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from kernels import DEVICE
from sepzip.exact.adagrad import Slowing
from sepzip.exact.contexts import Contexts
from sepzip.exact.gates import gated
from sepzip.exact.kernels.digits import Digits
from sepzip.exact.kernels.own_loss import FusedOwnLoss
from sepzip.exact.kernels.rows import FusedRows
from sepzip.exact.kernels.slowing import slowing_update
from sepzip.exact.own_loss import OwnLoss
from sepzip.exact.product import split_digits
from sepzip.exact.quantise import INT8_MOST, INT16_MOST, quantise
from sepzip.exact.rows import EXPERIENCES, Rows
from sepzip.exact.softmax import exponentials, loss_gradient
from sepzip.exact.tape import Node, Tape
from sepzip.exact.workspace import Workspace

STEPS = 4


def _same(a: Tensor, b: Tensor) -> bool:
    a, b = a.cpu().contiguous(), b.cpu().contiguous()
    return a.dtype == b.dtype and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def _given(x: Tensor) -> Tensor:
    return x


class _Plain:
    """Contexts, their rows and gates, on a device."""

    def __init__(self, numbers: tuple[int, ...], bits: int, size: int, device: torch.device) -> None:
        self.contexts = Contexts(numbers, bits, device)
        self.rows = Rows(len(numbers) << bits, size, 0.1, device)
        self.gates = Slowing(torch.ones(len(numbers) * EXPERIENCES, device=device), 0.3)

    @property
    def state(self) -> list[Tensor]:
        """All that is learnt, and the sums, which are zero between steps."""
        return [
            *(self.rows.data, self.rows.squares, self.rows.sums),
            *(self.gates.node.data, self.gates.squares),
        ]

    def step(self, context: Tensor, gradient: Tensor) -> Tensor:
        """Return the gated rows, [lanes, contexts * size], of context int64 [bytes, lanes], and learn."""
        tape, slots = Tape(), self.contexts.slots(context)
        flat = slots.t().reshape(-1)
        first = torch.arange(len(slots)) * EXPERIENCES
        which = (self.rows.experience(flat).view(-1, len(slots)) + first).view(-1)
        passed = gated(tape, self.rows.look_up(tape, flat), which, self.gates.on(tape))
        out = passed.data.view(context.shape[1], -1).clone()
        passed.add_gradient(gradient.view(passed.data.shape))
        tape.run_backward()
        return out


@pytest.mark.parametrize(
    ("lanes", "numbers", "bits", "size", "symbols", "magnitude"),
    [
        # All lanes meet in a few rows, in one, or in none.
        (70, (1, 3, 0b1000_0000), 8, 3, 2, 1.0),
        (33, (1, 2, 4, 8, 16), 8, 16, 1, 1e-3),
        (1, (0xFFFF, 1), 10, 1, 256, 1e4),
        (5, (1, 3, 7, 15, 31, 2, 8, 10, 128), 9, 16, 256, 1.0),
        (3, (6,), 8, 64, 40, 1e-12),
        (4, (1, 3), 8, 5, 3, 2.0**-140),
        (2, (1, 3), 8, 5, 3, 0.0),
    ],
)
def test_rows_and_gates(
    lanes: int, numbers: tuple[int, ...], bits: int, size: int, symbols: int, magnitude: float
) -> None:
    generator = torch.Generator().manual_seed(lanes)
    plain, fused = (_Plain(numbers, bits, size, device) for device in (torch.device("cpu"), DEVICE))
    depth = plain.contexts.depth
    history = torch.randint(0, symbols, (depth + STEPS, lanes), generator=generator).to(torch.uint8)
    position = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    kernels = FusedRows(
        fused.contexts, fused.rows, fused.gates, history.to(DEVICE), position, Workspace(DEVICE)
    )
    for step in range(STEPS):
        position.fill_(step)
        # Of different sizes, and now and then of nothing but zeros.
        spread = 4.0 ** torch.randint(-4, 5, (lanes, 1), generator=generator)
        gradient = torch.randn((lanes, len(numbers) * size), generator=generator) * spread * magnitude
        gradient[3::7] = 0.0
        kernels.forward()
        expected = plain.step(history[step : step + depth].to(torch.int64), gradient)
        whole, scale = quantise(expected, 1, INT8_MOST)
        assert _same(kernels.whole, whole.to(torch.int8))
        assert _same(kernels.scale, scale.view(-1))
        kernels.backward(gradient.to(DEVICE))
        assert all(_same(*pair) for pair in zip(fused.state, plain.state, strict=True))
    assert magnitude < 1e-30 or plain.rows.data.any()


@pytest.mark.parametrize(
    ("lanes", "inputs", "outputs"), [(1, 1, 1), (5, 33, 17), (130, 144, 256), (3, 256, 40), (40, 7, 256)]
)
def test_a_weight_that_learns_ever_more_slowly(lanes: int, inputs: int, outputs: int) -> None:
    generator = torch.Generator().manual_seed(inputs)
    start = torch.randn((inputs, outputs), generator=generator)
    start[:, 1::3] = 0.0
    plain, fused = Slowing(start.clone(), 0.05), Slowing(start.to(DEVICE), 0.05)
    by_input = torch.empty((inputs, outputs), dtype=torch.int8, device=DEVICE)
    by_output = torch.empty((outputs, inputs), dtype=torch.int8, device=DEVICE)
    scale_weight = torch.empty(outputs, device=DEVICE)
    for _ in range(3):
        x = torch.randint(-127, 128, (inputs, lanes), generator=generator)
        gradient = torch.randn((lanes, outputs), generator=generator)
        gradient[:, 2::5] = 0.0
        whole, scale = quantise(gradient, 0, INT16_MOST)
        tape = Tape()
        sums = x @ whole.to(torch.int64)
        plain.on(tape).add_gradient(sums.to(torch.float32) * scale)
        tape.run_backward()
        digits = [digit.t().contiguous().to(torch.int8).to(DEVICE) for digit in split_digits(whole)]
        slowing_update(
            x.to(torch.int8).to(DEVICE),
            Digits(digits[0], digits[1], scale.view(-1).to(DEVICE)),
            fused,
            by_input,
            by_output,
            scale_weight,
        )
        assert _same(fused.node.data, plain.node.data)
        assert _same(fused.squares, plain.squares)
        whole, scale = quantise(plain.node.data, 0, INT8_MOST)
        assert _same(by_input, whole.to(torch.int8))
        assert _same(by_output, whole.t().to(torch.int8))
        assert _same(scale_weight, scale.view(-1))


def test_a_weight_of_too_many_inputs_is_refused() -> None:
    x, digit = (torch.zeros(shape, dtype=torch.int8) for shape in ((257, 4), (3, 4)))
    with pytest.raises(ValueError, match="257 inputs"):
        slowing_update(x, Digits(digit, digit, torch.ones(3)), Slowing(torch.ones(257, 3), 0.1), x, x, x)


@pytest.mark.parametrize("gain", [0.0, 0.15, 0.19, 0.9])
@pytest.mark.parametrize(("lanes", "size"), [(1, 3.0), (6, 0.0), (67, 0.2), (5, 60.0)])
def test_own_loss(lanes: int, size: float, gain: float) -> None:
    generator, context = torch.Generator().manual_seed(lanes), 2
    plain, fused = OwnLoss(torch.device("cpu")), OwnLoss(DEVICE)
    for loss in (plain, fused):
        loss.gain.fill_(gain)
    history = torch.randint(0, 256, (context + STEPS, lanes), generator=generator).to(torch.uint8)
    position = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    kernels = FusedOwnLoss(fused, lanes, Workspace(DEVICE))
    for step in range(STEPS):
        position.fill_(step)
        symbols = history[context + step].to(torch.int64)
        tape, logits = Tape(), Node(4 * torch.randn((lanes, 256), generator=generator))
        added = Node(size * torch.randn((lanes, 256), generator=generator))
        out = plain.add(tape, logits, added, partial(_given, symbols))
        joint = loss_gradient(*exponentials(out.data), symbols)
        out.add_gradient(joint)
        tape.run_backward()
        result = torch.empty((lanes, 256), device=DEVICE)
        kernels.clear()
        kernels.gradient(
            logits.data.to(DEVICE), joint.to(DEVICE), history.to(DEVICE), position, context, result
        )
        kernels.finish()
        assert _same(result, logits.take_gradient())
        assert _same(fused.gain, plain.gain)
