"""Frames, written and read forward, and what a listing says of them (docs/format.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .errors import CorruptError
from .header import FrameHeader, encode_header, read_header
from .presets import ModelSettings
from .segment import CodedPart, Segment, read_segment, write_segment, write_stored
from .wire import ByteSink, ByteSource, SupportsRead, SupportsWrite, varint

__all__ = [
    "FileSummary",
    "FrameContent",
    "FrameReader",
    "FrameSummary",
    "FrameWriter",
    "SegmentSummary",
    "new_checksum",
    "read_summary",
]

_FRAME_END = 5
_END_MARK = b"PES\x89"
_CHECKSUM_SIZE = 16


def new_checksum() -> hashlib.blake2b:
    """Return what computes the checksum of a frame's content."""
    return hashlib.blake2b(digest_size=_CHECKSUM_SIZE)


def _index(header_length: int, segments: Sequence[tuple[int, int]]) -> bytes:
    """Return a frame's end from its tag up to the checksum; `segments` are pairs of size and length."""
    entries = b"".join(varint(size) + varint(length) for size, length in segments)
    return bytes([_FRAME_END]) + varint(header_length) + varint(len(segments)) + entries


class FrameWriter:
    """Writes one frame to a file: the header at once, the segments in order, the end by `finish`.

    `model` is None for a frame whose segments are all stored. Where a `checksum` is given, somebody else lets
    it take the content, which may be long before that is coded. Raises UsageError for settings that the
    format cannot hold.
    """

    def __init__(
        self, file: SupportsWrite, model: ModelSettings | None, checksum: hashlib.blake2b | None = None
    ) -> None:
        self._sink = ByteSink(file)
        self._checksum = checksum or new_checksum()
        self._takes_content = checksum is None
        self._segments: list[tuple[int, int]] = []
        self._sink.write(encode_header(model))
        self._sink.write_check()
        self._header_length = self._sink.position

    @property
    def size(self) -> int:
        """The number of bytes written so far."""
        return self._sink.position

    def write_stored(self, content: bytes | bytearray | memoryview) -> None:
        """Write `content`, of 1 byte to 1 GiB, as a segment that is not coded."""
        start = self._sink.position
        write_stored(self._sink, content)
        self._count(content, start)

    def write_segment(self, content: bytes | bytearray | memoryview, parts: Sequence[CodedPart]) -> None:
        """Write the segment that `parts` code; `content` is what comes of them."""
        start = self._sink.position
        write_segment(self._sink, content, parts)
        self._count(content, start)

    def finish(self) -> None:
        """Write the frame's end, without which every reader takes it for truncated."""
        start = self._sink.position
        self._sink.write(_index(self._header_length, self._segments) + self._checksum.digest())
        self._sink.write_check()
        self._sink.write((self._sink.position - start).to_bytes(4, "little") + _END_MARK)

    def _count(self, content: bytes | bytearray | memoryview, start: int) -> None:
        if self._takes_content:
            self._checksum.update(content)
        self._segments.append((len(content), self._sink.position - start))


class FrameContent:
    """The content of one frame, compared with its checks as it is decoded, in order.

    It may follow the reading at any distance: several segments, or even frames, can be read before the
    first of them is accepted.
    """

    def __init__(self, frame: int) -> None:
        self._name = f"frame {frame}"
        self._computed = new_checksum()
        self._accepted = 0
        self._expected: tuple[int, bytes] | None = None

    def accept(self, segment: Segment, content: bytes | bytearray | memoryview) -> None:
        """Compare a segment's decoded content with its check, and count it into the frame's checksum.

        Raises CorruptError where it differs.
        """
        segment.accept(content)
        self._computed.update(content)
        self._accepted += 1

    def expect(self, segments: int, checksum: bytes) -> None:
        """Take the number of segments and the checksum that the frame's end says."""
        self._expected = segments, checksum

    def finish(self) -> None:
        """Compare the whole content with the frame's checksum; raises CorruptError where it differs.

        Frames of which a segment was not accepted, because its content was not wanted, or whose end has
        not been read, are not compared.
        """
        if self._expected is None:
            return
        segments, checksum = self._expected
        if self._accepted == segments and self._computed.digest() != checksum:
            raise CorruptError(f"the content of {self._name} does not have its checksum: get another copy")


class FrameReader:
    """Reads the frames of a file forward: `next_frame`, `next_segment` until it gives None, and again.

    With `skip` the segments come without their payloads, which a file that can seek is not even read for.
    `content` is that of the frame begun last: whoever decodes its segments has it compare them.
    """

    def __init__(self, file: SupportsRead, skip: bool = False) -> None:
        self._source = ByteSource(file)
        self._skip = skip
        self._frames = 0
        self._header: FrameHeader | None = None
        self._segments: list[tuple[int, int]] = []
        self._checksum = b""
        self.content = FrameContent(0)

    @property
    def position(self) -> int:
        """The number of bytes read so far."""
        return self._source.position

    @property
    def checksum(self) -> bytes:
        """The checksum of the frame whose end was read last: BLAKE2b of its content, 16 bytes."""
        return self._checksum

    def next_frame(self) -> FrameHeader | None:
        """Return the next frame's header, or None where the file ends after a frame.

        Raises NotSepError, TruncatedError, CorruptError, UnsupportedError, or TrailingDataError where bytes
        that are no frame follow the last one.
        """
        self._header = read_header(self._source, first=self._frames == 0)
        self._frames += 1
        self._segments = []
        self.content = FrameContent(self._frames)
        return self._header

    def next_segment(self) -> Segment | None:
        """Return the frame's next segment, or None where its end has been read and fits what came before.

        Raises TruncatedError, or CorruptError where a checksum or a rule of the format is broken.
        """
        header = self._header
        if header is None:
            return None
        tag = self._source.byte("a frame")
        if tag == _FRAME_END:
            self._header = None
            self._read_end(header)
            return None
        name = f"segment {len(self._segments) + 1} of frame {self._frames}"
        segment = read_segment(self._source, tag, header.model, name, self._skip)
        self._segments.append((segment.size, segment.length))
        return segment

    def _read_end(self, header: FrameHeader) -> None:
        what = "a frame's end"
        index = _index(header.length, self._segments)
        if self._source.exactly(len(index) - 1, what) != index[1:]:
            raise CorruptError(f"the index of frame {self._frames} does not fit its segments: it is damaged")
        self._checksum = self._source.exactly(_CHECKSUM_SIZE, what)
        self._source.check(f"the end of frame {self._frames}")
        mark = (len(index) + _CHECKSUM_SIZE + 4).to_bytes(4, "little") + _END_MARK
        if self._source.exactly(len(mark), what) != mark:
            raise CorruptError(
                f"the end mark of frame {self._frames} is damaged: get another copy of the file"
            )
        self.content.expect(len(self._segments), self._checksum)


@dataclass(frozen=True)
class SegmentSummary:
    """What a listing says of a segment: sizes in bytes, lanes (0 when stored), number of blocks.

    One that is unpacked has its parts.
    """

    method: Literal["stored", "coded", "unpacked"]
    content_size: int
    compressed_size: int
    lanes: int
    blocks: int
    parts: tuple[SegmentSummary, ...] = ()


@dataclass(frozen=True)
class FrameSummary:
    """What a listing says of a frame: sizes in bytes, checksum in hexadecimal, model unless all is stored."""

    format_version: int
    numerics_version: int
    model: ModelSettings | None
    content_size: int
    compressed_size: int
    checksum: str
    segments: tuple[SegmentSummary, ...]


@dataclass(frozen=True)
class FileSummary:
    """What a listing says of a file: its sizes in bytes, and its frames."""

    content_size: int
    compressed_size: int
    frames: tuple[FrameSummary, ...]


def read_summary(file: SupportsRead) -> FileSummary:
    """Return the sizes, settings and segments of all frames in `file`, from where it stands to its end.

    Decodes nothing and needs no torch; payloads are passed over, by seeking where the file can, so that their
    checksums are not compared. Raises the errors below FormatError.
    """
    reader = FrameReader(file, skip=True)
    frames = []
    start = 0
    while (header := reader.next_frame()) is not None:
        segments = []
        while (segment := reader.next_segment()) is not None:
            segments.append(_summarise(segment))
        frames.append(
            FrameSummary(
                format_version=header.format_version,
                numerics_version=header.numerics_version,
                model=header.model,
                content_size=sum(segment.content_size for segment in segments),
                compressed_size=reader.position - start,
                checksum=reader.checksum.hex(),
                segments=tuple(segments),
            )
        )
        start = reader.position
    return FileSummary(sum(frame.content_size for frame in frames), reader.position, tuple(frames))


def _summarise(segment: Segment) -> SegmentSummary:
    return SegmentSummary(
        method="unpacked" if segment.parts else "coded" if segment.lanes else "stored",
        content_size=segment.size,
        compressed_size=segment.length,
        lanes=segment.lanes,
        blocks=segment.block_count,
        parts=tuple(map(_summarise, segment.parts)),
    )
