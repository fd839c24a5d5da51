"""From a file to a frame and back: every length, every kind of file, bounded memory, and what goes wrong."""

from __future__ import annotations

import hashlib
import io
import os
import random
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sepzip.errors import CorruptError, DeviceError, OutOfMemoryError, TruncatedError, UsageError
from sepzip.frame import read_summary
from sepzip.pipeline import compress_stream, decompress_stream
from sepzip.presets import LEVELS, Preset

EDGES = [0, 1, 2, 63, 64, 65, 100, 399, 400, 401, 799, 800, 801, 1000]


def compress(content: bytes, preset: Preset, size: int | None = None) -> bytes:
    sink = io.BytesIO()
    assert compress_stream(io.BytesIO(content), sink, preset, "cpu", size=size) == (
        len(content),
        len(sink.getvalue()),
    )
    return sink.getvalue()


def decompress(frame: bytes) -> bytes:
    sink = io.BytesIO()
    assert decompress_stream(io.BytesIO(frame), sink, "cpu") == (len(frame), len(sink.getvalue()))
    assert decompress_stream(io.BytesIO(frame), None, "cpu") == (len(frame), len(sink.getvalue()))
    return sink.getvalue()


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("size", EDGES)
def test_every_length_comes_back(text: bytes, tiny: Preset, size: int) -> None:
    for content in (text[:size], random.Random(size).randbytes(size), bytes(size)):
        frame = compress(content, tiny)
        assert decompress(frame) == content
        segments = read_summary(io.BytesIO(frame)).frames[0].segments
        assert sum(segment.content_size for segment in segments) == size
        assert len(segments) == -(-size // 400)
        assert len(frame) <= size + 64 or size > 128


@pytest.mark.parametrize("size", [0, 1, 10, 100, 101, 300, 1000])
def test_the_networks_give_every_length_back(text: bytes, tiny: Preset, size: int) -> None:
    preset = replace(tiny, lanes=32)
    content = text[1000 : 1000 + size]
    frame = compress(content, preset)
    assert decompress(frame) == content


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=8), st.integers(65, 200), st.integers(30, 60))
def test_the_networks_give_any_bytes_back(tiny: Preset, pattern: bytes, size: int, lanes: int) -> None:
    content = (pattern * size)[:size]
    frame = compress(content, replace(tiny, lanes=lanes))
    assert decompress(frame) == content


@pytest.mark.usefixtures("stand_in")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.binary(max_size=80), st.integers(1, 30)), max_size=6), st.integers(1, 300))
def test_any_content_comes_back(tiny: Preset, parts: list[tuple[bytes, int]], segment_size: int) -> None:
    content = b"".join(piece * count for piece, count in parts)
    assert decompress(compress(content, replace(tiny, segment_size=segment_size))) == content


@pytest.mark.usefixtures("stand_in")
def test_frames_one_after_the_other_are_read_to_the_end(text: bytes, tiny: Preset) -> None:
    pieces = [text[:900], b"", random.Random(0).randbytes(50), text[:70]]
    assert decompress(b"".join(compress(piece, tiny) for piece in pieces)) == b"".join(pieces)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("level", [1, 9])
def test_what_cannot_be_compressed_hardly_grows(level: int) -> None:
    for size in (1, 100, 128, 5000, 20_000, 3 << 20):
        content = random.Random(size).randbytes(size)
        frame = compress(content, LEVELS[level])
        assert len(frame) <= size * 1.0005 + 64
        assert decompress(frame) == content


@pytest.mark.usefixtures("stand_in")
def test_each_segment_is_stored_or_coded_by_its_own_size(text: bytes, tiny: Preset) -> None:
    content = text[:400] + random.Random(0).randbytes(400) + text[400:800]
    summary = read_summary(io.BytesIO(compress(content, tiny)))
    assert [segment.method for segment in summary.frames[0].segments] == ["coded", "stored", "coded"]


@pytest.mark.usefixtures("stand_in")
def test_a_stored_frame_names_no_model(tiny: Preset) -> None:
    noise = random.Random(0).randbytes(400)
    assert read_summary(io.BytesIO(compress(noise, tiny))).frames[0].model is None
    assert read_summary(io.BytesIO(compress(noise + b"!", tiny))).frames[0].model == tiny.model


@pytest.mark.usefixtures("stand_in")
def test_a_known_size_is_cut_into_equal_segments(text: bytes, tiny: Preset) -> None:
    frame = compress(text[:1000], tiny, size=1000)
    assert [s.content_size for s in read_summary(io.BytesIO(frame)).frames[0].segments] == [334, 334, 332]
    assert decompress(frame) == text[:1000]
    for wrong in (0, 1, 999, 5000):
        assert decompress(compress(text[:1000], tiny, size=wrong)) == text[:1000]


def test_segments_that_the_format_cannot_hold_are_refused(tiny: Preset) -> None:
    for size in (0, (1 << 30) + 1):
        with pytest.raises(UsageError, match="segment size"):
            compress(b"", replace(tiny, segment_size=size))


class Trickle(io.RawIOBase):
    """A raw file that takes and gives fewer bytes than it is asked for, as pipes do."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = min(len(buffer), 5, len(self.content))
        buffer[:count] = self.content[:count]
        del self.content[:count]
        return count

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]
        self.content += data[:3]
        return min(len(data), 3)


@pytest.mark.usefixtures("stand_in")
def test_raw_files_are_read_and_written_whole(text: bytes, tiny: Preset) -> None:
    frame, content = Trickle(), Trickle()
    compress_stream(Trickle(text[:1000]), frame, tiny)
    decompress_stream(frame, content)
    assert bytes(content.content) == text[:1000]


def test_a_non_blocking_file_without_bytes_is_not_at_its_end(tiny: Preset) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with open(reading, "rb", buffering=0) as source, open(writing, "wb"):
        with pytest.raises(BlockingIOError, match="non-blocking"):
            compress_stream(source, io.BytesIO(), tiny)
        with pytest.raises(BlockingIOError, match="non-blocking"):
            decompress_stream(source, None)


@pytest.mark.usefixtures("stand_in")
def test_progress_rises_to_the_sizes(text: bytes, tiny: Preset) -> None:
    seen: list[tuple[int, int]] = []
    sink = io.BytesIO()
    sizes = compress_stream(
        io.BytesIO(text[:1000]), sink, tiny, progress=lambda done, written: seen.append((done, written))
    )
    assert seen == sorted(seen)
    assert seen[-1] == sizes
    seen.clear()
    sizes = decompress_stream(
        io.BytesIO(sink.getvalue()), None, progress=lambda done, written: seen.append((done, written))
    )
    assert seen == sorted(seen)
    assert seen[-1] == sizes
    assert len(seen) > 4


@pytest.mark.usefixtures("stand_in")
def test_memory_stays_within_a_few_segments(tiny: Preset) -> None:
    class Endless(io.RawIOBase):
        left = 8 << 20

        def read(self, size: int = -1, /) -> bytes:
            size = min(size, self.left)
            self.left -= size
            return random.Random(self.left).randbytes(size)

    preset = replace(tiny, segment_size=1 << 18)
    path_like = io.BytesIO()
    compress_stream(Endless(), path_like, preset)
    path_like.seek(0)
    tracemalloc.start()
    try:
        source, sink = Endless(), Sink()
        compress_stream(source, sink, preset)
        assert sink.size > 8 << 20
        sink = Sink()
        decompress_stream(path_like, sink)
        assert sink.size == 8 << 20
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


class Sink:
    """Counts and hashes what is written, and keeps nothing of it."""

    def __init__(self) -> None:
        self.size = 0
        self.hash = hashlib.blake2b()

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        self.size += len(data)
        self.hash.update(data)


def test_content_that_decodes_wrong_is_never_written(text: bytes, tiny: Preset, stand_in: ModuleType) -> None:
    frame = compress(text[:1000], tiny)
    right = stand_in.decode_segment
    done = 0

    def wrong(*arguments: object) -> bytearray:
        nonlocal done
        done += 1
        content: bytearray = right(*arguments)
        content[7] ^= done == 2
        return content

    stand_in.decode_segment = wrong  # type: ignore[attr-defined]
    sink = io.BytesIO()
    with pytest.raises(CorruptError, match="segment 2 of frame 1"):
        decompress_stream(io.BytesIO(frame), sink)
    assert sink.getvalue() == text[:400]


@pytest.mark.parametrize(
    "error", [DeviceError("no device"), OutOfMemoryError("no room"), KeyboardInterrupt()]
)
def test_a_failure_leaves_no_whole_frame(
    text: bytes, tiny: Preset, stand_in: ModuleType, error: BaseException
) -> None:
    right = stand_in.encode_segment
    done = 0

    def failing(*arguments: object) -> object:
        nonlocal done
        done += 1
        if done == 3:
            # An error stops everything at once; what is written before it depends on who is faster.
            while not sink.getvalue():
                time.sleep(0.001)
            raise error
        return right(*arguments)

    stand_in.encode_segment = failing  # type: ignore[attr-defined]
    sink = io.BytesIO()
    with pytest.raises(type(error)):
        compress_stream(io.BytesIO(text[:2000]), sink, tiny)
    assert sink.getvalue()
    with pytest.raises(TruncatedError):
        decompress(sink.getvalue())


def test_stored_files_need_no_torch() -> None:
    script = """
import io, random, sys
import sepzip
from sepzip.frame import FrameWriter, read_summary
assert sepzip.decompress(sepzip.compress(b"short")) == b"short"
file = io.BytesIO()
writer = FrameWriter(file, None)
writer.write_stored(bytes(5000))
writer.finish()
assert sepzip.decompress(file.getvalue()) == bytes(5000)
assert read_summary(io.BytesIO(file.getvalue())).content_size == 5000
assert not {"torch", "numpy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
