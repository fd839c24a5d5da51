"""What needs torch to code a segment: runs of networks, and the settings under which torch is exact.

What runs a network's steps is in eager.py and graphs.py. The loop (engine.py) comes here where a segment has
a network or its memory of contexts is on a GPU, and nowhere else: a memory on a CPU does without torch.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from . import memory
from .errors import DeviceError, OutOfMemoryError
from .gpu_kernels import kernels_run
from .presets import ModelSettings
from .profile import Profile
from .runs import Decoding, NetworkEncoding

__all__ = ["decoding", "encoding", "exactly", "has_kernels"]


def encoding(
    model: ModelSettings,
    lanes: int,
    device: str | torch.device,
    profile: Profile | None = None,
    tick: Callable[[], None] | None = None,
    shares: bool = False,
) -> NetworkEncoding:
    """Return what encodes a segment of so many lanes by a network on the device, inside `exactly`.

    `tick` is called once a step where the host runs the steps: it may raise to end the work. With `shares` no
    memory was promised for a workspace that another segment is not at work in already.
    """
    target = torch.device(device)
    if has_kernels(model, lanes, target):
        from .graphs import GraphEncoding

        return GraphEncoding(model, lanes, target, profile, shares)
    from .eager import EagerEncoding

    return EagerEncoding(model, lanes, target, profile, tick)


def decoding(
    model: ModelSettings,
    lanes: int,
    device: str | torch.device,
    profile: Profile | None = None,
    tick: Callable[[], None] | None = None,
    shares: bool = False,
) -> Decoding:
    """Return what decodes a segment, as `encoding` does."""
    target = torch.device(device)
    if has_kernels(model, lanes, target):
        from .graphs import GraphDecoding

        return GraphDecoding(model, lanes, target, profile, shares)
    from .eager import EagerDecoding

    return EagerDecoding(model, lanes, target, profile, tick)


def has_kernels(model: ModelSettings, lanes: int, device: str | torch.device) -> bool:
    """Return whether the network's kernels can run there; without them it runs as it is written."""
    from .networks import base

    target = torch.device(device)
    return (
        target.type == "cuda"
        and base.has_kernels(model, lanes)
        and kernels_run(str(target), of_networks=True)
    )


class _Global:
    """Settings of the process that exactness and speed need, while any segment is being coded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._precision = ""
        self._threads = 0

    @contextmanager
    def use(self) -> Iterator[None]:
        """Make the settings for the work inside; the last user puts back what was there."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._precision, self._threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
                torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    torch.set_float32_matmul_precision(self._precision)
                    torch.set_num_threads(self._threads)


_global = _Global()


class _Streams:
    """Streams of their own for segments that others code at the same time; those given back are lent again.

    Libraries and torch's allocator keep memory for every stream that was ever worked on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: dict[torch.device, list[torch.cuda.Stream]] = {}

    @contextmanager
    def lend(self, device: torch.device) -> Iterator[torch.cuda.Stream]:
        """Lend a stream that nobody else has meanwhile."""
        with self._lock:
            free = self._free.setdefault(device, [])
            stream = free.pop() if free else torch.cuda.Stream(device)
        try:
            yield stream
        finally:
            with self._lock:
                free.append(stream)


_streams = _Streams()


@contextmanager
def exactly(device: str | torch.device) -> Iterator[None]:
    """Set what exactness and speed need of torch for the work inside, and restore it afterwards.

    Memory that runs out inside is raised as OutOfMemoryError.
    """
    target = torch.device(device)
    if not _keeps_subnormals(target):
        raise DeviceError("subnormal numbers are flushed to zero here: call torch.set_flush_denormal(False)")
    try:
        with _global.use(), torch.inference_mode():
            if target.type == "cuda":
                with torch.cuda.device(target), _streams.lend(target) as stream, torch.cuda.stream(stream):
                    yield
            else:
                if "OMP_NUM_THREADS" not in os.environ:
                    # A step is many small operations: waking a second thread costs more than it saves.
                    torch.set_num_threads(1)
                yield
    except (MemoryError, torch.OutOfMemoryError):
        raise OutOfMemoryError(memory.advice(target)) from None
    except RuntimeError as error:
        # On a CPU torch raises a plain RuntimeError that names its allocator.
        if "Allocator" not in str(error):
            raise
        raise OutOfMemoryError(memory.advice(target)) from None


def _keeps_subnormals(device: torch.device) -> bool:
    smallest_normal = torch.full((1,), 2.0**-126, device=device)
    return bool((smallest_normal * 0.5 * 2.0 == smallest_normal).item())
