"""Whether kernels run on a GPU, and what does the work where they do not."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch

import sepzip
from conftest import TINY
from kernels import DEVICE
from sepzip import gpu_kernels
from sepzip.cli.messages import Messages
from sepzip.cli.run import _device_warnings
from sepzip.devices import Resources
from sepzip.engine import decode_segment, encode_segment
from sepzip.exact.kernels import probe
from sepzip.gpu_kernels import kernels_run
from sepzip.presets import LEVELS, NETWORKS
from sepzip.scheduler import Scheduler
from sepzip.tensors import has_kernels

MODEL = LEVELS[1].model


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU of compute capability 8.0 that nothing is known of; what is put to the test puts it away."""
    monkeypatch.setattr(gpu_kernels, "_found", {})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(probe, "works", lambda device: True)
    yield


def fails(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def works(device: torch.device) -> bool:
        raise error

    monkeypatch.setattr(probe, "works", works)


def test_a_kernel_runs_where_the_tests_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert probe.works(DEVICE)


def test_where_kernels_run() -> None:
    with warnings.catch_warnings(action="error"):
        assert kernels_run("cuda:0", of_networks=True) and kernels_run("cuda:1", of_networks=False)
        assert not kernels_run("cpu", of_networks=True)
        assert has_kernels(TINY, 4, "cuda:0") and not has_kernels(TINY, 4, "cpu")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("Failed to find C compiler. Please"), "finds no C compiler: install one, such as gcc;"),
        (subprocess.CalledProcessError(1, ["gcc"]), "it needs Python's headers (python3-dev) too;"),
        (ImportError("No module named 'triton'"), "kernels need Triton, which is not installed;"),
        (PermissionError(13, "Permission denied"), "(PermissionError: [Errno 13] Permission denied);"),
        (RuntimeError("one line\nand another"), "no kernel runs (RuntimeError: one line); CPUs do the work,"),
        (RuntimeError(), "no kernel runs (RuntimeError: );"),
    ],
)
def test_what_keeps_kernels_from_running_is_told_once(
    monkeypatch: pytest.MonkeyPatch, error: Exception, expected: str
) -> None:
    fails(monkeypatch, error)
    with pytest.warns(sepzip.DeviceWarning) as told:
        assert not any(kernels_run("cuda:1", of_networks=False) for _ in range(3))
    assert len(told) == 1
    text = str(told[0].message)
    assert text.startswith("cuda:1: ") and expected in text and "\n" not in text


def test_a_kernel_that_gives_a_wrong_result_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "works", lambda device: False)
    with pytest.warns(sepzip.DeviceWarning, match="a kernel gave a wrong result"):
        assert not kernels_run("cuda:0", of_networks=False)


def test_memory_that_is_full_says_nothing_of_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, torch.OutOfMemoryError())
    with pytest.raises(torch.OutOfMemoryError):
        kernels_run("cuda:0", of_networks=False)
    monkeypatch.setattr(probe, "works", lambda device: True)
    assert kernels_run("cuda:0", of_networks=False)


def test_an_older_gpu_has_no_kernels_of_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert kernels_run("cuda:0", of_networks=False)
    with pytest.warns(
        sepzip.DeviceWarning, match=r"capability 7\.5, and kernels of networks need 8\.0; each op"
    ):
        assert not has_kernels(TINY, 4, "cuda:0")
    # One that has none anywhere says nothing of the GPU.
    gpu_kernels._found.clear()
    with warnings.catch_warnings(action="error"):
        assert not has_kernels(NETWORKS["oreo"][True].model, 4, "cuda:0")


def test_cpus_code_a_memory_where_no_kernel_runs(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, RuntimeError("Failed to find C compiler"))
    data = text[:3000]
    with pytest.warns(sepzip.DeviceWarning, match="CPUs do the work"):
        blocks = list(encode_segment(data, MODEL, 2, "cuda:0"))
    assert [block.payload for block in encode_segment(data, MODEL, 2, "cpu")] == [x.payload for x in blocks]
    assert decode_segment(blocks, len(data), MODEL, 2, "cuda:0") == data


def test_auto_takes_gpus_on_which_kernels_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sepzip.scheduler.pick_devices", lambda name: ["cuda:0", "cuda:1"])
    monkeypatch.setattr("sepzip.scheduler.is_sooner_on_cpu", lambda *_, begun: False)
    monkeypatch.setattr(probe, "works", lambda device: device.index == 1)
    with pytest.warns(sepzip.DeviceWarning, match="cuda:0"):
        picked = Scheduler(Resources(), overlap=False).devices_for(MODEL, 2, 1 << 20)
    assert picked == ["cuda:1"]
    fails(monkeypatch, RuntimeError())
    gpu_kernels._found.clear()
    scheduler = Scheduler(Resources(), overlap=False)
    with pytest.warns(sepzip.DeviceWarning):
        assert scheduler.devices_for(MODEL, 2, 1 << 20) == ["cpu"]
    # A network runs without kernels as well, and what was asked for is taken.
    assert scheduler.devices_for(TINY, 2, 1 << 20) == ["cuda:0", "cuda:1"]
    asked = Scheduler(Resources("cuda"), overlap=False)
    assert asked.devices_for(MODEL, 2, 1 << 20) == ["cuda:0", "cuda:1"]


def test_the_command_says_it_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(RuntimeWarning, match="of another kind"), _device_warnings(Messages("sep", quiet=True)):
        warnings.warn("cuda:0: no kernel runs", sepzip.DeviceWarning, stacklevel=1)
        warnings.warn("of another kind", RuntimeWarning, stacklevel=1)
    assert capsys.readouterr().err == "sep: cuda:0: no kernel runs\n"
