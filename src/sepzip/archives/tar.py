"""Runs of members of a tar archive inside data, and where a member's data ends.

A member is a header of one block, its data, and zeros up to a whole number of blocks. So its header and its
data are enough to make it again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["BLOCK", "Run", "data_size", "find_runs", "padding"]

BLOCK = 512
"""Bytes of a header, and of what data is filled up to a multiple of."""

_SIZE, _CHECK, _TYPE = slice(124, 136), slice(148, 156), 156
_WITHOUT_DATA = b"123456"
"""Types of members that have no data whatever their size: links, devices, folders, pipes."""

_MAGIC = re.compile(b"ustar")
_MAGIC_AT = 257

_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")


class Run(NamedTuple):
    """Members one behind the other: where the first one's header begins, and each one's bytes of data."""

    start: int
    sizes: list[int]

    @property
    def end(self) -> int:
        """Where the zeros behind the last one's data end."""
        return self.start + sum(BLOCK + size + padding(size) for size in self.sizes)


def padding(size: int) -> int:
    """Return the zeros behind so many bytes of data."""
    return -size % BLOCK


def data_size(header: bytes) -> int | None:
    """Return the bytes of data behind a header of BLOCK bytes, None if it is none.

    It is one if its check, the octal number in bytes 148 to 155, is the sum of all bytes, those of the check
    counted as spaces. The size is that in bytes 124 to 135; members of the types 1 to 6, byte 156, have none.
    """
    check, size = (_OCTAL.fullmatch(header[place]) for place in (_CHECK, _SIZE))
    if check is None or size is None or len(header) != BLOCK:
        return None
    if sum(header) - sum(header[_CHECK]) + 8 * ord(" ") != int(check[1], 8):
        return None
    return 0 if header[_TYPE] in _WITHOUT_DATA else int(size[1], 8)


def find_runs(data: memoryview) -> Iterator[Run]:
    """Yield the runs of whole members in data, bytes, in their order."""
    at = 0
    while at < len(data):
        run = _run(data, at)
        if run.sizes:
            yield run
            at = run.end
        found = _MAGIC.search(data, at + (0 if run.sizes else 1) + _MAGIC_AT)
        if found is None:
            return
        at = found.start() - _MAGIC_AT


def _run(data: memoryview, start: int) -> Run:
    """Return the run of members from `start` on, which may be none."""
    at, sizes = start, []
    while (size := data_size(bytes(data[at : at + BLOCK]))) is not None:
        end = at + BLOCK + size
        if end + padding(size) > len(data) or any(data[end : end + padding(size)]):
            break
        sizes.append(size)
        at = end + padding(size)
    return Run(start, sizes)
