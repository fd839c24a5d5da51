"""Packed streams: what is unpacked comes back to the same bytes, and what is no stream does no harm."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import random
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sepzip.errors import CorruptError, SepError
from sepzip.recompression.native import DeflateSettings, deflate, inflate, measure
from sepzip.recompression.streams import DEFLATE, GIF, PNG, Method, Packed, find, pack
from sepzip.wire import ByteSource

ROOM = 64 << 20
STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED)
GZIP_BLOCKS = 5


def _gzip(*arguments: str, content: bytes = b"") -> bytes:
    """Return what the program gzip writes, nothing if there is none."""
    if shutil.which("gzip") is None:
        return b""
    return subprocess.run(["gzip", *arguments], input=content, capture_output=True, check=True).stdout


needs_zlib = pytest.mark.skipif(
    "ng" in zlib.ZLIB_RUNTIME_VERSION, reason="zlib-ng makes other bytes than zlib"
)


def zlib_stream(raw: bytes, level: int, window: int = 15, memory: int = 8, strategy: int = 0) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -window, memory, strategy)
    return packer.compress(raw) + packer.flush()


def our_stream(raw: bytes, level: int, window: int = 15, memory: int = 8, strategy: int = 0) -> bytes:
    return deflate(np.frombuffer(raw, np.uint8), DeflateSettings(level, window, memory, strategy))


def image(width: int, height: int, seed: int, noise: int = 3) -> bytes:
    """A picture of one byte a pixel: slopes, a flat part, and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    pixels = (x * 2 + y) // 3 + rng.integers(0, noise, (height, width))
    pixels[: height // 3, : width // 2] = 0
    return bytes((pixels & 255).astype(np.uint8))


def words(size: int, seed: int) -> bytes:
    """Text of words, the same with every Python: it comes from integers alone."""
    state, made, total = seed, [], 0
    while total < size:
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        number = (state >> 8) % 700 * ((state >> 20) % 7)
        word = b"".join(bytes([97 + number // 26**i % 26]) for i in range(1 + number % 5)) + b" "
        made.append(word)
        total += len(word)
    return b"".join(made)[:size]


@cache
def mixed(size: int) -> bytes:
    """Bytes of many kinds one after the other: text, noise, a picture, zeros, runs."""
    parts = [
        words(size // 4, 1),
        random.Random(0).randbytes(size // 4),
        image(256, size // 1024 + 1, 0)[: size // 4],
        bytes(size // 8),
        b"".join(bytes([i & 7]) * (i % 300) for i in range(1, size // 300)),
    ]
    return b"".join(parts)


# ---- deflate ----


@needs_zlib
@pytest.mark.parametrize("level", range(1, 10))
def test_equals_zlib_at_every_window_and_memory_level(level: int) -> None:
    raw = mixed(100_000)
    for window, memory in itertools.product(range(9, 16), range(1, 10)):
        assert our_stream(raw, level, window, memory) == zlib_stream(raw, level, window, memory), (
            window,
            memory,
        )


@needs_zlib
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equals_zlib_at_every_strategy(strategy: int) -> None:
    raw = mixed(200_000)
    for level, memory, window in itertools.product(range(1, 10), (1, 8, 9), (9, 15)):
        expected = zlib_stream(raw, level, window, memory, strategy)
        assert our_stream(raw, level, window, memory, strategy) == expected, (level, memory, window)


@needs_zlib
@pytest.mark.parametrize("level", range(1, 10))
def test_equals_zlib_on_text(level: int, text: bytes) -> None:
    assert our_stream(text, level) == zlib_stream(text, level)
    assert our_stream(text, level, 15, 9) == zlib_stream(text, level, 15, 9)


@needs_zlib
@pytest.mark.parametrize("middle", [0, 127, 16383, 32506, 32768, 65274, 65536, 98042])
def test_equals_zlib_at_sizes_where_something_ends(middle: int) -> None:
    noise, text = random.Random(1).randbytes(100_000), words(100_000, 2)
    for size in range(max(middle - 2, 0), middle + 4):
        for raw, level in itertools.product((noise[:size], text[:size], bytes(size)), (1, 6)):
            assert our_stream(raw, level) == zlib_stream(raw, level), (size, level)


@needs_zlib
@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=40), st.integers(1, 400)), max_size=12),
    st.integers(1, 9),
    st.integers(9, 15),
    st.integers(1, 9),
    st.sampled_from(STRATEGIES),
)
@example([(b"ab", 400)], 9, 9, 1, 0)
def test_equals_zlib_on_repetitions(
    parts: list[tuple[bytes, int]], level: int, window: int, memory: int, strategy: int
) -> None:
    raw = b"".join(part * times for part, times in parts)
    assert our_stream(raw, level, window, memory, strategy) == zlib_stream(
        raw, level, window, memory, strategy
    )


@pytest.mark.parametrize(
    ("numbers", "digest"),
    [
        ((1, 15, 8, 0), "af10631e57422c42f69cfba14db7cc609f195249ab5b6b69c8f56657d16c5341"),
        ((3, 12, 5, 0), "403c31f3be4a974223c3a603931b31a9d84cd7bd92a4ee19df1c9dbad43fc697"),
        ((4, 15, 9, 1), "5f49c132ee6ca1ca254bf93d5d0bcfa23c2668e97521f37e0ee57444332a27e8"),
        ((6, 15, 8, 0), "2434afb9a9153293217045a31d2650852a2453b8ab4632986b65890a9324b7f2"),
        ((9, 9, 1, 0), "51e38f9e9846f8e6fbda30803f7dfe4785f1a8ec7cfabd9e72fdc52722cce22d"),
        ((9, 15, 9, 0), "8a8c8243b60ace43096927f10ac2af070df36020f1091432fbb57d34323d8eef"),
        ((6, 15, 8, 2), "ed3f6fa01af938cc71699a49eb68dd56358619036e1c9b430d0c024abbf083cf"),
        ((6, 15, 8, 3), "fa055807559b6e9d316c16daa7d81d135a9641850f289dd8f2ef0df105b4f115"),
        ((6, 15, 8, 4), "1062fc835b6f1bf8067fcfb2db05cabf33256e24ac418fa5e50d7c374e862930"),
        ((6, 15, 8, 5), "69953cca819fc565ab3fca98524f7d44c9d5b8916811ec26b3d0eae39b137e11"),
        ((9, 15, 8, 5), "d858141c94b6fc95d121372eebaa2f2b5919a1b0c1721cc4f8658ff3b5b15863"),
    ],
)
def test_streams_are_what_they_were(numbers: tuple[int, int, int, int], digest: str) -> None:
    """Made with zlib 1.2.13, those of strategy 5 with gzip 1.12: a file must be decoded with any version."""
    raw = words(150_000, 3) + bytes(range(256)) * 300 + b"".join(bytes([i & 3]) * i for i in range(300))
    assert hashlib.sha256(our_stream(raw, *numbers)).hexdigest() == digest


@pytest.mark.parametrize("level", range(1, 10))
def test_inflates_what_it_packs(level: int) -> None:
    raw = mixed(60_000)
    packed = np.frombuffer(our_stream(raw, level) + b"more", np.uint8)
    whole, report = measure(packed, len(raw))
    assert whole
    assert (report.used, report.raw) == (len(packed) - 4, len(raw))
    assert inflate(packed, len(raw))[0].tobytes() == raw
    assert not measure(packed, len(raw) - 1)[0]
    assert not measure(packed[:-5], len(raw))[0]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_inflates_what_zlib_does_and_nothing_else(data: st.DataObject) -> None:
    packed = bytearray(our_stream(mixed(2000), data.draw(st.integers(1, 9))))
    for _ in range(data.draw(st.integers(0, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    content = bytes(packed[: data.draw(st.integers(1, len(packed)))])
    unpacker = zlib.decompressobj(-15)
    try:
        expected = unpacker.decompress(content)
        good = unpacker.eof
    except zlib.error:
        good = False
    array = np.frombuffer(content, np.uint8)
    whole, report = measure(array, 1 << 20)
    assert whole == good
    if whole:
        assert report.used == len(content) - len(unpacker.unused_data)
        assert inflate(array, report.raw)[0].tobytes() == expected


# ---- what is found ----


def check(data: bytes, found: Iterable[Packed]) -> None:
    """Every stream comes back, in order, and its method survives being written."""
    end = 0
    for packed in found:
        assert packed.start >= end
        end = packed.start + packed.size
        assert pack(packed.raw, packed.method) == data[packed.start : end]
        assert Method.read(ByteSource(io.BytesIO(packed.method.encode()))) == packed.method
    assert end <= len(data)


def only(data: bytes) -> Packed:
    found = find(data, ROOM)
    check(data, found)
    assert len(found) == 1
    return found[0]


@needs_zlib
@pytest.mark.parametrize("level", range(1, 10))
def test_finds_zlib_streams(level: int) -> None:
    raw = words(30_000, 5)
    before, after = words(1000, 6), words(500, 7)
    for window in (9, 12, 15):
        packer = zlib.compressobj(level, zlib.DEFLATED, window)
        stream = packer.compress(raw) + packer.flush()
        packed = only(before + stream + after)
        assert packed.raw == raw
        assert (packed.start, packed.size) == (len(before) + 2, len(stream) - 2)
        assert packed.method.variant == 1


@needs_zlib
def test_finds_streams_at_each_memory_level() -> None:
    raw = words(60_000, 5)
    for memory in range(1, 10):
        packer = zlib.compressobj(5, zlib.DEFLATED, 15, memory)
        packed = only(packer.compress(raw) + packer.flush())
        assert packed.method[1:5] == (5, 15, memory, 0)


@needs_zlib
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_finds_streams_of_each_strategy(strategy: int) -> None:
    raw = mixed(50_000)
    packer = zlib.compressobj(6, zlib.DEFLATED, 15, 8, strategy)
    packed = only(packer.compress(raw) + packer.flush())
    assert packed.raw == raw
    assert packed.method.strategy == strategy


@needs_zlib
def test_a_checksum_that_is_wrong_stays_outside() -> None:
    raw = words(5000, 5)
    stream = zlib.compress(raw)
    packed = only(stream[:-4] + b"none")
    assert packed.size == len(stream) - 6
    assert packed.method.variant == 0


@needs_zlib
def test_finds_gzip_members_and_their_trailers() -> None:
    raw = mixed(40_000)
    sink = io.BytesIO()
    with gzip.GzipFile("a name", "wb", 9, sink, 0) as file:
        file.write(raw)
    second = gzip.compress(words(9000, 3), 6)
    data = sink.getvalue() + second
    found = find(data, ROOM)
    check(data, found)
    assert [packed.raw for packed in found] == [raw, words(9000, 3)]
    assert [packed.method.variant for packed in found] == [2, 2]
    assert found[1].start + found[1].size == len(data)
    assert found[0].start + found[0].size + 10 == found[1].start


def test_finds_what_the_program_gzip_makes() -> None:
    raw = words(300_000, 4) + mixed(100_000)
    stream = our_stream(raw, 7, strategy=GZIP_BLOCKS)
    trailer = zlib.crc32(raw).to_bytes(4, "little") + len(raw).to_bytes(4, "little")
    packed = only(b"\x1f\x8b\x08\0\0\0\0\0\0\3" + stream + trailer)
    assert packed.raw == raw
    assert packed.method[1:5] == (7, 15, 8, GZIP_BLOCKS)


@pytest.mark.skipif(b"Free Software" not in _gzip("--version"), reason="there is no GNU gzip")
@pytest.mark.parametrize("size", [0, 300, 32768, 65275, 65536, 98043, 200_000])
def test_equals_the_program_gzip(size: int, text: bytes) -> None:
    # At the end gzip compares with what is behind the input in its window.
    end = text[1000:1080]
    for raw in (text[:size], text[: max(size - 240, 0)] + end * 3, text[:size] + end + bytes(3) + end):
        for level in (1, 3, 4, 6, 9):
            made = _gzip("-cn", f"-{level}", content=raw)
            assert our_stream(raw, level, strategy=GZIP_BLOCKS) == made[10:-8], (len(raw), level)


class _NoSeeking(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def seek(self, *_: object) -> int:
        raise io.UnsupportedOperation

    def tell(self) -> int:
        raise io.UnsupportedOperation


@needs_zlib
@pytest.mark.parametrize("sink", [io.BytesIO, _NoSeeking])
def test_finds_zip_entries(sink: Callable[[], io.BytesIO]) -> None:
    contents = [words(8000, 8), bytes(5000), mixed(9000), b"too short"]
    file = sink()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for number, content in enumerate(contents):
            archive.writestr(f"entry{number}", content)
        archive.writestr(zipfile.ZipInfo("stored"), words(500, 1))
    data = file.getvalue()
    found = find(data, ROOM)
    check(data, found)
    # Zeros are packed to fewer bytes than are looked at.
    assert [packed.raw for packed in found] == [contents[0], contents[2]]


def png_chunk(name: bytes, content: bytes) -> bytes:
    body = name + content
    return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


def png(rows: bytes, width: int, height: int, sizes: Iterable[int], header: int | None = None) -> bytes:
    """A PNG of grey pixels whose data is cut at these sizes, with another zlib header if there is one."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 15, 8, zlib.Z_FILTERED)
    stream = packer.compress(rows) + packer.flush()
    if header is not None:
        stream = header.to_bytes(2, "big") + stream[2:]
    numbers = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\0\0\0\0"
    made = [b"\x89PNG\r\n\x1a\n", png_chunk(b"IHDR", numbers), png_chunk(b"tEXt", b"Software\0none")]
    at = 0
    for size in (*sizes, len(stream)):
        if stream[at : at + size] or not size:
            made.append(png_chunk(b"IDAT", stream[at : at + size]))
        at += size
    return b"".join((*made, png_chunk(b"IEND", b"")))


@needs_zlib
@pytest.mark.parametrize("sizes", [[], [8192] * 9, [1000] * 99])
def test_finds_pngs(sizes: list[int]) -> None:
    width, height = 300, 200
    pixels = image(width, height, 4, 9)
    rows = b"".join(b"\2" + pixels[y * width : (y + 1) * width] for y in range(height))
    data = words(300, 1) + png(rows, width, height, sizes) + words(300, 2)
    packed = only(data)
    assert (packed.raw, packed.row) == (rows, width + 1)
    assert packed.method.kind == PNG
    assert data[packed.start + 4 : packed.start + 8] == b"IDAT"
    assert data[packed.start + packed.size + 4 :].startswith(b"IEND")
    assert packed.method.chunk == (sizes[0] if sizes else 0)


@needs_zlib
def test_a_png_may_have_a_smaller_window_in_its_header() -> None:
    rows = b"".join(b"\0" + image(60, 1, y, 5) for y in range(12))
    packed = only(png(rows, 60, 12, [], 0x18D3))
    assert packed.raw == rows
    assert packed.method.variant == 0x18D3


@needs_zlib
@pytest.mark.parametrize("sizes", [[100, 200], [0, 300], [300, 100]])
def test_a_png_of_irregular_chunks_stays_as_it_is(sizes: list[int]) -> None:
    rows = b"".join(b"\0" + image(100, 1, y, 9) for y in range(50))
    data = png(rows, 100, 50, sizes)
    check(data, find(data, ROOM))
    assert all(packed.method.kind != PNG for packed in find(data, ROOM))


class GifWriter:
    """Writes the data of an image, strings looked up in a dictionary, or as the program compress does."""

    def __init__(self, code_size: int, *, full: int = 4096, block: int = 255, compress: bool = False) -> None:
        self.clear = 1 << code_size
        self.code_size = code_size
        self.full = full
        self.block = block
        self.compress = compress
        self.bits: list[int] = []
        self.lost = 0

    def empty(self) -> None:
        self.strings: dict[tuple[int, int], int] = {}
        self.slots: list[tuple[int, int] | None] = [None] * 5003
        self.next = self.clear + 2
        self.width = self.code_size + 1

    def put(self, code: int) -> None:
        self.bits += [code >> i & 1 for i in range(self.width)]

    def lookup(self, code: int, pixel: int) -> int | None:
        """Probe as compress does: a slot whose key is 0 looks free to all other keys."""
        if not self.compress:
            return self.strings.get((code, pixel))
        key, slot = (pixel << 12) + code, (pixel << 4) ^ code
        step = 5003 - slot if slot else 1
        while (entry := self.slots[slot]) is not None:
            if entry[0] == key:
                return entry[1]
            if entry[0] == 0 and slot != (pixel << 4) ^ code:
                self.lost += 1
                break
            slot = (slot - step) % 5003
        self.free = slot
        return None

    def write(self, pixels: bytes) -> bytes:
        self.empty()
        self.put(self.clear)
        code = pixels[0]
        for pixel in pixels[1:]:
            known = self.lookup(code, pixel)
            if known is not None:
                code = known
                continue
            self.put(code)
            # The reader enters a string one code later, and needs a bit more only then.
            if self.next == 1 << self.width and self.width < 12:
                self.width += 1
            if self.next >= self.full:
                self.put(self.clear)
                self.empty()
            elif self.next < 4096:
                self.strings[code, pixel] = self.next
                if self.compress:
                    self.slots[self.free] = ((pixel << 12) + code, self.next)
                self.next += 1
            code = pixel
        self.put(code)
        if self.next == 1 << self.width and self.width < 12:
            self.width += 1
        self.put(self.clear + 1)
        bits = self.bits
        content = bytes(
            sum(bit << i for i, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8)
        )
        made = bytes([self.code_size])
        for at in range(0, len(content), self.block):
            piece = content[at : at + self.block]
            made += bytes([len(piece)]) + piece
        return made + b"\0"


def gif(width: int, images: Iterable[bytes], code_size: int) -> bytes:
    size = width.to_bytes(2, "little") + (9).to_bytes(2, "little")
    made = b"GIF89a" + size + bytes([0x80 | code_size - 1, 0, 0]) + bytes(3 << code_size)
    for content in images:
        made += b"\x21\xf9\x04\0\0\0\0\0" + b"\x2c" + bytes(4) + size + b"\0" + content
    return made + b"\x3b"


@pytest.mark.parametrize("code_size", [2, 4, 7, 8])
@pytest.mark.parametrize("full", [4093, 4095, 4096, 1 << 30])
def test_finds_gifs(code_size: int, full: int) -> None:
    pixels = [
        bytes(pixel & (1 << code_size) - 1 for pixel in image(150, height, 5, 6)) for height in (120, 30)
    ]
    images = [
        GifWriter(code_size, full=full, block=block).write(content)
        for content, block in zip(pixels, (255, 254), strict=True)
    ]
    data = words(100, 1) + gif(150, images, code_size) + words(100, 2)
    found = find(data, ROOM)
    check(data, found)
    assert [packed.raw for packed in found] == pixels
    assert [packed.row for packed in found] == [150, 150]
    assert [packed.size for packed in found] == [len(content) for content in images]
    assert found[0].method.kind == GIF
    assert [packed.method.chunk for packed in found] == [255, 254 if len(images[1]) > 258 else 255]


def test_finds_gifs_whose_writer_lost_strings() -> None:
    lost = 0
    for seed in range(6):
        # Byte 1 after code 16 has the slot of byte 0 after code 0, which then goes where others come by.
        pixels = b"\x10\1" + image(150, 200, seed, 30)[2:]
        writer = GifWriter(8, block=254, compress=True)
        content = writer.write(pixels)
        lost += writer.lost
        assert only(gif(150, [content], 8)).raw == pixels
    assert lost


@pytest.mark.parametrize(
    ("variant", "digest"),
    [
        (3 | 8 * (4097 - 130), "bbff841b1fb57a42d93a8ec2d538a0715bbf06ddb4ec77e6fcc5e010165a8e2d"),
        (3 | 4 | 8 * (4097 - 130), "375f239e69614e1a1e45933501569fc706668e3013bdb3c2185edd38d5fd47c4"),
        (2, "25c57f6d3cb2a2dd7ebee9d219c54f6aec9a7db82315f51b4a91e605f6c83c19"),
    ],
)
def test_images_are_what_they_were(variant: int, digest: str) -> None:
    pixels = b"\x10\1" + bytes(byte & 31 for byte in words(60_000, 9)).replace(b"\1\1", b"\0\0")
    packed = pack(pixels, Method(GIF, code_size=7, variant=variant, chunk=254))
    assert hashlib.sha256(packed).hexdigest() == digest
    if variant & 1:
        assert packed == GifWriter(7, block=254, compress=bool(variant & 4)).write(pixels)


def test_a_gif_that_was_not_written_greedily_stays_as_it_is() -> None:
    writer = GifWriter(8)
    pixels = image(100, 20, 1)
    writer.empty()
    writer.lookup = lambda code, pixel: None  # type: ignore[method-assign]
    assert find(gif(100, [writer.write(pixels)], 8), ROOM) == []


def test_short_streams_and_too_many_raw_bytes_are_left_out() -> None:
    assert find(b"", ROOM) == []
    assert find(zlib.compress(bytes(10_000)), ROOM) == []
    raw = words(20_000, 1)
    stream = b"\x78\x9c" + our_stream(raw, 6)
    assert find(stream, 19_999) == []
    assert len(find(stream + stream, 39_999)) == 1
    assert len(find(memoryview(stream + stream), 40_000)) == 2


def test_streams_of_other_writers_are_left_out() -> None:
    # Matches that zlib would not leave: all bytes one by one, though they repeat.
    lazy = our_stream(b"abcdefgh" * 4000, 6, strategy=zlib.Z_HUFFMAN_ONLY)
    eager = our_stream(words(20_000, 1), 6)
    joined = b"\x78\x9c" + bytes([lazy[0] & 0xFE]) + lazy[1:] + eager
    check(joined, find(joined, ROOM))
    assert find(b"\x78\x9c" + zlib_stream(words(20_000, 1), 0), ROOM) == []


# ---- what is hostile ----


@st.composite
def methods(draw: st.DrawFn) -> Method:
    number = st.one_of(st.integers(-2, 20), st.integers(-(1 << 40), 1 << 40))
    return Method(draw(st.integers(-1, 5)), *(draw(number) for _ in range(7)))


@st.composite
def possible_methods(draw: st.DrawFn) -> Method:
    kind = draw(st.sampled_from([DEFLATE, GIF, PNG]))
    if kind == GIF:
        return Method(
            kind,
            code_size=draw(st.integers(1, 8)),
            variant=draw(st.integers(0, 1 << 16)),
            chunk=draw(st.integers(1, 255)),
        )
    level, window, memory = (draw(st.integers(*bounds)) for bounds in ((1, 9), (9, 15), (1, 9)))
    strategy = draw(st.integers(0, 4))
    variant = draw(st.integers(0, 2 if kind == DEFLATE else 0xFFFF))
    chunk = draw(st.integers(0, 1 << 31 - 1)) if kind == PNG else 0
    return Method(kind, level, window, memory, strategy, 0, variant, chunk)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), methods())
def test_any_method_packs_or_is_refused(raw: bytes, method: Method) -> None:
    try:
        packed = pack(raw, method)
    except CorruptError:
        return
    assert packed
    assert Method.read(ByteSource(io.BytesIO(method.encode()))) == method


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=3000), possible_methods())
@example(bytes(3000), Method(GIF, code_size=1, variant=8, chunk=1))
@example(bytes(3000), Method(PNG, 1, 9, 1, 2, 0, 0, 1))
def test_possible_methods_pack_and_survive(raw: bytes, method: Method) -> None:
    assert Method.read(ByteSource(io.BytesIO(method.encode()))) == method
    if method.kind == GIF:
        raw = bytes(byte & (1 << method.code_size) - 1 for byte in raw)
    packed = pack(raw, method)
    if method.kind == DEFLATE:
        assert zlib.decompress(packed, -15) == raw


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=20))
def test_any_bytes_are_a_method_or_refused(content: bytes) -> None:
    try:
        method = Method.read(ByteSource(io.BytesIO(content)))
    except SepError:
        return
    assert content.startswith(method.encode())


def test_a_pixel_that_the_code_size_has_not_is_refused() -> None:
    with pytest.raises(CorruptError):
        pack(b"\0\1\4", Method(GIF, code_size=2, variant=3, chunk=255))


def test_no_number_of_chunks_fills_memory() -> None:
    raw = random.Random(0).randbytes(1 << 17)
    with pytest.raises(CorruptError):
        pack(raw, Method(PNG, 6, 15, 8, 0, 0, 0x789C, 1))
    assert len(pack(raw, Method(PNG, 6, 15, 8, 0, 0, 0x789C, 3))) > 5 * len(raw)
    data = png(raw, 127, 1024, [1] * (1 << 17))
    check(data, find(data, ROOM))


@cache
def containers() -> tuple[bytes, ...]:
    raw = words(3000, 1)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", raw)
    rows = b"".join(b"\0" + image(40, 1, y, 9) for y in range(40))
    return (
        zlib.compress(raw),
        gzip.compress(raw, mtime=0),
        zipped.getvalue(),
        png(rows, 40, 40, [200] * 20),
        gif(40, [GifWriter(8, block=254).write(image(40, 40, 1))], 8),
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.data_too_large])
@given(st.data())
def test_spliced_cut_and_changed_streams_come_back(data: st.DataObject) -> None:
    content = bytearray()
    for _ in range(data.draw(st.integers(1, 5))):
        piece = bytearray(data.draw(st.sampled_from(containers())))
        if data.draw(st.booleans()):
            piece = piece[: data.draw(st.integers(0, len(piece)))]
        for _ in range(data.draw(st.integers(0, 2))):
            if piece:
                piece[data.draw(st.integers(0, len(piece) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        content += piece + data.draw(st.binary(max_size=30))
    found = find(bytes(content), ROOM)
    check(bytes(content), found)


@needs_zlib
def test_whole_streams_among_others_are_all_found() -> None:
    joined = b"between".join(containers())
    found = find(joined, ROOM)
    check(joined, found)
    assert [packed.method.kind for packed in found] == [DEFLATE, DEFLATE, DEFLATE, PNG, GIF]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "unit",
    [
        b"PK\3\4" + bytes(4) + b"\x08" + bytes(21),
        b"\x1f\x8b\x08" + bytes(15),
        b"\x1f\x8b\x08\x08" + b"n" * 14,
        b"GIF89a" + bytes(7) + b"\x2c" + bytes(9) + b"\x08\xff",
        b"\x89PNG\r\n\x1a\n" + bytes(3) + b"\1IDAT",
        b"\x78\x01\0\xff\xff\0\0",
        b"\x78\x01\0\0\0\xff\xff",
        b"\x78\x9c",
    ],
)
def test_data_made_of_beginnings_takes_no_long_time(unit: bytes) -> None:
    data = unit * (3_000_000 // len(unit))
    check(data, find(data, ROOM))
