"""What segments share on a device: the memory of a step, and streams, one after the other."""

from __future__ import annotations

import weakref

import pytest
import torch

from conftest import TINY
from sepzip.memory import LARGE_MODEL, parameter_count
from sepzip.presets import NETWORKS
from sepzip.tensors import _Streams
from sepzip.workspaces import Workspaces, workspaces

CPU = torch.device("cpu")
LARGE = NETWORKS["pac"][True].model


def test_large_models_of_one_kind_take_turns() -> None:
    pool = Workspaces(CPU)
    assert parameter_count(LARGE, 4) >= LARGE_MODEL
    first = pool.lend(LARGE, 4)
    assert pool.lend(LARGE, 4) is first
    assert pool.lend(LARGE, 5) is not first
    assert pool.lend(LARGE, 5).workspace is not first.workspace


def test_a_workspace_goes_with_the_last_that_works_in_it() -> None:
    pool = Workspaces(CPU)
    first, second = pool.lend(LARGE, 4), pool.lend(LARGE, 4)
    gone = weakref.ref(first.workspace)
    del first
    assert gone() is second.workspace
    del second
    assert gone() is None


def test_small_models_have_one_each() -> None:
    pool = Workspaces(CPU)
    first = pool.lend(TINY, 4)
    assert pool.lend(TINY, 4).workspace is not first.workspace


def test_large_models_have_one_each_where_nothing_is_shared() -> None:
    pool = Workspaces(CPU)
    shared = pool.lend(LARGE, 4)
    pool.shared = False
    assert pool.lend(LARGE, 4).workspace is not shared.workspace
    pool.shared = None
    assert pool.lend(LARGE, 4) is shared


def test_small_models_can_be_told_to_share() -> None:
    pool = Workspaces(CPU)
    pool.shared = True
    assert pool.lend(TINY, 4) is (shared := pool.lend(TINY, 4))
    pool.shared = None
    assert pool.lend(TINY, 4) is not shared


def test_a_device_has_the_same_workspaces_every_time() -> None:
    assert workspaces(CPU) is workspaces(torch.device("cpu"))


def test_a_stream_is_lent_again_and_never_twice_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[object, torch.device]] = []

    def stream(device: torch.device) -> object:
        made.append((object(), device))
        return made[-1][0]

    monkeypatch.setattr(torch.cuda, "Stream", stream)
    streams = _Streams()
    with streams.lend(CPU) as first:
        with pytest.raises(KeyError), streams.lend(CPU) as second:
            assert second is not first
            raise KeyError
        with streams.lend(CPU) as third, streams.lend(torch.device("meta")) as other:
            assert third is second
            assert other is not second
    with streams.lend(CPU) as again:
        assert again is first
    assert len(made) == 3
