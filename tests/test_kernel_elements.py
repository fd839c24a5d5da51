"""The functions that kernels are made of, against their plain twins, to the last bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels import DEVICE
from sepzip.exact import functions
from sepzip.exact.adam import adam
from sepzip.exact.gelu import gelu
from sepzip.exact.kernels import elements
from sepzip.exact.quantise import quantise
from sepzip.exact.tape import Node, Tape

import triton  # isort: skip
import triton.language as tl  # isort: skip


@triton.jit
def _apply(function: tl.constexpr, source, target, count, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    tl.store(target + place, function(tl.load(source + place, mask=inside, other=1.0)), mask=inside)


def _fused(function: Callable[..., object], x: Tensor) -> Tensor:
    target = torch.empty_like(x)
    _apply[(triton.cdiv(x.numel(), 1024),)](function, x, target, x.numel(), 1024, **elements.EXACT)
    return target


def _hard(generator: torch.Generator) -> Tensor:
    """Return numbers of every size, subnormal ones among them, and whole and half numbers."""
    bits = torch.randint(0, 0x7F00_0000, (20000,), generator=generator).to(torch.int32)
    sizes = bits.view(torch.float32)
    signs = torch.randint(0, 2, (20000,), generator=generator) * 2 - 1
    halves = torch.arange(-2000, 2000) * 0.5
    usual = torch.randn(20000, generator=generator) * 4
    return torch.cat([sizes * signs, halves, usual, torch.zeros(1)])


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.cpu().view(torch.int32), b.cpu().view(torch.int32))


@pytest.fixture
def numbers() -> Tensor:
    return _hard(torch.Generator().manual_seed(1))


def test_exp2(numbers: Tensor) -> None:
    assert _same(_fused(elements.exp2, numbers.to(DEVICE)), functions.exp2(numbers))


def test_sigmoid(numbers: Tensor) -> None:
    assert _same(_fused(elements.sigmoid, numbers.to(DEVICE)), functions.sigmoid(numbers))


def test_reciprocal_sqrt(numbers: Tensor) -> None:
    positive = numbers.abs().clamp(min=2.0**-126)
    assert _same(_fused(elements.reciprocal_sqrt, positive.to(DEVICE)), functions.reciprocal_sqrt(positive))


def test_gelu_and_its_slope(numbers: Tensor) -> None:
    bounded = numbers.clamp(-1e30, 1e30)
    tape, x = Tape(), Node(bounded)
    out = gelu(tape, x)
    out.add_gradient(torch.ones_like(bounded))
    tape.run_backward()
    assert x.grad is not None
    assert _same(_fused(elements.gelu, bounded.to(DEVICE)), out.data)
    assert _same(_fused(elements.gelu_slope, bounded.to(DEVICE)), x.grad)


def test_round_even(numbers: Tensor) -> None:
    bounded = numbers.clamp(-(2.0**21), 2.0**21)
    # Rounding may lose the sign of zero; a whole number has none.
    assert torch.equal(_fused(elements.round_even, bounded.to(DEVICE)).cpu(), bounded.round())


@triton.jit
def _quantise(source, whole, scale, width: tl.constexpr, most: tl.constexpr):
    place = tl.program_id(0) * width + tl.arange(0, width)
    x = tl.load(source + place)
    factor, unit = elements.row_scale(tl.max(tl.abs(x), 0), most)
    tl.store(whole + place, elements.quantised(x, factor))
    tl.store(scale + tl.program_id(0), unit)


@pytest.mark.parametrize("most", [127, 32639, 1 << 20])
def test_quantise(numbers: Tensor, most: int) -> None:
    rows = numbers.clamp(-1e30, 1e30)[: 40000 // 64 * 64].view(-1, 64)
    whole, scale = torch.empty_like(rows, device=DEVICE), torch.empty((len(rows), 1), device=DEVICE)
    _quantise[(len(rows),)](rows.to(DEVICE), whole, scale, 64, most, **elements.EXACT)
    plain_whole, plain_scale = quantise(rows, 1, most)
    assert torch.equal(whole.cpu(), plain_whole)
    assert _same(scale, plain_scale)


@triton.jit
def _adam(weight, first, second, gradient, size, epsilon, count, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    w, m, v = elements.adam(
        tl.load(weight + place, mask=inside, other=0.0),
        tl.load(first + place, mask=inside, other=0.0),
        tl.load(second + place, mask=inside, other=0.0),
        tl.load(gradient + place, mask=inside, other=0.0),
        tl.load(size),
        epsilon,
    )
    tl.store(weight + place, w, mask=inside)
    tl.store(first + place, m, mask=inside)
    tl.store(second + place, v, mask=inside)


def test_adam(numbers: Tensor) -> None:
    generator = torch.Generator().manual_seed(2)
    gradient = numbers.clamp(-1e15, 1e15)
    count = len(gradient)
    state = (torch.randn(count, generator=generator), torch.zeros(count), torch.zeros(count))
    fused = [part.clone().to(DEVICE) for part in state]
    for size in (0.01, 0.003):
        step_size = torch.tensor([size])
        adam(*state, gradient, step_size, 2.5e-9)
        grid = (triton.cdiv(count, 1024),)
        _adam[grid](*fused, gradient.to(DEVICE), step_size.to(DEVICE), 2.5e-9, count, 1024, **elements.EXACT)
    for plain, other in zip(state, fused, strict=True):
        assert _same(plain, other)
