"""The loop that codes a segment, in both directions; what runs its steps is in eager.py and graphs.py.

Chunks of steps are queued one ahead of those that are collected, so that a device works while the host
codes, copies and checks what came before.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from . import memory
from .errors import CorruptError, DeviceError, MismatchError, OutOfMemoryError
from .lanes import LaneJoiner, longer_lanes, split_lanes, steps_for
from .presets import ModelSettings
from .profile import Profile
from .runs import AHEAD, CHUNK_STEPS, Decoding, Encoding, NetworkEncoding
from .segment import CodedBlock

__all__ = ["decode_segment", "decoding", "encode_segment", "encoding", "exactly"]

Advance = Callable[[int], None]


def encode_segment(
    data: bytes | bytearray | memoryview,
    model: ModelSettings,
    lanes: int,
    device: str,
    advance: Advance | None = None,
    profile: Profile | None = None,
) -> Iterator[CodedBlock]:
    """Yield the coded blocks of a segment.

    `device` is as `pick_devices` returns it; `advance` is called with the number of further bytes done.
    Raises OutOfMemoryError if memory runs out: whether the model fits is for the caller to ask beforehand.
    """
    target = torch.device(device)
    content = np.frombuffer(data, np.uint8)
    if model.contexts:
        from .recall.segments import memory_encoding, prepare

        plan, content = prepare(content, model)
    matrix = split_lanes(content, lanes)
    steps = len(matrix)
    last_active = longer_lanes(len(data), lanes)
    queued: deque[tuple[int, bool]] = deque()
    done = 0
    with exactly(target):
        run: Encoding
        if model.contexts:
            run = memory_encoding(plan, model, len(data), lanes, target, profile, _tick(advance))
        else:
            run = encoding(model, lanes, target, profile, _tick(advance))

        def collect() -> CodedBlock | None:
            nonlocal done
            block = run.collect()
            count, _ = queued.popleft()
            before, done = done, done + count
            if advance is not None:
                advance(min(len(data), done * lanes) - before * lanes)
            return block

        for first in range(0, steps, CHUNK_STEPS):
            chunk = matrix[first : first + CHUNK_STEPS]
            is_last = first + len(chunk) == steps
            # A block that is full ends with the next chunk to be queued.
            ends_block = is_last or (run.is_full and not any(ends for _, ends in queued))
            run.queue(chunk, last_active if is_last else lanes, ends_block)
            queued.append((len(chunk), ends_block))
            if len(queued) == AHEAD and (block := collect()) is not None:
                yield block
        while queued:
            if (block := collect()) is not None:
                yield block


def decode_segment(
    blocks: Iterable[CodedBlock],
    size: int,
    model: ModelSettings,
    lanes: int,
    device: str,
    advance: Advance | None = None,
    profile: Profile | None = None,
) -> bytearray:
    """Return the `size` bytes of a segment from its coded blocks, which are pulled one by one.

    Raises CorruptError for blocks that cannot be a segment's, MismatchError if the weights differ from
    the encoder's, OutOfMemoryError if memory runs out.
    """
    target = torch.device(device)
    steps = steps_for(size, lanes)
    last_active = longer_lanes(size, lanes)
    joiner = LaneJoiner(size, lanes)
    queued: deque[tuple[int, CodedBlock | None]] = deque()
    begun = done = 0
    with exactly(target):
        run: Decoding
        if model.contexts:
            from .recall.segments import memory_decoding

            run = memory_decoding(model, size, lanes, target, profile, _tick(advance))
        else:
            run = decoding(model, lanes, target, profile, _tick(advance))

        def collect() -> None:
            nonlocal done
            count, ended = queued.popleft()
            found = run.collect()
            if found.words_left < 0:
                raise CorruptError("a block's payload ends before its last symbol; the file is damaged")
            joiner.add(found.symbols)
            before, done = done, done + count
            if advance is not None:
                advance(min(size, done * lanes) - before * lanes)
            if ended is None:
                return
            if found.fingerprint != ended.fingerprint:
                raise MismatchError(
                    f"the weights at step {done} differ from those of the machine that made the file "
                    f"({found.fingerprint:08x}, not {ended.fingerprint:08x}): decode on another device, e.g. "
                    "--device cpu, and please report it"
                )
            if found.words_left:
                raise CorruptError("a block's payload does not end with its last symbol; the file is damaged")

        for block in blocks:
            if block.steps < 1 or begun + block.steps > steps:
                raise CorruptError("a block covers more steps than its segment has; the file is damaged")
            end = begun + block.steps
            run.begin_block(block.payload, end < steps)
            while begun < end:
                count = min(CHUNK_STEPS, end - begun)
                begun += count
                run.queue(count, last_active if begun == steps else lanes, begun == end)
                queued.append((count, block if begun == end else None))
                if len(queued) == AHEAD:
                    collect()
        while queued:
            collect()
    if done != steps:
        raise CorruptError("a segment's blocks do not cover all its steps; the file is damaged")
    run.restore(joiner.data)
    return joiner.data


def _tick(advance: Advance | None) -> Callable[[], None] | None:
    """Return what tells `advance` that the work goes on: it is where a caller can end it."""
    return None if advance is None else lambda: advance(0)


def encoding(
    model: ModelSettings,
    lanes: int,
    device: torch.device,
    profile: Profile | None = None,
    tick: Callable[[], None] | None = None,
) -> NetworkEncoding:
    """Return what encodes a segment of so many lanes by a network on the device, inside `exactly`.

    `tick` is called once a step where the host runs the steps: it may raise to end the work.
    """
    if _has_kernels(model, lanes, device):
        from .graphs import GraphEncoding

        return GraphEncoding(model, lanes, device, profile)
    from .eager import EagerEncoding

    return EagerEncoding(model, lanes, device, profile, tick)


def decoding(
    model: ModelSettings,
    lanes: int,
    device: torch.device,
    profile: Profile | None = None,
    tick: Callable[[], None] | None = None,
) -> Decoding:
    """Return what decodes a segment, as `encoding` does."""
    if _has_kernels(model, lanes, device):
        from .graphs import GraphDecoding

        return GraphDecoding(model, lanes, device, profile)
    from .eager import EagerDecoding

    return EagerDecoding(model, lanes, device, profile, tick)


def _has_kernels(model: ModelSettings, lanes: int, device: torch.device) -> bool:
    """Return whether the network's kernels can run there; without them it runs as it is written."""
    from .networks import base

    return (
        device.type == "cuda"
        and base.has_kernels(model, lanes)
        and importlib.util.find_spec("triton") is not None
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


@contextmanager
def exactly(device: torch.device) -> Iterator[None]:
    """Set what exactness and speed need of torch for the work inside, and restore it afterwards.

    Memory that runs out inside is raised as OutOfMemoryError.
    """
    if not _keeps_subnormals(device):
        raise DeviceError("subnormal numbers are flushed to zero here: call torch.set_flush_denormal(False)")
    try:
        with _global.use(), torch.inference_mode():
            if device.type == "cuda":
                # A stream of its own: segments that other threads code at the same time can overlap.
                with torch.cuda.device(device), torch.cuda.stream(torch.cuda.Stream(device)):
                    yield
            else:
                if "OMP_NUM_THREADS" not in os.environ:
                    # A step is many small operations: waking a second thread costs more than it saves.
                    torch.set_num_threads(1)
                yield
    except (MemoryError, torch.OutOfMemoryError):
        raise OutOfMemoryError(memory.advice(device)) from None
    except RuntimeError as error:
        # On a CPU torch raises a plain RuntimeError that names its allocator.
        if "Allocator" not in str(error):
            raise
        raise OutOfMemoryError(memory.advice(device)) from None


def _keeps_subnormals(device: torch.device) -> bool:
    smallest_normal = torch.full((1,), 2.0**-126, device=device)
    return bool((smallest_normal * 0.5 * 2.0 == smallest_normal).item())
