"""Input that is damaged or lies: an error below SepError each time, no wrong content, and little memory."""

from __future__ import annotations

import contextlib
import io
import os
import random
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import craft
from conftest import TINY
from sepzip.errors import CorruptError, FormatError, SepError, TruncatedError
from sepzip.frame import FrameReader, FrameWriter, read_summary
from sepzip.header import MAGIC
from sepzip.pipeline import compress_stream, decompress_stream
from sepzip.presets import ModelSettings, Preset
from sepzip.segment import CodedBlock, CodedPart
from sepzip.wire import ByteSource, varint

BODY = craft.settings_body(TINY)
HEADER = craft.header(BODY)
NO_MODEL_HEADER = craft.header(b"\0\0", numerics=0)


@pytest.fixture
def coded(stand_in: object, text: bytes, tiny: Preset) -> bytes:
    """A frame of two coded segments and a stored one."""
    sink = io.BytesIO()
    content = text[:800] + random.Random(0).randbytes(30)
    compress_stream(io.BytesIO(content), sink, tiny)
    methods = [segment.method for segment in read_summary(io.BytesIO(sink.getvalue())).frames[0].segments]
    assert methods == ["coded", "coded", "stored"]
    return sink.getvalue()


@pytest.fixture
def stored(stand_in: object, tiny: Preset) -> bytes:
    """A frame of one stored segment."""
    sink = io.BytesIO()
    compress_stream(io.BytesIO(random.Random(0).randbytes(90)), sink, tiny)
    return sink.getvalue()


def read_all(content: bytes) -> None:
    reader = FrameReader(io.BytesIO(content))
    while reader.next_frame() is not None:
        while reader.next_segment() is not None:
            pass


@pytest.mark.parametrize("kind", ["coded", "stored"])
def test_every_truncation_shows(kind: str, request: pytest.FixtureRequest) -> None:
    frame: bytes = request.getfixturevalue(kind)
    for length in range(len(frame)):
        with pytest.raises(TruncatedError):
            decompress_stream(io.BytesIO(frame[:length]), None)


@pytest.mark.parametrize("kind", ["coded", "stored"])
def test_every_flipped_bit_shows(kind: str, request: pytest.FixtureRequest) -> None:
    frame: bytes = request.getfixturevalue(kind)
    for place in range(8 * len(frame)):
        damaged = bytearray(frame)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(FormatError):
            decompress_stream(io.BytesIO(damaged), None)


def test_every_changed_byte_of_the_second_frame_shows(stored: bytes) -> None:
    for place in range(len(stored)):
        damaged = bytearray(stored + stored)
        damaged[len(stored) + place] ^= 0xFF
        with pytest.raises(FormatError):
            decompress_stream(io.BytesIO(damaged), None)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_pieces_cut_out_or_doubled_show(coded: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(coded) - 1))
    end = data.draw(st.integers(start + 1, len(coded)))
    for changed in (coded[:start] + coded[end:], coded[:end] + coded[start:]):
        if changed != coded + coded:
            with pytest.raises(FormatError):
                decompress_stream(io.BytesIO(changed), None)


def test_segments_in_another_order_show(stand_in: object, text: bytes, tiny: Preset) -> None:
    sink = io.BytesIO()
    compress_stream(io.BytesIO(text[:1200]), sink, tiny)
    frame = sink.getvalue()
    lengths = [segment.compressed_size for segment in read_summary(io.BytesIO(frame)).frames[0].segments]
    start = frame.index(craft.coded_start(400, 4))
    first, second = frame[start : start + lengths[0]], frame[start + lengths[0] : start + sum(lengths[:2])]
    changed = frame[:start] + second + first + frame[start + sum(lengths[:2]) :]
    with pytest.raises(CorruptError):
        decompress_stream(io.BytesIO(changed), None)


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=120), st.sampled_from([b"", MAGIC, MAGIC + b"\1\1", HEADER, NO_MODEL_HEADER]))
@example(b"", HEADER)
def test_random_bytes_are_never_a_file(content: bytes, start: bytes) -> None:
    for read in (read_all, lambda bytes_: read_summary(io.BytesIO(bytes_))):
        with pytest.raises(FormatError):
            read(start + content)


@settings(max_examples=1000, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.binary(max_size=60).map(lambda rest: b"\x03pac" + rest),
        st.builds(
            lambda place, piece, length: BODY[:place] + piece + BODY[place + length :],
            st.integers(0, len(BODY)),
            st.binary(min_size=1, max_size=3),
            st.integers(0, 3),
        ),
    ),
    st.integers(0, 2),
)
def test_random_settings_with_right_checksums_are_refused_or_read(body: bytes, numerics: int) -> None:
    try:
        frame = FrameReader(io.BytesIO(craft.header(body, numerics))).next_frame()
    except FormatError:
        return
    assert frame is not None
    assert (frame.model is None) == (numerics == 0)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_without_checksums_the_rules_still_hold(
    coded: bytes, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    """A liar gets its checksums right, so parsing must stand without them."""

    def unchecked(self: ByteSource, what: str) -> None:
        self.exactly(4, what)
        self.start_check()

    changed = bytearray(coded)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(coded) - 1))] = data.draw(st.integers(0, 255))
    with monkeypatch.context() as patch:
        patch.setattr(ByteSource, "check", unchecked)
        for read in (read_all, lambda bytes_: read_summary(io.BytesIO(bytes_))):
            with contextlib.suppress(FormatError):
                read(bytes(changed))


HUGE = (1 << 40) - 1
LIES = {
    "header": MAGIC + b"\x01\x01" + varint(HUGE),
    "stored segment": NO_MODEL_HEADER + craft.stored_start(HUGE),
    "largest stored segment": NO_MODEL_HEADER
    + craft.stored_start(1 << 30)
    + craft.stored_block(b"", 1 << 20),
    "stored block": NO_MODEL_HEADER + craft.stored_start(1 << 30) + craft.stored_block(b"", HUGE),
    "coded segment": HEADER + craft.coded_start(HUGE, 4),
    "lanes": HEADER + craft.coded_start(1 << 30, HUGE),
    "coded block": HEADER + craft.coded_start(1 << 30, 4) + craft.coded_block(1, b"", HUGE),
    "largest coded block": HEADER
    + craft.coded_start(1 << 30, 4)
    + craft.coded_block(1 << 28, b"", (1 << 30) - 1),
    "steps": HEADER + craft.coded_start(1 << 30, 4) + craft.coded_block(HUGE, b"A" * 6),
    "steps in a small payload": HEADER
    + craft.coded_start(1 << 30, 4)
    + craft.coded_block(1 << 28, b"A" * 2000),
    "index": NO_MODEL_HEADER + bytes([craft.FRAME_END, 13]) + varint(HUGE) + bytes(50),
    "varint": NO_MODEL_HEADER + b"\x01" + b"\xff" * 1000,
}


@pytest.mark.parametrize("lie", LIES)
def test_a_claim_is_never_an_allocation(lie: str) -> None:
    tracemalloc.start()
    try:
        for ending in (b"", bytes(100)):
            with pytest.raises(FormatError):
                decompress_stream(io.BytesIO(LIES[lie] + ending), None)
            with pytest.raises(FormatError):
                read_summary(io.BytesIO(LIES[lie] + ending))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def hostile_frame(model: ModelSettings, size: int, lanes: int, blocks: list[CodedBlock]) -> bytes:
    """Return a frame that keeps every rule of the format, whose blocks nothing ever coded."""
    file = io.BytesIO()
    writer = FrameWriter(file, model)
    writer.write_segment(bytes(size), [CodedPart(bytes(size), lanes, blocks)])
    writer.finish()
    return file.getvalue()


widths = st.lists(st.integers(1, 8), max_size=3).map(tuple)
models = st.builds(
    replace,
    st.just(TINY),
    stride=st.integers(1, 3),
    embedding=st.integers(2, 4),
    lane_widths=widths,
    hidden=st.integers(1, 40),
    seed=st.integers(0, (1 << 64) - 1),
    learning_rate=st.integers(1, 1_000_000),
    lanes_per_coder=st.integers(1, 64),
)


@settings(max_examples=12, deadline=None)
@given(models, st.integers(200, 400), st.integers(30, 60), st.randoms(use_true_random=False))
def test_blocks_that_nothing_coded_are_refused(
    model: ModelSettings, size: int, lanes: int, choice: random.Random
) -> None:
    coders = -(-lanes // model.lanes_per_coder)
    length = min(size - 1, max(6 * coders, 3 * choice.randrange(2, 60)))
    if length < 6 * coders:
        return
    blocks = [CodedBlock(-(-size // lanes), choice.getrandbits(32), choice.randbytes(length))]
    with pytest.raises(SepError):
        decompress_stream(io.BytesIO(hostile_frame(model, size, lanes, blocks)), None, "cpu")


@pytest.mark.skipif(
    not os.path.exists("/proc/self/status"), reason="the system does not tell a process's peak memory so"
)
def test_a_model_too_large_is_refused_before_it_is_made() -> None:
    largest = replace(
        ModelSettings(),
        context=4096,
        patch=64,
        stride=1,
        embedding=1024,
        lane_widths=(1024,) * 64,
        hidden=65536,
        lanes_per_coder=64,
    )
    frame = hostile_frame(largest, 4000, 64, [CodedBlock(63, 0, bytes(60))])
    script = """
import io, sys
from sepzip.errors import OutOfMemoryError
from sepzip.pipeline import decompress_stream
try:
    decompress_stream(io.BytesIO(bytes.fromhex(sys.argv[1])), None, "cpu")
except OutOfMemoryError as error:
    print(error)
# Not what getrusage says: that begins with what the process that started this one had taken.
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
assert peak < 1 << 20, peak
"""
    command = [sys.executable, "-c", script, frame.hex()]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "MiB" in shown
    assert len(shown.splitlines()) == 1
