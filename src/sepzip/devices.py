"""Which devices work on a call's segments, and how many segments are in flight on each."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

from .driver import cuda_devices
from .errors import DeviceError, UsageError
from .memory import Share

__all__ = ["STREAMS", "Resources", "pick_devices", "streams_on", "uses_cuda"]

STREAMS = {"cpu": 1, "cuda": 2}
"""How many segments are in flight on a device of each kind unless the user says otherwise."""

_MOST_STREAMS = 64
_CUDA = re.compile(r"cuda(:\d+(,\d+)*)?", re.ASCII)


@dataclass(frozen=True)
class Resources:
    """What a call may use: devices as `pick_devices` reads them, segments in flight and memory on each.

    None leaves `streams` to STREAMS, and the memory to what is free. Raises UsageError for numbers out of
    range.
    """

    device: str = "auto"
    streams: int | None = None
    memory_limit: int | Share | None = None

    def __post_init__(self) -> None:
        if self.streams is not None and not 1 <= self.streams <= _MOST_STREAMS:
            raise UsageError(f"streams must be from 1 to {_MOST_STREAMS}, not {self.streams}")
        if isinstance(self.memory_limit, int) and self.memory_limit < 1:
            raise UsageError(f"the memory limit must be at least 1 byte, not {self.memory_limit}")


def pick_devices(name: str) -> list[str]:
    """Return the torch names of the devices that `name` stands for.

    'cpu' is the CPU, 'cuda' every CUDA device, 'cuda:1' and 'cuda:0,1' those of these numbers, 'auto' every
    CUDA device or else the CPU. Raises DeviceError for what is not there, and for 'auto' never.
    """
    if name == "cpu":
        return ["cpu"]
    if name == "auto":
        return _cuda_devices_that_work() or ["cpu"]
    if not _CUDA.fullmatch(name):
        raise DeviceError(f"unknown device {name!r}: use auto, cpu, cuda, cuda:N or cuda:N,M")
    count = _cuda_devices_of_torch()
    numbers = [int(number) for number in name.partition(":")[2].split(",") if number]
    if len(set(numbers)) < len(numbers):
        raise DeviceError(f"device {name!r} names a device twice: name each once")
    if max(numbers, default=0) >= count:
        there = f"this machine has cuda:0 to cuda:{count - 1}" if count else "no CUDA device was found"
        raise DeviceError(f"device {name!r} is not there: {there}; use --device auto or cpu")
    return [f"cuda:{number}" for number in numbers or range(count)]


def _cuda_devices_that_work() -> list[str]:
    """Return the CUDA devices that there are, none where the driver or torch has trouble with them."""
    if not cuda_devices():
        return []
    try:
        return [f"cuda:{number}" for number in range(_cuda_devices_of_torch())]
    except (ImportError, OSError, RuntimeError):
        return []


def _cuda_devices_of_torch() -> int:
    # Imported here, for a segment on a CPU may need no torch.
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def uses_cuda() -> bool:
    """Return whether this process has worked on a CUDA device by torch already."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def streams_on(device: str, asked: int | None) -> int:
    """Return how many segments are in flight on a device of `pick_devices`, given what the user asked for."""
    return STREAMS[device.partition(":")[0]] if asked is None else asked
