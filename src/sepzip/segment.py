"""One segment of a frame, written and read (docs/format.md): its blocks, and the bounds of their claims."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .coder import coders_for
from .errors import CorruptError
from .presets import MOST_SEGMENT, ModelSettings
from .wire import ByteSink, ByteSource, varint

__all__ = [
    "CODED",
    "MOST_PARTS",
    "STORED",
    "UNPACKED",
    "CodedBlock",
    "CodedPart",
    "Segment",
    "coded_block_size",
    "coded_size",
    "read_segment",
    "write_segment",
    "write_stored",
]

STORED, CODED, UNPACKED = 1, 2, 6
_BLOCK, _SEGMENT_END = 3, 4

MOST_PARTS = 64
"""Parts that an unpacked segment can have."""

_STORED_BLOCK = 1 << 20

_LEAST_BYTES_A_CODER = 6
# Those of a memory of contexts may emit nothing; their lengths are there.
_LEAST_BYTES = 2
_SLACK_BITS_A_CODER = 62
# The largest frequency is 2^24 - 255 of 2^24, so that a symbol costs at least -log2(1 - 255 / 2^24) bits.
# This is the inverse of that, rounded up.
_MOST_SYMBOLS_A_BIT = 45604


class CodedBlock(NamedTuple):
    """What the coder flushes at once: the block's steps, a fingerprint after it, the coders' bytes."""

    steps: int
    fingerprint: int
    payload: bytes


class CodedPart(NamedTuple):
    """What one part of a segment, or all of it, is made into: coded `blocks`, or None where it is stored."""

    content: bytes | bytearray | memoryview
    lanes: int
    blocks: list[CodedBlock] | None


@dataclass(frozen=True)
class Segment:
    """A segment as it lies in a frame, the checksums of its blocks already compared.

    `name` is what errors call it, `size` the bytes of its content, `length` those of its record in the
    frame. A stored segment has no model, 0 lanes, and its content in `content`; a coded one has its blocks
    in `blocks`. An unpacked one has its `parts`, which are stored or coded, the lanes of the part that has
    most, and neither content nor blocks of its own. Skipped payloads leave both empty.
    """

    name: str
    model: ModelSettings | None
    size: int
    lanes: int
    length: int
    block_count: int
    content_check: int
    content: bytearray
    blocks: list[CodedBlock]
    parts: tuple[Segment, ...] = ()

    def accept(self, content: bytes | bytearray | memoryview) -> None:
        """Compare decoded content with its size and check; raises CorruptError where it differs."""
        if len(content) != self.size or zlib.crc32(content) != self.content_check:
            raise CorruptError(
                f"{self.name} does not decode to what it was made from: get another copy of the file"
            )


def coded_block_size(block: CodedBlock) -> int:
    """Return the bytes that a block takes in a coded segment."""
    return len(_coded_block_start(block)) + len(block.payload) + 4


def write_stored(sink: ByteSink, content: bytes | bytearray | memoryview) -> None:
    """Write `content`, of 1 byte to MOST_SEGMENT, as a segment that is not coded."""
    sink.write(bytes([STORED]) + varint(len(content)))
    view = memoryview(content)
    for start in range(0, len(view), _STORED_BLOCK):
        piece = view[start : start + _STORED_BLOCK]
        sink.write(bytes([_BLOCK]) + varint(len(piece)))
        sink.write(piece)
        sink.write_check()
    _write_end(sink, content)


def coded_size(part: CodedPart) -> int:
    """Return the bytes that a part takes in a frame."""
    size = 1 + len(varint(len(part.content))) + 5
    if part.blocks is not None:
        return size + len(varint(part.lanes)) + sum(map(coded_block_size, part.blocks))
    whole, rest = divmod(len(part.content), _STORED_BLOCK)
    blocks = [_STORED_BLOCK] * whole + [rest] * (rest > 0)
    return size + sum(1 + len(varint(block)) + block + 4 for block in blocks)


def write_segment(
    sink: ByteSink, content: bytes | bytearray | memoryview, parts: Sequence[CodedPart]
) -> None:
    """Write the segment that `parts` code; `content` is what comes of them. A single part is all of it."""
    if len(parts) == 1:
        _write_part(sink, parts[0])
        return
    sink.write(bytes([UNPACKED]) + varint(len(content)) + varint(len(parts)))
    for part in parts:
        _write_part(sink, part)
    _write_end(sink, content)


def _write_part(sink: ByteSink, part: CodedPart) -> None:
    if part.blocks is None:
        write_stored(sink, part.content)
        return
    sink.write(bytes([CODED]) + varint(len(part.content)) + varint(part.lanes))
    for block in part.blocks:
        sink.write(_coded_block_start(block))
        sink.write(block.payload)
        sink.write_check()
    _write_end(sink, part.content)


def _coded_block_start(block: CodedBlock) -> bytes:
    fingerprint = block.fingerprint.to_bytes(4, "little")
    return bytes([_BLOCK]) + varint(block.steps) + fingerprint + varint(len(block.payload))


def _write_end(sink: ByteSink, content: bytes | bytearray | memoryview) -> None:
    sink.write(bytes([_SEGMENT_END]) + zlib.crc32(content).to_bytes(4, "little"))


def read_segment(source: ByteSource, tag: int, model: ModelSettings | None, name: str, skip: bool) -> Segment:
    """Return the segment whose tag has just been read; with `skip` its payloads are passed over unread.

    `name` is what errors call it. Raises TruncatedError, or CorruptError where a checksum or a rule is
    broken.
    """
    start = source.position - 1
    if tag == UNPACKED:
        return _read_unpacked(source, start, model, name, skip)
    return _read_part(source, tag, start, model, name, skip)


def _read_part(
    source: ByteSource, tag: int, start: int, model: ModelSettings | None, name: str, skip: bool
) -> Segment:
    if tag == STORED:
        return _read_stored(source, start, name, skip)
    if tag != CODED:
        raise CorruptError(
            f"{name} has the unknown tag {tag}: the input is damaged before byte {source.position}"
        )
    if model is None:
        raise CorruptError(f"{name} is coded although the header names no network: the input is damaged")
    return _read_coded(source, start, model, name, skip)


def _read_unpacked(
    source: ByteSource, start: int, model: ModelSettings | None, name: str, skip: bool
) -> Segment:
    size = source.varint(f"the size of {name}", 1, MOST_SEGMENT)
    count = source.varint(f"the parts of {name}", 2, MOST_PARTS)
    parts = []
    for number in range(1, count + 1):
        begin = source.position
        tag = source.byte(name)
        parts.append(_read_part(source, tag, begin, model, f"part {number} of {name}", skip))
    if all(part.model is None for part in parts):
        raise CorruptError(f"{name} has no part that is coded: it is damaged")
    content_check = _read_end(source, name)
    return Segment(
        name,
        model,
        size,
        max(part.lanes for part in parts),
        source.position - start,
        sum(part.block_count for part in parts),
        content_check,
        bytearray(),
        [],
        tuple(parts),
    )


def _read_stored(source: ByteSource, start: int, name: str, skip: bool) -> Segment:
    size = source.varint(f"the size of {name}", 1, MOST_SEGMENT)
    content = bytearray()
    left = size
    block_count = 0
    while left:
        block_count += 1
        _expect(source, _BLOCK, name)
        length = source.varint(f"a block's length in {name}", 1, min(left, _STORED_BLOCK))
        content += _read_payload(source, length, name, skip)
        left -= length
    content_check = _read_end(source, name)
    length = source.position - start
    return Segment(name, None, size, 0, length, block_count, content_check, content, [])


def _read_coded(source: ByteSource, start: int, model: ModelSettings, name: str, skip: bool) -> Segment:
    size = source.varint(f"the size of {name}", 1, MOST_SEGMENT)
    lanes = source.varint(f"the lanes of {name}", 1, min(size, model.most_lanes))
    coders = lanes if model.contexts else coders_for(lanes, model.lanes_per_coder)
    least = _LEAST_BYTES if model.contexts else _LEAST_BYTES_A_CODER * coders
    steps_left = -(-size // lanes)
    symbols_left = size
    payload_left = size - 1
    blocks = []
    block_count = 0
    while steps_left:
        block_count += 1
        _expect(source, _BLOCK, name)
        steps = source.varint(f"a block's steps in {name}", 1, steps_left)
        fingerprint = source.uint32(name)
        length = source.varint(f"a block's length in {name}", least, payload_left)
        symbols = min(steps * lanes, symbols_left)
        if symbols > (8 * length + _SLACK_BITS_A_CODER * coders) * _MOST_SYMBOLS_A_BIT:
            raise CorruptError(
                f"{name} claims {symbols} bytes in a block of {length}, which cannot hold them"
            )
        payload = _read_payload(source, length, name, skip)
        if not skip:
            blocks.append(CodedBlock(steps, fingerprint, payload))
        steps_left -= steps
        symbols_left -= symbols
        payload_left -= length
    content_check = _read_end(source, name)
    length = source.position - start
    return Segment(name, model, size, lanes, length, block_count, content_check, bytearray(), blocks)


def _read_payload(source: ByteSource, length: int, name: str, skip: bool) -> bytes:
    if skip:
        source.skip_checked(length, name)
        return b""
    payload = source.exactly(length, name)
    source.check(f"a block of {name}")
    return payload


def _read_end(source: ByteSource, name: str) -> int:
    _expect(source, _SEGMENT_END, name)
    return source.uint32(name)


def _expect(source: ByteSource, expected: int, name: str) -> None:
    tag = source.byte(name)
    if tag != expected:
        raise CorruptError(f"{name} goes on with tag {tag} where {expected} belongs: it is damaged")
