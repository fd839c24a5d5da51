"""A segment coded by a memory of contexts on CPUs, by as many threads as pay."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..coder.binary import BlockStreams, LaneCoders, new_coders, read_streams, unread
from ..presets import ModelSettings
from ..profile import Profile
from ..runs import CHUNK_STEPS, Found
from ..segment import CodedBlock
from .native import BoundSegment
from .placement import threads_for
from .plan import Plan, encode_plan, read_plan, settings_of, uses_of
from .primer import first_memory
from .segments import restore
from .state import PAD, Memory, Records, fingerprint, new_records

__all__ = ["HostDecoding", "HostEncoding"]

_BYTES_A_CALL = 1 << 12
"""Bytes that are coded between two calls of the tick."""

Tick = Callable[[], None]


class _Run:
    """A memory and the steps that it goes through."""

    def __init__(self, plan: Plan, model: ModelSettings, size: int, lanes: int, tick: Tick | None) -> None:
        self.lanes = lanes
        self.step = 0
        self._settings = settings_of(plan, model, size)
        self._uses = uses_of(plan)
        self.memory: Memory = first_memory(plan, self._settings, size, lanes)
        self._records: Records = new_records(self._settings, lanes)
        self._tick = tick
        self._threads = threads_for(lanes)
        self._bound: BoundSegment | None = None

    def bind(self, coder: LaneCoders, decodes: bool) -> None:
        """Code by this coder from now on."""
        self._bound = BoundSegment(self.memory, self._records, self._settings, self._uses, coder, decodes)

    def run(self, steps: int, last_active: int) -> None:
        """Run further steps, in the last of which `last_active` lanes have a byte."""
        bound = self._bound
        if bound is None:
            raise RuntimeError("no coder was bound")
        while steps:
            if self._tick is not None:
                self._tick()
            count = min(steps, max(1, _BYTES_A_CALL // self.lanes))
            bound.run(self.step, count, last_active if count == steps else self.lanes, self._threads)
            self.step += count
            steps -= count


class HostEncoding:
    """Encodes: a chunk's steps run when it is queued."""

    def __init__(
        self,
        plan: Plan,
        model: ModelSettings,
        size: int,
        lanes: int,
        profile: Profile | None,
        tick: Tick | None,
    ) -> None:
        self._head = encode_plan(plan)
        self._profile = profile or Profile()
        self._run = _Run(plan, model, size, lanes, tick)
        self._coder = new_coders(lanes, CHUNK_STEPS)
        self._run.bind(self._coder, decodes=False)
        self._room = len(self._coder.data) // lanes
        self._streams = BlockStreams()
        self._block_steps = 0
        self._queued: deque[CodedBlock | None] = deque()

    @property
    def is_full(self) -> bool:
        """Whether the block should end."""
        return self._streams.is_full

    def queue(self, symbols: NDArray[np.uint8], active_last: int, ends_block: bool) -> None:
        """Run the steps of these symbols, [steps, lanes]."""
        run, coder, steps = self._run, self._coder, len(symbols)
        with self._profile.stage("step"):
            first = PAD + run.step
            run.memory.history[:, first : first + steps] = symbols.T
            run.run(steps, active_last)
        with self._profile.stage("code"):
            begin = coder.end - self._room
            self._streams.take(coder.data.reshape(run.lanes, self._room), coder.at - begin)
            coder.at[:] = begin
            self._block_steps += steps
            block = None
            if ends_block:
                payload = self._head + self._streams.finish(coder.low, coder.high)
                block = CodedBlock(self._block_steps, fingerprint(run.memory), payload)
                coder.low[:], coder.high[:] = 0, 0xFFFFFFFF
                self._head, self._block_steps = b"", 0
            self._queued.append(block)

    def collect(self) -> CodedBlock | None:
        """Return the block that the oldest chunk that was queued has ended, if it has."""
        return self._queued.popleft()


class HostDecoding:
    """Decodes: a chunk's steps run when it is queued."""

    def __init__(
        self, model: ModelSettings, size: int, lanes: int, profile: Profile | None, tick: Tick | None
    ) -> None:
        self._model = model
        self._size = size
        self._lanes = lanes
        self._profile = profile or Profile()
        self._tick = tick
        self._plan: Plan | None = None
        self._run: _Run | None = None
        self._coder: LaneCoders | None = None
        self._queued: deque[Found] = deque()

    def begin_block(self, payload: bytes, more: bool) -> None:
        """Begin a block; CorruptError if the payload cannot be one's."""
        if self._plan is None:
            self._plan, payload = read_plan(payload)
        self._coder = read_streams(payload, self._lanes)
        if self._run is None:
            self._run = _Run(self._plan, self._model, self._size, self._lanes, self._tick)
        self._run.bind(self._coder, decodes=True)

    def queue(self, steps: int, active_last: int, ends_block: bool) -> None:
        """Find the symbols of further steps of the block."""
        run, coder = self._run, self._coder
        if run is None or coder is None:
            raise RuntimeError("no block was begun")
        first = PAD + run.step
        with self._profile.stage("step"):
            run.run(steps, active_last)
        left = 0
        if ends_block:
            left = unread(coder.low, coder.high, coder.at, coder.end)
        found = run.memory.history[:, first : first + steps].T.copy()
        self._queued.append(Found(found, left, fingerprint(run.memory) if ends_block else None))

    def collect(self) -> Found:
        """Return what the oldest chunk that was queued found."""
        return self._queued.popleft()

    def restore(self, content: bytearray) -> None:
        """Undo what the plan had done to the content, in place."""
        restore(self._plan, content)
