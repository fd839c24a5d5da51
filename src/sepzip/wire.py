"""The primitives of the format: varints, and exact forward reads with a running CRC-32."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from typing import Protocol

from .errors import CorruptError, TruncatedError

__all__ = [
    "PIECE",
    "ByteSink",
    "ByteSource",
    "SupportsRead",
    "SupportsWrite",
    "Takers",
    "read_up_to",
    "varint",
    "write_all",
]

PIECE = 1 << 20
"""The most bytes that are asked of a file at once: a length in a frame is a claim, never an allocation."""

_VARINT_BYTES = 10


class SupportsRead(Protocol):
    """What is needed of a file to read from it."""

    def read(self, size: int, /) -> bytes | None: ...


class SupportsWrite(Protocol):
    """What is needed of a file to write to it."""

    def write(self, data: bytes | bytearray | memoryview, /) -> object: ...


def varint(value: int) -> bytes:
    """Return `value`, which is not negative, as unsigned LEB128."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def read_up_to(file: SupportsRead, size: int) -> bytearray:
    """Return the next `size` bytes of `file`, fewer only where it ends.

    Raises BlockingIOError when a non-blocking file has nothing yet: that is not its end.
    """
    content = bytearray()
    while len(content) < size:
        piece = file.read(min(size - len(content), PIECE))
        if piece is None:
            raise BlockingIOError(
                "the input is non-blocking and has no bytes yet: open it as a blocking file"
            )
        if not piece:
            break
        content += piece
    return content


def write_all(file: SupportsWrite, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data` to `file`, in as many calls as a raw file needs."""
    if not isinstance(file, io.RawIOBase):
        file.write(data)
        return
    with memoryview(data) as view:
        done = 0
        while done < len(view):
            count = file.write(view[done:])
            if count is None:
                raise BlockingIOError(
                    "the output is non-blocking and takes no bytes now: open it as a blocking file"
                )
            done += count


class ByteSource:
    """A file read forward by exact lengths, which knows its position and the CRC-32 since the last check."""

    def __init__(self, file: SupportsRead) -> None:
        self.position = 0
        self._file = file
        self._crc = 0
        self._size: int | None = None

    def up_to(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only where the file ends."""
        content = bytes(read_up_to(self._file, size))
        self.position += len(content)
        self._crc = zlib.crc32(content, self._crc)
        return content

    def exactly(self, size: int, what: str) -> bytes:
        """Return the next `size` bytes; raises TruncatedError naming `what` where the file ends before."""
        content = self.up_to(size)
        if len(content) < size:
            raise self._truncated(what)
        return content

    def byte(self, what: str) -> int:
        """Return the next byte as a number."""
        return self.exactly(1, what)[0]

    def uint32(self, what: str) -> int:
        """Return the next 4 bytes as a little-endian number."""
        return int.from_bytes(self.exactly(4, what), "little")

    def varint(self, what: str, least: int, most: int) -> int:
        """Return the next varint; raises CorruptError unless it is in its shortest form and in range."""
        value = 0
        for index in range(_VARINT_BYTES):
            byte = self.byte(what)
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                if index and not byte:
                    break
                if not least <= value <= most:
                    raise CorruptError(
                        f"{what} is {value}, not within {least} to {most}: the file is damaged"
                    )
                return value
        raise CorruptError(f"{what} is not a valid varint: the file is damaged")

    def start_check(self) -> None:
        """Begin the bytes that the next check covers here."""
        self._crc = 0

    def check(self, what: str) -> None:
        """Compare the CRC-32 of all bytes since the last check with the one that comes next.

        Raises CorruptError naming `what` where they differ.
        """
        computed = self._crc
        if self.uint32(what) != computed:
            raise CorruptError(f"{what} is damaged (its checksum differs, before byte {self.position})")
        self.start_check()

    def skip_checked(self, size: int, what: str) -> None:
        """Go past `size` bytes and the check after them unread, by seeking where the file can."""
        size += 4
        if isinstance(self._file, io.IOBase) and self._file.seekable():
            self._seek_past(self._file, size, what)
        else:
            while size:
                size -= len(self.exactly(min(size, PIECE), what))
        self.start_check()

    def _seek_past(self, file: io.IOBase, size: int, what: str) -> None:
        # A seek beyond the end succeeds, so the end has to be known beforehand.
        here = file.tell()
        if self._size is None:
            self._size = file.seek(0, io.SEEK_END)
        if here + size > self._size:
            raise self._truncated(what)
        file.seek(here + size)
        self.position += size

    def _truncated(self, what: str) -> TruncatedError:
        return TruncatedError(
            f"the input ends inside {what}, after byte {self.position}: it was cut short; get a whole copy"
        )


class ByteSink:
    """A file written forward, which counts its bytes and knows the CRC-32 since the last check."""

    def __init__(self, file: SupportsWrite) -> None:
        self.position = 0
        self._file = file
        self._crc = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data`."""
        write_all(self._file, data)
        self._crc = zlib.crc32(data, self._crc)
        self.position += len(data)

    def write_check(self) -> None:
        """Write the CRC-32 of all bytes since the last one."""
        self.write(self._crc.to_bytes(4, "little"))
        self._crc = 0


class Takers:
    """Several byte strings, of each of which the bytes are taken from its beginning on."""

    def __init__(self, contents: Sequence[bytes | bytearray | memoryview], name: str) -> None:
        """Take from these; `name` is what errors call them all."""
        self._views = [memoryview(content) for content in contents]
        self._begun = [0] * len(contents)
        self._name = name

    def __len__(self) -> int:
        return len(self._views)

    def size(self, place: int) -> int:
        """Return the bytes of number `place`, those that were taken too."""
        return len(self._views[place])

    def take(self, place: int, count: int) -> memoryview:
        """Return the next `count` bytes of number `place`; CorruptError where fewer are left."""
        start = self._begun[place]
        self._begun[place] += count
        if self._begun[place] > len(self._views[place]):
            raise CorruptError(f"{self._name} have less than is taken of them: the file is damaged")
        return self._views[place][start : self._begun[place]]

    def take_rest(self, place: int) -> memoryview:
        """Return what is left of number `place`."""
        return self.take(place, len(self._views[place]) - self._begun[place])

    @property
    def are_used_up(self) -> bool:
        """Whether nothing is left of any."""
        return self._begun == [len(view) for view in self._views]
