"""Several segments in flight: the same bytes, in order, bounded memory, one error that stops all."""

from __future__ import annotations

import bisect
import contextlib
import errno
import gc
import io
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

import sepzip
from sepzip import SepFile, sepfile
from sepzip.errors import CorruptError, MismatchError, OutOfMemoryError, TruncatedError
from sepzip.frame import read_summary
from sepzip.pipeline import compress_stream, decompress_stream
from sepzip.presets import Preset
from sepzip.segment import CODED
from sepzip.wire import varint

SEGMENT = 400
SECONDS = 30
"""How long a test waits for what must happen."""


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Every test ends with the threads that it began with."""
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.fixture
def content(text: bytes) -> bytes:
    """Twelve segments, of which two cannot be compressed, and a short one."""
    noise = random.Random(0).randbytes(2 * SEGMENT)
    return text[: 4 * SEGMENT] + noise + text[4 * SEGMENT : 10 * SEGMENT] + b"the end"


@pytest.fixture
def frame(stand_in: ModuleType, content: bytes, tiny: Preset) -> bytes:
    """The frame of `content`."""
    return compress(content, tiny)


def compress(content: bytes, preset: Preset, streams: int | None = None) -> bytes:
    sink = io.BytesIO()
    sizes = compress_stream(io.BytesIO(content), sink, preset, "cpu", streams=streams)
    assert sizes == (len(content), len(sink.getvalue()))
    return sink.getvalue()


def decompress(frame: bytes, streams: int | None = None) -> bytes:
    sink = io.BytesIO()
    sizes = decompress_stream(io.BytesIO(frame), sink, "cpu", streams=streams)
    assert sizes == (len(frame), len(sink.getvalue()))
    return sink.getvalue()


def until_stopped(advance: Callable[[int], None]) -> None:
    """Go on with a segment that never ends by itself."""
    for _ in range(100 * SECONDS):
        advance(0)
        time.sleep(0.01)
    raise AssertionError("nobody stopped this segment")


def test_the_networks_give_the_same_bytes_with_any_number_of_streams(
    text: bytes, tiny: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = text[: 4 * SEGMENT] + random.Random(0).randbytes(SEGMENT) + text[:100]
    preset = replace(tiny, lanes=80)
    monkeypatch.setattr(sepfile, "resolve", lambda *given: preset)
    frames = {compress(content, preset, streams) for streams in (None, 1, 2, 4)}
    assert len(frames) == 1
    frame = frames.pop()
    assert sepzip.compress(content, device="cpu", streams=3) == sepzip.compress(content, device="cpu")
    for streams in (1, 3):
        assert decompress(frame, streams) == content
        assert sepzip.decompress(frame, device="cpu", streams=streams) == content
        with sepzip.open(io.BytesIO(frame), device="cpu", streams=streams) as file:
            assert file.read(10) + file.read() == content


@pytest.mark.parametrize("streams", [1, 2, 3, 8, 64])
def test_the_order_of_finishing_does_not_matter(
    content: bytes, frame: bytes, tiny: Preset, stand_in: ModuleType, streams: int
) -> None:
    encode, decode = stand_in.encode_segment, stand_in.decode_segment
    delays = random.Random(streams)

    def late(function: Any) -> Any:
        def delayed(*arguments: Any) -> Any:
            time.sleep(delays.random() / 100)
            return function(*arguments)

        return delayed

    stand_in.encode_segment, stand_in.decode_segment = late(encode), late(decode)  # type: ignore[attr-defined]
    assert compress(content, tiny, streams) == frame
    assert decompress(frame, streams) == content
    assert decompress(frame * 3, streams) == content * 3


@pytest.mark.parametrize("streams", [2, 4])
def test_as_many_as_asked_for_are_in_flight(
    content: bytes, frame: bytes, tiny: Preset, stand_in: ModuleType, streams: int
) -> None:
    decode = stand_in.decode_segment
    meeting = threading.Barrier(streams, timeout=SECONDS)
    lock = threading.Lock()
    decoded = active = 0

    def meet(*arguments: Any) -> Any:
        nonlocal active, decoded
        with lock:
            active += 1
            decoded += 1
            assert active <= streams
            meets = decoded <= streams
        if meets:
            meeting.wait()
        with lock:
            active -= 1
        return decode(*arguments)

    stand_in.decode_segment = meet  # type: ignore[attr-defined]
    assert decompress(frame, streams) == content
    decoded = 0
    with SepFile(io.BytesIO(frame), device="cpu", streams=streams) as file:
        assert file.read() == content
    assert decoded == 10


class Counting:
    """A source of segments, which end at `ends`, and a sink that looks how many are read and not written."""

    def __init__(self, content: bytes, ends: list[int], delay: dict[str, float]) -> None:
        self._source = io.BytesIO(content)
        self._ends = ends
        self._delay = delay
        self.written = self.most = 0

    def read(self, size: int, /) -> bytes:
        time.sleep(self._delay.get("read", 0))
        return self._source.read(size)

    def write(self, data: Any, /) -> None:
        time.sleep(self._delay.get("write", 0))
        if len(data) == SEGMENT:
            self.most = max(self.most, bisect.bisect(self._ends, self._source.tell()) - self.written)
            self.written += 1


@pytest.mark.parametrize("streams", [1, 2, 4])
@pytest.mark.parametrize("slow", ["read", "write", "code"])
def test_segments_in_memory_are_bounded(
    text: bytes, tiny: Preset, stand_in: ModuleType, streams: int, slow: str
) -> None:
    def slowly(function: Any) -> Any:
        def delayed(*arguments: Any) -> Any:
            time.sleep(0.02 if slow == "code" else 0)
            return function(*arguments)

        return delayed

    packed = compress(text[: 20 * SEGMENT], tiny)
    for name in ("encode_segment", "decode_segment"):
        setattr(stand_in, name, slowly(getattr(stand_in, name)))
    # Stored, every segment is written in one piece of its own size.
    noise = random.Random(0).randbytes(20 * SEGMENT)
    compressed = Counting(noise, [SEGMENT * (i + 1) for i in range(20)], {slow: 0.003})
    compress_stream(compressed, compressed, tiny, "cpu", streams=streams)
    sizes = [segment.compressed_size for segment in read_summary(io.BytesIO(packed)).frames[0].segments]
    start = packed.index(bytes([CODED]) + varint(SEGMENT) + varint(tiny.lanes))
    decompressed = Counting(packed, [start + end for end in itertools.accumulate(sizes)], {slow: 0.003})
    decompress_stream(decompressed, decompressed, "cpu", streams=streams)
    for both in (compressed, decompressed):
        assert both.written == 20
        assert both.most <= streams + 2
        assert both.most == streams + 2 or slow != "code"


def test_a_slow_sink_holds_up_the_decoding(frame: bytes, stand_in: ModuleType) -> None:
    decode = stand_in.decode_segment
    begun = written = 0

    def counting(*arguments: Any) -> Any:
        nonlocal begun
        begun += 1
        return decode(*arguments)

    class Slow:
        def write(self, data: Any, /) -> None:
            nonlocal written
            time.sleep(0.03)
            assert begun - written <= 4
            written += 1

    stand_in.decode_segment = counting  # type: ignore[attr-defined]
    decompress_stream(io.BytesIO(frame), Slow(), "cpu", streams=2)
    assert (begun, written) == (10, 13)


def test_what_is_decoded_is_written_while_a_pipe_has_no_more(frame: bytes, content: bytes) -> None:
    reading, writing = os.pipe()
    received = bytearray()

    class Ending:
        def write(self, data: Any, /) -> None:
            received.extend(data)
            if len(received) == len(content):
                os.close(writing)

    os.write(writing, frame)
    with open(reading, "rb", buffering=0) as source:
        decompress_stream(source, Ending(), "cpu", streams=2)
    assert received == content


def test_an_error_is_seen_while_a_pipe_has_no_more(text: bytes, tiny: Preset, stand_in: ModuleType) -> None:
    def failing(*arguments: Any) -> Any:
        time.sleep(0.1)
        raise OutOfMemoryError("no room")

    stand_in.encode_segment = failing  # type: ignore[attr-defined]
    reading, writing = os.pipe()
    os.write(writing, text[: SEGMENT + 1])
    with (
        open(reading, "rb", buffering=0) as source,
        open(writing, "wb"),
        pytest.raises(OutOfMemoryError, match="no room"),
    ):
        compress_stream(source, io.BytesIO(), tiny, "cpu", streams=2)


@pytest.mark.parametrize("streams", [1, 2, 4])
@pytest.mark.parametrize("error", [OutOfMemoryError("no room"), RuntimeError("odd"), KeyboardInterrupt()])
def test_an_error_of_one_segment_stops_all(
    content: bytes, frame: bytes, tiny: Preset, stand_in: ModuleType, streams: int, error: BaseException
) -> None:
    begun = 0
    lock = threading.Lock()

    def one_fails(*arguments: Any) -> Any:
        nonlocal begun
        with lock:
            begun += 1
            fails = begun == streams
        if fails:
            raise error
        until_stopped(next(argument for argument in arguments if callable(argument)))

    stand_in.encode_segment = stand_in.decode_segment = one_fails  # type: ignore[attr-defined]
    sink = io.BytesIO()
    with pytest.raises(type(error)) as raised:
        compress_stream(io.BytesIO(content), sink, tiny, "cpu", streams=streams)
    assert raised.value is error
    assert sink.getvalue() == b""
    begun = 0
    with pytest.raises(type(error)) as raised:
        decompress_stream(io.BytesIO(frame), sink, "cpu", streams=streams)
    assert raised.value is error
    assert sink.getvalue() == b""
    begun = 0
    with SepFile(io.BytesIO(frame), device="cpu", streams=streams) as file, pytest.raises(type(error)):
        file.read()


def test_an_error_leaves_nothing_to_the_garbage_collector(
    content: bytes, tiny: Preset, stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: Any) -> Any:
        raise OutOfMemoryError("no room")

    stand_in.encode_segment = failing  # type: ignore[attr-defined]
    monkeypatch.setattr(sepfile, "resolve", lambda *given: tiny)
    for streams in (1, 2):
        gc.collect()
        # Not by pytest.raises, which keeps the error.
        with contextlib.suppress(OutOfMemoryError):
            sepzip.compress(content, device="cpu", streams=streams)
        assert gc.collect() == 0


class FailingSource:
    def __init__(self, content: bytes) -> None:
        self._source = io.BytesIO(content)

    def read(self, size: int, /) -> bytes:
        content = self._source.read(min(size, 100))
        if not content:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return content


class FullSink:
    def __init__(self, room: int) -> None:
        self._room = room

    def write(self, data: Any, /) -> None:
        self._room -= len(data)
        if self._room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("streams", [1, 3])
def test_an_error_of_the_source_or_the_sink_stops_all(
    content: bytes, frame: bytes, tiny: Preset, stand_in: ModuleType, streams: int
) -> None:
    # Four segments and a part of the fifth: the last of them can be read while the third is in flight.
    first, packed = content[: 4 * SEGMENT + 10], frame[: frame.index(content[4 * SEGMENT : 5 * SEGMENT])]
    works: list[Callable[[], object]] = [
        lambda: compress_stream(FailingSource(first), io.BytesIO(), tiny, "cpu", streams=streams),
        lambda: decompress_stream(FailingSource(packed), None, "cpu", streams=streams),
        lambda: compress_stream(io.BytesIO(content), FullSink(300), tiny, "cpu", streams=streams),
        lambda: decompress_stream(io.BytesIO(frame), FullSink(300), "cpu", streams=streams),
    ]
    decode, encode = stand_in.decode_segment, stand_in.encode_segment
    begun = 0

    def later_ones_never_end(*arguments: Any) -> Any:
        nonlocal begun
        begun += 1
        if begun > 2:
            until_stopped(next(argument for argument in arguments if callable(argument)))
        return (decode if isinstance(arguments[1], int) else encode)(*arguments)

    stand_in.encode_segment = stand_in.decode_segment = later_ones_never_end  # type: ignore[attr-defined]
    for expected, work in zip([errno.EIO] * 2 + [errno.ENOSPC] * 2, works, strict=True):
        begun = 0
        with pytest.raises(OSError) as raised:
            work()
        assert raised.value.errno == expected


@pytest.mark.parametrize("streams", [1, 3])
def test_an_interrupt_is_heeded_at_once(
    content: bytes, tiny: Preset, stand_in: ModuleType, streams: int
) -> None:
    interrupter = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))

    def endless(*arguments: Any) -> Any:
        until_stopped(arguments[4])

    stand_in.encode_segment = endless  # type: ignore[attr-defined]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    started = time.monotonic()
    try:
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            compress_stream(io.BytesIO(content), io.BytesIO(), tiny, "cpu", streams=streams)
    finally:
        signal.signal(signal.SIGINT, before)
        interrupter.join()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("streams", [1, 2, 5])
def test_a_fault_of_the_input_comes_after_all_that_is_before_it(
    content: bytes, frame: bytes, stand_in: ModuleType, streams: int
) -> None:
    decode = stand_in.decode_segment

    def slow_start(*arguments: Any) -> Any:
        decoded = decode(*arguments)
        if decoded == content[:SEGMENT]:
            time.sleep(0.1)
        if decoded == content[2 * SEGMENT : 3 * SEGMENT]:
            raise MismatchError("other weights")
        return decoded

    sink = io.BytesIO()
    with pytest.raises(TruncatedError):
        decompress_stream(io.BytesIO(frame[:-1]), sink, "cpu", streams=streams)
    assert sink.getvalue() == content
    damaged = bytearray(frame)
    damaged[frame.index(content[4 * SEGMENT : 5 * SEGMENT]) + 5] ^= 1
    sink = io.BytesIO()
    with pytest.raises(CorruptError, match="segment 5 of frame 1"):
        decompress_stream(io.BytesIO(damaged), sink, "cpu", streams=streams)
    assert sink.getvalue() == content[: 4 * SEGMENT]
    with SepFile(io.BytesIO(damaged), device="cpu", streams=streams) as file:
        assert file.read(4 * SEGMENT) == content[: 4 * SEGMENT]
        for _ in range(2):
            with pytest.raises(CorruptError, match="segment 5 of frame 1"):
                file.read(1)
    stand_in.decode_segment = slow_start  # type: ignore[attr-defined]
    sink = io.BytesIO()
    with pytest.raises(MismatchError):
        decompress_stream(io.BytesIO(frame), sink, "cpu", streams=streams)
    assert sink.getvalue() == content[: 2 * SEGMENT]


def test_reading_decodes_no_more_ahead_than_is_in_flight(
    frame: bytes, content: bytes, stand_in: ModuleType
) -> None:
    decode = stand_in.decode_segment
    decoded: list[int] = []

    def counting(*arguments: Any) -> Any:
        decoded.append(arguments[1])
        return decode(*arguments)

    stand_in.decode_segment = counting  # type: ignore[attr-defined]
    with SepFile(io.BytesIO(frame), device="cpu", streams=2) as file:
        assert file.read1(1) == content[:1]
        time.sleep(0.05)
        assert 1 <= len(decoded) <= 3
        for place in (10 * SEGMENT, 3 * SEGMENT):
            # A seek elsewhere discards what was decoded ahead, and nothing is decoded ahead after it.
            decoded.clear()
            file.seek(place)
            assert file.read(1) == content[place : place + 1]
            assert len(decoded) == 1
        assert file.read() == content[3 * SEGMENT + 1 :]


def test_closing_ends_what_is_decoded_ahead(frame: bytes, content: bytes, stand_in: ModuleType) -> None:
    decode = stand_in.decode_segment

    def only_the_first_ends(*arguments: Any) -> Any:
        decoded = decode(*arguments)
        if decoded != content[:SEGMENT]:
            until_stopped(arguments[5])
        return decoded

    stand_in.decode_segment = only_the_first_ends  # type: ignore[attr-defined]
    file = SepFile(io.BytesIO(frame), device="cpu", streams=3)
    assert file.read1(10) == content[:10]
    file.close()


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_files_are_written_with_streams(
    content: bytes, tiny: Preset, stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch, streams: int
) -> None:
    monkeypatch.setattr(sepfile, "resolve", lambda *given: tiny)
    file = io.BytesIO()
    with SepFile(file, "w", device="cpu", streams=streams) as out:
        for start in range(0, len(content), 150):
            out.write(content[start : start + 150])
            assert out.tell() == min(start + 150, len(content))
    assert file.getvalue() == compress(content, tiny)


def test_a_file_that_is_abandoned_leaves_no_thread(
    content: bytes, tiny: Preset, stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sepfile, "resolve", lambda *given: tiny)

    def endless(*arguments: Any) -> Any:
        until_stopped(arguments[4])

    stand_in.encode_segment = endless  # type: ignore[attr-defined]
    with pytest.raises(KeyError), SepFile(io.BytesIO(), "w", device="cpu", streams=3) as out:
        out.write(content[: 3 * SEGMENT])
        raise KeyError


_FORGOTTEN = """
import io, sys, time
import sepzip.engine
from sepzip import SepFile, sepfile
from sepzip.presets import LEVELS
def endless(content, model, lanes, device, advance, profile):
    for _ in range(10_000):
        advance(0)
        time.sleep(0.01)
    yield
sepzip.engine.encode_segment = endless
forgotten = SepFile(io.BytesIO(), "w", level=1, device="cpu", streams=2)
forgotten._segment_size = 1000
forgotten.write(bytes(2000))
"""


def test_a_forgotten_file_does_not_keep_the_interpreter() -> None:
    subprocess.run([sys.executable, "-c", _FORGOTTEN], timeout=SECONDS, capture_output=True, check=False)


def test_progress_rises_with_several_streams(content: bytes, frame: bytes, tiny: Preset) -> None:
    seen: list[tuple[int, int]] = []

    def progress(done: int, written: int) -> None:
        assert threading.current_thread() is threading.main_thread()
        seen.append((done, written))

    sink = io.BytesIO()
    sizes = compress_stream(io.BytesIO(content), sink, tiny, "cpu", streams=3, progress=progress)
    assert seen == sorted(seen)
    assert seen[-1] == sizes
    seen.clear()
    sizes = decompress_stream(io.BytesIO(frame * 2), None, "cpu", streams=3, progress=progress)
    assert seen == sorted(seen)
    assert seen[-1] == sizes
    assert [written for _, written in seen] == sorted(written for _, written in seen)
