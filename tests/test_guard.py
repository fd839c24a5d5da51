"""The dispatch guard, and every network's step under it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import TINY, TINY_LSTM, TRACE_TINY, TRACE_TINY_SEMANTIC
from sepzip.exact.guard import ExactOnly, InexactOperationError
from sepzip.memory import memory_needed
from sepzip.model import Model
from sepzip.presets import NETWORKS, ModelSettings

CPU = torch.device("cpu")
# The largest settings do not fit into the memory of most machines; small ones of their network are tested.
PUBLISHED = [
    (name, semantics)
    for name, presets in sorted(NETWORKS.items())
    for semantics, preset in presets.items()
    # A memory of contexts has no operations of torch.
    if not preset.model.contexts and memory_needed(preset.model, 3, 1) < 4 << 30
]


@pytest.mark.parametrize(
    "operation",
    [
        torch.exp,
        torch.sqrt,
        torch.sigmoid,
        torch.tanh,
        torch.log2,
        lambda x: x / 3.7,
        torch.sum,
        lambda x: x @ x,
    ],
)
def test_refuses_what_differs_between_devices(operation: Callable[[Tensor], Tensor]) -> None:
    x = torch.rand(8, 8)
    with ExactOnly(), pytest.raises(InexactOperationError):
        operation(x)


def test_refuses_whole_numbers_too_large_for_their_sum() -> None:
    x = torch.full((8, 8), 2.0**22)
    with ExactOnly(), pytest.raises(InexactOperationError):
        x.sum()


def test_lets_whole_numbers_through() -> None:
    x = torch.full((8, 8), 3.0)
    with ExactOnly():
        assert (x @ x).sum().item() == 9 * 8 * 64


def _run_guarded(settings: ModelSettings, lanes: int, steps: int) -> None:
    with torch.inference_mode(), ExactOnly():
        model = Model(settings, lanes, CPU)
        symbols = torch.arange(lanes)
        for _ in range(steps):
            frequencies = model.predict()
            frequencies.starts()
            frequencies.intervals(symbols)
            model.learn(symbols)
        model.fingerprint()


@pytest.mark.parametrize("changes", [{}, {"embedding": 16, "lane_widths": (32,), "hidden": 512}])
def test_small_networks_are_exact(changes: dict[str, Any]) -> None:
    _run_guarded(replace(NETWORKS["pac-small"][True].model, **changes), 6, 3)


@pytest.mark.parametrize(("name", "semantics"), PUBLISHED)
def test_networks_at_their_published_sizes_are_exact(name: str, semantics: bool) -> None:
    _run_guarded(NETWORKS[name][semantics].model, 3, 1)


@pytest.mark.parametrize(
    "model", [TINY, TINY_LSTM, replace(TINY_LSTM, layers=1, context=1), TRACE_TINY, TRACE_TINY_SEMANTIC]
)
def test_tiny_sizes_are_exact(model: ModelSettings) -> None:
    _run_guarded(model, 5, 4)
