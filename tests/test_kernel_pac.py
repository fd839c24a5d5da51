"""PAC's kernels against the plain network: every weight and moment after several steps, to the last bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from conftest import TINY
from kernels import DEVICE
from sepzip.engine import decode_segment, encode_segment
from sepzip.exact.adam import adam
from sepzip.exact.kernels.parameters import Learner, Parameter
from sepzip.exact.tape import ParameterNode, Tape
from sepzip.exact.workspace import Workspace
from sepzip.frequencies import Frequencies
from sepzip.networks import base
from sepzip.networks.kernels import pac_block
from sepzip.networks.kernels.pac import FusedPAC
from sepzip.networks.pac import PAC, Embedding
from sepzip.optimizer import Adam
from sepzip.presets import ModelSettings

_TINY = ModelSettings(
    semantics=False,
    context=5,
    patch=0,
    stride=0,
    embedding=4,
    lane_widths=(4, 8, 20),
    hidden=40,
    learning_rate=6000,
    learning_rate_last=1500,
    learning_rate_steps=10,
)


def _network(settings: ModelSettings, lanes: int, device: torch.device) -> PAC:
    network = base.build(settings, lanes, device)
    assert isinstance(network, PAC)
    network.start(torch.zeros((settings.context, lanes), dtype=torch.int64, device=device))
    return network


class _PlainFront:
    """The embedding as it is written, between kernels."""

    def __init__(self, front: Embedding, state: Parameter, learner: Learner, contexts: Tensor) -> None:
        self._front, self._state, self._learner = front, state, learner
        self._contexts = contexts
        self._step = 0

    def forward(self) -> Tensor:
        self._tape = Tape()
        self._front.table.written = False
        self._front.table.gradient_view = torch.empty_like(self._state.weight)
        self._out = self._front.forward(self._tape, self._contexts[self._step])
        self._step += 1
        return self._out.data

    def backward(self, gradient: Tensor) -> None:
        self._out.add_gradient(gradient)
        self._tape.run_backward()
        state, learner = self._state, self._learner
        gradient = self._front.table.gradient_view
        adam(state.weight, state.first, state.second, gradient, learner.size, learner.epsilon)


def _train_plain(network: PAC, contexts: Tensor, symbols: Tensor, settings: ModelSettings) -> list[Tensor]:
    network.parameters.make_gradients()
    optimizer = Adam(network.parameters, settings, symbols.shape[1])
    results = []
    for step, (context, true) in enumerate(zip(contexts, symbols, strict=True)):
        tape = Tape()
        network.parameters.begin_step()
        logits = network.forward(tape, context)
        results.append(logits.data.clone())
        logits.add_gradient(Frequencies(logits.data).loss_gradient(true))
        tape.run_backward()
        network.parameters.end_step()
        optimizer.update(torch.tensor([step]))
    return [*results, network.parameters.data, optimizer.first, optimizer.second]


def _train_fused(network: PAC, contexts: Tensor, symbols: Tensor, settings: ModelSettings) -> list[Tensor]:
    lanes = symbols.shape[1]
    data = network.parameters.data
    optimizer = Adam(network.parameters, settings, lanes)
    learner = Learner(torch.zeros(1, device=DEVICE), optimizer.epsilon)

    def state(node: ParameterNode) -> Parameter:
        return Parameter(node.data, node.part_of(optimizer.first), node.part_of(optimizer.second))

    assert isinstance(network.front, Embedding)
    front = _PlainFront(network.front, state(network.front.table), learner, contexts)
    steps = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    fused = FusedPAC(network, front, state, learner, lanes, steps, Workspace(DEVICE))
    results = []
    for true in symbols:
        learner.size.copy_(optimizer.step_size(steps))
        logits = fused.forward()
        results.append(logits.clone())
        fused.by_logits.copy_(Frequencies(logits).loss_gradient(true))
        fused.backward()
        steps.add_(1)
    return [*results, data, optimizer.first, optimizer.second]


@pytest.mark.parametrize(
    ("lanes", "steps", "settings"),
    [
        # Several blocks: a lane width that does not divide the width, and one that is all of it.
        (3, 3, _TINY),
        # More inputs than a program quantises at once, more lanes than a tile has.
        (37, 2, replace(_TINY, lane_widths=(21,), hidden=264, context=3, embedding=7)),
        (2, 3, replace(_TINY, lane_widths=(1, 2))),
        (1, 3, replace(_TINY, lane_widths=(1,), hidden=1, context=1, embedding=1)),
    ],
)
def test_training(lanes: int, steps: int, settings: ModelSettings) -> None:
    _train_both(lanes, steps, settings)


def test_lanes_updated_by_few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several blocks the first is updated with all other weights, the rest as large ones are."""
    monkeypatch.setattr(pac_block, "_programs", lambda _lanes, width, _device: None if width == 4 else 2)
    _train_both(3, 3, _TINY)


@pytest.mark.skipif(DEVICE.type != "cuda", reason="steps are captured on a GPU alone")
def test_updates_that_last_into_the_next_step(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs of many steps and of one, whose branches are joined where the next step needs them."""
    data, lanes = text[:200], 3
    (expected,) = encode_segment(data, TINY, lanes, "cpu")
    monkeypatch.setattr(pac_block, "_MANY_WEIGHTS", 1)
    (block,) = encode_segment(data, TINY, lanes, "cuda")
    assert (block.payload, block.fingerprint) == (expected.payload, expected.fingerprint)
    assert bytes(decode_segment([block], len(data), TINY, lanes, "cuda")) == data


def _train_both(lanes: int, steps: int, settings: ModelSettings) -> None:
    generator = torch.Generator().manual_seed(lanes)
    stream = torch.randint(0, 256, (settings.context + steps, lanes), generator=generator)
    stream[:, : lanes // 2] %= 5
    contexts = torch.stack([stream[i : i + settings.context] for i in range(steps)])
    symbols = stream[settings.context :]
    with torch.inference_mode():
        plain = _train_plain(_network(settings, lanes, torch.device("cpu")), contexts, symbols, settings)
        network = _network(settings, lanes, DEVICE)
        fused = _train_fused(network, contexts.to(DEVICE), symbols.to(DEVICE), settings)
    for index, (a, b) in enumerate(zip(plain, fused, strict=True)):
        assert torch.equal(a.view(torch.int32), b.cpu().view(torch.int32)), index
