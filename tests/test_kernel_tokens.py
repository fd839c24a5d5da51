"""Kernels of TRACE and PatchTST against the plain networks: weights and moments, to the last bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import TRACE_TINY, TRACE_TINY_SEMANTIC
from kernels import DEVICE
from sepzip.exact.kernels.parameters import Learner, Parameter
from sepzip.exact.tape import ParameterNode, Tape
from sepzip.exact.workspace import Workspace
from sepzip.frequencies import Frequencies
from sepzip.memory import memory_needed
from sepzip.networks import base
from sepzip.optimizer import Adam
from sepzip.presets import NETWORKS, ModelSettings

_RATES: dict[str, Any] = {"learning_rate": 6000, "learning_rate_last": 1500, "learning_rate_steps": 10}
_TRACE = replace(TRACE_TINY, **_RATES)
_SEP_TRACE = replace(TRACE_TINY_SEMANTIC, **_RATES)
_PATCHTST = replace(_TRACE, network="patchtst")
_SEP_PATCHTST = replace(_SEP_TRACE, network="patchtst", positions=0)
_ONE: dict[str, Any] = {"context": 2, "hidden": 1, "embedding": 1, "positions": 0, "heads": 1}
_ONE_TOKEN = _ONE | {"patch": 1, "embedding": 2, "tokens": 1, "mixing": 1}


def _train_plain(settings: ModelSettings, stream: Tensor) -> list[Tensor]:
    """Return the logits of each step, and the weights and moments after the last."""
    lanes, context = stream.shape[1], settings.context
    network = base.build(settings, lanes, torch.device("cpu"))
    network.parameters.make_gradients()
    optimizer = Adam(network.parameters, settings, lanes)
    results = []
    for step in range(len(stream) - context):
        tape = Tape()
        network.parameters.begin_step()
        logits = network.forward(tape, stream[step : step + context])
        results.append(logits.data.clone())
        logits.add_gradient(Frequencies(logits.data).loss_gradient(stream[step + context]))
        tape.run_backward()
        network.parameters.end_step()
        optimizer.update(torch.tensor([step]))
    return [*results, network.parameters.data, optimizer.first, optimizer.second]


def _train_fused(settings: ModelSettings, stream: Tensor) -> list[Tensor]:
    """Return the same of the kernels."""
    lanes, context = stream.shape[1], settings.context
    network = base.build(settings, lanes, DEVICE)
    data = network.parameters.data
    optimizer = Adam(network.parameters, settings, lanes)
    learner = Learner(torch.zeros(1, device=DEVICE), optimizer.epsilon)

    def state(node: ParameterNode) -> Parameter:
        return Parameter(node.data, node.part_of(optimizer.first), node.part_of(optimizer.second))

    history = stream.to(torch.uint8).to(DEVICE)
    position, steps = (torch.zeros(1, dtype=torch.int64, device=DEVICE) for _ in range(2))
    kernels, workspace = base.kernels_of(settings.network), Workspace(DEVICE)
    front = kernels.fuse_front(network, state, learner, history, position, workspace)
    fused = kernels.fuse(network, front, state, learner, lanes, steps, workspace)
    results = []
    for true in stream[context:].to(DEVICE):
        learner.size.copy_(optimizer.step_size(steps))
        logits = fused.forward()
        results.append(logits.clone())
        fused.by_logits.copy_(Frequencies(logits).loss_gradient(true))
        fused.backward()
        steps.add_(1)
        position.add_(1)
    return [*results, data, optimizer.first, optimizer.second]


@pytest.mark.parametrize(
    ("lanes", "steps", "settings"),
    [
        (3, 2, _TRACE),
        (3, 2, _PATCHTST),
        # More inputs than a program quantises at once, more rows than a tile has.
        (22, 2, replace(_TRACE, hidden=260, heads=1)),
        (22, 1, replace(_PATCHTST, hidden=260, heads=1)),
        (1, 2, replace(_TRACE, **_ONE)),
        (1, 2, replace(_PATCHTST, **_ONE)),
        (3, 2, _SEP_TRACE),
        (3, 2, _SEP_PATCHTST),
        # One token, more lanes than a program of the SEB takes, one of everything else.
        (33, 1, replace(_SEP_TRACE, **_ONE_TOKEN)),
        (33, 1, replace(_SEP_PATCHTST, **_ONE_TOKEN)),
    ],
    ids=lambda value: value.network if isinstance(value, ModelSettings) else str(value),
)
def test_training(lanes: int, steps: int, settings: ModelSettings) -> None:
    generator = torch.Generator().manual_seed(lanes)
    stream = torch.randint(0, 256, (settings.context + steps, lanes), generator=generator)
    stream[:, : lanes // 2] %= 5
    with torch.inference_mode():
        plain, fused = _train_plain(settings, stream), _train_fused(settings, stream)
    for index, (a, b) in enumerate(zip(plain, fused, strict=True)):
        assert torch.equal(a.view(torch.int32), b.cpu().view(torch.int32)), index


@pytest.mark.parametrize("network", ["trace", "patchtst"])
@pytest.mark.parametrize("semantics", [False, True])
def test_what_the_kernels_hold(network: str, semantics: bool) -> None:
    for name in (network, f"{network}-small"):
        preset = NETWORKS[name][semantics]
        assert base.has_kernels(preset.model, preset.lanes)
    model = NETWORKS[network][semantics].model
    tokens = model.tokens if semantics else model.context // model.token
    assert base.has_kernels(model, (1 << 17) // tokens)
    assert not base.has_kernels(model, (1 << 17) // tokens + 1)
    assert not base.has_kernels(replace(model, heads=4), 1)
    if semantics:
        assert not base.has_kernels(replace(model, mixing=513), 1)
        assert not base.has_kernels(replace(model, context=65), 1)


@pytest.mark.parametrize("settings", [_TRACE, _PATCHTST, _SEP_TRACE, _SEP_PATCHTST])
def test_their_memory_is_counted(settings: ModelSettings) -> None:
    """What a step works in is within the estimate for a segment."""
    sizes = []
    for lanes in (8, 16):
        workspace = Workspace(DEVICE)
        network = base.build(settings, lanes, DEVICE)
        flat = network.parameters.data

        def state(node: ParameterNode, flat: Tensor = flat) -> Parameter:
            return Parameter(node.data, node.part_of(flat), node.part_of(flat))

        history = torch.zeros((settings.context, lanes), dtype=torch.uint8, device=DEVICE)
        number = torch.zeros(1, dtype=torch.int64, device=DEVICE)
        kernels, learner = base.kernels_of(settings.network), Learner(flat, 1.0)
        front = kernels.fuse_front(network, state, learner, history, number, workspace)
        kernels.fuse(network, front, state, learner, lanes, number, workspace)
        sizes.append(workspace.size)
    estimates = [memory_needed(settings, lanes, 0) for lanes in (8, 16)]
    assert sizes[1] - sizes[0] < estimates[1] - estimates[0]
