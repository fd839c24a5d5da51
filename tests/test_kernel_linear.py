"""The products that all lanes share against the plain linear layer and activation, to the last bit."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from kernels import DEVICE
from sepzip.exact.gelu import gelu
from sepzip.exact.kernels import products
from sepzip.exact.kernels.digits import row_digits
from sepzip.exact.kernels.elements import EXACT
from sepzip.exact.kernels.linear import activate, linear_forward, linear_sums
from sepzip.exact.kernels.linear_backward import gradient_sums, hidden_gradient, input_gradient
from sepzip.exact.kernels.products import combined, splits, sum_of_splits
from sepzip.exact.linear import linear
from sepzip.exact.product import split_digits
from sepzip.exact.quantise import INT8_MOST, INT16_MOST, quantise
from sepzip.exact.tape import Node, Tape

import triton  # isort: skip
import triton.language as tl  # isort: skip

# Lanes, inputs, outputs: one of each, nothing a multiple of anything, more than one tile and than one part
# of the sum in every direction, parts that are summed in several goes, and the larger tiles.
SIZES = [
    (1, 1, 1),
    (3, 20, 40),
    (37, 33, 70),
    (65, 130, 5),
    (2, 2050, 33),
    (5, 3, 700),
    (300, 2, 833),
    (520, 5, 1000),
    (520, 1000, 5),
]


class _Layer(NamedTuple):
    """A layer's numbers, its input and a gradient by its result, and what the kernels read of them."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    gradient: Tensor
    whole_x: Tensor
    scale_x: Tensor
    by_input: Tensor
    by_output: Tensor
    scale_weight: Tensor


def _uneven(generator: torch.Generator, rows: int, columns: int) -> Tensor:
    """Return numbers whose rows and columns are of different sizes, now and then of nothing but zeros."""
    sizes = [torch.randint(-6, 7, shape, generator=generator) for shape in ((rows, 1), (1, columns))]
    numbers = torch.randn((rows, columns), generator=generator) * 4.0 ** (sizes[0] + sizes[1])
    numbers[3::7] = 0.0
    numbers[:, 2::5] = 0.0
    return numbers


def _layer(lanes: int, inputs: int, outputs: int) -> _Layer:
    generator = torch.Generator().manual_seed(lanes + inputs)
    x, weight = _uneven(generator, lanes, inputs), _uneven(generator, inputs, outputs)
    whole_x, scale_x = quantise(x, 1, INT8_MOST)
    whole, scale = quantise(weight, 0, INT8_MOST)
    by_input = whole.to(torch.int8)
    return _Layer(
        x,
        weight,
        torch.randn(outputs, generator=generator),
        _uneven(generator, lanes, outputs),
        whole_x.to(torch.int8).to(DEVICE),
        scale_x.squeeze(1).to(DEVICE),
        by_input.to(DEVICE),
        by_input.t().contiguous().to(DEVICE),
        scale.squeeze(0).to(DEVICE),
    )


def _bits(x: Tensor) -> Tensor:
    return x.cpu().contiguous().view(torch.int32)


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(_bits(a), _bits(b))


def _largest(x: Tensor) -> Tensor:
    """Return the bits of each row's largest size."""
    return _bits(x.abs().amax(1))


def _gelu(x: Tensor) -> Tensor:
    return gelu(Tape(), Node(x)).data


def _digits(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the high and the low digits of quantised rows, and their scales."""
    whole, scale = quantise(x, 1, INT16_MOST)
    high, low = (digit.to(torch.int8).to(DEVICE) for digit in split_digits(whole))
    return high, low, scale.squeeze(1).to(DEVICE)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("activation", [False, True])
def test_linear_forward(sizes: tuple[int, int, int], activation: bool) -> None:
    lanes, _, outputs = sizes
    layer = _layer(*sizes)
    out = torch.full((lanes, outputs), 9.0, device=DEVICE)
    largest = torch.zeros(lanes, dtype=torch.int32, device=DEVICE) if activation else None
    linear_forward(
        layer.whole_x, layer.by_output, layer.scale_x, layer.scale_weight, layer.bias.to(DEVICE), out, largest
    )
    expected = linear(Tape(), Node(layer.x), Node(layer.weight), Node(layer.bias)).data
    assert _same(out, expected)
    if largest is not None:
        assert torch.equal(largest.cpu(), _largest(_gelu(expected)))


@pytest.mark.parametrize(("lanes", "width"), [(1, 1), (3, 20), (37, 33), (65, 70), (1030, 1020)])
def test_activate(lanes: int, width: int) -> None:
    x = torch.randn((lanes, width), generator=torch.Generator().manual_seed(lanes)) * 3
    x[::4] = 0.0
    expected, _ = quantise(_gelu(x), 1, INT8_MOST)
    whole = torch.empty((lanes, width), dtype=torch.int8, device=DEVICE)
    whole_by_input = torch.empty((width, lanes), dtype=torch.int8, device=DEVICE)
    activate(x.to(DEVICE), _largest(_gelu(x)).to(DEVICE), whole, whole_by_input)
    assert torch.equal(whole.cpu().to(torch.float32), expected)
    assert torch.equal(whole_by_input.cpu(), whole.t().cpu())


@pytest.mark.parametrize("sizes", SIZES)
def test_linear_sums(sizes: tuple[int, int, int]) -> None:
    lanes, inputs, outputs = sizes
    layer = _layer(*sizes)
    parts = splits(inputs, lanes)
    sums = torch.full((parts, lanes, outputs), 9, dtype=torch.int32, device=DEVICE)
    linear_sums(layer.whole_x, layer.by_output, sums)
    expected = layer.whole_x.cpu().double() @ layer.by_input.cpu().double()
    assert torch.equal(sums.sum(0).cpu().double(), expected)


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize(("lanes", "inputs", "outputs"), [(3, 40, 20), (65, 5, 130), (2, 3, 1100)])
def test_input_gradient(lanes: int, inputs: int, outputs: int, adds: bool) -> None:
    layer = _layer(lanes, inputs, outputs)
    tape, x = Tape(), Node(layer.x)
    out = linear(tape, x, Node(layer.weight), Node(layer.bias))
    out.add_gradient(layer.gradient)
    if adds:
        x.add_gradient(layer.x)
    tape.run_backward()
    assert x.grad is not None
    scaled = layer.gradient * layer.scale_weight.cpu()
    high, low, scale = _digits(scaled)
    gradient = torch.full((lanes, inputs), 9.0, device=DEVICE)
    added = layer.x.to(DEVICE) if adds else None
    for scales in (scale, _largest(scaled).to(DEVICE)):
        input_gradient(high, low, scales, layer.by_input, gradient, added)
        assert _same(gradient, x.grad)


def test_large_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of the products of many rows, of fewer."""
    monkeypatch.setattr(products, "_MANY_PROGRAMS", 1)
    monkeypatch.setattr(products, "_MANY_ROWS", 1)
    sizes = (70, 130, 140)
    test_linear_forward(sizes, True)
    test_linear_sums(sizes)
    test_hidden_gradient(sizes)
    test_gradient_by_the_input(sizes)


@triton.jit
def _add_up(high, low, scale, out, count, outputs, SPLITS: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    high_sum = sum_of_splits(high, place, inside, count, SPLITS)
    low_sum = sum_of_splits(low, place, inside, count, SPLITS)
    by_row = tl.load(scale + place // outputs, mask=inside, other=0.0)
    tl.store(out + place, combined(high_sum, low_sum) * by_row, mask=inside)


@pytest.mark.parametrize("sizes", SIZES)
def test_gradient_by_the_input(sizes: tuple[int, int, int]) -> None:
    """The digits of a gradient, its product in parts, and their sum, as the kernels that read them do it."""
    lanes, inputs, outputs = sizes
    layer = _layer(*sizes)
    tape, x = Tape(), Node(layer.x)
    out = linear(tape, x, Node(layer.weight), Node(layer.bias))
    out.add_gradient(layer.gradient)
    tape.run_backward()
    assert x.grad is not None

    high, low = (torch.full((lanes, outputs), 9, dtype=torch.int8, device=DEVICE) for _ in range(2))
    largest = torch.empty(lanes, dtype=torch.int32, device=DEVICE)
    row_digits(layer.gradient.to(DEVICE), layer.scale_weight, high, low, largest)
    scaled = layer.gradient * layer.scale_weight.cpu()
    expected_high, expected_low, scale = _digits(scaled)
    assert torch.equal(high, expected_high) and torch.equal(low, expected_low)
    assert torch.equal(largest.cpu(), _largest(scaled))

    parts = splits(outputs, lanes)
    sums = [torch.full((parts, lanes, inputs), 9, dtype=torch.int32, device=DEVICE) for _ in range(2)]
    gradient_sums(high, low, layer.by_input, sums[0], sums[1])
    gradient = torch.empty((lanes, inputs), device=DEVICE)
    count = gradient.numel()
    grid = (triton.cdiv(count, 1024),)
    _add_up[grid](sums[0], sums[1], scale, gradient, count, inputs, parts, 1024, **EXACT)
    assert _same(gradient, x.grad)


@pytest.mark.parametrize("sizes", SIZES)
def test_hidden_gradient(sizes: tuple[int, int, int]) -> None:
    lanes, inputs, _ = sizes
    layer = _layer(*sizes)
    generator = torch.Generator().manual_seed(3)
    x, next_scale = torch.randn((lanes, inputs), generator=generator), torch.rand(inputs, generator=generator)
    tape, hidden = Tape(), Node(x)
    out = linear(tape, gelu(tape, hidden), Node(layer.weight), Node(layer.bias))
    out.add_gradient(layer.gradient)
    tape.run_backward()
    assert hidden.grad is not None

    gradient = torch.full((lanes, inputs), 9.0, device=DEVICE)
    largest = torch.zeros(lanes, dtype=torch.int32, device=DEVICE)
    columns = [torch.zeros(inputs, dtype=torch.int32, device=DEVICE) for _ in range(2)]
    scale_x = torch.rand(lanes, generator=generator)
    hidden_gradient(
        *_digits(layer.gradient * layer.scale_weight.cpu()),
        layer.by_input,
        x.to(DEVICE),
        gradient,
        next_scale.to(DEVICE),
        largest,
        (scale_x.to(DEVICE), columns[0], columns[1]),
    )
    assert _same(gradient, hidden.grad)
    assert torch.equal(largest.cpu(), _largest(hidden.grad * next_scale))
    assert torch.equal(columns[0].cpu(), _largest(hidden.grad.t()))
    assert torch.equal(columns[1].cpu(), _largest((hidden.grad * scale_x[:, None]).t()))
