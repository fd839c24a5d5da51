"""A segment's steps as the operations are written: on a CPU, and wherever a network has no kernels.

On CUDA the step is one captured graph, and each of its operations a kernel of its own. The steps of a network
that updates its weights once in several are not alike, and are not captured.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .capture import captured
from .coder.plain import BlockDecoder, BlockEncoder
from .model import Dropping, Model
from .presets import ModelSettings
from .profile import Profile
from .runs import CHUNK_STEPS, Found
from .segment import CodedBlock

__all__ = ["EagerDecoding", "EagerEncoding"]

_WARM_STEPS = 3

Tick = Callable[[], None]
"""Called once a step; it may raise to end the work."""


class _Stepper:
    """Runs a step again and again; on CUDA, where all steps are alike, as one captured graph."""

    def __init__(
        self,
        step: Callable[[], None],
        device: torch.device,
        tick: Tick | None,
        alike: bool,
        dropping: Dropping,
    ) -> None:
        self._step = step
        self._tick = tick
        self._dropping = dropping
        self._device = device
        self._captures = alike and device.type == "cuda"
        self._graph: torch.cuda.CUDAGraph | None = None
        self._warm = 0

    def run(self, steps: int) -> None:
        """Run this many steps; on CUDA they may not have finished when this returns."""
        for _ in range(steps):
            if self._tick is not None:
                self._tick()
            if not self._captures:
                self._step()
            elif self._graph is not None:
                self._graph.replay()
            elif self._warm < _WARM_STEPS:
                # Libraries allocate their work space in their first calls, which must not be captured.
                self._step()
                self._warm += 1
            else:
                self._graph = captured(self._step, 1, self._device)
                self._graph.replay()
            if self._dropping.count(1):
                self._graph, self._warm = None, 0


class EagerEncoding:
    """Encodes: a chunk's steps run when it is queued, its entropy coding when it is collected."""

    def __init__(
        self,
        model: ModelSettings,
        lanes: int,
        device: torch.device,
        profile: Profile | None,
        tick: Tick | None,
    ) -> None:
        self._model = Model(model, lanes, device)
        self._profile = profile or Profile()
        alike = model.update_steps == 1
        self._stepper = _Stepper(self._step, device, tick, alike, self._model.dropping)
        self._encoder = BlockEncoder(lanes, model.lanes_per_coder)
        shape = (CHUNK_STEPS, lanes)
        self._symbols = torch.zeros(shape, dtype=torch.int64, device=device)
        self._starts = torch.zeros(shape, dtype=torch.int64, device=device)
        self._frequencies = torch.zeros(shape, dtype=torch.int64, device=device)
        self._index = torch.zeros(1, dtype=torch.int64, device=device)
        self._queued: deque[_Intervals] = deque()
        self._chunk_steps = self._block_steps = 0

    @property
    def is_full(self) -> bool:
        """Whether the block should end, as far as collected."""
        return self._encoder.is_full

    @property
    def frequencies(self) -> NDArray[np.int64]:
        """The frequencies, [steps, lanes], of the symbols of the chunk queued last."""
        return self._frequencies[: self._chunk_steps].cpu().numpy().copy()

    def _step(self) -> None:
        frequencies = self._model.predict()
        symbols = self._symbols.index_select(0, self._index).squeeze(0)
        starts, widths = frequencies.intervals(symbols)
        self._starts.index_copy_(0, self._index, starts.unsqueeze(0))
        self._frequencies.index_copy_(0, self._index, widths.unsqueeze(0))
        self._index.add_(1)
        self._model.learn(symbols)

    def queue(self, symbols: NDArray[np.uint8], active_last: int, ends_block: bool) -> None:
        """Run the steps of these symbols, [steps, lanes]."""
        self._chunk_steps = steps = len(symbols)
        with self._profile.stage("copy in"):
            self._symbols[:steps].copy_(torch.from_numpy(symbols))
            self._index.zero_()
        with self._profile.stage("step"):
            self._stepper.run(steps)
            # Copied on a CPU as well: the next chunk overwrites them.
            starts = self._starts[:steps].to("cpu", copy=True)
            frequencies = self._frequencies[:steps].to("cpu", copy=True)
        fingerprint = int(self._model.fingerprint().item()) if ends_block else None
        self._queued.append(_Intervals(starts.numpy(), frequencies.numpy(), active_last, fingerprint))

    def collect(self) -> CodedBlock | None:
        """Code the oldest chunk that was queued, and return the block that it ends, if it does."""
        chunk = self._queued.popleft()
        with self._profile.stage("code"):
            last = len(chunk.starts) - 1
            for step, (start, width) in enumerate(zip(chunk.starts, chunk.frequencies, strict=True)):
                active = chunk.active_last if step == last else len(start)
                self._encoder.step(start[:active], width[:active])
            self._block_steps += last + 1
            if chunk.fingerprint is None:
                return None
            block = CodedBlock(self._block_steps, chunk.fingerprint, self._encoder.finish_block())
        self._block_steps = 0
        return block


@dataclass(frozen=True)
class _Intervals:
    """A chunk's starts and frequencies, int64 [steps, lanes], and the fingerprint if it ends a block."""

    starts: NDArray[np.int64]
    frequencies: NDArray[np.int64]
    active_last: int
    fingerprint: int | None


class EagerDecoding:
    """Decodes: on the host, which waits for each step's frequencies."""

    def __init__(
        self,
        model: ModelSettings,
        lanes: int,
        device: torch.device,
        profile: Profile | None,
        tick: Tick | None,
    ) -> None:
        self._tick = tick
        self._settings = model
        self._lanes = lanes
        self._device = device
        self._profile = profile or Profile()
        self._model: Model | None = None
        self._decoder: BlockDecoder | None = None
        self._queued: deque[Found] = deque()

    def begin_block(self, payload: bytes, more: bool) -> None:
        """Begin a block; CorruptError if the payload cannot be one's."""
        self._decoder = BlockDecoder(payload, self._lanes, self._settings.lanes_per_coder)
        if self._model is None:
            self._model = Model(self._settings, self._lanes, self._device)

    def queue(self, steps: int, active_last: int, ends_block: bool) -> None:
        """Find the symbols of further steps of the block."""
        model, decoder = self._model, self._decoder
        if model is None or decoder is None:
            raise RuntimeError("no block was begun")
        found = np.zeros((steps, self._lanes), np.uint8)
        coding = 0.0
        started = time.perf_counter()
        for step in range(steps):
            if self._tick is not None:
                self._tick()
            active = active_last if step == steps - 1 else self._lanes
            starts = model.predict().starts().cpu().numpy()
            began = time.perf_counter()
            symbols = torch.zeros(self._lanes, dtype=torch.int64)
            symbols[:active] = torch.from_numpy(decoder.step(starts[:active]))
            coding += time.perf_counter() - began
            model.learn(symbols.to(self._device))
            model.dropping.count(1)
            found[step] = symbols.numpy()
            if decoder.words_left < 0:
                # Whatever follows is noise.
                break
        self._profile.add("code", coding)
        self._profile.add("step", time.perf_counter() - started - coding)
        fingerprint = int(model.fingerprint().item()) if ends_block else None
        self._queued.append(Found(found, decoder.words_left, fingerprint))

    def collect(self) -> Found:
        """Return what the oldest chunk that was queued found."""
        return self._queued.popleft()

    def restore(self, content: bytearray) -> None:
        """Leave the content as it is: nothing was done to it."""
