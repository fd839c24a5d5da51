"""The frame format: the bytes it makes, what reads them back, and what each broken rule is called."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import craft
from conftest import TINY, TINY_LSTM, TRACE_TINY, TRACE_TINY_SEMANTIC
from sepzip import header as header_module
from sepzip.errors import (
    CorruptError,
    NotSepError,
    TrailingDataError,
    TruncatedError,
    UnsupportedError,
    UsageError,
)
from sepzip.frame import FrameReader, FrameWriter, read_summary
from sepzip.presets import LEVELS, NETWORKS, ModelSettings
from sepzip.segment import CodedBlock, CodedPart
from sepzip.wire import ByteSource, varint

BLOCKS = [CodedBlock(20, 0xDEADBEEF, b"A" * 9), CodedBlock(5, 7, b"B" * 30)]
CONTENT = bytes(range(100))


class Pipe:
    """A file that can neither seek nor say how long it is, and reads a few bytes at a time."""

    def __init__(self, content: bytes, most: int = 7) -> None:
        self._file = io.BytesIO(content)
        self._most = most

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._most))


def coded_frame(model: ModelSettings = TINY) -> bytes:
    file = io.BytesIO()
    writer = FrameWriter(file, model)
    writer.write_segment(CONTENT, [CodedPart(CONTENT, 4, BLOCKS)])
    writer.write_stored(b"stored")
    writer.finish()
    assert writer.size == len(file.getvalue())
    return file.getvalue()


def stored_frame(content: bytes = b"abc") -> bytes:
    file = io.BytesIO()
    writer = FrameWriter(file, None)
    if content:
        writer.write_stored(content)
    writer.finish()
    return file.getvalue()


def read_all(file: Any) -> None:
    reader = FrameReader(file)
    while reader.next_frame() is not None:
        while reader.next_segment() is not None:
            pass


def test_the_bytes_of_an_empty_frame_never_change() -> None:
    assert stored_frame(b"").hex() == (
        "89534550" "01" "00" "02" "0000" "68f90fd3" "05" "0d" "00"
        "cae66941d9efbd404e4d88758ea67670" "995a810e" "17000000" "50455389"
    )  # fmt: skip


def test_the_bytes_of_a_stored_frame_never_change() -> None:
    frame = stored_frame(b"abc")
    assert frame[13:29].hex() == "010303036162638aebff2204c2412435"
    assert hashlib.blake2b(frame, digest_size=8).hexdigest() == "e081271c052fa621"


def test_the_bytes_of_a_coded_frame_never_change() -> None:
    assert hashlib.blake2b(coded_frame(), digest_size=8).hexdigest() == "0c4fc8ce97acfc1d"


def test_a_coded_frame_reads_back() -> None:
    reader = FrameReader(Pipe(coded_frame()))
    frame = reader.next_frame()
    assert frame is not None
    assert frame.model == TINY
    coded = reader.next_segment()
    assert coded is not None
    assert (coded.model, coded.size, coded.lanes, coded.blocks) == (TINY, 100, 4, BLOCKS)
    reader.content.accept(coded, CONTENT)
    stored = reader.next_segment()
    assert stored is not None
    assert (stored.model, stored.lanes, bytes(stored.content)) == (None, 0, b"stored")
    reader.content.accept(stored, stored.content)
    assert reader.next_segment() is None
    assert reader.checksum == hashlib.blake2b(CONTENT + b"stored", digest_size=16).digest()
    reader.content.finish()
    assert reader.next_frame() is None


def test_content_that_differs_is_refused() -> None:
    reader = FrameReader(io.BytesIO(coded_frame()))
    reader.next_frame()
    segment = reader.next_segment()
    assert segment is not None
    with pytest.raises(CorruptError, match="segment 1 of frame 1"):
        reader.content.accept(segment, CONTENT[:-1] + b"!")


def test_a_content_whose_checksum_differs_is_refused() -> None:
    reader = FrameReader(io.BytesIO(coded_frame()))
    reader.next_frame()
    content = reader.content
    segments = []
    while (segment := reader.next_segment()) is not None:
        segments.append(segment)
    for segment in reversed(segments):
        content.accept(segment, segment.content or CONTENT)
    with pytest.raises(CorruptError, match="content of frame 1"):
        content.finish()


def test_the_index_is_found_from_the_end() -> None:
    before, frame = stored_frame(b"first"), coded_frame()
    file = before + frame
    assert file[-4:] == b"PES\x89"
    end_length = int.from_bytes(file[-8:-4], "little")
    end = file[-8 - end_length : -8]
    source = ByteSource(io.BytesIO(end[:-20]))
    assert source.byte("") == craft.FRAME_END
    header_length, count = source.varint("", 0, 1 << 32), source.varint("", 0, 1 << 32)
    segments = [(source.varint("", 0, 1 << 32), source.varint("", 0, 1 << 32)) for _ in range(count)]
    assert source.position == len(end) - 20
    assert [size for size, _ in segments] == [100, 6]
    start = len(file) - 8 - end_length - sum(length for _, length in segments) - header_length
    assert start == len(before)
    assert file[start + header_length] == craft.CODED
    assert file[start + header_length + segments[0][1]] == craft.STORED


def test_every_setting_has_its_place_in_the_header() -> None:
    written = {setting.field for setting in header_module._SETTINGS.values()} | {"network"}
    assert written == {field.name for field in dataclasses.fields(ModelSettings)}


@pytest.mark.parametrize(
    "model",
    [preset.model for preset in LEVELS.values()]
    + [preset.model for presets in NETWORKS.values() for preset in presets.values()]
    + [replace(TINY, seed=(1 << 32) - 1, lane_widths=()), TINY_LSTM, TRACE_TINY, TRACE_TINY_SEMANTIC],
)
def test_every_preset_reads_back(model: ModelSettings) -> None:
    frame = FrameReader(io.BytesIO(coded_frame(model))).next_frame()
    assert frame is not None
    assert frame.model == model


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (TINY, {"token": 2}),
        (TINY, {"heads": 1}),
        (TRACE_TINY, {"lane_widths": (4,)}),
    ],
)
def test_settings_of_other_networks_are_refused(model: ModelSettings, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="does not have"):
        FrameWriter(io.BytesIO(), replace(model, **changes))


@pytest.mark.parametrize(
    "model",
    [
        replace(TRACE_TINY, token=0),
        replace(TRACE_TINY, token=4),
        replace(TRACE_TINY, token=4097),
        replace(TRACE_TINY, tokens=1),
        replace(TRACE_TINY, mixing=1),
        replace(TRACE_TINY, heads=0),
        replace(TRACE_TINY, heads=4),
        replace(TRACE_TINY, positions=1025),
        replace(TRACE_TINY, context=4096, positions=13, heads=1),
        replace(TRACE_TINY_SEMANTIC, token=1),
        replace(TRACE_TINY_SEMANTIC, tokens=0),
        replace(TRACE_TINY_SEMANTIC, mixing=0),
        replace(TRACE_TINY_SEMANTIC, patch=7),
        replace(TRACE_TINY_SEMANTIC, tokens=1024, embedding=62, heads=1),
    ],
)
def test_settings_of_tokens_that_do_not_go_together_are_refused_both_ways(
    model: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError):
        FrameWriter(io.BytesIO(), model)
    monkeypatch.setattr(header_module, "_fault", lambda model: None)
    crafted = craft.checked(header_module.encode_header(model))
    monkeypatch.undo()
    with pytest.raises(CorruptError):
        FrameReader(io.BytesIO(crafted)).next_frame()


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "nosuch"},
        {"context": 0},
        {"context": 4097},
        {"patch": 7},
        {"patch": 0},
        {"stride": 0},
        {"stride": 4},
        {"embedding": 1025},
        {"lane_widths": (4, 17)},
        {"lane_widths": (0,)},
        {"lane_widths": (1,) * 65},
        {"hidden": 0},
        {"learning_rate": 1_000_001},
        {"seed": 1 << 32},
        {"lanes_per_coder": 65},
        {"semantics": False},
        {"context": 4096, "patch": 4096, "stride": 1, "embedding": 17},
    ],
)
def test_settings_that_the_format_cannot_hold_are_refused_both_ways(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused_both_ways(replace(TINY, **changes), "network" in changes, monkeypatch)


@pytest.mark.parametrize(
    "changes",
    [
        {"patch": 2, "stride": 1},
        {"layers": 0},
        {"layers": 65},
        {"beta1": 999_901},
        {"beta2": 1_000_000},
    ],
)
def test_settings_of_an_lstm_are_refused_both_ways(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused_both_ways(replace(TINY_LSTM, **changes), False, monkeypatch)


def refused_both_ways(model: ModelSettings, newer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that no frame is made with these settings, and that one with them is damaged, or a newer one."""
    with pytest.raises(UsageError):
        FrameWriter(io.BytesIO(), model)
    monkeypatch.setattr(header_module, "_fault", lambda model: None)
    crafted = craft.checked(header_module.encode_header(model))
    monkeypatch.undo()
    with pytest.raises(UnsupportedError if newer else CorruptError):
        FrameReader(io.BytesIO(crafted)).next_frame()


@pytest.mark.parametrize("changes", [{"layers": 1}, {"beta1": 0}, {"beta2": 999_900}])
def test_settings_that_a_network_does_not_use_keep_their_defaults(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="which pac does not have"):
        FrameWriter(io.BytesIO(), replace(TINY, **changes))


def test_an_lstm_has_no_layers_of_a_lane() -> None:
    with pytest.raises(UsageError, match=r"lane_widths is .* which lstm does not have"):
        FrameWriter(io.BytesIO(), replace(TINY_LSTM, lane_widths=(4,)))


BODY = craft.settings_body(TINY)
LSTM_BODY = craft.settings_body(TINY_LSTM)
TRACE_BODY = craft.settings_body(TRACE_TINY)


@pytest.mark.parametrize(
    ("crafted", "error", "message"),
    [
        (b"", TruncatedError, "empty"),
        (b"\x1f\x8b\x08\x00", NotSepError, "not a .sep file"),
        (b"a", NotSepError, "not a .sep file"),
        (b"\x89SE", TruncatedError, "cut short|whole copy"),
        (craft.header(BODY, version=2), UnsupportedError, "format version 2; this sepzip reads up to 1"),
        (craft.header(BODY, version=0), CorruptError, "format version 0"),
        (craft.header(BODY, numerics=2), UnsupportedError, "numerics version 2"),
        (craft.header(BODY, numerics=0), CorruptError, "numerics version 0"),
        (craft.header(b"\0\0", numerics=1), CorruptError, "numerics version 1"),
        (craft.header(b"\0" + BODY[4:], numerics=0), CorruptError, "no network"),
        (craft.header(b"\x06oracle\0"), UnsupportedError, "network 'oracle'.*pac"),
        (craft.header(b"\x03p\xffc\0"), CorruptError, "ASCII"),
        (craft.header(b"\x03p\nc\0"), CorruptError, "ASCII"),
        (craft.header(BODY[:-1] + b"\x4d\x01\0"), UnsupportedError, "setting 77"),
        (craft.header(BODY[:-1] + b"\x0f\x01\0"), UnsupportedError, "token, which pac does not have"),
        (craft.header(BODY[:-1] + b"\x0b" + bytes(32) + b"\0"), UnsupportedError, "prior 0000"),
        (craft.header(BODY[:-1] + b"\x0a\x01\0"), CorruptError, "setting 10 comes twice or out of order"),
        (craft.header(BODY[:-1] + b"\x1e\x02\0"), UnsupportedError, "layers, which pac does not have"),
        (craft.header(LSTM_BODY[:-1] + b"\x1e\x02\0"), CorruptError, "setting 30 comes twice"),
        (craft.header(b"\x03pac\0"), CorruptError, "lacks the setting semantics"),
        (craft.header(TRACE_BODY[:-3] + b"\0"), CorruptError, "lacks the setting mixing"),
        (craft.header(b"\x03pac\x01\x02\0"), CorruptError, "semantics is 2"),
        (craft.header(b"\x03pac\x01\x81\x00\0"), CorruptError, "varint"),
        (craft.header(b"\x03pac\x06\x41"), CorruptError, "count is 65"),
        (craft.header(BODY + b"\0"), CorruptError, "after its last setting"),
        (craft.header(BODY[:-1]), CorruptError, "beyond its length"),
        (craft.header(BODY[:7]), CorruptError, "beyond its length"),
        (craft.header(b"\0\0", numerics=0, length=4097), CorruptError, "4097"),
        (craft.header(b"\0\0", numerics=0, length=4096), TruncatedError, "the header"),
    ],
)
def test_a_wrong_header_is_refused_by_name(crafted: bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FrameReader(io.BytesIO(crafted)).next_frame()
    with pytest.raises(error, match=message):
        FrameReader(Pipe(crafted)).next_frame()


MODEL_HEADER = craft.header(BODY)
NO_MODEL_HEADER = craft.header(b"\0\0", numerics=0)


@pytest.mark.parametrize(
    ("crafted", "message"),
    [
        (b"\x07", "unknown tag 7"),
        (craft.stored_start(0), "size of segment 1 of frame 1 is 0"),
        (craft.stored_start((1 << 30) + 1), "size of segment 1"),
        (b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "varint"),
        (craft.stored_start(4) + craft.stored_block(b"", 0), "length"),
        (craft.stored_start(4) + craft.stored_block(b"12345"), "length"),
        (craft.stored_start(1 << 30) + craft.stored_block(b"", (1 << 20) + 1), "length"),
        (craft.checked(craft.stored_start(4) + craft.stored_block(b"123")) + b"\x04", "tag 4 where 3"),
        (craft.checked(craft.stored_start(3) + craft.stored_block(b"123")) + b"\x03", "tag 3 where 4"),
        (craft.coded_start(100, 0), "lanes"),
        (craft.coded_start(100, 101), "lanes"),
        (craft.coded_start(1 << 20, 65537), "lanes"),
        (craft.coded_start(100, 4) + craft.coded_block(0, b"A" * 6), "steps"),
        (craft.coded_start(100, 4) + craft.coded_block(26, b"A" * 6), "steps"),
        (craft.coded_start(100, 8) + craft.coded_block(13, b"A" * 11), "length"),
        (craft.coded_start(100, 4) + craft.coded_block(25, b"", 100), "length"),
        (craft.coded_start(1 << 30, 4) + craft.coded_block(1 << 28, b"A" * 6), "cannot hold"),
        (
            craft.checked(craft.coded_start(100, 4) + craft.coded_block(24, b"A" * 60))
            + craft.coded_block(1, b"A" * 40),
            "length",
        ),
        (
            craft.checked(craft.coded_start(100, 4) + craft.coded_block(24, b"A" * 6))
            + bytes([craft.SEGMENT_END]),
            "tag 4 where 3",
        ),
    ],
)
def test_a_wrong_segment_is_refused(crafted: bytes, message: str) -> None:
    with pytest.raises(CorruptError, match=message):
        read_all(io.BytesIO(MODEL_HEADER + crafted))
    with pytest.raises(CorruptError, match=message):
        read_summary(io.BytesIO(MODEL_HEADER + crafted + bytes(64)))


def test_a_coded_segment_needs_a_model() -> None:
    with pytest.raises(CorruptError, match="names no network"):
        read_all(io.BytesIO(NO_MODEL_HEADER + craft.coded_start(100, 4)))


def test_a_block_whose_check_differs_is_named() -> None:
    frame = bytearray(coded_frame())
    frame[frame.index(b"AAAA")] ^= 1
    with pytest.raises(CorruptError, match="a block of segment 1 of frame 1"):
        read_all(io.BytesIO(frame))


@pytest.mark.parametrize("trailing", [b"\0", b"garbage", b"\x89SEQ"])
def test_what_follows_a_frame_is_a_frame(trailing: bytes) -> None:
    frame = stored_frame()
    with pytest.raises(TrailingDataError, match=f"from byte {len(frame)}"):
        read_all(io.BytesIO(frame + trailing))
    with pytest.raises(TrailingDataError):
        read_summary(io.BytesIO(frame + trailing))


def test_a_frame_cut_off_in_its_magic_is_truncated() -> None:
    with pytest.raises(TruncatedError):
        read_all(io.BytesIO(stored_frame() + b"\x89SE"))


def test_the_summary_adds_up_over_frames() -> None:
    file = coded_frame() + stored_frame(b"") + stored_frame(b"x" * (3 << 20))
    summary = read_summary(io.BytesIO(file))
    assert summary == read_summary(Pipe(file, 1 << 16))
    assert (summary.content_size, summary.compressed_size) == (106 + (3 << 20), len(file))
    first, empty, last = summary.frames
    assert (first.format_version, first.numerics_version, first.model) == (1, 1, TINY)
    assert [(s.method, s.content_size, s.lanes, s.blocks) for s in first.segments] == [
        ("coded", 100, 4, 2),
        ("stored", 6, 0, 1),
    ]
    assert first.checksum == hashlib.blake2b(CONTENT + b"stored", digest_size=16).hexdigest()
    assert (empty.model, empty.numerics_version, empty.segments, empty.compressed_size) == (None, 0, (), 44)
    assert last.segments[0].blocks == 3


def test_the_summary_starts_where_the_file_stands() -> None:
    file = io.BytesIO(b"before" + stored_frame())
    file.seek(6)
    assert read_summary(file).content_size == 3
    assert file.tell() == len(file.getvalue())


def test_the_summary_sees_every_truncation() -> None:
    file = coded_frame()
    for length in range(len(file)):
        with pytest.raises(TruncatedError):
            read_summary(io.BytesIO(file[:length]))
        with pytest.raises(TruncatedError):
            read_summary(Pipe(file[:length]))


@given(st.integers(0, (1 << 64) - 1))
def test_varints_read_back(value: int) -> None:
    encoded = varint(value)
    assert ByteSource(io.BytesIO(encoded)).varint("a number", 0, (1 << 64) - 1) == value
    longer = encoded[:-1] + bytes([encoded[-1] | 0x80, 0])
    with pytest.raises(CorruptError):
        ByteSource(io.BytesIO(longer)).varint("a number", 0, (1 << 64) - 1)


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6))
def test_stored_segments_read_back(segments: list[bytes]) -> None:
    file = io.BytesIO()
    writer = FrameWriter(file, None)
    for content in segments:
        writer.write_stored(content)
    writer.finish()
    reader = FrameReader(Pipe(file.getvalue()))
    reader.next_frame()
    for content in segments:
        segment = reader.next_segment()
        assert segment is not None
        assert segment.content == content
        assert segment.content_check == zlib.crc32(content)
        reader.content.accept(segment, segment.content)
    assert reader.next_segment() is None
    assert reader.next_frame() is None
