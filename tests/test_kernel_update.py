"""The fused weight gradients and updates against the plain layers and the plain Adam, to the last bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels import DEVICE
from sepzip.exact.adam import adam
from sepzip.exact.kernels.column_tasks import ColumnTasks
from sepzip.exact.kernels.digits import Digits, RowDigits, gradient_digits
from sepzip.exact.kernels.lane_update import lane_update
from sepzip.exact.kernels.parameters import Learner, Parameter
from sepzip.exact.kernels.quantise import quantise_weight
from sepzip.exact.kernels.weight_update import (
    WHOLE_COLUMNS,
    summed_update,
    weight_parts,
    weight_sums,
    weight_update,
)
from sepzip.exact.layer_norm import layer_norm
from sepzip.exact.linear import lane_linear, linear
from sepzip.exact.product import split_digits
from sepzip.exact.quantise import INT8_MOST, INT16_MOST, exact_sum, quantise
from sepzip.exact.tape import Node, Tape

EPSILON = 2.5e-9
STEPS = 2

MANY = WHOLE_COLUMNS + 5


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.cpu().contiguous().view(torch.int32), b.cpu().contiguous().view(torch.int32))


def _uneven(generator: torch.Generator, *shape: int) -> Tensor:
    """Return numbers whose rows and columns are of different sizes, now and then of nothing but zeros."""
    rows = torch.randint(-6, 7, (*shape[:-1], 1), generator=generator)
    columns = torch.randint(-6, 7, shape[-1:], generator=generator)
    numbers = torch.randn(shape, generator=generator) * 4.0 ** (rows + columns)
    numbers[3::7] = 0.0
    numbers[..., 2::5] = 0.0
    return numbers


class _Both:
    """A weight and its moments, for the plain Adam and for a kernel."""

    def __init__(self, weight: Tensor) -> None:
        self.plain = Parameter(weight, torch.zeros_like(weight), torch.zeros_like(weight))
        self.fused = Parameter(*(part.clone().to(DEVICE) for part in self.plain))

    def learn(self, gradient: Tensor | None, learner: Learner) -> None:
        """Update the plain one."""
        assert gradient is not None
        adam(*self.plain, gradient, learner.size.cpu(), learner.epsilon)

    @property
    def are_same(self) -> bool:
        """Whether both have come to the same bits."""
        return all(_same(plain, fused) for plain, fused in zip(self.plain, self.fused, strict=True))


def _learner() -> Learner:
    return Learner(torch.full((1,), 0.01, device=DEVICE), EPSILON)


def _int8(*shape: int) -> Tensor:
    return torch.full(shape, 9, dtype=torch.int8, device=DEVICE)


# Lanes, inputs, outputs: one of each, nothing a multiple of anything, several chunks of lanes, and weights
# that are quantised in a second pass.
SIZES = [(1, 1, 1), (3, 20, 40), (33, 7, 70), (130, 40, 33), (70, 256, 3), (5, MANY, 35), (67, MANY, 1)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("from_largest", [False, True])
def test_shared_layer(sizes: tuple[int, int, int], from_largest: bool) -> None:
    lanes, inputs, outputs = sizes
    generator = torch.Generator().manual_seed(lanes)
    learner = _learner()
    weight, bias = (
        _Both(_uneven(generator, inputs, outputs)),
        _Both(torch.randn(outputs, generator=generator)),
    )
    digits = Digits(
        _int8(outputs, lanes), _int8(outputs, lanes), torch.empty(outputs, dtype=torch.float32, device=DEVICE)
    )
    by_input, by_output = _int8(inputs, outputs), _int8(outputs, inputs)
    scale_weight = torch.empty(outputs, device=DEVICE)
    column_largest = torch.full((outputs,), 1 << 30, dtype=torch.int32, device=DEVICE)
    for _ in range(STEPS):
        x, gradient = _uneven(generator, lanes, inputs), _uneven(generator, lanes, outputs)
        _, scale_before = quantise(weight.plain.weight, 0, INT8_MOST)
        tape, nodes = Tape(), (Node(x), Node(weight.plain.weight), Node(bias.plain.weight))
        linear(tape, *nodes).add_gradient(gradient)
        tape.run_backward()
        weight.learn(nodes[1].grad, learner)
        bias.learn(nodes[2].grad, learner)

        whole_x, scale_x = quantise(x, 1, INT8_MOST)
        by_lane = x.abs().amax(1).view(torch.int32) if from_largest else scale_x.squeeze(1)
        scaled = gradient * scale_before
        rows = RowDigits(
            scale_before.squeeze(0).to(DEVICE),
            scaled.abs().amax(1).view(torch.int32).to(DEVICE),
            _int8(lanes, outputs),
            _int8(lanes, outputs),
        )
        gradient_digits(
            gradient.to(DEVICE),
            by_lane.to(DEVICE),
            digits,
            bias.fused,
            learner,
            None if from_largest else rows,
        )
        columns, scale = quantise(gradient * scale_x, 0, INT16_MOST)
        for digit, expected in zip((digits.high, digits.low), split_digits(columns.t()), strict=True):
            assert torch.equal(digit.cpu().to(torch.float32), expected)
        assert _same(digits.scale, scale.squeeze(0))
        if not from_largest:
            for digit, expected in zip(
                (rows.high, rows.low), split_digits(quantise(scaled, 1, INT16_MOST)[0]), strict=True
            ):
                assert torch.equal(digit.cpu().to(torch.float32), expected)
        assert bias.are_same

        weight_update(
            whole_x.t().contiguous().to(torch.int8).to(DEVICE),
            digits,
            weight.fused,
            learner,
            by_input,
            by_output,
            scale_weight,
            column_largest,
        )
        assert weight.are_same
        if inputs > WHOLE_COLUMNS:
            largest = weight.plain.weight.abs().amax(0)
            assert torch.equal(column_largest.cpu(), largest.view(torch.int32))
            quantise_weight(weight.fused.weight, column_largest, by_input, by_output, scale_weight)
        whole, scale = quantise(weight.plain.weight, 0, INT8_MOST)
        assert torch.equal(by_input.cpu().to(torch.float32), whole)
        assert torch.equal(by_output.cpu().to(torch.float32), whole.t())
        assert _same(scale_weight, scale.squeeze(0))


@pytest.mark.parametrize(("lanes", "inputs", "outputs"), [(1, 1, 1), (600, 70, 33)])
def test_update_by_sums_in_parts(lanes: int, inputs: int, outputs: int) -> None:
    generator = torch.Generator().manual_seed(lanes)
    learner, weight = _learner(), _Both(_uneven(generator, inputs, outputs))
    by_input, by_output = _int8(inputs, outputs), _int8(outputs, inputs)
    scale_weight = torch.empty(outputs, device=DEVICE)
    x, gradient = _uneven(generator, lanes, inputs), _uneven(generator, lanes, outputs)
    tape, nodes = Tape(), (Node(x), Node(weight.plain.weight), Node(torch.zeros(outputs)))
    linear(tape, *nodes).add_gradient(gradient)
    tape.run_backward()
    weight.learn(nodes[1].grad, learner)

    whole_x, scale_x = quantise(x, 1, INT8_MOST)
    columns, scale = quantise(gradient * scale_x, 0, INT16_MOST)
    high, low = (digit.to(torch.int8).to(DEVICE) for digit in split_digits(columns.t().contiguous()))
    digits = Digits(high, low, scale.squeeze(0).to(DEVICE))
    shape = (-(-lanes // 256), inputs, outputs)
    sums = [torch.full(shape, 9, dtype=torch.int32, device=DEVICE) for _ in range(2)]
    weight_sums(whole_x.t().to(torch.int8).contiguous().to(DEVICE), digits, sums[0], sums[1])
    summed_update(sums[0], sums[1], digits.scale, weight.fused, learner, by_input, by_output, scale_weight)
    assert weight.are_same
    whole, scale = quantise(weight.plain.weight, 0, INT8_MOST)
    assert torch.equal(by_input.cpu().to(torch.float32), whole)
    assert torch.equal(by_output.cpu().to(torch.float32), whole.t())
    assert _same(scale_weight, scale.squeeze(0))


def test_which_weights_are_summed_in_parts() -> None:
    """Those of few tiles and many rows."""
    assert weight_parts(256, 256, 8192) == 16 and weight_parts(256, 512, 8192) == 8
    assert weight_parts(256, 256, 512) == weight_parts(256, 4096, 8192) == 1


def test_biases_of_wide_layers() -> None:
    """Beyond 1,024 outputs a program takes more columns."""
    lanes, outputs = 3, 1030
    generator = torch.Generator().manual_seed(1)
    gradient, scale_x = _uneven(generator, lanes, outputs), torch.rand(lanes, generator=generator)
    bias, learner = _Both(torch.randn(outputs, generator=generator)), _learner()
    digits = Digits(_int8(outputs, lanes), _int8(outputs, lanes), torch.empty(outputs, device=DEVICE))
    gradient_digits(gradient.to(DEVICE), scale_x.to(DEVICE), digits, bias.fused, learner)
    bias.learn(exact_sum(gradient, 0).squeeze(0), learner)
    assert bias.are_same
    columns, scale = quantise(gradient * scale_x[:, None], 0, INT16_MOST)
    for digit, expected in zip((digits.high, digits.low), split_digits(columns.t()), strict=True):
        assert torch.equal(digit.cpu().to(torch.float32), expected)
    assert _same(digits.scale, scale.squeeze(0))


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (70, 33), (MANY, 130)])
def test_quantise_weight(inputs: int, outputs: int) -> None:
    weight = _uneven(torch.Generator().manual_seed(inputs), inputs, outputs)
    by_input, by_output = _int8(inputs, outputs), _int8(outputs, inputs)
    scale_weight = torch.empty(outputs, device=DEVICE)
    largest = weight.abs().amax(0).view(torch.int32).to(DEVICE)
    quantise_weight(weight.to(DEVICE), largest, by_input, by_output, scale_weight)
    whole, scale = quantise(weight, 0, INT8_MOST)
    assert torch.equal(by_input.cpu().to(torch.float32), whole)
    assert torch.equal(by_output.cpu().to(torch.float32), whole.t())
    assert _same(scale_weight, scale.squeeze(0))


@pytest.mark.parametrize("programs", [None, 1, 3])
@pytest.mark.parametrize(("lanes", "width"), [(1, 1), (37, 2), (3, 20), (2, 33), (2, 130)])
def test_lane_layer(lanes: int, width: int, programs: int | None) -> None:
    generator = torch.Generator().manual_seed(width)
    learner = _learner()
    weight = _Both(_uneven(generator, lanes, width, width))
    bias = _Both(torch.randn((lanes, width), generator=generator))
    whole_weight, scale_weight = _int8(lanes, width, width), torch.empty((lanes, width), device=DEVICE)
    for _ in range(STEPS):
        x, gradient = _uneven(generator, lanes, width), _uneven(generator, lanes, width)
        tape, nodes = Tape(), (Node(x), Node(weight.plain.weight), Node(bias.plain.weight))
        lane_linear(tape, *nodes).add_gradient(gradient)
        tape.run_backward()
        weight.learn(nodes[1].grad, learner)
        bias.learn(nodes[2].grad, learner)
        lane_update(
            x.to(DEVICE),
            gradient.to(DEVICE),
            weight.fused,
            bias.fused,
            learner,
            whole_weight,
            scale_weight,
            programs,
        )
        assert weight.are_same and bias.are_same
        whole, scale = quantise(weight.plain.weight, 1, INT8_MOST)
        assert torch.equal(whole_weight.cpu().to(torch.float32), whole)
        assert _same(scale_weight, scale.squeeze(1))


@pytest.mark.parametrize("lanes", [1, 37, 64, 65, 130, 200])
def test_column_tasks(lanes: int) -> None:
    """Norms and biases of several widths in one launch."""
    generator = torch.Generator().manual_seed(lanes)
    learner = _learner()
    widths = [1, 16, 33, 20]
    gains = [_Both(torch.randn(width, generator=generator)) for width in widths]
    offsets = [_Both(torch.randn(width, generator=generator)) for width in widths]
    gradients = [torch.empty((lanes, width), device=DEVICE) for width in widths]
    normals = [torch.empty((lanes, width), device=DEVICE) for width in widths]
    tasks = ColumnTasks(lanes)
    for gain, offset, gradient, normal in zip(gains[:3], offsets, gradients, normals, strict=False):
        tasks.add(gradient, offset.fused, normal, gain.fused)
    tasks.add(gradients[3], offsets[3].fused)
    for _ in range(STEPS):
        for index, (gain, offset) in enumerate(zip(gains, offsets, strict=True)):
            gradient = _uneven(generator, lanes, widths[index])
            gradients[index].copy_(gradient)
            if index == 3:
                offset.learn(exact_sum(gradient, 0).squeeze(0), learner)
                continue
            x = torch.randn((lanes, widths[index]), generator=generator)
            normals[index].copy_(layer_norm(Tape(), Node(x)).data)
            tape, by_gain, by_offset = Tape(), Node(gain.plain.weight), Node(offset.plain.weight)
            layer_norm(tape, Node(x), by_gain, by_offset).add_gradient(gradient)
            tape.run_backward()
            gain.learn(by_gain.grad, learner)
            offset.learn(by_offset.grad, learner)
        tasks.run(learner)
        assert all(both.are_same for both in (*gains, *offsets))
