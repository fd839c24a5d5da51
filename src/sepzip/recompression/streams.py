"""Finding packed streams in data, and packing them again."""

from __future__ import annotations

import zlib
from bisect import bisect
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import CorruptError
from ..wire import ByteSource, varint
from .native import (
    MOST_RAW,
    DeflateSettings,
    Image,
    Inflated,
    deflate,
    find_signature,
    find_zlib,
    inflate,
    looks_like,
    lzw_decode,
    lzw_encode,
    measure,
)

__all__ = ["DEFLATE", "GIF", "PNG", "Method", "Packed", "find", "pack"]

DEFLATE, GIF, PNG = 1, 2, 3

_DEFAULT, _FILTERED, _HUFFMAN_ONLY, _RUNS_ONLY, _FIXED_CODES, _GZIP = range(6)
_NOTHING, _ADLER, _CRC_AND_SIZE = range(3)
_CLEARS_FIRST, _ENDS, _FORGETS, _PERIOD = 1, 2, 4, 8

_LEAST = 64
_MOST_NAME = 4096
_MOST_PERIOD = 1 << 20
_MOST_CHUNK = (1 << 31) - 1
_MOST_CHUNKS = 1 << 16
_LEVELS = (6, 9, 1, 5, 4, 3, 2, 8, 7)
_HINTED = ((1, 2, 3), (5, 4, 3, 2), (6,), (9, 8, 7))
_TRIAL = 1024
"""A place that is looked at in vain costs as much of the budget as so many bytes."""


class Method(NamedTuple):
    """How a stream is packed; what does not belong to its kind is 0.

    `kind` is DEFLATE, GIF (an image's data from the byte of its code size to the empty block), or PNG (its
    chunks IDAT, from the first one's length to the last one's CRC).
    `level` 1 to 9, `window_bits` 9 to 15, `memory_level` 1 to 9 and `strategy` are zlib's, of DEFLATE and
    PNG; strategy 5 is the blocks that the program gzip makes (window_bits 15, memory_level 8).
    `code_size` is GIF's, in bits.
    `variant` of DEFLATE says what follows the stream and belongs to it: 0 nothing, 1 Adler-32, 2 CRC-32 and
    size as gzip has them. Of PNG it is the two bytes of zlib's header, the first one times 256. Of GIF it is
    1 if a clear code comes first, and 2 if an end code comes last, and 4 if strings are looked up as lzw.c
    says of compress, and 8 times the codes after which the table is emptied, 0 never.
    `chunk` is the bytes of a chunk of PNG but the last, 0 if there is one, or of a block of GIF but the last.
    """

    kind: int
    level: int = 0
    window_bits: int = 0
    memory_level: int = 0
    strategy: int = 0
    code_size: int = 0
    variant: int = 0
    chunk: int = 0

    def encode(self) -> bytes:
        """Return the method as varints."""
        if self.kind == GIF:
            numbers = [self.kind, self.code_size, self.variant, self.chunk]
        else:
            look = self.level - 1 + 9 * self.strategy
            memory = self.window_bits - 9 + 7 * (self.memory_level - 1)
            numbers = [self.kind, look, memory, self.variant]
            if self.kind == PNG:
                numbers.append(self.chunk)
        return b"".join(map(varint, numbers))

    @classmethod
    def read(cls, source: ByteSource) -> Method:
        """Return the method that comes next; CorruptError if there is no such method."""
        what = "the method of a packed stream"
        kind = source.varint(what, DEFLATE, PNG)
        if kind == GIF:
            code_size = source.varint(what, 1, 8)
            variant = source.varint(what, 0, _PERIOD * _MOST_PERIOD + _PERIOD - 1)
            method = cls(kind, code_size=code_size, variant=variant, chunk=source.varint(what, 1, 255))
        else:
            strategy, level = divmod(source.varint(what, 0, 9 * (_GZIP + 1) - 1), 9)
            memory, window = divmod(source.varint(what, 0, 7 * 9 - 1), 7)
            variant = source.varint(what, 0, 0xFFFF)
            chunk = source.varint(what, 0, _MOST_CHUNK) if kind == PNG else 0
            method = cls(kind, level + 1, window + 9, memory + 1, strategy, variant=variant, chunk=chunk)
        if not _may_be(method):
            raise CorruptError(f"{what} is impossible; the file is damaged")
        return method


class Packed(NamedTuple):
    """A packed stream in data: its place there, and what comes back to the same bytes.

    `start` and `size` are the packed bytes, which `raw` replaces. `row` is the bytes of a row of pixels, the
    byte of PNG's filter included, 0 if it is no image.
    """

    start: int
    size: int
    row: int
    method: Method
    raw: bytes


def _may_be(method: Method) -> bool:
    if method.kind == GIF:
        period = method.variant // _PERIOD
        return (
            method[1:5] == (0, 0, 0, 0)
            and 1 <= method.code_size <= 8
            and 1 <= method.chunk <= 255
            and 0 <= period <= _MOST_PERIOD
        )
    if not (
        method.kind in (DEFLATE, PNG)
        and 1 <= method.level <= 9
        and 9 <= method.window_bits <= 15
        and 1 <= method.memory_level <= 9
        and _DEFAULT <= method.strategy <= _GZIP
        and method.code_size == 0
    ):
        return False
    if method.strategy == _GZIP and (method.window_bits, method.memory_level) != (15, 8):
        return False
    if method.kind == DEFLATE:
        return _NOTHING <= method.variant <= _CRC_AND_SIZE and method.chunk == 0
    return 0 <= method.variant <= 0xFFFF and 0 <= method.chunk <= _MOST_CHUNK


def pack(raw: bytes, method: Method) -> bytes:
    """Return the packed bytes; CorruptError where there is no such method or it cannot pack these."""
    if not _may_be(method) or len(raw) > MOST_RAW:
        raise CorruptError("a packed stream cannot be packed again; the file is damaged")
    content = np.frombuffer(raw, np.uint8)
    if method.kind == GIF:
        flags, period = method.variant % _PERIOD, method.variant // _PERIOD
        image = Image(
            code_size=method.code_size,
            block=method.chunk,
            period=period,
            clears_first=flags & _CLEARS_FIRST,
            ends=flags & _ENDS,
            forgets=flags & _FORGETS,
        )
        return lzw_encode(content, image)
    return _around(deflate(content, DeflateSettings(*method[1:5])), raw, method)


def _around(stream: bytes, raw: bytes, method: Method) -> bytes:
    """Return the packed bytes that this deflate stream of raw is a part of."""
    if method.kind == DEFLATE:
        return stream + _trailer(raw, method.variant)
    stream = method.variant.to_bytes(2, "big") + stream + _trailer(raw, _ADLER)
    size = method.chunk or len(stream)
    if len(stream) > size * _MOST_CHUNKS:
        raise CorruptError("a packed image has too many chunks; the file is damaged")
    chunks = []
    for start in range(0, len(stream), size):
        chunk = b"IDAT" + stream[start : start + size]
        chunks += [(len(chunk) - 4).to_bytes(4, "big"), chunk, zlib.crc32(chunk).to_bytes(4, "big")]
    return b"".join(chunks)


def _trailer(raw: bytes, variant: int) -> bytes:
    """Return what follows a deflate stream of raw."""
    if variant == _ADLER:
        return zlib.adler32(raw).to_bytes(4, "big")
    if variant == _CRC_AND_SIZE:
        return zlib.crc32(raw).to_bytes(4, "little") + (len(raw) & 0xFFFFFFFF).to_bytes(4, "little")
    return b""


def find(data: bytes | memoryview, most_raw: int) -> list[Packed]:
    """Return the packed streams in data that pack again to the same bytes, in order, none over another.

    Their raw bytes together are at most `most_raw`; a stream that would exceed it is left out, as are those
    of fewer than 64 packed bytes.
    """
    return _Search(data, most_raw).run()


class _Deflate(NamedTuple):
    """A deflate stream in data, and the settings by which raw was packed to it again."""

    stream: bytes
    settings: DeflateSettings
    raw: bytes


class _Search:
    """A search of data, with what it has found and what it may still spend."""

    def __init__(self, data: bytes | memoryview, most_raw: int) -> None:
        self._data = np.frombuffer(data, np.uint8)
        self._bytes = memoryview(data).cast("B")
        self._room = min(most_raw, MOST_RAW)
        # What is looked at in vain is bounded: data that is made to hold many beginnings of streams takes no
        # longer than data that holds streams, which may have many raw bytes in few.
        self._budget = 8 * len(data) + (1 << 25)
        self._found: list[Packed] = []
        self._starts: list[int] = []

    def run(self) -> list[Packed]:
        if not len(self._data):
            return []
        place = find_signature(self._data, 0)
        while place < len(self._data) and self._budget > 0:
            self._look_at(place)
            self._budget -= _TRIAL
            place = find_signature(self._data, place + 1)
        for start, end in list(self._gaps()):
            self._look_for_zlib(start, end)
        return self._found

    def _gaps(self) -> Iterator[tuple[int, int]]:
        before = 0
        for packed in self._found:
            yield before, packed.start
            before = packed.start + packed.size
        yield before, len(self._data)

    def _is_free(self, start: int, size: int) -> bool:
        index = bisect(self._starts, start)
        if index and self._starts[index - 1] + self._found[index - 1].size > start:
            return False
        return index == len(self._starts) or start + size <= self._starts[index]

    def _keep(self, packed: Packed, stream: bytes | None = None) -> bool:
        """Take a stream into what was found, if it does come back; return whether it does.

        The deflate stream in it is given where it was packed again to compare it.
        """
        if packed.size < _LEAST or len(packed.raw) > self._room or not self._is_free(*packed[:2]):
            return False
        raw, method = packed.raw, packed.method
        again = pack(raw, method) if stream is None else _around(stream, raw, method)
        if again != self._bytes[packed.start : packed.start + packed.size]:
            self._budget -= len(packed.raw)
            return False
        index = bisect(self._starts, packed.start)
        self._starts.insert(index, packed.start)
        self._found.insert(index, packed)
        self._room -= len(packed.raw)
        return True

    def _number(self, place: int, size: int) -> int:
        """Return the big-endian number there; what is beyond the end is not there and counts as 0."""
        return int.from_bytes(self._bytes[place : place + size], "big")

    def _little(self, place: int, size: int) -> int:
        return int.from_bytes(self._bytes[place : place + size], "little")

    def _look_at(self, place: int) -> None:
        if not self._is_free(place, 1):
            return
        first = self._bytes[place]
        if first == 0x1F:
            self._look_at_gzip(place)
        elif first == 0x50:
            self._look_at_zip(place)
        elif first == 0x89:
            self._look_at_png(place)
        else:
            self._look_at_gif(place)

    def _look_at_gzip(self, place: int) -> None:
        flags, extra_flags = self._bytes[place + 3], self._bytes[place + 8]
        start = place + 10
        if flags & 4:
            start += 2 + self._little(start, 2)
        for bit in (8, 16):
            if flags & bit:
                name = bytes(self._bytes[start : start + _MOST_NAME])
                start += name.find(0) + 1 if 0 in name else _MOST_NAME
        start += flags & 2
        levels = {2: (9,), 4: (1,)}.get(extra_flags, (6,))
        self._look_at_deflate(start, levels, (15,), _CRC_AND_SIZE)

    def _look_at_zip(self, place: int) -> None:
        flags, method = self._little(place + 6, 2), self._little(place + 8, 2)
        start = place + 30 + self._little(place + 26, 2) + self._little(place + 28, 2)
        if method == 8 and not flags & 1:
            levels = ((6,), (9, 8), (5, 4, 3, 2), (1,))[flags >> 1 & 3]
            self._look_at_deflate(start, levels, (15,), _NOTHING)

    def _look_at_deflate(
        self, start: int, levels: tuple[int, ...], windows: tuple[int, ...], trailer: int
    ) -> None:
        found = self._deflate(self._data[start:], levels, windows)
        if found is None:
            return
        end = start + len(found.stream)
        expected = _trailer(found.raw, trailer)
        if self._bytes[end : end + len(expected)] == expected:
            end += len(expected)
        else:
            trailer = _NOTHING
        method = Method(DEFLATE, *found.settings, variant=trailer)
        self._keep(Packed(start, end - start, 0, method, found.raw), found.stream)

    def _look_at_png(self, place: int) -> None:
        row, at = 0, place + 8
        first = end = 0
        sizes: list[int] = []
        pieces: list[memoryview] = []
        while True:
            size, name = self._number(at, 4), bytes(self._bytes[at + 4 : at + 8])
            if len(name) < 4 or at + 12 + size > len(self._bytes) or (sizes and name != b"IDAT"):
                break
            if name == b"IHDR" and size == 13:
                row = self._png_row(at + 8)
            elif name == b"IDAT":
                first = first or at
                sizes.append(size)
                pieces.append(self._bytes[at + 8 : at + 8 + size])
                end = at + 12 + size
            at += 12 + size
            self._budget -= 64
            if self._budget < 0:
                return
        if not 0 < len(sizes) <= _MOST_CHUNKS or not 0 < sizes[-1] <= sizes[0]:
            return
        if any(size != sizes[0] for size in sizes[:-1]):
            return
        stream = np.frombuffer(b"".join(pieces), np.uint8)
        if len(stream) < 6 or stream[0] & 0x8F != 8:
            return
        levels, windows = _hints(int(stream[0]), int(stream[1]))
        # What PNG's filters leave is mostly packed as such.
        found = self._deflate(stream[2:], levels, windows, (_FILTERED, _DEFAULT))
        if found is None or len(found.stream) != len(stream) - 6:
            return
        header = int(stream[0]) << 8 | int(stream[1])
        chunk = sizes[0] if len(sizes) > 1 else 0
        method = Method(PNG, *found.settings, variant=header, chunk=chunk)
        self._keep(Packed(first, end - first, row, method, found.raw), found.stream)

    def _png_row(self, place: int) -> int:
        """Return the bytes of a row by the header there, 0 if rows come in several passes or it is wrong."""
        samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(self._bytes[place + 9])
        if samples is None or self._bytes[place + 12]:
            return 0
        return 1 + (self._number(place, 4) * samples * self._bytes[place + 8] + 7) // 8

    def _look_at_gif(self, place: int) -> None:
        at = place + 13
        if self._bytes[place + 10] & 0x80:
            at += 6 << (self._bytes[place + 10] & 7)
        while at + 12 < len(self._bytes) and self._budget > 0:
            if self._bytes[at] == 0x21:
                at = self._after_blocks(at + 2)
            elif self._bytes[at] == 0x2C:
                width, flags = self._little(at + 5, 2), self._bytes[at + 9]
                at += 10
                if flags & 0x80:
                    at += 6 << (flags & 7)
                if at >= len(self._bytes):
                    return
                self._look_at_image(at, width)
                at = self._after_blocks(at + 1)
            else:
                return

    def _after_blocks(self, at: int) -> int:
        while at < len(self._bytes) and self._bytes[at]:
            at += 1 + self._bytes[at]
            self._budget -= 16
        return at + 1

    def _look_at_image(self, start: int, width: int) -> None:
        raw, image = lzw_decode(self._data[start:], self._room)
        self._budget -= _TRIAL
        if raw is None:
            self._budget -= 2 * image.used
            return
        variant = image.clears_first * _CLEARS_FIRST + image.ends * _ENDS + image.period * _PERIOD
        method = Method(GIF, code_size=image.code_size, variant=variant, chunk=image.block)
        packed = Packed(start, image.used, width, method, raw.tobytes())
        if image.period <= _MOST_PERIOD and not self._keep(packed):
            self._keep(packed._replace(method=method._replace(variant=variant | _FORGETS)))

    def _look_for_zlib(self, start: int, end: int) -> None:
        while start < end and self._budget > 0:
            place, self._budget = find_zlib(self._data, start, end, _LEAST, self._room, self._budget)
            if place >= end:
                return
            known = len(self._found)
            levels, windows = _hints(self._bytes[place], self._bytes[place + 1])
            self._look_at_deflate(place + 2, levels, windows, _ADLER)
            start = place + 1
            if len(self._found) > known:
                found = self._found[bisect(self._starts, place + 2) - 1]
                start = found.start + found.size

    def _deflate(
        self,
        data: NDArray[np.uint8],
        levels: tuple[int, ...],
        windows: tuple[int, ...],
        strategies: tuple[int, int] = (_DEFAULT, _FILTERED),
    ) -> _Deflate | None:
        """Return the deflate stream that data begins with, if there is one that can be packed again."""
        whole, report = measure(data, self._room)
        if not whole or report.used < _LEAST:
            self._budget -= report.used
            return None
        raw, symbols = inflate(data, report.raw)
        levels += tuple(level for level in _LEVELS if level not in levels)
        # Below level 4 what is filtered is packed as all else.
        looks = [(level, strategy) for strategy in strategies for level in levels]
        looks = [look for look in looks if look[0] > 3 or look[1] == _DEFAULT]
        settings = self._settings(raw, data[: report.used], symbols, report, looks, windows)
        if settings is None:
            self._budget -= 2 * report.used + report.raw // 4 + _TRIAL
            return None
        return _Deflate(data[: report.used].tobytes(), settings, raw.tobytes())

    def _settings(
        self,
        raw: NDArray[np.uint8],
        packed: NDArray[np.uint8],
        symbols: NDArray[np.uint32],
        report: Inflated,
        looks: list[tuple[int, int]],
        windows: tuple[int, ...],
    ) -> DeflateSettings | None:
        """Return the settings by which raw becomes packed, or None; `looks` is likely levels and strategies.

        Level and strategy show in the first symbols, at any memory level nearly; so these are found first.
        """
        memories = _memories(report)
        if not memories:
            return None
        distances = symbols[symbols > 0xFFFF] & 0xFFFF
        if not len(distances):
            looks.append((6, _HUFFMAN_ONLY))
        elif (distances == 1).all():
            looks.append((6, _RUNS_ONLY))
        if not report.dynamic:
            looks += [(level, _FIXED_CODES) for level in _LEVELS]
        before = self._budget
        least = max(before - 6 * len(raw) - (1 << 16), 0)
        others = [(window, memory) for memory in memories for window in windows]
        trials = [(look, others[0]) for look in looks]
        reached: list[tuple[int, tuple[int, int]]] = []
        while trials:
            for look, (window, memory) in trials:
                settings = _joined(look, window, memory)
                same, far = looks_like(raw, settings, packed, symbols)
                if same:
                    self._budget = before
                    return settings
                self._budget -= far
                if self._budget < least:
                    return None
                reached.append((far, look))
            reached.sort(key=lambda entry: -entry[0])
            near = [look for far, look in reached[:3] if far >= min(len(raw) // 4, 1024)]
            trials = [(look, other) for look in near for other in others[1:]]
            others = []
        return None


def _joined(look: tuple[int, int], window: int, memory: int) -> DeflateSettings:
    """Return settings of a level and a strategy; memory 0 stands for gzip's blocks."""
    level, strategy = look
    if not memory:
        return DeflateSettings(level, 15, 8, _GZIP)
    return DeflateSettings(level, window, memory, strategy)


def _hints(method: int, check: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the levels and the windows that zlib's header makes likely.

    A writer of PNG may have made the window in the header smaller after packing.
    """
    window = min(max((method >> 4) + 8, 9), 15)
    return _HINTED[check >> 6], (window,) if window == 15 else (window, 15)


def _memories(report: Inflated) -> list[int]:
    """Return the memory levels that end blocks where this stream does, 0 for gzip's; the likely first."""
    most, last = report.most_symbols, report.last_symbols
    if most:
        memories = [level for level in (8, 9, 7, 6, 5, 4, 3, 2, 1) if (64 << level) - 1 == most]
        if most == 32767 or most % 4096 == 0:
            memories.append(0)
        return memories
    memories = [level for level in (8, 9, 7, 6, 5, 4, 3, 2, 1) if last < (64 << level) - 1]
    if last < 32767:
        memories.insert(0 if last >= 16383 else len(memories), 0)
    return memories
