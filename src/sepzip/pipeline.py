"""From files to frames and back: segments are read, coded and written side by side, and written in order.

Torch is loaded when a segment has to be coded.
"""

from __future__ import annotations

import io
import os
import select
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from .devices import Resources
from .errors import FormatError, UsageError
from .frame import FrameContent, FrameReader, FrameWriter, new_checksum
from .header import encode_header
from .jobs import LEAST_CODED, decoding_job, encoding_job
from .memory import Share, limit_in_bytes, within_limit
from .parts import MOST_TIMES, Content, parts_for
from .presets import MOST_SEGMENT, Preset
from .profile import Profile, timed
from .scheduler import Job, Scheduler
from .segment import CodedPart, Segment
from .wire import SupportsRead, SupportsWrite, read_up_to, write_all

__all__ = [
    "Compressor",
    "Decompressor",
    "Progress",
    "bytes_a_segment",
    "compress_stream",
    "decompress_stream",
]

Progress = Callable[[int, int], None]
"""Called now and then with the bytes that are done so far, of the input and of the output."""

_BESIDE = 2
"""Segments in memory besides those in flight: one that is being read or waits, and one that is written."""

_SECONDS_BETWEEN_LOOKS = 0.05
"""How often a wait for the source is left to see what has become of the segments in flight."""


def bytes_a_segment(preset: Preset, size: int | None) -> int:
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
    streams: int | None = None,
    memory_limit: int | Share | None = None,
    progress: Progress | None = None,
    size: int | None = None,
    profile: Profile | None = None,
) -> tuple[int, int]:
    """Write all that `source` holds as one frame to `sink`; return the bytes read and the bytes written.

    `size`, if the source's size is known, cuts it into segments of equal size. `streams` segments are in
    flight on each device, two more at most are in memory, and the bytes written do not depend on how many.
    Raises OutOfMemoryError, DeviceError or UsageError; what the sink has taken by then is no whole frame.
    """
    most = bytes_a_segment(preset, size)
    resources = Resources(device, streams, memory_limit)
    compressor = Compressor(
        sink, preset, resources, size=size, overlap=True, progress=progress, profile=profile
    )
    watched = _WatchedSource(source, compressor.write_finished, profile)
    try:
        content = read_up_to(watched, most)
        while content:
            ahead = read_up_to(watched, 1) if len(content) == most else bytearray()
            compressor.add(content, last=not ahead)
            # Not held here as well, so that it is gone from memory once it is written.
            content = ahead
            if content:
                content += read_up_to(watched, most - 1)
        compressor.finish()
    finally:
        compressor.stop()
    return compressor.bytes_in, compressor.bytes_out


def decompress_stream(
    source: SupportsRead,
    sink: SupportsWrite | None,
    device: str = "auto",
    *,
    streams: int | None = None,
    memory_limit: int | Share | None = None,
    progress: Progress | None = None,
    profile: Profile | None = None,
) -> tuple[int, int]:
    """Write the content of every frame in `source` to `sink`; return the bytes read and the bytes of content.

    Each segment is compared with its checksum before it is written. Without a sink this only tests.
    `streams` is as in `compress_stream`. Raises the errors of FormatError or MismatchError, and the sink then
    has all segments before the fault; or OutOfMemoryError or DeviceError, at once.
    """

    def write_next() -> bool:
        segment = decompressor.next_segment()
        if segment is None:
            return False
        content = decompressor.decode()
        if sink is not None:
            with timed(profile, "write"):
                write_all(sink, content)
        return True

    def write_finished() -> None:
        decompressor.check()
        while decompressor.is_ready:
            write_next()

    resources = Resources(device, streams, memory_limit)
    watched = _WatchedSource(source, write_finished, profile)
    decompressor = Decompressor(watched, resources, overlap=True, progress=progress, profile=profile)
    try:
        while decompressor.read_ahead(submit=True):
            while decompressor.segments_ahead >= decompressor.streams + _BESIDE:
                write_next()
            write_finished()
        while write_next():
            pass
    finally:
        decompressor.stop()
    return decompressor.bytes_in, decompressor.bytes_out


class _WatchedSource:
    """Reads from a file, and calls `look` before each read: others get on while this thread would wait.

    On a pipe or the like that is read raw, also again and again while it has no bytes.
    """

    def __init__(self, file: SupportsRead, look: Callable[[], None], profile: Profile | None) -> None:
        self._file = file
        self._look = look
        self._profile = profile
        self._poll: select.poll | None = None
        # What a buffered file holds already does not show on its descriptor, so that one is not asked.
        if hasattr(select, "poll") and isinstance(file, io.FileIO) and os.get_blocking(file.fileno()):
            self._poll = select.poll()
            self._poll.register(file.fileno(), select.POLLIN)

    def read(self, size: int, /) -> bytes | None:
        """Return up to `size` bytes, none at the end."""
        self._look()
        while self._poll is not None and not self._poll.poll(1000 * _SECONDS_BETWEEN_LOOKS):
            self._look()
        with timed(self._profile, "read"):
            return self._file.read(size)


@dataclass(frozen=True)
class _Unwritten:
    """A segment that is to be written: `only` says that it is all of its frame, no job that it is stored."""

    content: Content
    only: bool
    job: Job[list[CodedPart] | None] | None


class Compressor:
    """Writes one frame, given its content a segment at a time.

    `size` is that of all segments, if it is known. With `overlap`, coding goes on in threads even for one
    stream, and one segment more than are in flight may wait when `add` returns; without it, as many as are in
    flight, and none for one stream. `bytes_in` counts what was taken so far. `stop` has to be called where
    anything raises. Raises UsageError for settings that the format cannot hold.
    """

    def __init__(
        self,
        sink: SupportsWrite,
        preset: Preset,
        resources: Resources,
        *,
        size: int | None = None,
        overlap: bool = False,
        progress: Progress | None = None,
        profile: Profile | None = None,
    ) -> None:
        self.bytes_in = 0
        # The bytes by which naming a model makes a header longer; settings out of range are refused here.
        self._model_cost = len(encode_header(preset.model)) - len(encode_header(None))
        self._sink = sink
        self._preset = preset
        self._resources = resources
        self._progress = progress
        self._profile = profile
        self._overlap = overlap
        self._scheduler = Scheduler(
            resources,
            overlap=overlap,
            expected=size or 0,
            progressed=self._report if progress else None,
            profile=profile,
        )
        self._unwritten: deque[_Unwritten] = deque()
        self._written = 0
        self._checksum = new_checksum()
        self._writer: FrameWriter | None = None

    @property
    def bytes_out(self) -> int:
        """The number of bytes written so far."""
        return self._writer.size if self._writer else 0

    def add(self, content: Content, last: bool) -> None:
        """Take `content`, of 1 byte to 1 GiB, as the next segment; `last` says that none will follow.

        It may be written by a later call only, and must not be changed until then.
        """
        only = last and not self.bytes_in
        job = None
        if len(content) >= LEAST_CODED:
            with timed(self._profile, "unpack"):
                parts = parts_for(content, self._preset)
            if not self.bytes_in:
                largest = max(len(part.content) for part in parts)
                self._fit(largest if last or not self._preset.unpacks else MOST_TIMES * len(content))
            worth = len(content) - (self._model_cost if only else 0)
            job = encoding_job(parts, self._preset, len(content), worth, self._profile)
        self._unwritten.append(_Unwritten(content, only, job))
        self.bytes_in += len(content)
        if job is not None:
            self._scheduler.submit(job)
        # That takes a while too: not when all is coded, but now, when a device is at it.
        self._checksum.update(content)
        while len(self._unwritten) > self._most_unwritten:
            self._write_oldest()
        self.write_finished()

    def _fit(self, size: int) -> None:
        """Give the memory of contexts, where the model has one, smaller tables if a limit asks for them."""
        preset, limit = self._preset, self._resources.memory_limit
        if limit is None or not preset.model.contexts:
            return
        model, lanes = preset.model, preset.lanes_for(size)
        if isinstance(limit, Share):
            limit = limit_in_bytes(limit, self._scheduler.devices_for(model, lanes, size)[0])
        model = within_limit(model, lanes, size, limit)
        self._preset = replace(preset, model=model)

    @property
    def _most_unwritten(self) -> int:
        streams = self._scheduler.streams
        if self._overlap:
            # The next one comes to these while it is read.
            return streams + _BESIDE - 1
        return streams if streams > 1 else 0

    def write_finished(self) -> None:
        """Write the segments whose turn it is and that are coded already; raise what has ended the others."""
        self._scheduler.check()
        while self._unwritten and (self._unwritten[0].job is None or self._unwritten[0].job.is_finished):
            self._write_oldest()

    def finish(self) -> None:
        """Write the segments that are left and the frame's end."""
        while self._unwritten:
            self._write_oldest()
        if self._writer is None:
            self._writer = FrameWriter(self._sink, None, self._checksum)
        with timed(self._profile, "write"):
            self._writer.finish()
        self._report()

    def stop(self) -> None:
        """End what is in flight, unwritten; return when no thread is left."""
        self._scheduler.stop()
        self._unwritten.clear()

    def _write_oldest(self) -> None:
        oldest = self._unwritten[0]
        parts = None if oldest.job is None else self._scheduler.wait(oldest.job)
        with timed(self._profile, "write"):
            if self._writer is None:
                # A frame of one segment names its model only if that is used; a longer one always does.
                model = None if oldest.only and parts is None else self._preset.model
                self._writer = FrameWriter(self._sink, model, self._checksum)
            if parts is None:
                self._writer.write_stored(oldest.content)
            else:
                self._writer.write_segment(oldest.content, parts)
        self._unwritten.popleft()
        self._written += len(oldest.content)
        self._report()

    def _report(self) -> None:
        if self._progress:
            jobs = [unwritten.job for unwritten in self._unwritten if unwritten.job]
            done, written = sum(job.done for job in jobs), sum(job.written for job in jobs)
            self._progress(self._written + done, self.bytes_out + written)


@dataclass
class _ReadSegment:
    """A segment that was read, what its frame's content is compared with, and its decoding, once begun."""

    segment: Segment
    content: FrameContent
    job: Job[bytearray] | None = None


class _Fault(NamedTuple):
    """What is wrong with the input where the reading of it ended."""

    kind: type[FormatError]
    text: str


class Decompressor:
    """Reads the segments of all frames in a file, to the end of the last; each may be decoded or passed over.

    `bytes_out` counts the content decoded so far. Segments can be read and decoded ahead: a fault that is
    found there is raised when its turn comes. With `overlap`, decoding goes on in threads even for one
    stream. `stop` has to be called in the end where anything was decoded ahead.
    """

    def __init__(
        self,
        source: SupportsRead,
        resources: Resources,
        *,
        overlap: bool = False,
        progress: Progress | None = None,
        profile: Profile | None = None,
    ) -> None:
        self.bytes_out = 0
        self.segments_ahead = 0
        """The segments that were read and not yet asked for."""
        self._reader = FrameReader(source)
        self._progress = progress
        self._profile = profile
        self._scheduler = Scheduler(
            resources, overlap=overlap, progressed=self._report if progress else None, profile=profile
        )
        # Segments, and between them the ends of frames; last a fault that ends the reading.
        self._ahead: deque[_ReadSegment | FrameContent | _Fault] = deque()
        self._current: _ReadSegment | None = None
        self._in_frame = False
        self._is_at_end = False
        self._read_so_far = 0

    @property
    def bytes_in(self) -> int:
        """The number of bytes read so far."""
        return self._reader.position

    @property
    def streams(self) -> int:
        """The segments that can be in flight, as far as is known: 1 until the first is decoded."""
        return self._scheduler.streams

    @property
    def is_ready(self) -> bool:
        """Whether the next segment is read and decoded, or needs no decoding."""
        for entry in self._ahead:
            if isinstance(entry, _ReadSegment):
                return entry.segment.model is None or (entry.job is not None and entry.job.is_finished)
            if isinstance(entry, _Fault):
                break
        return False

    def read_ahead(self, *, submit: bool) -> bool:
        """Read one more segment, of whichever frame, and return whether there was one and no fault.

        All of it is read and its blocks' checksums are compared before anything is decoded. With `submit`
        its decoding begins.
        """
        if self._is_at_end or (self._ahead and isinstance(self._ahead[-1], _Fault)):
            return False
        try:
            while True:
                if not self._in_frame and self._reader.next_frame() is None:
                    self._is_at_end = True
                    return False
                self._in_frame = True
                segment = self._reader.next_segment()
                if segment is not None:
                    break
                self._in_frame = False
                self._ahead.append(self._reader.content)
                self._read_so_far = self._reader.position
        except FormatError as error:
            self._ahead.append(_Fault(type(error), str(error)))
            return False
        entry = _ReadSegment(segment, self._reader.content)
        self._ahead.append(entry)
        self.segments_ahead += 1
        self._read_so_far = self._reader.position
        if submit:
            self._submit(entry)
        return True

    def next_segment(self) -> Segment | None:
        """Return the next segment, of whichever frame, or None at the end of the last frame.

        It takes the place of the one before, which need not have been decoded. Raises the errors of
        FormatError.
        """
        while True:
            if not self._ahead and not self.read_ahead(submit=False) and not self._ahead:
                return None
            entry = self._ahead[0]
            if isinstance(entry, _Fault):
                raise entry.kind(entry.text)
            self._ahead.popleft()
            if isinstance(entry, _ReadSegment):
                self.segments_ahead -= 1
                if self._current is not None and self._current.job is not None:
                    self._scheduler.cancel(self._current.job)
                self._current = entry
                return entry.segment
            entry.finish()
            self._report()

    def decode(self, *, ahead: bool = False) -> bytearray:
        """Return the content of the segment that `next_segment` gave, compared with its checksum.

        With `ahead`, and where several can be in flight, as many more are read, and decoded as streams come
        free. Raises CorruptError, MismatchError, OutOfMemoryError or DeviceError.
        """
        current = self._current
        if current is None:
            raise RuntimeError("decode needs a segment")
        self._submit(current)
        if ahead and self.streams > 1:
            self._decode_ahead()
        content = current.segment.content if current.job is None else self._scheduler.wait(current.job)
        current.content.accept(current.segment, content)
        self._current = None
        self.bytes_out += len(content)
        self._report()
        return content

    def check(self) -> None:
        """Raise what has ended the work on the segments ahead, if it is no fault of the input."""
        self._scheduler.check()

    def stop(self) -> None:
        """End what is in flight; return when no thread is left. What was read ahead can still be decoded."""
        self._scheduler.stop()
        for entry in self._ahead:
            if isinstance(entry, _ReadSegment):
                entry.job = None
        if self._current is not None:
            self._current.job = None

    def _decode_ahead(self) -> None:
        for entry in list(self._ahead):
            if isinstance(entry, _ReadSegment):
                self._submit(entry)
        while self.segments_ahead < self.streams and self.read_ahead(submit=True):
            pass

    def _submit(self, entry: _ReadSegment) -> None:
        if entry.segment.model is None or entry.job is not None:
            return
        entry.job = decoding_job(entry.segment, self._profile)
        try:
            self._scheduler.submit(entry.job)
        except BaseException:
            entry.job = None
            raise

    def _report(self) -> None:
        if self._progress:
            entries = [entry for entry in (self._current, *self._ahead) if isinstance(entry, _ReadSegment)]
            done = [entry.job.done if entry.job else 0 for entry in entries]
            # A segment is read as a whole, but only its decoding takes time.
            coming = sum(
                entry.segment.length * (entry.segment.size - of_it) // entry.segment.size
                for entry, of_it in zip(entries, done, strict=True)
            )
            self._progress(self._read_so_far - coming, self.bytes_out + sum(done))
