"""The SHA-256 of bytes that pass by, to compare what comes back with what went in."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["DigestReader", "DigestWriter"]


class DigestReader:
    """Reads from a stream and keeps the SHA-256, `digest`, of all that was read."""

    def __init__(self, stream: BinaryIO) -> None:
        self.digest = hashlib.sha256()
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        """Return the next `size` bytes, fewer only at the end."""
        content = self._stream.read(size)
        self.digest.update(content)
        return content


class DigestWriter:
    """Takes bytes, and keeps nothing of them but their SHA-256, `digest`."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def write(self, data: ReadableBuffer, /) -> None:
        """Take all of `data`."""
        self.digest.update(data)
