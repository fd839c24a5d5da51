"""Whole buffers and files, in the manner of the standard library's gzip, bz2 and lzma."""

from __future__ import annotations

import builtins
import io
import os
from pickle import PickleBuffer
from typing import IO, TYPE_CHECKING, Any, Literal, cast, overload

from .content import ContentReader
from .devices import Resources
from .pipeline import Compressor, bytes_a_segment, decompress_stream
from .presets import Semantics, resolve

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed import ReadableBuffer, StrOrBytesPath, WriteableBuffer

__all__ = ["SepFile", "compress", "decompress", "open"]


def compress(
    data: ReadableBuffer,
    *,
    level: int | None = None,
    network: str | None = None,
    semantics: Semantics = True,
    lanes: int | None = None,
    segment_size: int | None = None,
    unpack: bool = True,
    device: str = "auto",
    streams: int | None = None,
    memory_limit: int | None = None,
) -> bytes:
    """Return `data`, any object with a buffer, as one frame.

    `level` is 1 to 9, or `network` names the settings; `semantics` False leaves the SEB off, with "drop" it
    drops patches of no weight, "ngrams" puts n-grams beside the network instead, "both" beside the network
    with the SEB; `lanes` is the most lanes of a segment and `segment_size` its most bytes; `unpack` False
    leaves what is packed, and members of tar, as they are. `device` is "cpu", "cuda" for all CUDA devices,
    "cuda:1" or "cuda:0,1" for some, or "auto" for whichever is expected to be done sooner. `streams` segments
    are in flight on each device, fewer where they do not fit into its memory or into `memory_limit` bytes of
    it; what comes out does not depend on how many, nor on the device. Raises UsageError, DeviceError or
    OutOfMemoryError.
    """
    preset = resolve(level, network, semantics, lanes, segment_size, unpack)
    resources = Resources(device, streams, memory_limit)
    view = _byte_view(data)
    sink = io.BytesIO()
    compressor = Compressor(sink, preset, resources, size=len(view))
    most = bytes_a_segment(preset, len(view))
    try:
        for start in range(0, len(view), most):
            compressor.add(view[start : start + most], last=start + most >= len(view))
        compressor.finish()
    finally:
        compressor.stop()
    return sink.getvalue()


def decompress(
    data: ReadableBuffer,
    *,
    device: str = "auto",
    streams: int | None = None,
    memory_limit: int | None = None,
) -> bytes:
    """Return the content of all frames in `data`, any object with a buffer; the rest is as in `compress`.

    Raises the errors of FormatError, MismatchError, OutOfMemoryError or DeviceError.
    """
    source = io.BytesIO(data if isinstance(data, bytes) else _byte_view(data))
    sink = io.BytesIO()
    decompress_stream(source, sink, device, streams=streams, memory_limit=memory_limit)
    return sink.getvalue()


def _byte_view(data: ReadableBuffer) -> memoryview:
    """Return the bytes of a buffer in its logical order, without a copy where they lie so in memory."""
    with memoryview(data) as view:
        # Not of the view: Python 3.11 crashes where it collects a view that another view was made from.
        return PickleBuffer(data).raw() if view.c_contiguous else memoryview(view.tobytes())


class SepFile(io.BufferedIOBase):
    """A `.sep` file that is read or written as if it were its content.

    `filename` is a path, opened and closed here, or a binary file object, which stays open. Modes are r, w, x
    and a, with or without b; a adds a frame to those that are there. The settings are those of `compress`;
    all but `device`, `streams` and `memory_limit` count for writing only. A segment is coded when it is full
    or the file is closed: until then what is written waits in memory, at most one segment, and `flush` does
    not hasten it. With several streams, those in flight are in memory as well, written or read ahead. Where
    an exception leaves the `with` block, or a write fails, the file is closed without the frame's end, so
    that reading it raises TruncatedError and no partial content passes for a whole one.
    """

    _file: IO[bytes] | None = None

    def __init__(
        self,
        filename: StrOrBytesPath | IO[bytes],
        mode: str = "r",
        *,
        level: int | None = None,
        network: str | None = None,
        semantics: Semantics = True,
        lanes: int | None = None,
        segment_size: int | None = None,
        unpack: bool = True,
        device: str = "auto",
        streams: int | None = None,
        memory_limit: int | None = None,
    ) -> None:
        """Open `filename`; raises OSError as the built-in open does, ValueError for a mode, or UsageError."""
        action = mode.replace("b", "", 1)
        if action not in ("r", "w", "x", "a"):
            raise ValueError(f"invalid mode {mode!r}: it must be r, w, x or a, with or without b")
        # Wrong settings must be found before opening empties a file.
        preset = resolve(level, network, semantics, lanes, segment_size, unpack)
        resources = Resources(device, streams, memory_limit)
        self._owns_file = isinstance(filename, str | bytes | os.PathLike)
        if self._owns_file:
            path = cast("StrOrBytesPath", filename)
            file = cast("IO[bytes]", builtins.open(path, action + "b"))  # noqa: SIM115
            self._name: Any = path
        elif hasattr(filename, "read" if action == "r" else "write"):
            file = cast("IO[bytes]", filename)
            self._name = getattr(file, "name", "")
        else:
            raise TypeError(f"filename must be a path or a binary file object, not {type(filename).__name__}")
        self._reader: io.BufferedReader | None = None
        self._compressor: Compressor | None = None
        if action == "r":
            self._reader = io.BufferedReader(ContentReader(file, resources))
        else:
            self._compressor = Compressor(file, preset, resources)
            self._segment_size = bytes_a_segment(preset, None)
            self._pending = bytearray()
        self._file = file

    @property
    def name(self) -> Any:
        """The path as it was given, or the name of the file object, or an empty string if it has none."""
        return self._name

    @property
    def mode(self) -> str:
        """'rb' or 'wb'."""
        return "rb" if self._reader else "wb"

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._file is None

    def readable(self) -> bool:
        """Return whether the file was opened for reading."""
        self._open_file()
        return self._reader is not None

    def writable(self) -> bool:
        """Return whether the file was opened for writing."""
        self._open_file()
        return self._compressor is not None

    def seekable(self) -> bool:
        """Return whether the content can be gone back in: while reading from a file that can seek."""
        return self.readable() and self._content().seekable()

    def fileno(self) -> int:
        """Return the descriptor of the `.sep` file itself."""
        return self._open_file().fileno()

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes of content, all that is left if it is negative or None."""
        return self._content().read(size)

    def read1(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes with at most one read of the content below."""
        return self._content().read1(size)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill `buffer` with content; return the number of bytes, fewer than asked for only at the end."""
        return self._content().readinto(buffer)

    def readinto1(self, buffer: WriteableBuffer, /) -> int:
        """Fill `buffer` with at most one read of the content below; return the number of bytes."""
        return self._content().readinto1(buffer)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the next line with its end, or up to `size` bytes of it."""
        return self._content().readline(size)

    def peek(self, size: int = 0, /) -> bytes:
        """Return some of the bytes that come next without passing them, none only at the end."""
        return self._content().peek(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a position while reading, and return it; segments passed over are not decoded."""
        return self._content().seek(offset, whence)

    def tell(self) -> int:
        """Return the position in the content, in bytes."""
        self._open_file()
        if self._compressor is not None:
            return self._compressor.bytes_in + len(self._pending)
        return self._content().tell()

    def write(self, data: ReadableBuffer, /) -> int:
        """Take `data`, any object with a buffer, and return its number of bytes.

        Raises DeviceError or OutOfMemoryError, or what writing to the file raises; the file is then closed.
        """
        self._open_file()
        if self._compressor is None:
            raise io.UnsupportedOperation("the file is open for reading")
        view = _byte_view(data)
        try:
            self._take(view, self._compressor)
        except BaseException:
            self.abandon()
            raise
        return len(view)

    def _take(self, view: memoryview, compressor: Compressor) -> None:
        at = 0
        # A segment that is just full waits, because it may be the last.
        while len(self._pending) + len(view) - at > self._segment_size:
            end = at + self._segment_size - len(self._pending)
            self._pending += view[at:end]
            compressor.add(self._pending, last=False)
            self._pending = bytearray()
            at = end
        self._pending += view[at:]

    def flush(self) -> None:
        """Flush the file below; content of a segment that is not full yet stays in memory."""
        file = self._open_file()
        if self._compressor is not None and hasattr(file, "flush"):
            file.flush()

    def close(self) -> None:
        """Code what waits, write the frame's end and close; a second call does nothing."""
        if self._file is None:
            return
        try:
            if self._compressor is not None:
                if self._pending:
                    self._compressor.add(self._pending, last=True)
                self._compressor.finish()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close without the frame's end: what was written so far reads as truncated."""
        file, self._file = self._file, None
        self._pending = bytearray()
        if self._reader is not None:
            self._reader.close()
        if self._compressor is not None:
            self._compressor.stop()
        if file is not None and self._owns_file:
            file.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _open_file(self) -> IO[bytes]:
        if self._file is None:
            raise ValueError("I/O operation on closed file")
        return self._file

    def _content(self) -> io.BufferedReader:
        self._open_file()
        if self._reader is None:
            raise io.UnsupportedOperation("the file is open for writing")
        return self._reader


class _TextFile(io.TextIOWrapper):
    """The text of a SepFile, closed as that is where an exception leaves the `with` block."""

    def __init__(
        self, binary: SepFile, encoding: str | None, errors: str | None, newline: str | None
    ) -> None:
        super().__init__(binary, io.text_encoding(encoding), errors, newline)
        self._binary = binary

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._binary.abandon()


@overload
def open(
    filename: StrOrBytesPath | IO[bytes],
    mode: Literal["r", "rb", "w", "wb", "x", "xb", "a", "ab"] = "rb",
    *,
    level: int | None = None,
    network: str | None = None,
    semantics: Semantics = True,
    lanes: int | None = None,
    segment_size: int | None = None,
    unpack: bool = True,
    device: str = "auto",
    streams: int | None = None,
    memory_limit: int | None = None,
    encoding: None = None,
    errors: None = None,
    newline: None = None,
) -> SepFile: ...


@overload
def open(
    filename: StrOrBytesPath | IO[bytes],
    mode: Literal["rt", "wt", "xt", "at"],
    *,
    level: int | None = None,
    network: str | None = None,
    semantics: Semantics = True,
    lanes: int | None = None,
    segment_size: int | None = None,
    unpack: bool = True,
    device: str = "auto",
    streams: int | None = None,
    memory_limit: int | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
) -> io.TextIOWrapper: ...


def open(
    filename: StrOrBytesPath | IO[bytes],
    mode: str = "rb",
    *,
    level: int | None = None,
    network: str | None = None,
    semantics: Semantics = True,
    lanes: int | None = None,
    segment_size: int | None = None,
    unpack: bool = True,
    device: str = "auto",
    streams: int | None = None,
    memory_limit: int | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
) -> SepFile | io.TextIOWrapper:
    """Return a `.sep` file opened as its content: a SepFile, or in a mode with t a text file over one.

    Everything but `encoding`, `errors` and `newline`, which are those of the built-in open, is as in SepFile.
    """
    text = "t" in mode
    if text and "b" in mode:
        raise ValueError(f"invalid mode {mode!r}: it cannot be text and binary at once")
    if not text and (encoding, errors, newline) != (None, None, None):
        raise ValueError("encoding, errors and newline are for text modes only: add t to the mode")
    binary = SepFile(
        filename,
        mode.replace("t", "", 1),
        level=level,
        network=network,
        semantics=semantics,
        lanes=lanes,
        segment_size=segment_size,
        unpack=unpack,
        device=device,
        streams=streams,
        memory_limit=memory_limit,
    )
    if not text:
        return binary
    try:
        return _TextFile(binary, encoding, errors, newline)
    except BaseException:
        binary.abandon()
        raise
