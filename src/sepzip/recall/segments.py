"""Between the engine and a memory of contexts: what is done to a segment, and who codes it where."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..gpu_kernels import kernels_run
from ..presets import ModelSettings
from .calls import make_absolute, make_relative
from .plan import Plan

if TYPE_CHECKING:
    from ..profile import Profile
    from ..runs import Decoding, Encoding

__all__ = ["memory_decoding", "memory_encoding", "prepare", "restore", "runs_on_host"]

Tick = Callable[[], None]


def prepare(content: NDArray[np.uint8], model: ModelSettings, row: int = 0) -> tuple[Plan, NDArray[np.uint8]]:
    """Return the plan for a segment, and the bytes that its lanes code; `row` is as in `choose_plan`."""
    from .analysis import choose_plan

    plan = choose_plan(content, model, row)
    return plan, make_absolute(content, plan.calls == 2) if plan.calls else content


def restore(plan: Plan | None, content: bytearray) -> None:
    """Undo in place what `prepare` has done."""
    if plan is not None and plan.calls:
        make_relative(np.frombuffer(content, np.uint8), plan.calls == 2)


def memory_encoding(
    plan: Plan,
    model: ModelSettings,
    size: int,
    lanes: int,
    device: str,
    profile: Profile | None,
    tick: Tick | None,
) -> Encoding:
    """Return what encodes a segment of `size` bytes."""
    if runs_on_host(device):
        from .host import HostEncoding

        return HostEncoding(plan, model, size, lanes, profile, tick)
    from .graphs import GraphMemoryEncoding

    return GraphMemoryEncoding(plan, model, size, lanes, device, profile)


def memory_decoding(
    model: ModelSettings,
    size: int,
    lanes: int,
    device: str,
    profile: Profile | None,
    tick: Tick | None,
) -> Decoding:
    """Return what decodes a segment of `size` bytes."""
    if runs_on_host(device):
        from .host import HostDecoding

        return HostDecoding(model, size, lanes, profile, tick)
    from .graphs import GraphMemoryDecoding

    return GraphMemoryDecoding(model, size, lanes, device, profile)


def runs_on_host(device: str) -> bool:
    """Return whether the host does the work, without torch: on CPUs, and for a GPU that has no kernels."""
    return not kernels_run(device, of_networks=False)
