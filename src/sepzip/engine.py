"""The loop that codes a segment, in both directions, and the device it runs on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import memory
from .coder.device import DeviceDecoder
from .coder.plain import BlockDecoder, BlockEncoder
from .errors import CorruptError, DeviceError, MismatchError, OutOfMemoryError
from .frame import CodedBlock
from .frequencies import Frequencies
from .lanes import LaneJoiner, longer_lanes, split_lanes, steps_for
from .model import Model
from .presets import ModelSettings
from .profile import Profile

__all__ = ["decode_segment", "encode_segment", "exactly"]

CHUNK_STEPS = 256
"""Steps between two looks at the coder; blocks end at multiples of it. Part of no format."""

_WARM_STEPS = 3

_capturing = threading.Lock()

Advance = Callable[[int], None]


class Source(Protocol):
    """Where the true symbols of a step come from."""

    def symbols(self, frequencies: Frequencies) -> Tensor:
        """Return one symbol a lane, int64 [lanes], given what was predicted."""


class Stepper:
    """Runs steps: predict, get the true symbols, learn. On CUDA the step is one captured graph."""

    def __init__(self, model: Model, source: Source, device: torch.device) -> None:
        self._model = model
        self._source = source
        self._device = device
        self._graph: torch.cuda.CUDAGraph | None = None
        self._warm = 0

    def run(self, steps: int) -> None:
        """Run this many steps; on CUDA they may not have finished when this returns."""
        for _ in range(steps):
            if self._device.type != "cuda":
                self.step()
            elif self._graph is not None:
                self._graph.replay()
            elif self._warm < _WARM_STEPS:
                # Libraries allocate their work space in their first calls, which must not be captured.
                self.step()
                self._warm += 1
            else:
                torch.cuda.current_stream(self._device).synchronize()
                self._graph = torch.cuda.CUDAGraph()
                # Other threads may be at work on streams of their own meanwhile.
                graph = torch.cuda.graph(
                    self._graph,
                    stream=torch.cuda.current_stream(self._device),
                    capture_error_mode="thread_local",
                )
                with _capturing, graph:
                    self.step()
                self._graph.replay()

    def step(self) -> None:
        """Run one step as it is written."""
        frequencies = self._model.predict()
        self._model.learn(self._source.symbols(frequencies))


class Truth:
    """The source when encoding: a chunk of known symbols; it records the intervals to be coded."""

    def __init__(self, lanes: int, device: torch.device) -> None:
        shape = (CHUNK_STEPS, lanes)
        self._symbols = torch.zeros(shape, dtype=torch.int64, device=device)
        self._starts = torch.zeros(shape, dtype=torch.int64, device=device)
        self._frequencies = torch.zeros(shape, dtype=torch.int64, device=device)
        self._index = torch.zeros(1, dtype=torch.int64, device=device)

    def load(self, symbols: NDArray[np.uint8]) -> None:
        """Take the symbols of the next steps, [steps, lanes]."""
        self._symbols[: len(symbols)].copy_(torch.from_numpy(symbols))
        self._index.zero_()

    def symbols(self, frequencies: Frequencies) -> Tensor:
        """Return the next step's symbols and record their intervals."""
        symbols = self._symbols.index_select(0, self._index).squeeze(0)
        starts, widths = frequencies.intervals(symbols)
        self._starts.index_copy_(0, self._index, starts.unsqueeze(0))
        self._frequencies.index_copy_(0, self._index, widths.unsqueeze(0))
        self._index.add_(1)
        return symbols

    def intervals(self, steps: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the starts and frequencies of the chunk's steps, [steps, lanes], once they are there."""
        return self._starts[:steps].cpu().numpy(), self._frequencies[:steps].cpu().numpy()


class Decoded:
    """The source when decoding: the coder finds the symbols; they are kept for a chunk of steps."""

    def __init__(self, lanes: int, lanes_per_coder: int, device: torch.device) -> None:
        self._lanes = lanes
        self._lanes_per_coder = lanes_per_coder
        self._device = device
        self._plain: BlockDecoder | None = None
        self._on_device: DeviceDecoder | None = None
        self._index = torch.zeros(1, dtype=torch.int64, device=device)
        self._found = torch.zeros((CHUNK_STEPS, lanes), dtype=torch.int64, device=device)
        self.active = lanes

    def load(self, payload: bytes) -> bool:
        """Begin a block; return whether a step captured before is no longer valid."""
        if self._device.type != "cuda":
            self._plain = BlockDecoder(payload, self._lanes, self._lanes_per_coder)
            return False
        needed = len(payload) // 3
        renewed = self._on_device is None or self._on_device.capacity < needed
        if self._on_device is None or renewed:
            self._on_device = DeviceDecoder(self._lanes, self._lanes_per_coder, needed, self._device)
        self._on_device.load(payload)
        return renewed

    @property
    def words_left(self) -> int:
        """The words of the block not yet read, below 0 if more were read than there are."""
        decoder = self._plain or self._on_device
        return decoder.words_left if decoder else 0

    def symbols(self, frequencies: Frequencies) -> Tensor:
        """Return the next step's symbols as the coder finds them."""
        starts = frequencies.starts()
        if self._plain is not None:
            symbols = torch.zeros(self._lanes, dtype=torch.int64)
            symbols[: self.active] = torch.from_numpy(self._plain.step(starts[: self.active].numpy()))
        elif self._on_device is not None:
            symbols = self._on_device.step(starts, self.active)
        else:
            raise RuntimeError("no block was loaded")
        self._found.index_copy_(0, self._index, symbols.unsqueeze(0))
        self._index.add_(1)
        return symbols

    def take(self, steps: int) -> NDArray[np.uint8]:
        """Return the chunk's symbols, [steps, lanes], and begin the next chunk."""
        found = self._found[:steps].to(torch.uint8).cpu().numpy()
        self._index.zero_()
        return found


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
    matrix = split_lanes(np.frombuffer(data, np.uint8), lanes)
    steps = len(matrix)
    with exactly(target):
        network = Model(model, lanes, target)
        source = Truth(lanes, target)
        stepper = Stepper(network, source, target)
        encoder = BlockEncoder(lanes, model.lanes_per_coder)
        last_active = longer_lanes(len(data), lanes)
        block_steps = 0
        for first in range(0, steps, CHUNK_STEPS):
            chunk = matrix[first : first + CHUNK_STEPS]
            end = first + len(chunk)
            source.load(chunk)
            stepper.run(len(chunk))
            starts, widths = source.intervals(len(chunk))
            for step, start, width in zip(range(first, end), starts, widths, strict=True):
                active = last_active if step == steps - 1 else lanes
                encoder.step(start[:active], width[:active])
            block_steps += len(chunk)
            if advance is not None:
                advance(min(len(data), end * lanes) - first * lanes)
            if encoder.is_full or end == steps:
                yield CodedBlock(block_steps, int(network.fingerprint().item()), encoder.finish_block())
                block_steps = 0


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
    done = 0
    with exactly(target):
        network: Model | None = None
        source = Decoded(lanes, model.lanes_per_coder, target)
        stepper: Stepper | None = None
        for block in blocks:
            if block.steps < 1 or done + block.steps > steps:
                raise CorruptError("a block covers more steps than its segment has; the file is damaged")
            renewed = source.load(block.payload)
            if network is None:
                network = Model(model, lanes, target)
            if stepper is None or renewed:
                stepper = Stepper(network, source, target)
            end = done + block.steps
            while done < end:
                count = min(CHUNK_STEPS, end - done)
                partial = done + count == steps and last_active < lanes
                stepper.run(count - partial)
                if partial:
                    source.active = last_active
                    stepper.step()
                chunk = source.take(count)
                if source.words_left < 0:
                    raise CorruptError("a block's payload ends before its last symbol; the file is damaged")
                joiner.add(chunk)
                if advance is not None:
                    advance(min(size, (done + count) * lanes) - done * lanes)
                done += count
            fingerprint = int(network.fingerprint().item())
            if fingerprint != block.fingerprint:
                raise MismatchError(
                    f"the weights at step {done} differ from those of the machine that made the file "
                    f"({fingerprint:08x}, not {block.fingerprint:08x}): decode on another device, e.g. "
                    "--device cpu, and please report it"
                )
            if source.words_left:
                raise CorruptError("a block's payload does not end with its last symbol; the file is damaged")
    if done != steps:
        raise CorruptError("a segment's blocks do not cover all its steps; the file is damaged")
    return joiner.data


@contextmanager
def exactly(device: torch.device) -> Iterator[None]:
    """Set what exactness and speed need of torch for the work inside, and restore it afterwards.

    Memory that runs out inside is raised as OutOfMemoryError.
    """
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    if not _keeps_subnormals(device):
        raise DeviceError("subnormal numbers are flushed to zero here: call torch.set_flush_denormal(False)")
    torch.set_float32_matmul_precision("highest")
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        # A step is many small operations: waking a second thread for each costs more than it saves.
        torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            if device.type == "cuda":
                # A stream of its own: segments that other threads code at the same time can overlap.
                with torch.cuda.device(device), torch.cuda.stream(torch.cuda.Stream(device)):
                    yield
            else:
                yield
    except (MemoryError, torch.OutOfMemoryError):
        raise OutOfMemoryError(memory.advice(device)) from None
    except RuntimeError as error:
        # On a CPU torch raises a plain RuntimeError that names its allocator.
        if "Allocator" not in str(error):
            raise
        raise OutOfMemoryError(memory.advice(device)) from None
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(threads)


def _keeps_subnormals(device: torch.device) -> bool:
    smallest_normal = torch.full((1,), 2.0**-126, device=device)
    return bool((smallest_normal * 0.5 * 2.0 == smallest_normal).item())
