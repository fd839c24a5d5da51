"""An arithmetic coder of bits, each lane with its own: what a memory of contexts predicts by.

A lane's number is between `low` and `high`, 32 bits each; bytes on which both agree leave it. A block's
payload is the lengths of the lanes' bytes, then those bytes, lane after lane. The coding of a bit is a part
of what predicts it (recall/memory.c).
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import CorruptError, TruncatedError
from ..wire import ByteSource, varint

__all__ = [
    "MOST_BYTES_A_STEP",
    "BlockStreams",
    "LaneCoders",
    "new_coders",
    "read_streams",
    "unread",
]

BLOCK_BYTES = 1 << 22
"""Bytes after which a block ends: what its end wastes is then below 0.05 %."""

MOST_BYTES_A_STEP = 13
"""Bytes that a lane emits in a step at most, that is for eight bits of up to 12 bits each, and one more."""

_WIDTH = 4
_ALL = 0xFFFFFFFF
_MOST_LENGTH = 1 << 31
_MOST_LENGTH_BITS = 32


Integers = NDArray[np.int64]


class LaneCoders(NamedTuple):
    """The coders' state, int64 [lanes]; `data` is uint8, room for what is emitted or the payload.

    A lane's next byte is at `at` in it, and `end` is where the lane's bytes end.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    code: NDArray[np.int64]
    at: NDArray[np.int64]
    end: NDArray[np.int64]
    data: NDArray[np.uint8]


def new_coders(lanes: int, chunk_steps: int) -> LaneCoders:
    """Return coders that encode, with room for the bytes of so many steps."""
    room = MOST_BYTES_A_STEP * chunk_steps
    at = np.arange(lanes) * room
    low, high, code = np.zeros((3, lanes), np.int64)
    high[:] = _ALL
    return LaneCoders(low, high, code, at, at + room, np.zeros(lanes * room, np.uint8))


def _last_bytes(low: Integers, high: Integers) -> tuple[Integers, Integers]:
    """Return how few bytes, followed by zeros, give a number between both ends, and that number."""
    counts = np.full(len(low), _WIDTH)
    numbers = low.copy()
    for count in reversed(range(_WIDTH)):
        shift = 8 * (_WIDTH - count)
        number = -(-low >> shift) << shift
        fits = number <= high
        counts[fits], numbers[fits] = count, number[fits]
    return counts, numbers


class BlockStreams:
    """Collects the bytes that lanes emit, chunk by chunk, and makes a payload of them."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        # By lane what it emitted, chunk by chunk: a block's end has only to put them together.
        self._pieces: list[list[bytes]] = []
        self._size = 0

    @property
    def is_full(self) -> bool:
        """Whether the block should end here."""
        return self._size >= BLOCK_BYTES

    def take(self, data: NDArray[np.uint8], counts: NDArray[np.int64]) -> None:
        """Take the first counts[lane] bytes of each row of `data`, uint8 [lanes, room]."""
        chunk = data[np.arange(data.shape[1]) < counts[:, None]].tobytes()
        if not self._pieces:
            self._pieces = [[] for _ in counts]
        first = 0
        for pieces, end in zip(self._pieces, np.cumsum(counts).tolist(), strict=True):
            pieces.append(chunk[first:end])
            first = end
        self._size += len(chunk)

    def finish(self, low: Integers, high: Integers) -> bytes:
        """Return the payload of the block that ends with this state, int64 [lanes] each; begin another."""
        counts, numbers = _last_bytes(low, high)
        shifts = 24 - 8 * np.arange(_WIDTH)
        self.take(((numbers[:, None] >> shifts) & 255).astype(np.uint8), counts)
        lanes = [b"".join(pieces) for pieces in self._pieces]
        self._begin()
        return _lengths_to_bytes(np.array([len(lane) for lane in lanes])) + b"".join(lanes)


def _lengths_to_bytes(lengths: NDArray[np.int64]) -> bytes:
    """Return the smallest length, the bits of what the others have above it, and these bits."""
    least = int(lengths.min())
    above = lengths - least
    bits = int(above.max()).bit_length()
    digits = (above[:, None] >> np.arange(bits)) & 1
    return varint(least) + bytes([bits]) + np.packbits(digits.astype(np.uint8), bitorder="little").tobytes()


def read_streams(payload: bytes, lanes: int) -> LaneCoders:
    """Return coders that decode a payload; CorruptError if it cannot be one of so many lanes."""
    try:
        source = ByteSource(io.BytesIO(payload))
        least = source.varint("a block's lengths", 0, _MOST_LENGTH)
        bits = source.byte("a block's lengths")
        if bits > _MOST_LENGTH_BITS:
            raise CorruptError("a block's lengths are impossible; the file is damaged")
        packed = np.frombuffer(source.exactly(-(-lanes * bits // 8), "a block's lengths"), np.uint8)
    except TruncatedError:
        raise CorruptError("a block's payload ends before its lengths do; the file is damaged") from None
    digits = np.unpackbits(packed, count=lanes * bits, bitorder="little").reshape(lanes, bits)
    lengths = least + (digits.astype(np.int64) << np.arange(bits)).sum(1)
    if source.position + int(lengths.sum()) != len(payload):
        raise CorruptError("a block's lengths do not add up to its payload; the file is damaged")
    data = np.zeros(len(payload) + _WIDTH, np.uint8)
    data[: len(payload)] = np.frombuffer(payload, np.uint8)
    end = source.position + np.cumsum(lengths)
    at = end - lengths
    code = np.zeros(lanes, np.int64)
    for _ in range(_WIDTH):
        code = code << 8 | np.where(at < end, data[at], 0)
        at += 1
    low, high = np.zeros((2, lanes), np.int64)
    high[:] = _ALL
    return LaneCoders(low, high, code, at, end, data)


def unread(low: Integers, high: Integers, at: Integers, end: Integers) -> int:
    """Return how many bytes lanes have left over after a block's last bit; below 0 if any had too few."""
    counts, _ = _last_bytes(low, high)
    left = end - (at - _WIDTH) - counts
    return int(left.min()) if (left < 0).any() else int(left.sum())
