"""What a model needs of memory, and what is free."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .errors import OutOfMemoryError
from .presets import ModelSettings

if TYPE_CHECKING:
    import torch

__all__ = ["advice", "available", "check", "memory_needed", "parameter_count"]

_MIB = 1 << 20


def parameter_count(model: ModelSettings, lanes: int) -> int:
    """Return how many weights the model has, those of the lanes included."""
    width, hidden = model.width, model.hidden
    lane = sum(size * size + size for size in model.lane_widths) * lanes
    shared = len(model.lane_widths) * (2 * width * hidden + hidden + 5 * width)
    return lane + shared + 257 * 256 + width * 256 + 256 * model.embedding + 2 * model.context


def memory_needed(model: ModelSettings, lanes: int, size: int) -> int:
    """Return an estimate, in bytes, of what coding a segment of `size` bytes takes.

    Four float32 numbers a weight are kept and up to three more are in work at a time; a lane has about
    twelve live numbers for every hidden value, and the SEB two float64 for each embedded byte.
    """
    weights = 28 * parameter_count(model, lanes)
    activations = lanes * 4 * (12 * model.hidden + 40 * model.width * len(model.lane_widths) + 256 * 16)
    embedded = lanes * model.context * model.embedding * 24
    return weights + activations + embedded + 4 * size + 32 * _MIB


def available(device: torch.device) -> int | None:
    """Return the bytes that are free on the device, or None where the system does not tell."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def check(model: ModelSettings, lanes: int, size: int, device: torch.device) -> None:
    """Raise OutOfMemoryError, saying what would fit, if the model will not fit on the device."""
    needed, free = memory_needed(model, lanes, size), available(device)
    if free is None or needed <= free:
        return
    fitting = lanes
    while fitting > 1 and memory_needed(model, fitting, size) > free:
        fitting //= 2
    fits = memory_needed(model, fitting, size) <= free
    hint = f"{fitting} lanes would fit" if fits else "no number of lanes fits"
    raise OutOfMemoryError(
        f"{lanes} lanes of this model need about {needed // _MIB} MiB and {free // _MIB} MiB are free on "
        f"{device}: {hint} when compressing (--lanes); to decompress, use a device with more memory"
    )


def advice(device: torch.device) -> str:
    """Return the line for memory that ran out in the middle of the work."""
    return (
        f"memory ran out on {device}: free some, use another --device, or compress with fewer --lanes "
        "or a lower level"
    )
