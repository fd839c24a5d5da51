"""The range coder on the model's device, both ways, by kernels: equal to `plain.py` in every word.

Nothing that belongs to a step waits for the host, and tensors keep their addresses, so a decoder's step
may be captured in a CUDA graph. An encoder works once a chunk of steps; only carries are left to the host.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from torch import Tensor

from . import RANGE_FIRST, WORD_BITS, coders_for
from .kernels import NO_DIGIT, decode_step, encode_chunk
from .plain import BlockDigits, Integers, words_from_payload

__all__ = ["DeviceDecoder", "DeviceEncoder"]


class DeviceDecoder:
    """Finds the symbols of one block after another."""

    def __init__(self, lanes: int, lanes_per_coder: int, capacity: int, device: torch.device) -> None:
        """Make room for payloads of up to `capacity` words."""
        self.coders = coders_for(lanes, lanes_per_coder)
        self.capacity = capacity
        self._words = torch.zeros(capacity, dtype=torch.int32, device=device)
        self._codes = torch.zeros(self.coders, dtype=torch.int64, device=device)
        self._ranges = torch.full((self.coders,), RANGE_FIRST, dtype=torch.int64, device=device)
        self.next_word = torch.zeros(1, dtype=torch.int64, device=device)
        self._count = 0

    def load(self, payload: bytes) -> None:
        """Begin the block with this payload; CorruptError if it cannot be one.

        Raises ValueError for more words than the capacity.
        """
        words = words_from_payload(payload, self.coders)
        if len(words) > self.capacity:
            raise ValueError(f"a payload of {len(words)} words, more than the capacity of {self.capacity}")
        self._count = len(words)
        self._words[: len(words)].copy_(torch.from_numpy(words.astype(np.int32)))
        self._words[len(words) :].zero_()
        codes = (words[: self.coders] << WORD_BITS) | words[self.coders : 2 * self.coders]
        self._codes.copy_(torch.from_numpy(codes))
        self._ranges.fill_(RANGE_FIRST)
        self.next_word.fill_(2 * self.coders)

    @property
    def words_left(self) -> int:
        """The words not yet read: 0 at the end of a block; below 0, more were read than there are.

        Waits for the steps before.
        """
        return self._count - int(self.next_word.item())

    def step(self, starts: Tensor, history: Tensor, position: Tensor, context: int, active: int) -> None:
        """Find one symbol a lane and write them to row context + position[0] of `history`.

        `starts` is int32 [lanes, 256], `history` uint8 [rows, lanes], `position` int64 [1]. Lanes from
        `active` on have none left and give 0.
        """
        decode_step(
            starts,
            self._words,
            self._codes,
            self._ranges,
            self.next_word,
            history,
            position,
            context,
            active,
        )


class DeviceEncoder:
    """Codes chunks of steps on the device and makes payloads of what it emits, block by block.

    A chunk is coded in two calls, so that the device runs the next chunk's steps while the host is at
    this one's digits: `code` queues the work, `collect` waits for it. A block can end with any chunk.
    """

    def __init__(self, lanes: int, lanes_per_coder: int, chunk_steps: int, device: torch.device) -> None:
        """Make room for chunks of up to `chunk_steps` steps."""
        self.coders = coders_for(lanes, lanes_per_coder)
        self._groups = -(-lanes // self.coders)
        self._lows = torch.zeros(self.coders, dtype=torch.int64, device=device)
        self._ranges = torch.full((self.coders,), RANGE_FIRST, dtype=torch.int64, device=device)
        shape = (chunk_steps * self._groups, self.coders)
        self._digits = torch.empty(shape, dtype=torch.int64, device=device)
        self._free = [_Copy(self._digits, self._lows), _Copy(self._digits, self._lows)]
        self._pending: deque[_Copy] = deque()
        self._block = BlockDigits(self.coders)
        self._low: Integers = np.zeros(self.coders, np.int64)

    @property
    def words(self) -> int:
        """The words of the block's payload so far, as far as collected."""
        return self._block.words

    @property
    def is_full(self) -> bool:
        """Whether the block should end here, as far as collected."""
        return self._block.is_full

    def code(
        self, starts: Tensor, frequencies: Tensor, steps: int, active_last: int, ends_block: bool
    ) -> None:
        """Queue the coding of a chunk: the first `steps` rows, int32 [chunk steps, lanes].

        In the last of them only the first `active_last` lanes have a symbol. The current stream may
        overwrite the rows afterwards. At most two chunks can wait to be collected. Where the chunk ends a
        block, the next one queued begins another; `finish_block` is due when it has been collected.
        """
        if not self._free:
            raise RuntimeError("two chunks were coded and not collected")
        encode_chunk(starts, frequencies, self._lows, self._ranges, self._digits, steps, active_last)
        copy = self._free.pop()
        copy.start(steps * self._groups)
        if ends_block:
            self._lows.zero_()
            self._ranges.fill_(RANGE_FIRST)
        self._pending.append(copy)

    def collect(self) -> None:
        """Wait until the oldest chunk not yet collected is coded, and take its digits."""
        if not self._pending:
            raise RuntimeError("no chunk was coded that is not collected")
        copy = self._pending.popleft()
        digits, low = copy.wait()
        places = np.flatnonzero(digits != NO_DIGIT)
        self._block.add(places % self.coders, digits[places])
        self._low = low.copy()
        self._free.append(copy)

    def finish_block(self) -> bytes:
        """Return the payload of the block that the chunk collected last has ended."""
        payload = self._block.finish(self._low)
        self._low = np.zeros(self.coders, np.int64)
        return payload


class _Copy:
    """A chunk's digits and the coders' low ends after it, on their way to the host."""

    def __init__(self, digits: Tensor, lows: Tensor) -> None:
        self._sources = (digits, lows)
        pinned = digits.is_cuda
        self._digits = torch.empty(digits.shape, dtype=digits.dtype, pin_memory=pinned)
        self._lows = torch.empty(lows.shape, dtype=lows.dtype, pin_memory=pinned)
        self._done = torch.cuda.Event() if pinned else None
        self._rows = 0

    def start(self, rows: int) -> None:
        """Queue the copy of the first rows of digits on the current stream."""
        digits, lows = self._sources
        self._rows = rows
        self._digits[:rows].copy_(digits[:rows], non_blocking=True)
        self._lows.copy_(lows, non_blocking=True)
        if self._done is not None:
            self._done.record()

    def wait(self) -> tuple[Integers, Integers]:
        """Return the digits in the order of emission and the low ends; both are views."""
        if self._done is not None:
            self._done.synchronize()
        return self._digits[: self._rows].view(-1).numpy(), self._lows.numpy()
