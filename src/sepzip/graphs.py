"""A segment's steps on CUDA: fused kernels, captured in graphs of many steps, that never wait for the host.

The coder runs on the device as well. The host queues chunks of steps, and meanwhile takes in what the chunk
before has left in pinned memory.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .capture import Stepper, pinned_copy
from .coder.fused import DeviceDecoder, DeviceEncoder
from .fused import FusedModel
from .presets import ModelSettings
from .profile import Profile
from .runs import AHEAD, CHUNK_STEPS, Found
from .segment import CodedBlock
from .workspaces import Loan, workspaces

__all__ = ["GraphDecoding", "GraphEncoding"]


@dataclass
class _Timing:
    """Events around the stages of a chunk, and what it leaves when a block ends with it."""

    begun: torch.cuda.Event
    copied: torch.cuda.Event
    stepped: torch.cuda.Event
    ended: torch.cuda.Event
    fingerprint: Tensor | None = None

    def wait(self, profile: Profile) -> None:
        """Wait for the chunk's end, and count its stages."""
        self.ended.synchronize()
        profile.add("copy in", self.begun.elapsed_time(self.copied) / 1000)
        profile.add("step", self.copied.elapsed_time(self.stepped) / 1000)
        profile.add("copy out", self.stepped.elapsed_time(self.ended) / 1000)


def _timing() -> _Timing:
    begun, copied, stepped, ended = (torch.cuda.Event(enable_timing=True) for _ in range(4))
    return _Timing(begun, copied, stepped, ended)


def _run(stepper: Stepper, model: FusedModel, steps: int, loan: Loan) -> None:
    """Queue so many steps; where patches are dropped among them, this waits for what was queued."""
    while steps:
        count = model.up_to_drop(steps)
        stepper.run(count)
        steps -= count
        if model.may_drop:
            with loan.turn():
                if model.count(count):
                    stepper.forget()


def _decode_step(model: FusedModel, decoder: DeviceDecoder, active: int) -> None:
    """Queue a step that finds the symbols of the first `active` lanes."""
    model.predict()
    decoder.step(model.starts, model.history, model.position, model.context, active)
    model.learn()


class GraphEncoding:
    """Encodes: only the digits that the coders emit leave the device.

    A coder's work on a chunk is one long chain, which takes next to nothing of the device: it runs on a
    stream of its own, beside the steps of the next chunk.
    """

    def __init__(
        self,
        model: ModelSettings,
        lanes: int,
        device: torch.device,
        profile: Profile | None,
        shares: bool = False,
    ) -> None:
        self._profile = profile or Profile()
        self._loan = workspaces(device).lend(model, lanes, shares)
        self._model = fused = FusedModel(model, lanes, CHUNK_STEPS, device, self._loan.workspace)
        shape = (CHUNK_STEPS, lanes)
        self._intervals = intervals = (
            torch.zeros(shape, dtype=torch.int32, device=device),
            torch.zeros(shape, dtype=torch.int32, device=device),
        )

        # It does not know this object, which would then stay until a collection finds the cycle.
        def step() -> None:
            fused.predict()
            fused.learn(intervals)

        self._stepper = Stepper(step, device, self._loan.turn, fused.settle)
        self._coding = torch.cuda.Stream(device)
        with torch.cuda.stream(self._coding):
            self._encoder = DeviceEncoder(lanes, model.lanes_per_coder, CHUNK_STEPS, device)
        # Those of the chunk that is being coded.
        self._held = torch.empty_like(self._intervals[0]), torch.empty_like(self._intervals[1])
        for rows in self._held:
            rows.record_stream(self._coding)
        self._staged = [torch.empty(shape, dtype=torch.uint8, pin_memory=True) for _ in range(AHEAD)]
        self._queued: deque[tuple[int, _Timing]] = deque()
        self._chunks = self._before = 0
        self._block_steps = 0

    @property
    def is_full(self) -> bool:
        """Whether the block should end, as far as collected."""
        return self._encoder.is_full

    @property
    def frequencies(self) -> NDArray[np.int64]:
        """The frequencies, [steps, lanes], of the symbols of the chunk queued last, for which this waits."""
        return self._intervals[1][: self._before].cpu().numpy().astype(np.int64)

    def queue(self, symbols: NDArray[np.uint8], active_last: int, ends_block: bool) -> None:
        """Queue the steps of these symbols, [steps, lanes], and their entropy coding."""
        steps, model = len(symbols), self._model
        timing = _timing()
        # Free again: at most two chunks are queued, so the one before the last has been collected.
        staged = self._staged[self._chunks % AHEAD][:steps]
        staged.copy_(torch.from_numpy(symbols))
        timing.begun.record()
        model.begin_chunk(self._before)
        self._before = steps
        model.history[model.context : model.context + steps].copy_(staged, non_blocking=True)
        timing.copied.record()
        _run(self._stepper, model, steps, self._loan)
        timing.stepped.record()
        self._code(steps, active_last, ends_block, timing)
        self._queued.append((steps, timing))
        self._chunks += 1

    def _code(self, steps: int, active_last: int, ends_block: bool, timing: _Timing) -> None:
        """Queue the coding of the chunk of which the steps were queued last."""
        stepping = torch.cuda.current_stream(self._coding.device)
        # The chunk before has been coded by then: what is queued here so far is no more than that.
        stepping.wait_stream(self._coding)
        for held, rows in zip(self._held, self._intervals, strict=True):
            held[:steps].copy_(rows[:steps])
        if ends_block:
            timing.fingerprint = pinned_copy(self._model.fingerprint())
        self._coding.wait_stream(stepping)
        with torch.cuda.stream(self._coding):
            self._encoder.code(*self._held, steps, active_last, ends_block)
            timing.ended.record()

    def collect(self) -> CodedBlock | None:
        """Wait for the oldest chunk that was queued, and return the block that it ends, if it does."""
        steps, timing = self._queued.popleft()
        timing.wait(self._profile)
        with self._profile.stage("code"):
            self._encoder.collect()
            self._block_steps += steps
            if timing.fingerprint is None:
                return None
            fingerprint = int(timing.fingerprint.item())
            block = CodedBlock(self._block_steps, fingerprint, self._encoder.finish_block())
        self._block_steps = 0
        return block


class GraphDecoding:
    """Decodes: the symbols are found within the step."""

    def __init__(
        self,
        model: ModelSettings,
        lanes: int,
        device: torch.device,
        profile: Profile | None,
        shares: bool = False,
    ) -> None:
        self._settings = model
        self._lanes = lanes
        self._device = device
        self._profile = profile or Profile()
        self._loan = workspaces(device).lend(model, lanes, shares)
        self._model = FusedModel(model, lanes, CHUNK_STEPS, device, self._loan.workspace)
        self._decoder: DeviceDecoder | None = None
        self._stepper: Stepper | None = None
        self._words = 0
        self._queued: deque[tuple[int, _Timing, Tensor, Tensor]] = deque()
        self._before = 0

    def begin_block(self, payload: bytes, more: bool) -> None:
        """Queue the start of a block; CorruptError if the payload cannot be one's."""
        self._words = words = len(payload) // 3
        if self._decoder is None or self._decoder.capacity < words:
            # Blocks end where they are seen to be full, up to two chunks late: most others fit as well.
            capacity = words + words // 4 if more else words
            decoder = DeviceDecoder(self._lanes, self._settings.lanes_per_coder, capacity, self._device)
            step = partial(_decode_step, self._model, decoder, self._lanes)
            self._decoder = decoder
            self._stepper = Stepper(step, self._device, self._loan.turn, self._model.settle)
        self._decoder.load(payload)

    def queue(self, steps: int, active_last: int, ends_block: bool) -> None:
        """Queue further steps of the block."""
        model, stepper, decoder = self._model, self._stepper, self._decoder
        if stepper is None or decoder is None:
            raise RuntimeError("no block was begun")
        timing = _timing()
        timing.begun.record()
        model.begin_chunk(self._before)
        self._before = steps
        timing.copied.record()
        is_partial = active_last < self._lanes
        _run(stepper, model, steps - is_partial, self._loan)
        if is_partial:
            with self._loan.turn():
                _decode_step(model, decoder, active_last)
                model.count(1)
        timing.stepped.record()
        found = pinned_copy(model.history[model.context : model.context + steps])
        next_word = pinned_copy(decoder.next_word)
        if ends_block:
            timing.fingerprint = pinned_copy(model.fingerprint())
        timing.ended.record()
        self._queued.append((self._words, timing, found, next_word))

    def collect(self) -> Found:
        """Wait for the oldest chunk that was queued, and return what it found."""
        words, timing, found, next_word = self._queued.popleft()
        timing.wait(self._profile)
        fingerprint = None if timing.fingerprint is None else int(timing.fingerprint.item())
        return Found(found.numpy(), words - int(next_word.item()), fingerprint)

    def restore(self, content: bytearray) -> None:
        """Leave the content as it is: nothing was done to it."""
