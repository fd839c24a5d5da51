"""The networks lstm and decmac: gradients, the state that they carry on, and their way through the engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from conftest import TINY_LSTM
from round_trips import comes_back
from sepzip import eager, engine, memory
from sepzip.engine import encode_segment
from sepzip.exact.concatenate import rows_by_place
from sepzip.exact.guard import ExactOnly
from sepzip.exact.tape import Tape
from sepzip.model import Model
from sepzip.networks import base
from sepzip.networks.decmac import DecMac
from sepzip.networks.lstm import LSTM
from sepzip.presets import ModelSettings
from test_exact import gradients, random, relative_error

CPU = torch.device("cpu")
DEVICES = ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]
SETTINGS = replace(TINY_LSTM, embedding=8, hidden=24)
SEMANTIC = replace(TINY_LSTM, semantics=True, context=6, patch=3, stride=2)
DECMAC = replace(TINY_LSTM, network="decmac")
DECMAC_SEMANTIC = replace(SEMANTIC, network="decmac")
LANES = 9

State = tuple[Tensor, Tensor]


def built(settings: ModelSettings) -> LSTM | DecMac:
    network = base.build(settings, LANES, CPU)
    assert isinstance(network, LSTM | DecMac)
    network.parameters.make_gradients()
    return network


def windows(count: int) -> Iterator[Tensor]:
    """Yield the contexts, int64 [3, lanes], of consecutive steps."""
    symbols = torch.randint(0, 256, (count + 2, LANES), generator=torch.Generator().manual_seed(1))
    for step in range(count):
        yield symbols[step : step + 3]


def reference(
    weights: list[Tensor], context: Tensor, states: list[State], is_lstm: bool
) -> tuple[Tensor, list[State]]:
    """Return the logits, and the states after the oldest byte, from the states before it, in float64.

    In lstm every layer sees the input and feeds the output; in decmac the lowest and the uppermost do.
    """
    table, *layers, out_weight, out_bias = weights
    outputs: list[list[Tensor]] = []
    first_states = []
    for index, (output, cell) in enumerate(states):
        weight_in, bias, weight_state = layers[3 * index : 3 * index + 3]
        outputs.append([])
        for place, symbols in enumerate(context):
            below = [outputs[index - 1][place]] if index else []
            x = torch.cat([table[symbols]] * (is_lstm or not index) + below, 1)
            i, f, o, g = (x @ weight_in + bias + output @ weight_state).chunk(4, 1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            output = torch.sigmoid(o) * torch.tanh(cell)
            outputs[index].append(output)
            if place == 0:
                first_states.append((output.detach(), cell.detach()))
    feeding = outputs if is_lstm else outputs[-1:]
    return torch.cat([of_layer[-1] for of_layer in feeding], 1) @ out_weight + out_bias, first_states


@pytest.mark.parametrize("name", ["lstm", "decmac"])
def test_gradients_of_the_whole_network(name: str) -> None:
    network = built(replace(SETTINGS, network=name))
    weights = [node.data.double().requires_grad_() for node in network.parameters.nodes]
    zeros = torch.zeros(LANES, SETTINGS.hidden, dtype=torch.float64)
    states: list[State] = [(zeros, zeros)] * SETTINGS.layers
    pull = torch.randn((LANES, 256), generator=torch.Generator().manual_seed(7))
    # In the second step and the third, the state comes from the steps before.
    for context in windows(3):
        network.parameters.begin_step()
        tape = Tape()
        logits = network.forward(tape, context)
        logits.add_gradient(pull)
        tape.run_backward()
        network.parameters.end_step()
        expected, states = reference(weights, context, states, name == "lstm")
        assert relative_error(logits.data, expected.detach()) < 0.03
        wanted = torch.autograd.grad(expected, weights, pull.double())
        for node, want in zip(network.parameters.nodes, wanted, strict=True):
            assert relative_error(node.gradient_view, want) < 0.05
    for layer, (output, cell) in zip(network.layers, states, strict=True):
        assert relative_error(layer.output, output) < 0.03
        assert relative_error(layer.cell, cell) < 0.03


def test_start_forgets() -> None:
    network = built(SETTINGS)
    contexts = list(windows(3))
    network.start(contexts[0])
    first = network.forward(Tape(), contexts[0]).data
    assert not torch.equal(network.forward(Tape(), contexts[0]).data, first)
    network.start(contexts[0])
    assert torch.equal(network.forward(Tape(), contexts[0]).data, first)


def test_rows_by_place() -> None:
    pairs = gradients(
        lambda tape, n: rows_by_place(tape, n[0], 3),
        lambda w: torch.cat(w[0].split(3, 1)),
        random(4, 15),
    )
    for ours, theirs in pairs:
        assert torch.equal(ours.double(), theirs)


def test_behind_the_seb_the_sequence_moves_on_by_a_place_with_each_byte() -> None:
    network = built(SEMANTIC)
    symbols = torch.randint(0, 256, (7, LANES), generator=torch.Generator().manual_seed(1))
    before, after = (network.front.forward(Tape(), symbols[i : i + 6]).data for i in range(2))
    assert before.shape == (3 * LANES, TINY_LSTM.embedding)
    assert torch.equal(after[: 2 * LANES], before[LANES:])


@pytest.mark.parametrize("model", [SEMANTIC, DECMAC, DECMAC_SEMANTIC, replace(DECMAC, layers=5)])
def test_its_steps_are_exact_and_its_weights_counted(model: ModelSettings) -> None:
    with torch.inference_mode(), ExactOnly():
        run = Model(model, 5, CPU)
        for _ in range(3):
            run.predict().starts()
            run.learn(torch.arange(5))
    nodes = built(model).parameters.nodes
    assert memory.parameter_count(model, LANES) == sum(node.data.numel() for node in nodes)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"context": 1, "layers": 1},
        {"context": 7, "hidden": 1, "embedding": 1},
        {"layers": 4, "hidden": 33, "beta1": 0, "beta2": 999_900},
        {"beta1": 999_900, "beta2": 0, "learning_rate": 1_000_000, "learning_rate_last": 1},
        {"semantics": True, "context": 6, "patch": 3, "stride": 2},
        {"semantics": True, "context": 3, "patch": 1, "stride": 3},
        {"semantics": True, "patch": 3, "stride": 1},
    ],
)
@pytest.mark.parametrize("network", ["lstm", "decmac"])
def test_all_sizes_come_back(text: bytes, network: str, changes: dict[str, int], device: str) -> None:
    model = replace(TINY_LSTM, network=network, **changes)  # type: ignore[arg-type]
    data = text[:401]
    comes_back(data, model, 8, device)


def test_several_chunks_come_back(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (engine, eager):
        monkeypatch.setattr(module, "CHUNK_STEPS", 64)
    lanes = 3
    data = text[: (3 * 64 + 20) * lanes - 1]
    comes_back(data, TINY_LSTM, lanes)


@pytest.mark.parametrize("model", [TINY_LSTM, SEMANTIC, DECMAC, DECMAC_SEMANTIC])
def test_it_learns(text: bytes, model: ModelSettings) -> None:
    data = text[:6000]
    model = replace(model, hidden=24, embedding=16)
    assert sum(len(block.payload) for block in encode_segment(data, model, 40, "cpu")) < 0.75 * len(data)
