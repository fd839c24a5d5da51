"""What codes a segment chunk by chunk, as the loop in engine.py sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .segment import CodedBlock

__all__ = ["AHEAD", "CHUNK_STEPS", "Decoding", "Encoding", "Found", "NetworkEncoding"]

CHUNK_STEPS = 256
"""Steps that are queued at a time; blocks end at multiples of it. Part of no format."""

AHEAD = 2
"""Chunks that may be queued and not yet collected."""


@dataclass(frozen=True)
class Found:
    """What a chunk of steps found.

    `symbols` is uint8 [steps, lanes]; `words_left` the words of the block's payload not yet read, below 0 if
    more were read than there are; `fingerprint` that of the model after the last step, where that ends a
    block.
    """

    symbols: NDArray[np.uint8]
    words_left: int
    fingerprint: int | None


class Encoding(Protocol):
    """A segment being encoded on a device."""

    def queue(self, symbols: NDArray[np.uint8], active_last: int, ends_block: bool) -> None:
        """Begin the steps of these symbols, [steps, lanes], of which the last codes `active_last` lanes."""

    def collect(self) -> CodedBlock | None:
        """Wait for the oldest chunk that was queued, and return the block that it ends, if it does."""

    @property
    def is_full(self) -> bool:
        """Whether the block should end, as far as collected."""


class NetworkEncoding(Encoding, Protocol):
    """A segment being encoded by a network, which gives each symbol a frequency."""

    @property
    def frequencies(self) -> NDArray[np.int64]:
        """The frequencies, [steps, lanes], of the symbols of the chunk queued last, for which this waits."""


class Decoding(Protocol):
    """A segment being decoded on a device."""

    def begin_block(self, payload: bytes, more: bool) -> None:
        """Queue the start of a block; `more` says that it is not the segment's last."""

    def queue(self, steps: int, active_last: int, ends_block: bool) -> None:
        """Begin further steps of the block, of which the last finds `active_last` symbols."""

    def collect(self) -> Found:
        """Wait for the oldest chunk that was queued and return what it found."""

    def restore(self, content: bytearray) -> None:
        """Undo, in place, what was done to the segment's content before its lanes were coded."""
