"""The network oreo and its ordered mask: gradients, order, and round trips."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from conftest import TINY
from round_trips import comes_back
from sepzip import memory
from sepzip.engine import encode_segment
from sepzip.exact.guard import ExactOnly
from sepzip.exact.ordered_mask import ordered_mask
from sepzip.exact.tape import Node, Tape
from sepzip.model import Model
from sepzip.networks import base
from sepzip.networks.oreo import OREO
from sepzip.presets import NETWORKS, ModelSettings
from test_exact import gradients, random, relative_error

CPU = torch.device("cpu")
DEVICES = ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]
SEMANTIC = replace(TINY, network="oreo", lane_widths=(), layers=2)
PLAIN = replace(SEMANTIC, semantics=False, patch=0, stride=0)


def masked(x: Tensor, weight: Tensor) -> Tensor:
    """Return x, float64 [lanes, positions * size], under the mask."""
    importance = torch.softmax(weight, 0).cumsum(0)
    return (x.view(len(x), len(weight), -1) * importance.unsqueeze(1)).view(x.shape)


@pytest.mark.parametrize(("lanes", "positions", "size"), [(5, 6, 4), (33, 16, 1), (1, 2, 3), (3, 4096, 1)])
@pytest.mark.parametrize("spread", [0.0, 1.0, 6.0])
def test_ordered_mask(lanes: int, positions: int, size: int, spread: float) -> None:
    pairs = gradients(
        lambda tape, n: ordered_mask(tape, n[0], n[1]),
        lambda w: masked(w[0], w[1]),
        random(lanes, positions * size),
        random(positions, seed=2) * spread,
    )
    for pair, bound in zip(pairs, (1e-4, 1e-4, 2e-3), strict=True):
        assert relative_error(*pair) < bound


def test_the_mask_never_falls_towards_the_newest_position() -> None:
    weight = random(50) * 20
    weight[:3] = 200.0
    for learned in (weight, -weight, torch.zeros(50)):
        importance = ordered_mask(Tape(), Node(torch.ones(1, 50)), Node(learned)).data[0]
        assert bool((importance.diff() >= 0).all())
        assert importance[0] >= 0 and importance[-1] == 1


def test_the_mask_of_one_position_lets_all_through() -> None:
    tape, x, weight = Tape(), Node(random(3, 4)), Node(torch.full((1,), 5.0))
    out = ordered_mask(tape, x, weight)
    assert torch.equal(out.data, x.data)
    out.add_gradient(x.data)
    tape.run_backward()
    assert weight.grad is not None and weight.grad.tolist() == [0.0]


def test_gradients_of_the_whole_network() -> None:
    network = base.build(replace(PLAIN, layers=1), 20, CPU)
    assert isinstance(network, OREO)
    for node in network.parameters.nodes:
        # Far enough from where they start for every gradient to be more than rounding.
        node.data.add_(random(*node.data.shape, seed=node.offset) * 0.3)
    network.parameters.make_gradients()
    network.parameters.begin_step()
    wide = [node.data.double().requires_grad_() for node in network.parameters.nodes]
    context = torch.randint(0, 256, (6, 20), generator=torch.Generator().manual_seed(1))
    pull = random(20, 256, seed=7)
    tape = Tape()
    logits = network.forward(tape, context)
    logits.add_gradient(pull)
    tape.run_backward()
    network.parameters.end_step()

    table, order, gain, offset, into, into_bias, out_of, out_of_bias, gain2, offset2, out, out_bias = wide
    x = torch.sigmoid(table)[context.t()].reshape(20, -1)
    x = masked(layer_norm(x, x.shape[1:]), order)
    skip = layer_norm(x, x.shape[1:], gain, offset)
    inner = torch.nn.functional.gelu(skip @ into + into_bias) @ out_of + out_of_bias
    x = (skip + torch.nn.functional.gelu(layer_norm(inner, x.shape[1:], gain2, offset2))) / 2
    expected = x @ out + out_bias
    assert relative_error(logits.data, expected.detach()) < 0.03
    for node, want in zip(
        network.parameters.nodes, torch.autograd.grad(expected, wide, pull.double()), strict=True
    ):
        assert relative_error(node.gradient_view, want) < 0.08


@pytest.mark.parametrize("model", [PLAIN, SEMANTIC])
def test_its_steps_are_exact(model: ModelSettings) -> None:
    with torch.inference_mode(), ExactOnly():
        run = Model(model, 5, CPU)
        for _ in range(3):
            run.predict().starts()
            run.learn(torch.arange(5))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("lanes", [1, 9])
@pytest.mark.parametrize(
    "model",
    [
        PLAIN,
        SEMANTIC,
        replace(PLAIN, context=1, layers=1, hidden=1, embedding=1),
        replace(SEMANTIC, patch=1, stride=6, layers=5, learning_rate=1_000_000),
    ],
)
def test_all_sizes_come_back(text: bytes, model: ModelSettings, lanes: int, device: str) -> None:
    data = text[: 50 * lanes - lanes // 2]
    comes_back(data, model, lanes, device)


@pytest.mark.parametrize("model", [PLAIN, SEMANTIC])
def test_it_learns(text: bytes, model: ModelSettings) -> None:
    model = replace(model, learning_rate=5000, learning_rate_last=5000)
    blocks = encode_segment(text[:8000], model, 40, "cpu")
    assert sum(len(block.payload) for block in blocks) < 0.75 * 8000


@pytest.mark.parametrize("model", [PLAIN, SEMANTIC, *(preset.model for preset in NETWORKS["oreo"].values())])
def test_its_weights_are_counted(model: ModelSettings) -> None:
    parameters = base.build(model, 3, CPU).parameters
    assert memory.parameter_count(model, 3) == sum(node.data.numel() for node in parameters.nodes)
