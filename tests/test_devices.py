"""Which devices a name stands for, and which numbers are refused."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

import sepzip
from sepzip import devices
from sepzip.devices import STREAMS, Resources, pick_devices, streams_on
from sepzip.driver import cuda_devices
from sepzip.errors import DeviceError, UsageError
from sepzip.memory import Share


@pytest.fixture
def three_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the driver and torch say that there are three CUDA devices."""
    monkeypatch.setattr(devices, "cuda_devices", lambda: 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


@pytest.mark.usefixtures("three_devices")
@pytest.mark.parametrize(
    ("name", "numbers"),
    [("cuda", [0, 1, 2]), ("auto", [0, 1, 2]), ("cuda:1", [1]), ("cuda:0,2", [0, 2]), ("cuda:2,0", [2, 0])],
)
def test_names_of_cuda_devices(name: str, numbers: list[int]) -> None:
    assert pick_devices(name) == [f"cuda:{number}" for number in numbers]


def test_the_cpu() -> None:
    assert pick_devices("cpu") == ["cpu"]


@pytest.mark.usefixtures("three_devices")
def test_auto_is_the_cpu_where_torch_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> bool:
        raise RuntimeError("the driver is too old")

    for is_available in (lambda: False, fail):
        monkeypatch.setattr(torch.cuda, "is_available", is_available)
        assert pick_devices("auto") == ["cpu"]
    monkeypatch.setitem(sys.modules, "torch", None)
    assert pick_devices("auto") == ["cpu"]


class Driver:
    """What ctypes makes of a driver: `statuses` are of its start and of the count of `count` devices."""

    def __init__(self, statuses: tuple[int, int], count: int) -> None:
        self.cuInit = lambda flags: statuses[0]
        self._status, self._count = statuses[1], count

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self._count
        return self._status


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        (Driver((0, 0), 2), 2),
        (Driver((100, 0), 2), 0),
        (Driver((0, 3), 2), 0),
        (object(), 0),
        (OSError("no such file"), 0),
    ],
)
def test_what_the_driver_says(driver: object, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> object:
        if isinstance(driver, OSError):
            raise driver
        return driver

    monkeypatch.setattr("ctypes.CDLL", load)
    assert cuda_devices.__wrapped__() == expected


def test_the_driver_and_torch_agree() -> None:
    assert cuda_devices() == (torch.cuda.device_count() if torch.cuda.is_available() else 0)


def test_auto_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cuda_devices", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_devices("auto") == ["cpu"]
    with pytest.raises(DeviceError, match="no CUDA device"):
        pick_devices("cuda")


@pytest.mark.parametrize(
    "name",
    ["cuda:99", "cuda:0,99", "cuda:x", "cuda:1,", "cuda:,", "tpu", "", "cuda:", "cpu:0", "cuda:\u0660"],
)
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(DeviceError):
        pick_devices(name)


@pytest.mark.usefixtures("three_devices")
def test_a_device_named_twice() -> None:
    with pytest.raises(DeviceError, match="twice"):
        pick_devices("cuda:1,1")


def test_streams() -> None:
    assert streams_on("cpu", None) == STREAMS["cpu"] == 1
    assert streams_on("cuda:3", None) == STREAMS["cuda"]
    assert streams_on("cuda:3", 7) == 7


@pytest.mark.parametrize("wrong", [{"streams": 0}, {"streams": -1}, {"streams": 65}, {"memory_limit": 0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        Resources(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        sepzip.compress(b"", **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        sepzip.decompress(sepzip.compress(b""), **wrong)  # type: ignore[arg-type]


def test_a_limit_may_be_a_share() -> None:
    assert Resources(memory_limit=Share(50)).memory_limit == Share(50)
