"""The content of a file's frames as a raw file that can seek, decoding only the segments that are read."""

from __future__ import annotations

import io
from typing import IO, TYPE_CHECKING

from .devices import Resources
from .pipeline import Decompressor
from .segment import Segment

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["ContentReader"]


class ContentReader(io.RawIOBase):
    """Reads the content of all frames in `source`, from where it stands to its end; the source stays open.

    Reading raises the errors of FormatError, MismatchError, OutOfMemoryError and DeviceError. A seek passes
    over the segments in between without decoding them. Only frames read from end to end have their whole
    checksum compared. Where several segments can be in flight and the content is read one after the other,
    as many are decoded ahead; closing, or a seek, discards them. A source that cannot seek is not read
    ahead: that could wait for bytes that are yet to be made.
    """

    def __init__(self, source: IO[bytes], resources: Resources) -> None:
        self._source = source
        self._resources = resources
        self._position = 0
        self._begin()
        self._is_sequential = self.seekable()
        self._origin = source.tell() if self._is_sequential else 0

    def _begin(self) -> None:
        self._decompressor = Decompressor(self._source, self._resources)
        self._start = self._end = 0
        self._segment: Segment | None = None
        self._content: bytearray | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return whether the source can seek; file objects that do not say so cannot."""
        seekable = getattr(self._source, "seekable", None)
        return seekable is not None and bool(seekable())

    def tell(self) -> int:
        """Return the position in the content."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a position in the content, at most to its end, and return it.

        Raises UnsupportedOperation for going back in a source that cannot seek.
        """
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence == io.SEEK_END:
            while self._next():
                pass
            offset += self._end
        elif whence != io.SEEK_SET:
            raise ValueError(f"whence must be 0, 1 or 2, not {whence}")
        if offset < 0:
            raise ValueError(f"the position must not be negative, but is {offset}")
        if offset < self._start:
            if not self.seekable():
                raise io.UnsupportedOperation("the source cannot seek, so its content cannot be gone back in")
            self._decompressor.stop()
            self._source.seek(self._origin)
            self._begin()
        if offset != self._position and not self._start <= offset < self._end:
            # Whoever looks here and there would not want what comes next.
            self._decompressor.stop()
            self._is_sequential = False
        self._position = offset
        if not self._find():
            self._position = self._end
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill `buffer` with what comes next, as far as one segment goes; return the bytes, 0 at the end."""
        with memoryview(buffer).cast("B") as target:
            piece = self._rest()[: len(target)]
            target[: len(piece)] = piece
            self._position += len(piece)
            return len(piece)

    def readall(self) -> bytes:
        """Return all of the content that is left."""
        pieces = []
        while piece := self._rest():
            pieces.append(bytes(piece))
            self._position += len(piece)
        return b"".join(pieces)

    def _rest(self) -> memoryview:
        """Return what is left of the segment at the position, decoded; nothing at the end of the content."""
        if not self._find() or self._segment is None:
            return memoryview(b"")
        if self._content is None:
            try:
                self._content = self._decompressor.decode(ahead=self._is_sequential)
            except BaseException:
                self._decompressor.stop()
                raise
            self._is_sequential = self.seekable()
        return memoryview(self._content)[self._position - self._start :]

    def close(self) -> None:
        """Close the reader and end what is decoded ahead; the source stays open."""
        if not self.closed:
            self._decompressor.stop()
        super().close()

    def _find(self) -> bool:
        """Make the segment at the position the current one; return False if the content ends before it."""
        while self._position >= self._end:
            if not self._next():
                return False
        return True

    def _next(self) -> bool:
        segment = self._decompressor.next_segment()
        if segment is None:
            return False
        self._segment, self._content = segment, None
        self._start, self._end = self._end, self._end + segment.size
        return True
