"""A segment coded by a memory of contexts on CUDA: kernels, captured in graphs of many steps.

The host queues chunks of steps, and meanwhile takes in what the chunk before has left in pinned memory.
"""

from __future__ import annotations

from collections import deque
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..capture import Stepper, pinned_copy
from ..coder.binary import BlockStreams, new_coders, read_streams, unread
from ..presets import ModelSettings
from ..profile import Profile
from ..runs import AHEAD, CHUNK_STEPS, Found
from ..segment import CodedBlock
from .device import DeviceCoders, DeviceMemory
from .plan import Plan, encode_plan, read_plan, settings_of
from .segments import restore
from .state import FINGERPRINTED, fingerprint_of

__all__ = ["GraphMemoryDecoding", "GraphMemoryEncoding"]

_GRAPHS = (64, 8, 1)
"""Steps of a graph. Between two graphs a GPU rests for as long as half a step takes of a memory."""


class _Chunk:
    """What a chunk of steps leaves: copies on their way to the host, and when they are there."""

    def __init__(self, memory: DeviceMemory, coders: DeviceCoders, ends_block: bool) -> None:
        self.begun, self.stepped, self.ended = (torch.cuda.Event(enable_timing=True) for _ in range(3))
        self._coders, self._memory, self._ends_block = coders, memory, ends_block
        self.state: list[Tensor] = []
        self._parts: list[Tensor] = []

    def copy(self) -> None:
        """Queue the copies of the coders' numbers, and of what a block's fingerprint is made of."""
        coders = self._coders
        self.state = [pinned_copy(x) for x in (coders.low, coders.high, coders.at, coders.end)]
        if self._ends_block:
            self._parts = [pinned_copy(self._memory.tensors[name]) for name in FINGERPRINTED]

    def wait(self, profile: Profile) -> int | None:
        """Wait for the copies, and return the fingerprint of the block that the chunk ends, if it does."""
        self.ended.synchronize()
        profile.add("step", self.begun.elapsed_time(self.stepped) / 1000)
        profile.add("copy out", self.stepped.elapsed_time(self.ended) / 1000)
        return fingerprint_of(part.numpy() for part in self._parts) if self._ends_block else None


class GraphMemoryEncoding:
    """Encodes: only the bytes that the lanes' coders emit leave the device."""

    def __init__(
        self,
        plan: Plan,
        model: ModelSettings,
        size: int,
        lanes: int,
        device: str,
        profile: Profile | None,
    ) -> None:
        self._head = encode_plan(plan)
        self._profile = profile or Profile()
        self._lanes = lanes
        target = torch.device(device)
        self._memory = memory = DeviceMemory(plan, settings_of(plan, model, size), size, lanes, target)
        coders = new_coders(lanes, CHUNK_STEPS)
        self._room = len(coders.data) // lanes
        self._coders = on_device = DeviceCoders.new(lanes, len(coders.data), target)
        on_device.load(coders)
        self._first = on_device.at.clone()
        # It does not know this object, which would then stay until a collection finds the cycle.
        step = partial(memory.step, on_device, decodes=False)
        self._stepper = Stepper(step, target, end=memory.join, lengths=_GRAPHS)
        self._staged = [
            torch.empty((CHUNK_STEPS, lanes), dtype=torch.uint8, pin_memory=True) for _ in range(AHEAD)
        ]
        self._streams = BlockStreams()
        self._queued: deque[tuple[int, _Chunk, Tensor]] = deque()
        self._chunks = self._begun = self._block_steps = 0

    @property
    def is_full(self) -> bool:
        """Whether the block should end, as far as collected."""
        return self._streams.is_full

    def queue(self, symbols: NDArray[np.uint8], active_last: int, ends_block: bool) -> None:
        """Queue the steps of these symbols, [steps, lanes], and the copies of what they emit."""
        steps, coders = len(symbols), self._coders
        chunk = _Chunk(self._memory, coders, ends_block)
        # Free again: at most two chunks are queued, so the one before the last has been collected.
        staged = self._staged[self._chunks % AHEAD][:steps]
        staged.copy_(torch.from_numpy(symbols))
        chunk.begun.record()
        self._memory.see(staged.to(coders.low.device, non_blocking=True), self._begun)
        self._stepper.run(steps)
        chunk.stepped.record()
        chunk.copy()
        data = pinned_copy(coders.data)
        coders.at.copy_(self._first)
        if ends_block:
            coders.restart()
        chunk.ended.record()
        self._queued.append((steps, chunk, data))
        self._begun += steps
        self._chunks += 1

    def collect(self) -> CodedBlock | None:
        """Wait for the oldest chunk that was queued, and return the block that it ends, if it does."""
        steps, chunk, data = self._queued.popleft()
        fingerprint = chunk.wait(self._profile)
        with self._profile.stage("code"):
            low, high, at, _ = (x.numpy() for x in chunk.state)
            counts = at - self._room * np.arange(self._lanes)
            self._streams.take(data.numpy().reshape(self._lanes, self._room), counts)
            self._block_steps += steps
            if fingerprint is None:
                return None
            payload = self._head + self._streams.finish(low, high)
            block = CodedBlock(self._block_steps, fingerprint, payload)
        self._head, self._block_steps = b"", 0
        return block


class GraphMemoryDecoding:
    """Decodes: bytes are found within the step."""

    def __init__(
        self, model: ModelSettings, size: int, lanes: int, device: str, profile: Profile | None
    ) -> None:
        self._model = model
        self._size = size
        self._lanes = lanes
        self._device = torch.device(device)
        self._profile = profile or Profile()
        self._plan: Plan | None = None
        self._memory: DeviceMemory | None = None
        self._coders: DeviceCoders | None = None
        self._stepper: Stepper | None = None
        self._begun = 0
        self._queued: deque[tuple[_Chunk, Tensor]] = deque()

    def begin_block(self, payload: bytes, more: bool) -> None:
        """Queue the start of a block; CorruptError if the payload cannot be one's."""
        if self._plan is None:
            self._plan, payload = read_plan(payload)
        parsed = read_streams(payload, self._lanes)
        if self._memory is None:
            settings = settings_of(self._plan, self._model, self._size)
            self._memory = DeviceMemory(self._plan, settings, self._size, self._lanes, self._device)
        room = len(parsed.data)
        if self._coders is None or len(self._coders.data) < room:
            # Blocks end where they are seen to be full, a little late: most others fit as well.
            self._coders = DeviceCoders.new(self._lanes, room + room // 4 if more else room, self._device)
            step = partial(self._memory.step, self._coders, decodes=True)
            self._stepper = Stepper(step, self._device, end=self._memory.join, lengths=_GRAPHS)
        self._coders.load(parsed)

    def queue(self, steps: int, active_last: int, ends_block: bool) -> None:
        """Queue further steps of the block; the memory knows which lanes have a byte in the last."""
        memory, stepper, coders = self._memory, self._stepper, self._coders
        if memory is None or stepper is None or coders is None:
            raise RuntimeError("no block was begun")
        chunk = _Chunk(memory, coders, ends_block)
        chunk.begun.record()
        stepper.run(steps)
        chunk.stepped.record()
        chunk.copy()
        found = pinned_copy(memory.seen(self._begun, self._begun + steps).contiguous())
        chunk.ended.record()
        self._begun += steps
        self._queued.append((chunk, found))

    def collect(self) -> Found:
        """Wait for the oldest chunk that was queued, and return what it found."""
        chunk, found = self._queued.popleft()
        fingerprint = chunk.wait(self._profile)
        left = 0 if fingerprint is None else unread(*(x.numpy() for x in chunk.state))
        return Found(found.numpy(), left, fingerprint)

    def restore(self, content: bytearray) -> None:
        """Undo what the plan had done to the content, in place."""
        restore(self._plan, content)
