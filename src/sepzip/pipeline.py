"""From files to frames and back, a segment at a time; torch is loaded when a segment has to be coded."""

from __future__ import annotations

from collections.abc import Callable

from .errors import UsageError
from .frame import CodedBlock, FrameReader, FrameWriter
from .header import encode_header
from .presets import ModelSettings, Preset
from .segment import MOST_SEGMENT, Segment, coded_block_size
from .wire import SupportsRead, SupportsWrite, read_up_to, write_all

__all__ = ["Compressor", "Decompressor", "Progress", "compress_stream", "decompress_stream", "segment_size"]

Progress = Callable[[int, int], None]
"""Called now and then with the bytes that are done so far, of the input and of the output."""

Content = bytes | bytearray | memoryview

_LEAST_CODED = 64
"""Fewer bytes than this are stored without trying: the settings in the header alone outweigh any gain."""


def segment_size(preset: Preset, size: int | None) -> int:
    """Return how many bytes make a segment: what the preset allows, or equal parts of `size` if it is known.

    Raises UsageError for a preset whose segments the format cannot hold.
    """
    most = preset.segment_size
    if not 1 <= most <= MOST_SEGMENT:
        raise UsageError(f"the segment size must be from 1 to {MOST_SEGMENT} bytes, not {most}")
    if not size:
        return most
    parts = -(-size // most)
    return -(-size // parts)


def compress_stream(
    source: SupportsRead,
    sink: SupportsWrite,
    preset: Preset,
    device: str = "auto",
    *,
    progress: Progress | None = None,
    size: int | None = None,
) -> tuple[int, int]:
    """Write all that `source` holds as one frame to `sink`; return the bytes read and the bytes written.

    `size`, if the source's size is known, cuts it into segments of equal size. At most one segment is in
    memory. Raises OutOfMemoryError, DeviceError or UsageError; what the sink has taken by then is no whole
    frame.
    """
    compressor = Compressor(sink, preset, device, progress)
    most = segment_size(preset, size)
    content = read_up_to(source, most)
    while content:
        ahead = read_up_to(source, 1) if len(content) == most else bytearray()
        compressor.add(content, last=not ahead)
        if not ahead:
            break
        content = ahead + read_up_to(source, most - 1)
    compressor.finish()
    return compressor.bytes_in, compressor.bytes_out


def decompress_stream(
    source: SupportsRead,
    sink: SupportsWrite | None,
    device: str = "auto",
    *,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Write the content of every frame in `source` to `sink`; return the bytes read and the bytes of content.

    Each segment is compared with its checksum before it is written. Without a sink this only tests. Raises
    the errors of FormatError, MismatchError, OutOfMemoryError or DeviceError; the sink then has the segments
    before the fault.
    """
    decompressor = Decompressor(source, device, progress)
    while (segment := decompressor.next_segment()) is not None:
        content = decompressor.decode(segment)
        if sink is not None:
            write_all(sink, content)
    return decompressor.bytes_in, decompressor.bytes_out


class Compressor:
    """Writes one frame, given its content a segment at a time.

    `bytes_in` and `bytes_out` count what was taken and what was written so far. Raises UsageError for
    settings that the format cannot hold.
    """

    def __init__(
        self, sink: SupportsWrite, preset: Preset, device: str = "auto", progress: Progress | None = None
    ) -> None:
        self.bytes_in = 0
        # The bytes by which naming a model makes a header longer; settings out of range are refused here.
        self._model_cost = len(encode_header(preset.model)) - len(encode_header(None))
        self._sink = sink
        self._preset = preset
        self._device = device
        self._progress = progress
        self._writer: FrameWriter | None = None

    @property
    def bytes_out(self) -> int:
        """The number of bytes written so far."""
        return self._writer.size if self._writer else 0

    def add(self, content: Content, last: bool) -> None:
        """Write `content`, of 1 byte to 1 GiB, as the next segment; `last` says that none will follow."""
        only = last and self._writer is None
        lanes = self._preset.lanes_for(len(content))
        blocks = self._encode(content, lanes, len(content) - (self._model_cost if only else 0))
        if self._writer is None:
            # A frame of one segment names its model only if that is used; a longer one before that is known.
            model = None if only and blocks is None else self._preset.model
            self._writer = FrameWriter(self._sink, model)
        if blocks is None:
            self._writer.write_stored(content)
        else:
            self._writer.write_coded(content, lanes, blocks)
        self.bytes_in += len(content)
        self._report(0, 0)

    def finish(self) -> None:
        """Write the frame's end."""
        if self._writer is None:
            self._writer = FrameWriter(self._sink, None)
        self._writer.finish()
        self._report(0, 0)

    def _encode(self, content: Content, lanes: int, worth: int) -> list[CodedBlock] | None:
        """Return the segment's blocks, or None where they are no smaller than `worth`."""
        if len(content) < _LEAST_CODED:
            return None
        from .engine import encode_segment, pick_device

        done = total = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            self._report(done, total)

        blocks = []
        device = pick_device(self._device)
        for block in encode_segment(content, self._preset.model, lanes, device, advance):
            total += coded_block_size(block)
            if total >= worth:
                return None
            blocks.append(block)
        return blocks

    def _report(self, further_in: int, further_out: int) -> None:
        if self._progress:
            self._progress(self.bytes_in + further_in, self.bytes_out + further_out)


class Decompressor:
    """Reads the segments of all frames in a file, to the end of the last; each may be decoded or passed over.

    `bytes_out` counts the content decoded so far.
    """

    def __init__(self, source: SupportsRead, device: str = "auto", progress: Progress | None = None) -> None:
        self.bytes_out = 0
        self._reader = FrameReader(source)
        self._device = device
        self._progress = progress
        self._in_frame = False

    @property
    def bytes_in(self) -> int:
        """The number of bytes read so far."""
        return self._reader.position

    def next_segment(self) -> Segment | None:
        """Return the next segment, of whichever frame, or None at the end of the last frame.

        All of it is read and its blocks' checksums are compared before anything is decoded. Raises the errors
        of FormatError.
        """
        while True:
            if not self._in_frame and self._reader.next_frame() is None:
                return None
            self._in_frame = True
            segment = self._reader.next_segment()
            if segment is not None:
                return segment
            self._in_frame = False
            self._report(0, 0)

    def decode(self, segment: Segment) -> bytearray:
        """Return the content of the segment read last, compared with its checksum.

        Raises CorruptError, MismatchError, OutOfMemoryError or DeviceError.
        """
        content = segment.content if segment.model is None else self._decode_blocks(segment, segment.model)
        self._reader.accept(segment, content)
        self.bytes_out += len(content)
        self._report(0, 0)
        return content

    def _decode_blocks(self, segment: Segment, model: ModelSettings) -> bytearray:
        from .engine import decode_segment, pick_device

        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            # The segment has been read as a whole, but only its decoding takes time.
            self._report(segment.length * done // segment.size - segment.length, done)

        device = pick_device(self._device)
        return decode_segment(segment.blocks, segment.size, model, segment.lanes, device, advance)

    def _report(self, further_in: int, further_out: int) -> None:
        if self._progress:
            self._progress(self.bytes_in + further_in, self.bytes_out + further_out)
