"""The network patchtst and its two operations: gradients, statistics of few rows, and round trips."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, scaled_dot_product_attention

from conftest import TRACE_TINY, TRACE_TINY_SEMANTIC
from round_trips import comes_back
from sepzip import memory
from sepzip.engine import encode_segment
from sepzip.exact import batch_norm as batch_norm_module
from sepzip.exact.batch_norm import EPSILON, FEW_ROWS, BatchStatistics, batch_norm
from sepzip.exact.guard import ExactOnly
from sepzip.exact.softmax_attention import softmax_attention
from sepzip.exact.tape import Node, Tape
from sepzip.model import Model
from sepzip.networks import base
from sepzip.networks.patchtst import PatchTST
from sepzip.presets import NETWORKS, ModelSettings
from test_exact import gradients, random, relative_error

CPU = torch.device("cpu")
DEVICES = ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]
PLAIN = replace(TRACE_TINY, network="patchtst")
SEMANTIC = replace(TRACE_TINY_SEMANTIC, network="patchtst", positions=0)


def standardised(x: Tensor, mean: Tensor, variance: Tensor, share: float) -> Tensor:
    """Return x, float64 [rows, width], by the statistics of its rows, as far as their share goes."""
    apart = x.mean(0) - mean
    variance = share * x.var(0, correction=0) + (1 - share) * (variance + share * apart**2)
    return (x - mean - share * apart) / (variance + EPSILON).sqrt()


@pytest.mark.parametrize(("rows", "width"), [(FEW_ROWS, 12), (1000, 7), (40, 12), (2, 5), (1, 3)])
@pytest.mark.parametrize("factor", [1e-2, 1.0, 1e3])
def test_batch_norm(rows: int, width: int, factor: float) -> None:
    kept = BatchStatistics(random(width, seed=4) * factor, random(width, seed=5) ** 2 * factor**2)
    mean, variance = kept.mean.double(), kept.variance.double()
    pairs = gradients(
        lambda tape, n: batch_norm(tape, n[0], n[1], n[2], kept),
        lambda w: standardised(w[0], mean, variance, min(1.0, rows / FEW_ROWS)) * w[1] + w[2],
        random(rows, width) * factor + 3 * factor,
        random(width, seed=2),
        random(width, seed=3),
    )
    for pair, bound in zip(pairs, (1e-3, 5e-3, 1e-3, 1e-5), strict=True):
        assert relative_error(*pair) < bound


def test_few_rows_are_seen_beside_those_before() -> None:
    kept = BatchStatistics.of_nothing(2, CPU)
    gain, offset = Node(torch.ones(2)), Node(torch.zeros(2))
    values = torch.tensor([[5.0, -3.0], [7.0, -3.0]])
    for step in range(2 * FEW_ROWS * 8):
        batch_norm(Tape(), Node(values[step % 2].unsqueeze(0)), gain, offset, kept)
    assert (kept.mean - torch.tensor([6.0, -3.0])).abs().amax() < 0.01
    assert (kept.variance - torch.tensor([1.0, 0.0])).abs().amax() < 0.01
    kept.forget()
    assert kept.mean.tolist() == [0.0, 0.0] and kept.variance.tolist() == [1.0, 1.0]


def test_batch_norm_of_many_rows_sums_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    def gain_gradient() -> Tensor:
        tape, gain = Tape(), Node(random(12, seed=2))
        kept = BatchStatistics.of_nothing(12, CPU)
        out = batch_norm(tape, Node(random(300, 12)), gain, Node(random(12, seed=3)), kept)
        out.add_gradient(random(300, 12, seed=4))
        tape.run_backward()
        assert gain.grad is not None
        return gain.grad

    expected = gain_gradient()
    monkeypatch.setattr(batch_norm_module, "_FLOAT64_ROWS", 299)
    assert torch.equal(gain_gradient(), expected)


@pytest.mark.parametrize("rows", [1, 4000, 70_000])
def test_batch_norm_is_exact(rows: int) -> None:
    with torch.inference_mode(), ExactOnly():
        tape, x = Tape(), Node(torch.full((rows, 2), 3.0))
        x.data[0] = -1e4
        gain, offset = Node(torch.ones(2)), Node(torch.zeros(2))
        out = batch_norm(tape, x, gain, offset, BatchStatistics.of_nothing(2, CPU))
        out.add_gradient(x.data)
        tape.run_backward()
    assert x.grad is not None and bool(out.data.isfinite().all()) and bool(x.grad.isfinite().all())


@pytest.mark.parametrize(
    ("lanes", "heads", "size", "tokens", "queries"),
    [(5, 4, 8, 7, 1), (3, 1, 32, 16, 1), (4, 2, 3, 4, 4), (2, 3, 5, 6, 2), (3, 5, 1, 1, 1)],
)
@pytest.mark.parametrize("factor", [1e-2, 1.0, 3.0])
def test_softmax_attention(
    lanes: int, heads: int, size: int, tokens: int, queries: int, factor: float
) -> None:
    width = heads * size

    def reference(wide: list[Tensor]) -> Tensor:
        query = wide[0].view(lanes, queries, heads, size).transpose(1, 2)
        key, value = wide[1].view(lanes, tokens, 2, heads, size).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(query, key, value)
        return attended.transpose(1, 2).reshape(lanes * queries, width)

    pairs = gradients(
        lambda tape, n: softmax_attention(tape, n[0], n[1], lanes, heads),
        reference,
        random(lanes * queries, width) * factor,
        random(lanes * tokens, 2 * width, seed=2) * factor,
    )
    # A lone token has all the weight, so that neither queries nor keys have a gradient.
    for pair in pairs[: 1 if tokens == 1 else 3]:
        assert relative_error(*pair) < 5e-3


def test_softmax_attention_of_large_scores_is_finite() -> None:
    tape, query, key_value = Tape(), Node(random(6, 4) * 1e8), Node(random(9, 8) * 1e8)
    out = softmax_attention(tape, query, key_value, 3, 2)
    out.add_gradient(torch.ones(6, 4))
    tape.run_backward()
    assert bool(out.data.isfinite().all())
    for node in (query, key_value):
        assert node.grad is not None and bool(node.grad.isfinite().all())


def reference_logits(weights: list[Tensor], context: Tensor, network: PatchTST) -> Tensor:
    """Return the logits of the network without the SEB, in its first step, in float64."""
    lanes, heads = context.shape[1], network.heads
    table, to_query, query_bias, to_both, both_bias, attended, attended_bias, *rest = weights
    gain, offset, into, into_bias, out_of, out_of_bias, gain2, offset2, out, out_bias = rest
    width = to_query.shape[0]
    assert network.mixture is None
    positions = network.front.positions.double()  # type: ignore[attr-defined]
    x = torch.cat([table[context.t()], positions.expand(lanes, -1, -1)], 2).view(-1, width)
    query = (x @ to_query + query_bias).view(lanes, -1, heads, width // heads).transpose(1, 2)
    both = (x @ to_both + both_bias).view(lanes, -1, 2, heads, width // heads).permute(2, 0, 3, 1, 4)
    gained = scaled_dot_product_attention(query, both[0], both[1]).transpose(1, 2).reshape(-1, width)
    nothing = torch.zeros(width, dtype=torch.float64), torch.ones(width, dtype=torch.float64)
    share = min(1.0, len(x) / FEW_ROWS)
    x = standardised(x + gained @ attended + attended_bias, *nothing, share) * gain + offset
    x = x + gelu(x @ into + into_bias) @ out_of + out_of_bias
    x = standardised(x, *nothing, share) * gain2 + offset2
    return x.view(lanes, -1, width)[:, -1] @ out + out_bias


@pytest.mark.parametrize("lanes", [9, 100])
def test_gradients_of_the_whole_network(lanes: int) -> None:
    settings = replace(PLAIN, embedding=8, positions=4, heads=4, hidden=32)
    network = base.build(settings, lanes, CPU)
    assert isinstance(network, PatchTST)
    network.parameters.make_gradients()
    network.parameters.begin_step()
    wide = [node.data.double().requires_grad_() for node in network.parameters.nodes]
    context = torch.randint(0, 256, (6, lanes), generator=torch.Generator().manual_seed(1))
    pull = random(lanes, 256, seed=7)
    tape = Tape()
    logits = network.forward(tape, context)
    logits.add_gradient(pull)
    tape.run_backward()
    network.parameters.end_step()
    expected = reference_logits(wide, context, network)
    assert relative_error(logits.data, expected.detach()) < 0.03
    for node, want in zip(
        network.parameters.nodes, torch.autograd.grad(expected, wide, pull.double()), strict=True
    ):
        # A bias before the normalisation of many rows moves nothing: what is left of it is rounding.
        if want.norm() > 1e-3 * pull.norm():
            assert relative_error(node.gradient_view, want) < 0.05


def test_start_forgets() -> None:
    network = base.build(PLAIN, 5, CPU)
    context = torch.arange(30).view(6, 5)
    network.start(context)
    first, second = (network.forward(Tape(), context).data for _ in range(2))
    assert not torch.equal(first, second)
    network.start(context)
    assert torch.equal(network.forward(Tape(), context).data, first)


@pytest.mark.parametrize("model", [PLAIN, SEMANTIC])
def test_its_steps_are_exact(model: ModelSettings) -> None:
    with torch.inference_mode(), ExactOnly():
        run = Model(model, 5, CPU)
        for _ in range(3):
            run.predict().starts()
            run.learn(torch.arange(5))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("lanes", [1, 2, 9])
@pytest.mark.parametrize(
    "model",
    [
        PLAIN,
        SEMANTIC,
        replace(PLAIN, token=6, heads=42),
        replace(PLAIN, context=40, token=1, embedding=1, positions=0, heads=1, hidden=1),
        replace(SEMANTIC, tokens=1, mixing=1, heads=1),
        replace(SEMANTIC, patch=6, stride=1, tokens=7, heads=8, learning_rate=1_000_000),
    ],
)
def test_all_sizes_come_back(text: bytes, model: ModelSettings, lanes: int, device: str) -> None:
    data = text[: 40 * lanes - lanes // 2]
    comes_back(data, model, lanes, device)


@pytest.mark.parametrize("model", [PLAIN, SEMANTIC])
@pytest.mark.parametrize(("lanes", "size"), [(40, 6000), (1, 400)])
def test_it_learns(text: bytes, model: ModelSettings, lanes: int, size: int) -> None:
    model = replace(model, learning_rate=5000, learning_rate_last=5000)
    blocks = encode_segment(text[:size], model, lanes, "cpu")
    assert sum(len(block.payload) for block in blocks) < 0.75 * size


@pytest.mark.parametrize(
    "model", [PLAIN, SEMANTIC, *(preset.model for preset in NETWORKS["patchtst-small"].values())]
)
def test_its_weights_are_counted(model: ModelSettings) -> None:
    parameters = base.build(model, 3, CPU).parameters
    assert memory.parameter_count(model, 3) == sum(node.data.numel() for node in parameters.nodes)


def test_its_memory_is_not_far_off() -> None:
    for preset in NETWORKS["patchtst"].values():
        assert 2 << 30 < memory.memory_needed(preset.model, 512, 1 << 20) < 12 << 30
