"""The loop that codes a segment, in both directions, whatever runs its steps.

Chunks of steps are queued one ahead of those that are collected, so that a device works while the host
codes, copies and checks what came before. Torch is loaded only where a segment needs it (tensors.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from . import memory
from .errors import CorruptError, MismatchError, OutOfMemoryError
from .lanes import LaneJoiner, longer_lanes, split_lanes, steps_for
from .presets import ModelSettings
from .profile import Profile
from .recall.plan import Plan
from .recall.segments import memory_decoding, memory_encoding, prepare, runs_on_host
from .runs import AHEAD, CHUNK_STEPS, Decoding, Encoding
from .segment import CodedBlock

__all__ = ["decode_segment", "encode_segment"]

Advance = Callable[[int], None]
Prepared = tuple[Plan, NDArray[np.uint8]]


def encode_segment(
    data: bytes | bytearray | memoryview,
    model: ModelSettings,
    lanes: int,
    device: str,
    advance: Advance | None = None,
    profile: Profile | None = None,
    row: int = 0,
    prepared: Prepared | None = None,
    shares: bool = False,
) -> Iterator[CodedBlock]:
    """Yield the coded blocks of a segment.

    `device` is as `pick_devices` returns it; `advance` is called with the number of further bytes done. `row`
    is the bytes of a row of pixels, where the content is known to be rows of them. `prepared` is what
    `prepare` returns for the content of a memory of contexts, where that has been called already. `shares`
    says that a segment in flight has the memory of a step, which this one is to share.
    Raises OutOfMemoryError if memory runs out: whether the model fits is for the caller to ask beforehand.
    """
    content = np.frombuffer(data, np.uint8)
    if model.contexts:
        plan, content = prepared or prepare(content, model, row)
    matrix = split_lanes(content, lanes)
    steps = len(matrix)
    last_active = longer_lanes(len(data), lanes)
    queued: deque[tuple[int, bool]] = deque()
    done = 0
    with _ready(model, device):
        run: Encoding
        if model.contexts:
            run = memory_encoding(plan, model, len(data), lanes, device, profile, _tick(advance))
        else:
            from .tensors import encoding

            run = encoding(model, lanes, device, profile, _tick(advance), shares)

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
    shares: bool = False,
) -> bytearray:
    """Return the `size` bytes of a segment from its coded blocks, which are pulled one by one.

    Raises CorruptError for blocks that cannot be a segment's, MismatchError if the weights differ from
    the encoder's, OutOfMemoryError if memory runs out.
    """
    steps = steps_for(size, lanes)
    last_active = longer_lanes(size, lanes)
    joiner = LaneJoiner(size, lanes)
    queued: deque[tuple[int, CodedBlock | None]] = deque()
    begun = done = 0
    with _ready(model, device):
        run: Decoding
        if model.contexts:
            run = memory_decoding(model, size, lanes, device, profile, _tick(advance))
        else:
            from .tensors import decoding

            run = decoding(model, lanes, device, profile, _tick(advance), shares)

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


@contextmanager
def _ready(model: ModelSettings, device: str) -> Iterator[None]:
    """Make the work inside exact on the device; memory that runs out there is raised as OutOfMemoryError."""
    if model.contexts and runs_on_host(device):
        try:
            yield
        except MemoryError:
            raise OutOfMemoryError(memory.advice(device)) from None
        return
    from .tensors import exactly

    with exactly(device):
        yield
