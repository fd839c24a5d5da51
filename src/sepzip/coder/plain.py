"""The range coder on the host, in NumPy: its meaning in both directions.

A coder's number grows by digits of 24 bits. The encoder emits a digit whenever the range falls below
2^38; what is added later may still carry into it, so carries are resolved when the block ends. The
decoder is always two words ahead: it reads two words first, and one more wherever the encoder emitted
one. A block's payload holds the words in the order in which the decoder reads them, 3 bytes each,
little-endian.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import CorruptError
from ..frequencies import TOTAL_BITS
from . import BLOCK_WORDS, RANGE_FIRST, RANGE_LEAST, WORD_BITS, coders_for

__all__ = ["BlockDecoder", "BlockDigits", "BlockEncoder", "words_from_payload"]

_WORD_MASK = (1 << WORD_BITS) - 1

Integers = NDArray[np.int64]


class BlockDigits:
    """Collects the digits that coders emit and makes payloads of them: the part that encoders share."""

    def __init__(self, coders: int) -> None:
        self.coders = coders
        self._begin()

    def _begin(self) -> None:
        self._emitters: list[Integers] = []
        self._digits: list[Integers] = []
        self.words = 2 * self.coders

    @property
    def is_full(self) -> bool:
        """Whether the block should end here."""
        return self.words >= BLOCK_WORDS * self.coders

    def add(self, emitters: Integers, digits: Integers) -> None:
        """Take further digits and the coders that emitted them, in the order of emission, int64."""
        self._emitters.append(emitters)
        self._digits.append(digits)
        self.words += len(emitters)

    def finish(self, low: Integers) -> bytes:
        """Return the block's payload, `low` being each coder's low end, and begin the next block."""
        emitters = np.concatenate([np.zeros(0, np.int64), *self._emitters])
        # As 16 bits, which are sorted in time that grows with their number alone: the device waits meanwhile.
        order = np.argsort(emitters.astype(np.uint16), kind="stable")
        size = len(emitters) + 2 * self.coders
        ends = np.cumsum(np.bincount(emitters, minlength=self.coders) + 2)
        firsts = np.concatenate([[0], ends[:-1]])
        # The last two words of a coder: its low end rounded up to a whole word, and a word of zeros.
        emitted = np.ones(size, bool)
        emitted[ends - 2] = emitted[ends - 1] = False
        by_coder = np.zeros(size, np.int64)
        by_coder[emitted] = np.concatenate([np.zeros(0, np.int64), *self._digits])[order]
        by_coder[ends - 2] = (low + _WORD_MASK) >> WORD_BITS
        by_coder = _carry(by_coder)
        # Reading: word 0 and 1 of every coder, then word k + 2 where digit k was emitted.
        later = np.ones(size, bool)
        later[firsts] = later[firsts + 1] = False
        words = np.empty(size, np.int64)
        words[: 2 * self.coders] = np.concatenate([by_coder[firsts], by_coder[firsts + 1]])
        words[2 * self.coders :][order] = by_coder[later]
        self._begin()
        return words.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()


class BlockEncoder:
    """Takes the intervals of symbols step by step and returns payloads block by block."""

    def __init__(self, lanes: int, lanes_per_coder: int) -> None:
        self.coders = coders_for(lanes, lanes_per_coder)
        self._digits = BlockDigits(self.coders)
        self._begin()

    def _begin(self) -> None:
        self._low = np.zeros(self.coders, np.int64)
        self._range = np.full(self.coders, RANGE_FIRST, np.int64)

    @property
    def words(self) -> int:
        """The words of the block's payload so far."""
        return self._digits.words

    @property
    def is_full(self) -> bool:
        """Whether the block should end here."""
        return self._digits.is_full

    def step(self, starts: Integers, frequencies: Integers) -> None:
        """Code one symbol a lane; int64 [lanes], or fewer if the last lanes have no symbol left."""
        for first in range(0, len(starts), self.coders):
            start = starts[first : first + self.coders]
            active = len(start)
            low, width = self._low[:active], self._range[:active]
            unit = width >> TOTAL_BITS
            low += unit * start
            np.multiply(unit, frequencies[first : first + active], out=width)
            emitters = np.flatnonzero(width < RANGE_LEAST)
            if len(emitters):
                emitted = low[emitters]
                self._digits.add(emitters, emitted >> WORD_BITS)
                low[emitters] = (emitted & _WORD_MASK) << WORD_BITS
                width[emitters] <<= WORD_BITS

    def finish_block(self) -> bytes:
        """Return the payload of what was coded since the last block, and begin the next block."""
        payload = self._digits.finish(self._low)
        self._begin()
        return payload


def _carry(digits: Integers) -> Integers:
    """Return the digits with every carry added to the digit before it.

    A coder's number stays below its first digit's end, so no carry leaves its first digit.
    """
    while True:
        carries = digits >> WORD_BITS
        if not carries.any():
            return digits
        digits &= _WORD_MASK
        digits[:-1] += carries[1:]


def words_from_payload(payload: bytes, coders: int) -> Integers:
    """Return a payload's words as int64; CorruptError if it cannot be a payload of so many coders."""
    if len(payload) % 3 or len(payload) < 6 * coders:
        raise CorruptError("a block's payload has an impossible length; the file is damaged")
    padded = np.zeros((len(payload) // 3, 4), np.uint8)
    padded[:, :3] = np.frombuffer(payload, np.uint8).reshape(-1, 3)
    return padded.reshape(-1).view("<u4").astype(np.int64)


class BlockDecoder:
    """Finds the symbols of one block, step by step, from their starts."""

    def __init__(self, payload: bytes, lanes: int, lanes_per_coder: int) -> None:
        self.coders = coders_for(lanes, lanes_per_coder)
        self._words = words_from_payload(payload, self.coders)
        first, second = self._words[: self.coders], self._words[self.coders : 2 * self.coders]
        self._code = (first << WORD_BITS) | second
        self._range = np.full(self.coders, RANGE_FIRST, np.int64)
        self._position = 2 * self.coders

    @property
    def words_left(self) -> int:
        """The words not yet read: 0 at the end of a block; below 0, more were read than there are."""
        return len(self._words) - self._position

    def step(self, starts: Integers) -> Integers:
        """Return one symbol a lane, int64, from the starts of all symbols, int64 [lanes, 256].

        Words past the end count as zeros; the caller checks `words_left`.
        """
        symbols = np.empty(len(starts), np.int64)
        for first in range(0, len(starts), self.coders):
            rows = starts[first : first + self.coders]
            active = len(rows)
            code, width = self._code[:active], self._range[:active]
            unit = width >> TOTAL_BITS
            slot = np.clip(code // unit, 0, (1 << TOTAL_BITS) - 1)
            found = (rows <= slot[:, None]).sum(1) - 1
            lanes = np.arange(active)
            start = rows[lanes, found]
            end = np.where(found == 255, 1 << TOTAL_BITS, rows[lanes, np.minimum(found + 1, 255)])
            code -= unit * start
            np.multiply(unit, end - start, out=width)
            readers = np.flatnonzero(width < RANGE_LEAST)
            if len(readers):
                words = np.zeros(len(readers), np.int64)
                there = self._words[self._position : self._position + len(readers)]
                words[: len(there)] = there
                self._position += len(readers)
                code[readers] = (code[readers] << WORD_BITS) | words
                width[readers] <<= WORD_BITS
            symbols[first : first + active] = found
        return symbols
