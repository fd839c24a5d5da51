"""The exact operations: near what they are named after, and the same bits however they are run."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sepzip.exact import layer_norm as layer_norm_module
from sepzip.exact import product
from sepzip.exact.add import add
from sepzip.exact.attention import EPSILON, linear_attention
from sepzip.exact.concatenate import concatenate, last_rows
from sepzip.exact.embedding import embedding, embedding_rows, sigmoid_embedding
from sepzip.exact.functions import exp2, reciprocal_sqrt, sigmoid, tanh
from sepzip.exact.gelu import gelu
from sepzip.exact.initialise import Initialiser
from sepzip.exact.layer_norm import layer_norm
from sepzip.exact.linear import lane_linear, linear
from sepzip.exact.lstm import LSTMState, lstm
from sepzip.exact.patches import fuse_into_tokens, fuse_patches
from sepzip.exact.quantise import INT8_MOST, INT16_MOST, exact_sum, quantise
from sepzip.exact.sinusoid import join_positions, sinusoids
from sepzip.exact.tape import Node, Parameters, Tape
from sepzip.optimizer import Adam
from sepzip.presets import ModelSettings

CPU = torch.device("cpu")


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradients(
    operation: Callable[[Tape, list[Node]], Node],
    reference: Callable[[list[Tensor]], Tensor],
    *inputs: Tensor,
) -> list[tuple[Tensor, Tensor]]:
    """Return pairs of ours and float64 autograd's: the output, and the gradient by each input."""
    nodes = [Node(x) for x in inputs]
    tape = Tape()
    out = operation(tape, nodes)
    pull = random(*out.data.shape, seed=7)
    wide = [x.double().requires_grad_() for x in inputs]
    expected = reference(wide)
    pairs = [(out.data, expected.detach())]
    out.add_gradient(pull)
    tape.run_backward()
    for node, want in zip(nodes, torch.autograd.grad(expected, wide, pull.double()), strict=True):
        assert node.grad is not None
        pairs.append((node.grad, want))
    return pairs


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs).norm() / theirs.norm())


def test_exp2() -> None:
    x = torch.linspace(-126, 126, 100_001)
    assert float((exp2(x).double() / torch.exp2(x.double()) - 1).abs().max()) < 4e-6
    assert float(exp2(torch.zeros(1))) == 1.0
    assert float(exp2(torch.tensor([-500.0]))) == 2.0**-126


def test_reciprocal_sqrt() -> None:
    x = torch.exp2(torch.linspace(-100, 100, 100_001))
    assert float((reciprocal_sqrt(x).double() * x.double().sqrt() - 1).abs().max()) < 5e-6


def test_sigmoid() -> None:
    x = torch.linspace(-30, 30, 10_001)
    assert float((sigmoid(x).double() - torch.sigmoid(x.double())).abs().max()) < 1e-5


def test_tanh() -> None:
    x = torch.linspace(-30, 30, 10_001)
    assert float((tanh(x).double() - torch.tanh(x.double())).abs().max()) < 1e-5
    assert float(tanh(torch.zeros(1))) == 0.0


def test_gelu() -> None:
    x = torch.linspace(-6, 6, 10_001)
    pairs = gradients(
        lambda tape, nodes: gelu(tape, nodes[0]), lambda wide: torch.nn.functional.gelu(wide[0]), x
    )
    assert float((pairs[0][0] - pairs[0][1]).abs().max()) < 0.006
    assert relative_error(*pairs[1]) < 0.02


@pytest.mark.parametrize("shape", [(5, 24, 40), (64, 96, 8), (3, 1030, 3), (17, 8, 2000)])
def test_linear(shape: tuple[int, ...]) -> None:
    lanes, inputs, outputs = shape
    pairs = gradients(
        lambda tape, n: linear(tape, n[0], n[1], n[2]),
        lambda w: w[0] @ w[1] + w[2],
        random(lanes, inputs),
        random(inputs, outputs, seed=2),
        random(outputs, seed=3),
    )
    for pair, bound in zip(pairs, (0.02, 0.02, 0.02, 1e-5), strict=True):
        assert relative_error(*pair) < bound


@pytest.mark.parametrize("shape", [(5, 24), (3, 256), (40, 1)])
def test_lane_linear(shape: tuple[int, ...]) -> None:
    lanes, width = shape
    pairs = gradients(
        lambda tape, n: lane_linear(tape, n[0], n[1], n[2]),
        lambda w: torch.bmm(w[0].unsqueeze(1), w[1]).squeeze(1) + w[2],
        random(lanes, width),
        random(lanes, width, width, seed=2),
        random(lanes, width, seed=3),
    )
    for pair in pairs:
        assert relative_error(*pair) < 0.02


@pytest.mark.parametrize("width", [5, 16, 96, 300, 1100])
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e4])
def test_layer_norm(width: int, factor: float) -> None:
    pairs = gradients(
        lambda tape, n: layer_norm(tape, n[0], n[1], n[2]),
        lambda w: torch.nn.functional.layer_norm(w[0], (width,), w[1], w[2]),
        random(9, width) * factor + factor,
        random(width, seed=2),
        random(width, seed=3),
    )
    bounds = (1e-3, 5e-3, 1e-3, 1e-5)
    for pair, bound in zip(pairs, bounds, strict=True):
        assert relative_error(*pair) < bound


def test_layer_norm_of_zeros_is_finite() -> None:
    tape, x = Tape(), Node(torch.zeros(2, 8))
    out = layer_norm(tape, x)
    out.add_gradient(torch.ones(2, 8))
    tape.run_backward()
    assert x.grad is not None
    assert bool(out.data.isfinite().all()) and bool(x.grad.isfinite().all())


def test_layer_norm_of_many_rows_sums_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    def gain_gradient() -> Tensor:
        tape, gain = Tape(), Node(random(12, seed=2))
        out = layer_norm(tape, Node(random(50, 12)), gain, Node(random(12, seed=3)))
        out.add_gradient(random(50, 12, seed=4))
        tape.run_backward()
        assert gain.grad is not None
        return gain.grad

    expected = gain_gradient()
    monkeypatch.setattr(layer_norm_module, "_FLOAT64_ROWS", 49)
    assert torch.equal(gain_gradient(), expected)


def test_add() -> None:
    for ours, theirs in gradients(
        lambda tape, n: add(tape, n[0], n[1]), lambda w: w[0] + w[1], random(5, 7), random(5, 7, seed=2)
    ):
        assert torch.equal(ours, theirs.float())


@pytest.mark.parametrize("squashed", [False, True])
def test_embedding(squashed: bool) -> None:
    context = torch.randint(0, 256, (6, 20), generator=torch.Generator().manual_seed(1))
    pairs = gradients(
        lambda tape, n: (sigmoid_embedding if squashed else embedding)(tape, n[0], context),
        lambda w: (torch.sigmoid(w[0]) if squashed else w[0])[context.t()].reshape(20, -1),
        random(256, 5),
    )
    for pair in pairs:
        assert relative_error(*pair) < 1e-4


def test_embedding_rows() -> None:
    context = torch.randint(0, 256, (6, 20), generator=torch.Generator().manual_seed(1))
    pairs = gradients(
        lambda tape, n: embedding_rows(tape, n[0], context),
        lambda w: w[0][context.reshape(-1)],
        random(256, 5),
    )
    assert torch.equal(pairs[0][0].double(), pairs[0][1])
    assert relative_error(*pairs[1]) < 1e-5


def test_concatenate() -> None:
    inputs = random(4, 3), random(4, 1, seed=2), random(4, 5, seed=3)
    for ours, theirs in gradients(concatenate, lambda w: torch.cat(w, 1), *inputs):
        assert torch.equal(ours.double(), theirs)
    node = Node(inputs[0])
    assert concatenate(Tape(), [node]) is node


def test_last_rows() -> None:
    pairs = gradients(lambda tape, n: last_rows(tape, n[0], 2), lambda w: w[0][-2:], random(7, 3))
    for ours, theirs in pairs:
        assert torch.equal(ours.double(), theirs)
    node = Node(random(7, 3))
    assert last_rows(Tape(), node, 7) is node


@pytest.mark.parametrize(("length", "lanes", "hidden"), [(1, 4, 8), (3, 5, 24), (7, 33, 1), (15, 2, 40)])
def test_lstm(length: int, lanes: int, hidden: int) -> None:
    state = LSTMState(torch.tanh(random(lanes, hidden, seed=4)), random(lanes, hidden, seed=5))

    def reference(wide: list[Tensor]) -> Tensor:
        outputs, cell = [state.output.double()], state.cell.double()
        for added in wide[0].split(lanes):
            i, f, o, g = (added + outputs[-1] @ wide[1]).split(hidden, 1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            outputs.append(torch.sigmoid(o) * torch.tanh(cell))
        return torch.cat(outputs[1:])

    pairs = gradients(
        lambda tape, n: lstm(tape, n[0], n[1], state)[0],
        reference,
        random(length * lanes, 4 * hidden),
        random(hidden, 4 * hidden, seed=2) * hidden**-0.5,
    )
    for pair in pairs:
        assert relative_error(*pair) < 0.03


def test_the_state_of_an_lstm_is_that_after_the_oldest_byte() -> None:
    state = LSTMState(torch.zeros(4, 6), torch.zeros(4, 6))
    inputs, weight = random(12, 24), Node(random(6, 24, seed=2))
    out, after = lstm(Tape(), Node(inputs), weight, state)
    assert torch.equal(after.output, out.data[:4])
    later, _ = lstm(Tape(), Node(inputs[4:]), weight, after)
    assert torch.equal(later.data, out.data[4:])


def test_positions_stand_behind_each_byte() -> None:
    positions = random(6, 3, seed=2)
    pairs = gradients(
        lambda tape, n: join_positions(tape, n[0], positions),
        lambda w: torch.cat([w[0].view(4, 6, 5), positions.double().expand(4, -1, -1)], 2).view(4, -1),
        random(4, 30),
    )
    for ours, theirs in pairs:
        assert torch.equal(ours, theirs.float())


@pytest.mark.parametrize(("length", "size"), [(64, 32), (300, 6), (5, 3), (1, 1), (4096, 2), (3, 0)])
def test_sinusoids(length: int, size: int) -> None:
    table = sinusoids(length, size)
    assert table.shape == (length, size)
    columns = -(-size // 2)
    angles = torch.arange(length, dtype=torch.float64).unsqueeze(1) * torch.exp(
        -math.log(10000) * 2 * torch.arange(columns, dtype=torch.float64) / max(size, 1)
    )
    expected = torch.cat([torch.sin(angles), torch.cos(angles)], 1)[:, :size]
    assert torch.equal(table.double() * 4096, (expected * 4096).round())


def test_sinusoids_are_pinned() -> None:
    table = sinusoids(3, 4).mul(4096).to(torch.int32)
    assert table.tolist() == [[0, 0, 4096, 4096], [3447, 41, 2213, 4096], [3724, 82, -1705, 4095]]


@pytest.mark.parametrize(
    ("lanes", "heads", "size", "tokens", "queries"),
    [(5, 4, 8, 7, 1), (3, 1, 32, 16, 1), (4, 2, 3, 4, 4), (2, 3, 5, 6, 2), (3, 5, 1, 1, 1)],
)
@pytest.mark.parametrize("factor", [1e-2, 1.0, 1e2])
def test_linear_attention(
    lanes: int, heads: int, size: int, tokens: int, queries: int, factor: float
) -> None:
    width = heads * size

    def reference(wide: list[Tensor]) -> Tensor:
        query = wide[0].view(lanes, queries, heads, size)
        key_value = wide[1].view(lanes, tokens, 2, heads, size)
        score = torch.einsum("lqhd,lthd->lhqt", query**2, key_value[:, :, 0] ** 2)
        score = score.tril(tokens - queries)
        share = score / (score.sum(3, keepdim=True) + EPSILON)
        return torch.einsum("lhqt,lthd->lqhd", share, key_value[:, :, 1]).reshape(-1, width)

    pairs = gradients(
        lambda tape, n: linear_attention(tape, n[0], n[1], lanes, heads),
        reference,
        random(lanes * queries, width) * factor,
        random(lanes * tokens, 2 * width, seed=2) * factor,
    )
    # A lone token has all the score, so that neither queries nor keys have a gradient.
    for pair in pairs[: 1 if tokens == 1 else 3]:
        assert relative_error(*pair) < 5e-3


def test_linear_attention_of_zeros_is_finite() -> None:
    tape, query, key_value = Tape(), Node(torch.zeros(6, 4)), Node(torch.zeros(9, 8))
    out = linear_attention(tape, query, key_value, 3, 2)
    assert bool((out.data == 0).all())
    out.add_gradient(torch.ones(6, 4))
    tape.run_backward()
    for node in (query, key_value):
        assert node.grad is not None and bool(node.grad.isfinite().all())


def test_attention_does_not_see_later_tokens() -> None:
    query, key_value = random(4, 6), random(4, 12, seed=2)

    def first_tokens(newest: float) -> Tensor:
        changed = key_value.clone()
        changed[3] *= newest
        # Small enough that the scales, which all tokens share, stay.
        changed[0] = 100.0
        return linear_attention(Tape(), Node(query), Node(changed), 1, 3).data[:3]

    assert torch.equal(first_tokens(1.0), first_tokens(-2.0))


@pytest.mark.parametrize(("length", "patch", "lanes"), [(12, 4, 10), (7, 7, 3), (9, 1, 33)])
def test_fuse_patches(length: int, patch: int, lanes: int) -> None:
    context = torch.randint(0, 256, (length, lanes), generator=torch.Generator().manual_seed(1))
    patches = length - patch + 1

    def reference(wide: list[Tensor]) -> Tensor:
        embedded = torch.sigmoid(wide[0])[context.t()]
        laid_out = torch.stack([embedded[:, i : i + patch].reshape(lanes, -1) for i in range(patches)], 2)
        return laid_out @ wide[1] + wide[2]

    pairs = gradients(
        lambda tape, n: fuse_patches(tape, n[0], context, n[1], n[2], patch),
        reference,
        random(256, 3),
        random(patches, seed=2),
        random(1, seed=3),
    )
    for pair in pairs:
        assert relative_error(*pair) < 1e-3


@pytest.mark.parametrize(
    ("length", "patch", "tokens", "lanes", "size"), [(12, 4, 3, 10, 5), (7, 7, 2, 3, 1), (9, 1, 1, 4, 6)]
)
def test_fuse_into_tokens(length: int, patch: int, tokens: int, lanes: int, size: int) -> None:
    patches, values = length - patch + 1, patch * size

    def reference(wide: list[Tensor]) -> Tensor:
        by_byte = wide[0].view(lanes, length, size)
        laid_out = torch.stack([by_byte[:, i : i + patch].reshape(lanes, -1) for i in range(patches)], 1)
        fused = torch.einsum("liv,itv->ltv", laid_out, wide[1]) + wide[2].unsqueeze(1)
        return fused.reshape(lanes * tokens, values)

    pairs = gradients(
        lambda tape, n: fuse_into_tokens(tape, n[0], n[1], n[2], patch),
        reference,
        random(lanes, length * size),
        random(patches, tokens, values, seed=2),
        random(tokens, seed=3),
    )
    for pair in pairs:
        assert relative_error(*pair) < 1e-3


whole_numbers = st.integers(-INT16_MOST, INT16_MOST)


sizes = st.integers(1, 40)


@settings(max_examples=150, deadline=None)
@given(st.data(), sizes, st.one_of(sizes, st.sampled_from([1024, 1025, 3000])), sizes)
def test_products_are_the_integer_sums(data: st.DataObject, rows: int, inner: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1 << 30)))
    extreme, left_wide, right_wide = (data.draw(st.booleans()) for _ in range(3))

    def operand(shape: tuple[int, int], limit: int) -> Tensor:
        transposed = data.draw(st.booleans())
        shape = shape[::-1] if transposed else shape
        if extreme:
            x = torch.where(torch.rand(shape, generator=generator) < 0.9, float(limit), float(-limit))
        else:
            x = torch.randint(-limit, limit + 1, shape, generator=generator).float()
        return x.t() if transposed else x

    a = operand((rows, inner), INT16_MOST if left_wide else INT8_MOST)
    b = operand((inner, columns), INT16_MOST if right_wide and not left_wide else INT8_MOST)
    expected = (a.to(torch.int64) @ b.to(torch.int64)).to(torch.float32)
    function = (
        product.product_16x8 if left_wide else product.product_8x16 if right_wide else product.product_8x8
    )
    assert torch.equal(function(a, b), expected)


def test_products_whose_sums_pass_32_bits_are_exact() -> None:
    a, b = torch.full((1, 140_000), 127.0), torch.full((140_000, 1), -128.0)
    assert float(product.product_8x8(a, b)) == -127.0 * 128 * 140_000
    b.fill_(float(INT16_MOST))
    assert float(product.product_8x16(a, b)) == float(np.float32(127 * INT16_MOST * 140_000))


def test_products_without_int8_instructions_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "_has_int8_products", lambda rows, inner, columns: False)
    a, b = quantise(random(20, 1500), 1, INT16_MOST)[0], quantise(random(1500, 9), 0, INT8_MOST)[0]
    expected = (a.to(torch.int64) @ b.to(torch.int64)).to(torch.float32)
    assert torch.equal(product.product_16x8(a, b), expected)
    small = quantise(a, 1, INT8_MOST)[0]
    assert torch.equal(product.product_8x8(small, b), (small.long() @ b.long()).float())


@given(st.lists(whole_numbers, min_size=1, max_size=50))
def test_digits(values: list[int]) -> None:
    x = torch.tensor(values, dtype=torch.float32)
    high, low = product.split_digits(x)
    assert torch.equal(high * 256 + low, x)
    assert float(torch.stack([high, low]).abs().max()) <= 128 and float(torch.stack([high, low]).max()) <= 127


def test_quantise_keeps_within_half_a_scale() -> None:
    x = random(50, 30) * torch.logspace(-20, 10, 50).unsqueeze(1)
    whole, scale = quantise(x, 1, INT8_MOST)
    assert float(whole.abs().max()) == INT8_MOST
    assert bool(((whole * scale - x).abs() <= scale * 0.5001).all())


def test_exact_sum() -> None:
    x = random(1000, 4)
    assert relative_error(exact_sum(x, 0), x.double().sum(0, keepdim=True)) < 1e-4
    order = torch.randperm(1000)
    assert torch.equal(exact_sum(x, 0), exact_sum(x[order], 0))


def test_initialiser_is_pinned() -> None:
    initialiser = Initialiser(5, CPU)
    normal = initialiser.normal((100_000,), 0.01)
    assert abs(float(normal.mean())) < 2e-4 and abs(float(normal.std()) - 0.01) < 1e-4
    uniform = initialiser.uniform((1000,), 0.5)
    assert float(uniform.abs().max()) < 0.5
    first = Initialiser(5, CPU)
    assert torch.equal(first.normal((10,), 0.01), normal[:10])
    assert normal[:3].view(torch.int32).tolist() == PINNED_NORMAL


PINNED_NORMAL = [-1135713861, -1142689807, -1163217801]


@pytest.mark.parametrize(("beta1", "beta2"), [(900_000, 999_000), (0, 999_900), (950_000, 500_000), (0, 0)])
def test_adam(beta1: int, beta2: int) -> None:
    parameters = Parameters(CPU)
    node = parameters.add(random(64))
    parameters.seal()
    parameters.make_gradients()
    model = ModelSettings(learning_rate=10_000, learning_rate_last=10_000, beta1=beta1, beta2=beta2)
    ours = Adam(parameters, model, 1)
    first = node.data.clone()
    wide = first.double().requires_grad_()
    theirs = torch.optim.Adam([wide], lr=0.01, betas=(beta1 / 1e6, beta2 / 1e6))
    for step in range(30):
        gradient = random(64, seed=step) + 0.5
        parameters.begin_step()
        node.add_gradient(gradient)
        wide.grad = gradient.double()
        ours.update(torch.tensor([step]))
        theirs.step()
    assert relative_error(node.data - first, wide.detach() - first) < 0.003


def test_unused_output_and_missing_gradient_are_errors() -> None:
    tape, x = Tape(), Node(torch.ones(2, 2))
    gelu(tape, x)
    with pytest.raises(RuntimeError, match="never used"):
        tape.run_backward()
    parameters = Parameters(CPU)
    parameters.add(torch.ones(3))
    parameters.seal()
    parameters.begin_step()
    with pytest.raises(RuntimeError, match="no gradient"):
        parameters.end_step()


def test_parameter_used_twice_gets_both_gradients() -> None:
    parameters = Parameters(CPU)
    node = parameters.add(torch.ones(3))
    parameters.seal()
    parameters.make_gradients()
    parameters.begin_step()
    node.add_gradient(torch.ones(3))
    node.add_gradient(torch.full((3,), 2.0))
    assert node.part_of(parameters.grad).tolist() == [3.0, 3.0, 3.0]


_FINGERPRINT = """
import sys
from sepzip import presets
from sepzip.engine import encode_segment
data = open(sys.argv[1], "rb").read()[:700]
presets_and_lanes = [(presets.resolve(level), lanes) for level, lanes in ((1, 24), (4, 37))]
for semantics in (True, False):
    presets_and_lanes.append((presets.resolve(network="trace-small", semantics=semantics), 24))
for network in ("lstm", "decmac-small", "nncp-small", "oreo-small", "patchtst-small"):
    presets_and_lanes.append((presets.resolve(network=network), 75))
presets_and_lanes.append((presets.resolve(network="pac-small", semantics="ngrams"), 75))
for preset, lanes in presets_and_lanes:
    for block in encode_segment(data, preset.model, lanes, "cpu"):
        print(block.fingerprint, block.payload[:50])
"""


def test_same_bits_at_any_simd_level_and_thread_count() -> None:
    import pydoc_data.topics

    digests = {}
    for capability, threads in ((None, 2), (None, 1), ("default", 2), ("avx2", 1)):
        environment = {name: value for name, value in os.environ.items() if name != "ATEN_CPU_CAPABILITY"}
        environment["OMP_NUM_THREADS"] = str(threads)
        if capability:
            environment["ATEN_CPU_CAPABILITY"] = capability
        done = subprocess.run(
            [sys.executable, "-c", _FINGERPRINT, pydoc_data.topics.__file__],
            env=environment,
            capture_output=True,
            check=True,
        )
        digests[capability, threads] = hashlib.sha256(done.stdout).hexdigest()
    assert len(set(digests.values())) == 1, digests
