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

_TOGETHER = 1 << 12
"""Digits that are placed together, at least: there is much to do for every time."""

Integers = NDArray[np.int64]


class BlockDigits:
    """Collects the digits that coders emit and makes payloads of them: the part that encoders share.

    Most of it is done as digits come: while a block is finished, a device would wait.
    """

    def __init__(self, coders: int) -> None:
        self.coders = coders
        self._begin()

    def _begin(self) -> None:
        coders = np.arange(self.coders)
        self.words = 2 * self.coders
        self._emitters: list[Integers] = []
        self._digits: list[Integers] = []
        self._waiting = self._placed = 0
        # The payload's words, behind one for carries out of first digits, of which there are none; and for
        # each word the place of the one that its coder reads before it.
        self._words = np.zeros(1 + 2 * self.coders, np.int64)
        self._before = np.zeros(1 + 2 * self.coders, np.int64)
        # Where each coder's last digit stands, and where its next two will.
        self._places = [np.zeros(self.coders, np.int64), 1 + coders, 1 + self.coders + coders]

    @property
    def is_full(self) -> bool:
        """Whether the block should end here."""
        return self.words >= BLOCK_WORDS * self.coders

    def add(self, emitters: Integers, digits: Integers) -> None:
        """Take further digits and the coders that emitted them, in the order of emission, int64."""
        self._emitters.append(emitters)
        self._digits.append(digits)
        self.words += len(emitters)
        self._waiting += len(emitters)
        if self._waiting >= _TOGETHER:
            self._place()

    def _place(self) -> None:
        """Put the digits that wait where they will be read, and their carries to the digits before them.

        A coder reads two words first, and then one wherever it emitted a digit: so it is where digit k was
        emitted that digit k + 2 stands.
        """
        emitters, digits = np.concatenate(self._emitters), np.concatenate(self._digits)
        self._emitters.clear()
        self._digits.clear()
        self._waiting = 0
        # 16 bits are sorted in a time that grows with their number alone.
        order = np.argsort(emitters.astype(np.uint16), kind="stable")
        counts = np.bincount(emitters, minlength=self.coders)
        ends = np.cumsum(counts + 3)
        begins = ends - counts - 3
        is_new, is_place = np.ones((2, len(order) + 3 * self.coders), bool)
        places = np.empty(len(is_new), np.int64)
        for number, known in enumerate(self._places):
            places[begins + number] = known
            is_new[begins + number] = False
        places[is_new] = 1 + 2 * self.coders + self._placed + order
        self._placed += len(order)
        self._places = [places[ends - number] for number in (3, 2, 1)]
        for neither in (begins, ends - 2, ends - 1):
            is_place[neither] = False
        at = np.flatnonzero(is_place)
        here, before = places[at], places[at - 1]
        digits = digits[order]
        room = 1 + 2 * self.coders + self._placed - len(self._words)
        if room > 0:
            more = np.zeros(max(room, len(self._words)), np.int64)
            self._words, self._before = (np.concatenate([x, more]) for x in (self._words, self._before))
        self._before[here] = before
        self._words[here] = digits & _WORD_MASK
        self._words[before] += digits >> WORD_BITS

    def finish(self, low: Integers) -> bytes:
        """Return the block's payload, `low` being each coder's low end, and begin the next block."""
        count = self.words
        # The last two words of a coder: its low end rounded up to a whole word, and a word of zeros.
        coders = np.arange(self.coders)
        self.add(np.tile(coders, 2), np.concatenate([(low + _WORD_MASK) >> WORD_BITS, 0 * coders]))
        if self._waiting:
            self._place()
        words = self._words
        # A coder's number stays below its first digit's end, so no carry leaves its first digit.
        carrying = np.flatnonzero(words >> WORD_BITS)
        while len(carrying):
            carries = words[carrying] >> WORD_BITS
            words[carrying] &= _WORD_MASK
            carrying = self._before[carrying]
            words[carrying] += carries
            carrying = carrying[words[carrying] >> WORD_BITS != 0]
        payload = words[1 : 1 + count].astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
        self._begin()
        return payload


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
