"""Packed streams inside a segment: taken apart, coded as parts, and put together to the same bytes."""

from __future__ import annotations

import gzip
import io
import json
import random
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import craft
import sepzip
from conftest import TINY
from sepzip.cli.run import main
from sepzip.errors import CorruptError, FormatError, OutOfMemoryError
from sepzip.frame import FrameReader, FrameWriter, read_summary
from sepzip.jobs import LEAST_CODED
from sepzip.parts import MOST_TIMES, join, split
from sepzip.pipeline import compress_stream, decompress_stream
from sepzip.presets import Preset
from sepzip.recall import segments
from sepzip.segment import CodedBlock, CodedPart, coded_size


def png(width: int, height: int, pixel: Callable[[int, int], int]) -> bytes:
    """Return a grey image as writers of PNG make it: rows behind a filter's number, in chunks of 8 KiB."""
    rows = b"".join(b"\0" + bytes(pixel(x, y) & 255 for x in range(width)) for y in range(height))
    packed = zlib.compress(rows, 9)
    pieces = [b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])]
    pieces += [b"IDAT" + packed[at : at + 8192] for at in range(0, len(packed), 8192)]
    chunks = [
        (len(piece) - 4).to_bytes(4, "big") + piece + zlib.crc32(piece).to_bytes(4, "big")
        for piece in [*pieces, b"IEND"]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def noise(count: int) -> bytes:
    return random.Random(count).randbytes(count)


@pytest.fixture(scope="module")
def picture() -> bytes:
    grain = noise(1 << 16)
    return png(300, 120, lambda x, y: (x * x + 3 * y * y) // 700 + grain[(x * 251 + y) & 0xFFFF] % 3)


@pytest.fixture(scope="module")
def mixed(text: bytes, picture: bytes) -> bytes:
    """Text, what is packed of it in two ways, and a picture twice."""
    streams = gzip.compress(text[3000:12000], 6), picture, b"between", zlib.compress(text[20000:30000], 1)
    return b"".join([text[:3000], *streams, picture, text[:100]])


def test_streams_are_taken_out_and_put_back(mixed: bytes, text: bytes, picture: bytes) -> None:
    parts = split(mixed, sorts=False)
    assert [part.row for part in parts] == [0, 0, 301]
    assert len(parts[2].content) == 2 * 120 * 301
    assert bytes(parts[1].content).startswith(text[:3000])
    assert text[3000:12000] in bytes(parts[1].content)
    assert text[20000:30000] in bytes(parts[1].content)
    assert join([part.content for part in parts], len(mixed)) == mixed


def test_content_without_packed_streams_is_one_part(text: bytes) -> None:
    for content in (text[:50000], noise(50000), b"x", zlib.compress(b"few")):
        parts = split(content, sorts=True)
        assert [(bytes(part.content), part.row) for part in parts] == [(content, 0)]


def test_parts_are_bounded(text: bytes) -> None:
    zeros = zlib.compress(bytes(1 << 20), 9)
    content = zeros + text[:500] + zlib.compress(text[:8000], 6)
    parts = split(content, sorts=True)
    assert sum(len(part.content) for part in parts) <= MOST_TIMES * len(content) + len(parts[0].content)
    assert join([part.content for part in parts], len(content)) == content


SOURCE: bytes = Path(__file__).read_bytes() * 4

pieces = st.lists(
    st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda start, count, level: zlib.compress(SOURCE[start : start + count], level),
            st.integers(0, 20000),
            st.integers(0, 5000),
            st.integers(1, 9),
        ),
        st.integers(1, 3000).map(lambda count: gzip.compress(SOURCE[:count], 6)),
    ),
    max_size=6,
).map(b"".join)


@settings(deadline=None)
@given(content=pieces)
def test_whatever_is_spliced_comes_back(content: bytes) -> None:
    parts = split(content, sorts=True) if content else []
    if len(parts) > 1:
        assert join([part.content for part in parts], len(content)) == content


@settings(deadline=None)
@given(choice=st.randoms(use_true_random=False))
def test_damaged_parts_are_corrupt_or_another_content(mixed: bytes, choice: random.Random) -> None:
    parts = [bytearray(part.content) for part in split(mixed, sorts=False)]
    which = choice.randrange(len(parts))
    if choice.random() < 0.3:
        del parts[which][choice.randrange(len(parts[which])) :]
    else:
        parts[which][choice.randrange(len(parts[which]))] ^= 1 << choice.randrange(8)
    try:
        content = join(parts, len(mixed))
    except CorruptError:
        return
    assert len(content) == len(mixed)


@pytest.mark.parametrize("recipe", [b"", b"\0", b"\1", b"\x05" * 3, b"\xff" * 12, b"\1\0\x05\1\1\0\0\0"])
def test_impossible_recipes_are_corrupt(recipe: bytes) -> None:
    with pytest.raises(CorruptError, match="damaged"):
        join([recipe, b"main", b"more"], 9)


def test_a_file_comes_back_and_is_smaller(mixed: bytes) -> None:
    packed = sepzip.compress(mixed, level=1, device="cpu")
    as_it_is = sepzip.compress(mixed, level=1, device="cpu", unpack=False)
    assert len(packed) < 0.95 * len(as_it_is)
    assert sepzip.decompress(packed, device="cpu") == mixed
    assert sepzip.decompress(as_it_is, device="cpu") == mixed
    segment, plain = (read_summary(io.BytesIO(file)).frames[0].segments[0] for file in (packed, as_it_is))
    assert segment.method == "unpacked"
    assert [part.method for part in segment.parts] == ["stored", "coded", "coded"]
    assert (plain.method, plain.parts) == ("coded", ())
    assert segment.content_size == plain.content_size == len(mixed)


def test_all_parts_are_looked_at_side_by_side(mixed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sepzip.compress(mixed, level=9, device="cpu")
    looked_at = sum(len(part.content) >= LEAST_CODED for part in split(mixed, sorts=False))
    assert looked_at > 1
    both = threading.Barrier(looked_at, timeout=60)
    prepare = segments.prepare

    def together(*arguments: Any) -> Any:
        both.wait()
        return prepare(*arguments)

    monkeypatch.setattr(segments, "prepare", together)
    monkeypatch.setattr("sepzip.recall.placement.threads_for", lambda lanes: 8)
    assert sepzip.compress(mixed, level=9, device="cpu") == expected


def test_any_network_codes_parts(text: bytes, stand_in: ModuleType) -> None:
    content = text[:3000] + zlib.compress(text[:20000], 1) + text[3000:5000]
    sink, back = io.BytesIO(), io.BytesIO()
    compress_stream(io.BytesIO(content), sink, Preset(TINY, lanes=64, bytes_per_lane=1), "cpu")
    assert read_summary(io.BytesIO(sink.getvalue())).frames[0].segments[0].method == "unpacked"
    decompress_stream(io.BytesIO(sink.getvalue()), back, "cpu")
    assert back.getvalue() == content


def test_segments_in_flight_make_the_same_bytes(mixed: bytes, text: bytes) -> None:
    content = mixed + text[:5000] + mixed
    files = set()
    for streams in (1, 3):
        sink, back = io.BytesIO(), io.BytesIO()
        done: list[tuple[int, int]] = []
        preset = sepzip.presets.resolve(1, segment_size=len(content) // 3)

        def report(before: int, after: int, done: list[tuple[int, int]] = done) -> None:
            done.append((before, after))

        compress_stream(io.BytesIO(content), sink, preset, "cpu", streams=streams, progress=report)
        decompress_stream(io.BytesIO(sink.getvalue()), back, "cpu", streams=streams)
        assert back.getvalue() == content
        assert done == sorted(done) and done[-1] == (len(content), len(sink.getvalue()))
        files.add(sink.getvalue())
    assert len(files) == 1
    with sepzip.open(io.BytesIO(sink.getvalue())) as file:
        file.seek(len(content) // 2)
        assert file.read(1000) == content[len(content) // 2 :][:1000]


def test_a_limit_counts_the_largest_part(text: bytes) -> None:
    content = text[:2000] + zlib.compress(text[:40_000], 6) * 4
    sink, back = io.BytesIO(), io.BytesIO()
    limit = 140 << 20
    compress_stream(io.BytesIO(content), sink, sepzip.presets.resolve(9), "cpu", memory_limit=limit)
    decompress_stream(io.BytesIO(sink.getvalue()), back, "cpu", memory_limit=limit)
    assert back.getvalue() == content
    with pytest.raises(OutOfMemoryError):
        decompress_stream(io.BytesIO(sink.getvalue()), io.BytesIO(), "cpu", memory_limit=10 << 20)


def test_the_command_leaves_streams_as_they_are_when_told(
    mixed: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "mixed"
    source.write_bytes(mixed)
    methods = []
    for arguments in ([], ["--no-unpack"]):
        assert main("sep", ["-1f", "--device", "cpu", *arguments, str(source)]) == 0
        assert main("sep", ["-l", "--json", f"{source}.sep"]) == 0
        report = json.loads(capfd.readouterr().out)
        methods.append(report["files"][0]["frames"][0]["segments"][0]["method"])
        assert main("sep", ["-dcq", "--device", "cpu", f"{source}.sep", "-o", str(tmp_path / "back")]) == 2
        assert main("sep", ["-dfq", "--device", "cpu", f"{source}.sep", "-o", str(tmp_path / "back")]) == 0
        assert (tmp_path / "back").read_bytes() == mixed
    assert methods == ["unpacked", "coded"]
    assert main("sep", ["-d", "--no-unpack", f"{source}.sep"]) == 2


BLOCK = [CodedBlock(25, 7, bytes(40))]
CODED = CodedPart(bytes(100), 4, BLOCK)
STORED = CodedPart(b"recipe", 0, None)


def unpacked_frame(parts: list[CodedPart]) -> bytes:
    file = io.BytesIO()
    writer = FrameWriter(file, TINY)
    writer.write_segment(b"content", parts)
    writer.finish()
    return file.getvalue()


def test_an_unpacked_segment_reads_back() -> None:
    frame = unpacked_frame([STORED, CODED])
    reader = FrameReader(io.BytesIO(frame))
    assert reader.next_frame() is not None
    segment = reader.next_segment()
    assert segment is not None
    assert (segment.model, segment.size, segment.lanes, segment.blocks) == (TINY, 7, 4, [])
    assert [part.size for part in segment.parts] == [6, 100]
    assert (bytes(segment.parts[0].content), segment.parts[1].blocks) == (b"recipe", BLOCK)
    assert reader.next_segment() is None
    summary = read_summary(io.BytesIO(frame)).frames[0].segments[0]
    assert (summary.method, summary.content_size, summary.lanes) == ("unpacked", 7, 4)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (bytes([craft.UNPACKED, 7, 2]), bytes([craft.UNPACKED, 7, 1]), "parts"),
        (bytes([craft.UNPACKED, 7, 2]), bytes([craft.UNPACKED, 7, 65]), "parts"),
        (bytes([craft.UNPACKED, 7, 2, craft.STORED]), bytes([craft.UNPACKED, 7, 2, craft.UNPACKED]), "tag 6"),
    ],
)
def test_broken_rules_of_unpacked_segments_are_named(old: bytes, new: bytes, message: str) -> None:
    frame = unpacked_frame([STORED, CODED])
    assert frame.count(old) == 1
    with pytest.raises(CorruptError, match=message):
        read_summary(io.BytesIO(frame.replace(old, new)))


def test_an_unpacked_segment_has_a_coded_part() -> None:
    with pytest.raises(CorruptError, match="no part that is coded"):
        read_summary(io.BytesIO(unpacked_frame([STORED, STORED])))


def test_every_flipped_byte_is_found(mixed: bytes) -> None:
    packed = bytearray(sepzip.compress(mixed[:24000], level=1, device="cpu"))
    assert read_summary(io.BytesIO(packed)).frames[0].segments[0].method == "unpacked"
    choice = random.Random(5)
    for _ in range(40):
        at, bit = choice.randrange(len(packed)), 1 << choice.randrange(8)
        packed[at] ^= bit
        with pytest.raises(FormatError):
            sepzip.decompress(bytes(packed), device="cpu")
        packed[at] ^= bit


@pytest.mark.parametrize("size", [1, 127, 128, 1 << 20, (1 << 20) + 1])
def test_the_size_of_a_part_is_known_before_it_is_written(size: int) -> None:
    parts = [STORED, CODED, CodedPart(bytes(size), 0, None)]
    segment = read_summary(io.BytesIO(unpacked_frame(parts))).frames[0].segments[0]
    assert [part.compressed_size for part in segment.parts] == list(map(coded_size, parts))
